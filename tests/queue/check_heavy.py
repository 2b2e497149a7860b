"""Tests of the ledger that take minutes. Each prints its figures."""
import contextlib
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from check_ledger import check_shards, ledger
from database import Database, Skip, StandIn, check_files, drop_root, results, run_tests, wait_for

PROGRAM, STAND_IN = sys.argv[1:3]
EMOJI = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/emoji")


def chaos(database, stand_in, jobs, workers, seconds, pause, work):
    """Kills a random worker each `pause` seconds, and the database once; then all jobs end. Returns the kills."""
    running = [work() for _ in range(workers)]
    kills = 0
    begin = time.monotonic()
    is_database_killed = False
    while time.monotonic() - begin < seconds:
        time.sleep(pause)
        place = random.randrange(workers)
        running[place].kill()
        kills += 1
        running[place] = work()
        if not is_database_killed and time.monotonic() - begin > seconds / 2:
            database.kill()
            database.start()
            is_database_killed = True
    wait_for("the end of all jobs", lambda: database.states() == {"done": jobs}, 300, 0.2)
    for worker in running:
        worker.terminate()
    for worker in running:
        worker.communicate()
    return kills, time.monotonic() - begin


def test_chaos(database):
    for packed in ((), ("packed",)):
        with ledger(database) as stand_in, results() as folder:
            stand_in.run("add", "b", 3000)
            kills, seconds = chaos(database, stand_in, 3000, 8, 25, 0.12,
                                   lambda: stand_in.start("work", folder, 12, "lease=3", *packed))
            attempts = database.number("select sum(attempts) from zimage.job")
            if packed:
                stand_in.run("work", folder, 1, "until-empty", *packed)
                check_shards(database, folder, 3000)
            else:
                assert check_files(database, folder) == 3000
            assert attempts - 3000 <= kills * 2, (attempts, kills)
            print(f"  {'tar files' if packed else 'files'}: {kills} workers and 1 database killed in 25 s, 3,000 done"
                  f" after {seconds:.0f} s, {attempts} attempts, no image lost, torn or twice", flush=True)


def test_stopped_workers_and_wrong_clocks(database):
    """Workers that sleep for longer than their leases, and whose clocks are wrong by a day."""
    faketime = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)
    if not faketime:
        print("  no libfaketime (Debian's package faketime): clocks were right", flush=True)
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 600)
        shifts = ["+1d", "-1d", "+30y", "+0"] if faketime else ["+0"] * 4
        wrong = [{"LD_PRELOAD": faketime, "FAKETIME": shift} if faketime else {} for shift in shifts]
        running = [stand_in.start("work", folder, 20, "lease=1", f"tier={'ABCD'[i]}", environment=environment)
                   for i, environment in enumerate(wrong)]
        stops = 0
        while database.states() != {"done": 600}:
            worker = random.choice(running)
            worker.send_signal(signal.SIGSTOP)
            time.sleep(1.3)
            worker.send_signal(signal.SIGCONT)
            stops += 1
            assert stops < 100
        lost = 0
        for worker in running:
            worker.terminate()
            lost += json.loads(worker.communicate()[0])["lost"]
        assert check_files(database, folder) == 600
        skew = database.number("select count(*) from zimage.job where abs(extract(epoch from finished_at - now())) > 600")
        assert skew == 0, "a worker's clock is in the ledger"
        print(f"  600 done, {stops} stops of 1.3 s at a lease of 1 s, {lost} results refused, clocks {shifts}", flush=True)


def test_million(database):
    churn = float(os.environ.get("ZIMAGE_CHURN_SECONDS", "120"))
    with ledger(database) as stand_in:
        added = stand_in.run("add", "b", 1000000)
        size = database.number("select pg_total_relation_size('zimage.job')") / 1e6
        print(f"  a million rows added in {added['seconds']:.1f} s; {size:.0f} MB with indexes", flush=True)
        again = stand_in.run("add", "b", 100000)
        print(f"  100,000 of them added again in {again['seconds']:.1f} s: {again['added']} new", flush=True)
        assert added["added"] == 1000000 and again["added"] == 0
        queued = stand_in.run("claims", 2000)
        print(f"  with 10^6 queued: {json.dumps(queued)}", flush=True)
        begin = time.monotonic()
        database.rows("select 1")
        status = subprocess.run([PROGRAM, "queue", "status", "--queue", database.url, "--json"],
                                stdout=subprocess.PIPE, check=True)
        print(f"  zimage queue status: {time.monotonic() - begin:.2f} s", flush=True)
        assert json.loads(status.stdout)["jobs"]["queued"] == 998000
        database.rows("update zimage.job set state = 'done', result = '{\"file\": \"x\"}', finished_at = now()"
                      " where state = 'queued'")
        stand_in.run("add", "c", 200000)
        end = time.monotonic() + churn  # claims and finishes at full speed from two workers
        done = 0
        while time.monotonic() < end:
            pair = [stand_in.start("claims", 5000) for _ in range(2)]
            done += sum(json.loads(process.communicate()[0])["jobs"] for process in pair)
            if database.number("select count(*) from zimage.job where state = 'queued'") < 20000:
                stand_in.run("add", "c", 200000, random.randrange(10**12))
        churned = stand_in.run("claims", 2000)
        size = database.number("select pg_total_relation_size('zimage.job')") / 1e6
        print(f"  with 10^6 done, after {churn:.0f} s of churn ({done} jobs): {json.dumps(churned)}; {size:.0f} MB",
              flush=True)
        assert added["seconds"] <= 60, added
        assert queued["claim_ms"]["p99"] <= 10 and churned["claim_ms"]["p99"] <= 10, (queued, churned)


def test_add_by_program(database):
    """100,000 lines, each read, checked and given its key."""
    with ledger(database), results() as folder:
        lines = f"{folder}/b.jsonl"
        with open(lines, "w") as file:
            for seed in range(100000):
                file.write(json.dumps({"prompt": f"a photograph of a red apple, {seed}", "seed": seed}) + "\n")
        begin = time.monotonic()
        subprocess.run([PROGRAM, "queue", "add", lines, "--queue", database.url, "-q"], check=True,
                       stdout=subprocess.DEVNULL)
        assert database.states() == {"queued": 100000}
        print(f"  zimage queue add: 100,000 lines in {time.monotonic() - begin:.1f} s", flush=True)
        begin = time.monotonic()
        with open(f"{folder}/export", "w") as file:
            subprocess.run([PROGRAM, "queue", "export", "--queue", database.url], check=True, stdout=file)
        with open(f"{folder}/export") as file:
            assert sum(json.loads(line)["state"] == "queued" for line in file) == 100000
        print(f"  zimage queue export: 100,000 jobs in {time.monotonic() - begin:.1f} s, read again", flush=True)


def test_claims_a_second(database):
    with ledger(database) as stand_in:
        for clients in (1, 2, 8, 32):
            database.forget_jobs()
            stand_in.run("add", "b", 100000)
            begin = time.monotonic()
            running = [stand_in.start("claims", max(400, 3000 // clients)) for _ in range(clients)]
            answers = [json.loads(process.communicate()[0]) for process in running]
            jobs = sum(answer["jobs"] for answer in answers)
            print(f"  {clients} clients: {jobs / (time.monotonic() - begin):.0f} jobs claimed, begun and finished a"
                  f" second", flush=True)


def test_many_callers(database):
    with ledger(database) as stand_in:
        database.rows("insert into zimage.job (batch, key, caller, request, model) select 'b',"
                      " sha256(int8send(n)), 'caller ' || n % 1000, '{\"n\": 1}', 'stand-in' from"
                      " generate_series(1, 100000) n")
        times = stand_in.run("claims", 3000)
        served = database.rows("select count(distinct caller), max(jobs), min(jobs) from (select caller, count(*) as jobs"
                               " from zimage.job where state = 'done' group by caller) c")[0]
        print(f"  1,000 callers: {json.dumps(times)}; of 3,000 jobs {served[0]} callers got {served[2]} to {served[1]}",
              flush=True)
        assert served[0] == "1000" and int(served[1]) <= 4


def test_cpu_tiers(database):
    """Four workers with other kernels, on the bundled model: one file a job, and the ledger knows whose."""
    with results() as folder, ledger(database):
        lines = f"{folder}.jsonl"
        with open(lines, "w") as file:
            for seed in range(40):
                file.write(json.dumps({"prompt": "a red apple", "seed": seed, "size": "64x64", "steps": 2}) + "\n")
        url = database.url
        subprocess.run([PROGRAM, "queue", "add", lines, "--queue", url, "--batch", "tiers",
                        "--max-attempts", "100"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        masks = ["generic", "avx2", "avx2,avx512", None]
        running = [subprocess.Popen([PROGRAM, "work", "--queue", url, "--out-dir", folder, "--until-empty", "--threads",
                                     "1", "--lease", "2", "-q", "--device", "cpu"] +
                                    (["--cpu-mask", mask] if mask else [])) for mask in masks]
        for i in range(8):  # jobs lose their workers, so that several make one image
            time.sleep(0.4)
            database.rows("update zimage.job set lease = gen_random_uuid(), lease_until = now() where state = 'running'")
        assert [process.wait(120) for process in running] == [0] * 4
        assert check_files(database, folder) == 40
        kernels = dict(database.rows("select result->>'kernels', count(*) from zimage.job group by 1"))
        found = database.number("select count(*) from zimage.job where (result->>'found')::boolean")
        os.unlink(lines)
        print(f"  40 images of 4 workers: {kernels}; {found} found another worker's file", flush=True)


def network(command):
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@contextlib.contextmanager
def two_networks():
    """A namespace whose only way to the database is a pair of virtual network cards."""
    if os.getuid() != 0:
        raise Skip("only root makes network namespaces")
    name, outer, inner = f"zq{os.getpid()}", f"zo{os.getpid() % 100000}", f"zi{os.getpid() % 100000}"
    try:
        network(f"ip netns add {name} && ip link add {outer} type veth peer name {inner}")
    except subprocess.CalledProcessError as error:
        raise Skip(f"no network namespaces here: {error.stderr.decode().strip()}") from error
    try:
        network(f"ip link set {inner} netns {name}; ip addr add 10.213.77.1/30 dev {outer}; ip link set {outer} up;"
                f" ip netns exec {name} ip addr add 10.213.77.2/30 dev {inner};"
                f" ip netns exec {name} ip link set {inner} up; ip netns exec {name} ip link set lo up")
        yield name, outer
    finally:
        subprocess.run(f"ip link del {outer}; ip netns del {name}", shell=True, stderr=subprocess.DEVNULL)


def lose_packets(name, is_on):
    """5 % of them, by netem, else by iptables. Returns how; None: neither is here."""
    if subprocess.run(f"ip netns exec {name} sh -c 'tc qdisc {'add' if is_on else 'del'} dev $(ls /sys/class/net |"
                      " grep zi) root netem loss 5%'", shell=True, stderr=subprocess.DEVNULL).returncode == 0:
        return "netem"
    change = "-A" if is_on else "-D"
    for chain in "INPUT", "OUTPUT":
        if subprocess.run(f"ip netns exec {name} iptables {change} {chain} -m statistic --mode random --probability"
                          " 0.05 -j DROP", shell=True, stderr=subprocess.DEVNULL).returncode != 0:
            return None
    return "iptables"


def test_partition(database):
    """Workers behind a line that is cut for 20 seconds, and loses packets; others beside the database."""
    with two_networks() as (name, outer), ledger(database) as stand_in, results() as folder:
        settings, hosts = Path(database.data, "postgresql.conf"), Path(database.data, "pg_hba.conf")
        before = {file: file.read_text() for file in (settings, hosts)}
        settings.write_text(before[settings] + "listen_addresses = '10.213.77.1'\nport = 54327\n")
        hosts.write_text(before[hosts] + "host all all 10.213.77.0/30 trust\n")
        local = database.url
        database.stop()
        database.url += "&port=54327"
        database.start()
        far = StandIn(STAND_IN, database)
        try:
            stand_in.run("add", "b", 1500)
            url, database.url = database.url, "postgresql://zimage@10.213.77.1:54327/zimage"
            workers = [far.start("work", folder, 60, "lease=5", "tier=F", prefix=("ip", "netns", "exec", name))
                       for _ in range(3)]
            database.url = url
            workers += [far.start("work", folder, 60, "lease=5") for _ in range(2)]
            time.sleep(4)
            how = lose_packets(name, True)
            time.sleep(6)
            network(f"ip link set {outer} down")
            cut = database.number("select count(*) from zimage.job where state = 'done'")
            time.sleep(20)
            during = database.number("select count(*) from zimage.job where state = 'done'") - cut
            network(f"ip link set {outer} up && ip addr replace 10.213.77.1/30 dev {outer}")
            wait_for("the end", lambda: database.states() == {"done": 1500}, 200, 0.2)
            for worker in workers:
                worker.terminate()
            totals = [json.loads(worker.communicate()[0]) for worker in workers]
            assert check_files(database, folder) == 1500
            attempts = database.number("select sum(attempts) from zimage.job")
            assert all(total["made"] > 0 for total in totals), totals
            print(f"  1,500 done, {attempts} attempts; {during} while 3 of 5 workers were cut off for 20 s; packets"
                  f" lost by {how or 'nothing that is here: none'}; made {[t['made'] for t in totals]}, lost"
                  f" {[t['lost'] for t in totals]}", flush=True)
        finally:
            far.end()
            database.stop()
            for file, text in before.items():
                file.write_text(text)
            database.url = local
            database.start()


def test_pgbouncer(database):
    """Through a pool of connections that changes the server's connection with each transaction."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not os.path.exists(program):
        raise Skip("no pgbouncer")
    with ledger(database) as stand_in, results() as folder:
        config = f"{database.home}/pgbouncer.ini"
        with open(config, "w") as file:
            file.write(f"[databases]\nzimage = host={database.home} user=zimage\n[pgbouncer]\nlisten_port = 6432\n"
                       f"listen_addr =\nunix_socket_dir = {database.home}\nauth_type = any\n"
                       "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 200\n")
        pool = subprocess.Popen([program, "-q", config], preexec_fn=drop_root, stderr=subprocess.DEVNULL)
        url, database.url = database.url, f"{database.url}&port=6432"
        try:
            wait_for("pgbouncer", lambda: os.path.exists(f"{database.home}/.s.PGSQL.6432"), 20)
            assert stand_in.run("add", "b", 25000)["added"] == 25000
            database.rows("delete from zimage.job where (request->>'n')::int >= 500")
            begin = time.monotonic()
            workers = [stand_in.start("work", folder, 10, "until-empty", *(("packed",) if i % 2 else ()))
                       for i in range(8)]
            made = sum(json.loads(worker.communicate()[0])["made"] for worker in workers)
            assert made == 500 and database.states() == {"done": 500}, made
            print(f"  8 workers, 16 connections over 2 of the server's: 500 done in {time.monotonic() - begin:.1f} s",
                  flush=True)
        finally:
            database.url = url
            pool.terminate()
            pool.wait()


def test_cost_at_a_second(database):
    """What the ledger costs where an image takes a second, and how two workers compare with one."""
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 20)
        one = stand_in.run("work", folder, 1000, "until-empty")
        cost = (one["seconds"] - one["busy"]) / one["busy"]
        stand_in.run("add", "b", 40, 1000)
        begin = time.monotonic()
        pair = [stand_in.start("work", folder, 1000, "until-empty") for _ in range(2)]
        for process in pair:
            process.communicate()
        seconds = time.monotonic() - begin
        print(f"  20 images of a second: {one['seconds']:.2f} s, the ledger's part {100 * cost:.2f} %;"
              f" 40 by two workers: {seconds:.2f} s", flush=True)
        assert cost <= 0.01, one


def test_throughput(database):
    """The bundled model on this machine: one process with a batch, and workers of the ledger."""
    with ledger(database), results() as folder:
        lines = f"{folder}.jsonl"
        count = 30
        with open(lines, "w") as file:
            for seed in range(count):
                file.write(json.dumps({"prompt": "a red apple", "seed": seed}) + "\n")

        def batch():
            target = f"{folder}/batch"
            begin = time.monotonic()
            subprocess.run([PROGRAM, "generate", "--batch", lines, "--out-dir", target, "-q", "--device", "cpu"],
                           check=True, stdout=subprocess.DEVNULL)
            seconds = time.monotonic() - begin
            shutil.rmtree(target)
            return seconds

        def work(workers, threads):
            target = f"{folder}/work"
            database.forget_jobs()
            subprocess.run([PROGRAM, "queue", "add", lines, "--queue", database.url, "--batch", "b"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            begin = time.monotonic()
            running = [subprocess.Popen([PROGRAM, "work", "--queue", database.url, "--out-dir", target,
                                         "--until-empty", "-q", "--device", "cpu", "--threads", str(threads)])
                       for _ in range(workers)]
            assert [process.wait() for process in running] == [0] * workers
            seconds = time.monotonic() - begin
            shutil.rmtree(target)
            return seconds

        cores = os.cpu_count()
        figures = {"batch": [], "1 worker": [], "2 workers": []}
        for _ in range(3):
            figures["batch"].append(batch())
            figures["1 worker"].append(work(1, cores))
            figures["2 workers"].append(work(2, max(1, cores // 2)))
        os.unlink(lines)
        median = {name: sorted(values)[1] for name, values in figures.items()}
        print(f"  {count} images, medians of 3: " + ", ".join(f"{name} {count / seconds:.2f} images/s"
                                                             for name, seconds in median.items()), flush=True)


if __name__ == "__main__":
    with Database("shared_buffers = 512MB", "max_wal_size = 4GB") as server:
        code = run_tests(sys.modules[__name__], server)
    sys.exit(code)
