"""A PostgreSQL server for a test, as an ordinary user on a socket in a temporary folder; workers; and the tests' list.
Standard library only."""
import contextlib
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

NOBODY = 65534


class Skip(Exception):
    """Something that the test needs is missing."""


def drop_root():
    """PostgreSQL refuses to run as root."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


class Database:
    """`with Database() as database:`; options: lines of postgresql.conf."""

    def __init__(self, *options):
        self.home = tempfile.mkdtemp(prefix="zq-", dir="/tmp")  # a socket's path has 107 bytes at most
        os.chmod(self.home, 0o755)
        self.data = f"{self.home}/data"
        if os.getuid() == 0:
            os.chown(self.home, NOBODY, NOBODY)
        self.url = f"postgresql:///zimage?host={self.home}&user=zimage"
        self.as_user("initdb", "-D", self.data, "-U", "zimage", "--auth=trust", "--no-sync", "-E", "UTF8",
                     "--locale=C.UTF-8")
        with open(f"{self.data}/postgresql.conf", "a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{self.home}'\nmax_connections = 100\n")
            file.write("".join(f"{line}\n" for line in options))

    def as_user(self, *command, check=True):
        return subprocess.run(command, preexec_fn=drop_root, check=check, cwd="/", stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def start(self):
        for attempt in range(20):  # after kill -9 the processes of the old server may live for a moment
            done = self.as_user("pg_ctl", "-D", self.data, "-l", f"{self.home}/log", "-w", "start", check=False)
            if done.returncode == 0:
                return
            time.sleep(0.5)
        raise AssertionError(done.stdout + open(f"{self.home}/log").read()[-2000:])

    def stop(self):
        self.as_user("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop", check=False)

    def postmaster(self):
        with open(f"{self.data}/postmaster.pid") as file:
            return int(file.readline())

    def kill(self):
        """Ends the server as a power cut would end it."""
        os.kill(self.postmaster(), signal.SIGKILL)

    def __enter__(self):
        self.start()
        self.as_user("createdb", "-h", self.home, "-U", "zimage", "zimage")
        return self

    def __exit__(self, *unused):
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def rows(self, sql):
        done = subprocess.run(["psql", "-X", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", sql],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def one(self, sql):
        return self.rows(sql)[0][0]

    def number(self, sql):
        return int(self.one(sql))

    def states(self):
        return {state: int(count) for state, count in
                self.rows("select state, count(*) from zimage.job group by state")}

    def forget_jobs(self):
        self.rows("truncate zimage.job")
        self.rows("truncate zimage.shard")
        self.rows("truncate zimage.input")


class StandIn:
    """Runs tests/queue/stand_in.c."""

    def __init__(self, path, database):
        self.path, self.database = path, database
        self.workers = []

    def run(self, command, *arguments, code=0, environment=None):
        done = subprocess.run([self.path, command, self.database.url, *map(str, arguments)], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=900,
                              env={**os.environ, **(environment or {})})
        if done.returncode != code:
            raise AssertionError(f"{command} {arguments}: exit code {done.returncode}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else done.stderr

    def start(self, command, *arguments, prefix=(), environment=None, stdout=subprocess.PIPE):
        worker = subprocess.Popen([*prefix, self.path, command, self.database.url, *map(str, arguments)], text=True,
                                  stdout=stdout, stderr=subprocess.DEVNULL,
                                  env={**os.environ, **(environment or {})})
        self.workers.append(worker)
        return worker

    def end(self):
        for worker in self.workers:
            if worker.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.send_signal(signal.SIGCONT)
                    worker.kill()
            worker.wait()
            if worker.stdout:
                worker.stdout.close()
        self.workers = []


@contextlib.contextmanager
def results():
    """A folder for results."""
    folder = tempfile.mkdtemp(prefix="zimage-results-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def wait_for(what, condition, seconds=60, pause=0.05):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(pause)


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def check_files(database, folder):
    """Every job that is done has one file, whole and as the ledger says, and there is no other file. Returns how many."""
    listed = {}
    for name, digest, size in database.rows("select result->>'file', result->>'sha256', result->>'bytes'"
                                            " from zimage.job where state = 'done'"):
        assert name not in listed, f"{name} twice"
        listed[name] = digest
        path = f"{folder}/{name}"
        assert os.path.getsize(path) == int(size), f"{path}: {os.path.getsize(path)} bytes, expected {size}"
        assert hash_of(path) == digest, f"{path}: another hash than in the ledger"
    found = {os.path.relpath(path, folder) for path in glob.glob(f"{folder}/**/*", recursive=True)
             if os.path.isfile(path) and not path.startswith(f"{folder}/inputs/")}
    assert found == set(listed), f"files that the ledger does not know: {sorted(found - set(listed))[:5]}"
    return len(listed)


def check_inputs(database, folder):
    """Each input image is a file that is called by its hash, and the ledger knows it. Returns their hashes."""
    found = glob.glob(f"{folder}/inputs/**/*.*", recursive=True)
    hashes = {os.path.basename(path)[:-4] for path in found}
    for path in found:
        digest = hash_of(path)
        assert path == f"{folder}/inputs/{digest[:2]}/{digest[2:4]}/{digest}.png", path
    known = {row[0] for row in database.rows("select hash from zimage.input")}
    assert hashes == known, (hashes, known)
    return hashes


@contextlib.contextmanager
def forgetful(database):
    """Input images are forgotten as soon as they are kept."""
    database.rows("create function zimage.forget() returns trigger language plpgsql as 'begin delete from zimage.input;"
                  " return null; end'; create trigger forget after insert on zimage.input for each statement"
                  " execute function zimage.forget()")
    try:
        yield
    finally:
        database.rows("drop function zimage.forget cascade")


def run_tests(module, *arguments):
    """Runs the functions test_*(...) of a module, or those that the command line names behind the two programs."""
    chosen = sys.argv[3:]
    failed = skipped = 0
    for name, function in list(vars(module).items()):
        if not name.startswith("test_") or (chosen and name not in chosen):
            continue
        begin = time.monotonic()
        try:
            function(*arguments)
            print(f"ok      {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Skip as reason:
            skipped += 1
            print(f"skipped {name}: {reason}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            traceback.print_exc(file=sys.stdout)
            print(f"FAILED  {name}", flush=True)
    return 1 if failed else 0
