"""Tests of zimage pull, zimage models and -m ORGANISATION/NAME against the fake hub: check_pull.py PROGRAM [TEST...]"""
import ctypes
import fcntl
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

from fake_hub import NAME, Bytes, Hub
from place import LARGE, SEGMENT, WANTED, Place, events, expect, kill_and_resume, served, tiny_files

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "serve"))
from harness import best_of, run_tests  # noqa: E402

ONCE = ("--retries", "1")  # a failure that may pass is the last one
IMPATIENT = {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}


def check_pull(program, code=0, sentence="", options=(), wanted=None, variables=None, **faults):
    """Pulls from a hub with these faults. With code 0 all has to be there and right."""
    with served(**faults) as (hub, place):
        result = expect(place.pull(program, hub, *options, **(variables or {})), code, sentence)
        if code == 0:
            place.check_whole(hub, wanted=wanted)
        else:
            assert not os.path.exists(f"{place.model}/refs/main")
        assert result.stdout.count("\n") == (code == 0), result.stdout
        return hub, result


def test_plain(program):
    hub, result = check_pull(program, sentence="apache-2.0")
    assert result.stdout.strip().endswith(f"/snapshots/{hub.commit}"), result.stdout
    # Nothing is fetched but what a model consists of, and each byte once.
    assert set(hub.sent) == WANTED, set(hub.sent)
    assert all(hub.sent[name] == hub.files[name].size for name in WANTED), hub.sent
    assert hub.requests("cdn") and all(r["authorization"] is None for r in hub.log)


def test_token(program):
    with served(token="hf_secret") as (hub, place):
        expect(place.pull(program, hub), 4,
               "acme/tiny is gated: accept its licence at http://127.*/acme/tiny, then set HF_TOKEN")
        expect(place.pull(program, hub, HF_TOKEN="hf_other"), 4, r"\(the present one was refused\)")
        expect(place.pull(program, hub, HF_TOKEN="hf_secret"), 0)
        place.check_whole(hub)
        assert {r["authorization"] for r in hub.requests("hub")} == {None, "Bearer hf_other", "Bearer hf_secret"}
        assert {r["authorization"] for r in hub.requests("cdn")} == {None}
    with served(token="hf_secret") as (hub, place):
        os.makedirs(f"{place.home}/hf")
        with open(f"{place.home}/hf/token", "w") as file:
            file.write("hf_secret\n")
        expect(place.pull(program, hub, HF_HUB_DISABLE_IMPLICIT_TOKEN="1"), 4)
        expect(place.pull(program, hub), 0)
        expect(place.pull(program, hub, HF_TOKEN="a\nb"), 2, "HF_TOKEN: expected one token")


def test_third_host(program):
    with served(third_host=True, token="hf_secret") as (hub, place):
        expect(place.pull(program, hub, HF_TOKEN="hf_secret"), 0)
        place.check_whole(hub)
        assert hub.requests("third") and all(r["authorization"] is None for r in hub.requests("third"))


def test_redirects(program):
    for fault in ("relative", "absolute"):
        with served(**{fault: True, "token": "hf_secret"}) as (hub, place):
            expect(place.pull(program, hub, HF_TOKEN="hf_secret"), 0)
            place.check_whole(hub)
    check_pull(program, 5, "more than 10 redirects", loop=True)
    check_pull(program, 5, "http://example.test: expected https", to_http="http://example.test/x")
    check_pull(program, 5, "holds a name or a password", to_http="http://me:secret@127.0.0.1/x")


def test_expired(program):
    hub, _ = check_pull(program, expires=600000, options=("--connections", "2"))
    assert len([r for r in hub.requests("hub", "HEAD") if LARGE in r["path"]]) > 2  # asked for new addresses


def test_ranges(program):
    hub, _ = check_pull(program, ignore_range=True)
    assert hub.sent[LARGE] == hub.files[LARGE].size, hub.sent
    check_pull(program, 5, r'sends the range "bytes 1-', wrong_range=True)
    check_pull(program, 5, r'sends the range "bytes 0-\d+/289009", expected bytes 0-\d+/289008', wrong_total=True)


def test_short_body(program):
    check_pull(program, short=100000)
    check_pull(program, 5, r"failed \d times", short=50, options=ONCE, ignore_range=True)


def test_flipped_bit(program):
    hub, result = check_pull(program, flips=1, sentence="it is fetched again")
    check_pull(program, 7, "the hash of what arrived is [0-9a-f]{64}, expected [0-9a-f]{64}", flips=99)
    with served(flips=99) as (hub, place):
        expect(place.pull(program, hub, "--connections", "1"), 7)
        assert not [n for n in os.listdir(f"{place.model}/blobs") if n.endswith(".incomplete") and LARGE in n]


def test_other_hash(program):
    check_pull(program, 7, "the hub announces the hash", other_etag=True)


def test_no_length(program):
    check_pull(program, no_length=0)
    check_pull(program, no_length=0.3)  # the hash is there before the answer ends
    check_pull(program, no_length=3, variables=IMPATIENT)  # longer than the program listens


def test_too_many_requests(program):
    for header in ("RateLimit", "Retry-After"):
        start = time.monotonic()
        check_pull(program, limits=1, limit_header=header, sentence="HTTP 429: too many requests; next request in 1 s")
        assert time.monotonic() - start >= 1
    check_pull(program, 5, "HTTP 429", limits=99, options=ONCE)


def test_server_errors(program):
    check_pull(program, errors=1)
    check_pull(program, 5, "HTTP 503; failed 1 times", errors=99, options=ONCE)


def test_error_codes(program):
    check_pull(program, 3, "acme/tiny: there is no such model at", fault=("revision", 401, "RepoNotFound"))
    check_pull(program, 3, 'revision: "main", expected a branch', fault=("revision", 404, "RevisionNotFound"))
    check_pull(program, 3, "the hub has no such file", fault=("resolve", 404, "EntryNotFound"))
    check_pull(program, 4, "is gated", fault=("resolve", 403, "GatedRepo"))
    check_pull(program, 4, "has disabled this model: the words of Dis", fault=("revision", 403, "DisabledRepo"))
    check_pull(program, 4, "HTTP 401.*HF_TOKEN names a token", fault=("revision", 401, ""))
    check_pull(program, 5, "HTTP 418", fault=("tree", 418, ""))
    with served() as (hub, place):
        expect(place.pull(program, hub, name="acme/other"), 3, "acme/other: there is no such model")
        expect(place.pull(program, hub, "--revision", "v2"), 3, '--revision: "v2"')


def test_pages(program):
    check_pull(program, page=3)
    check_pull(program, 5, "which is not the hub's", page=3, next_link="http://127.0.0.1:1/next", token="hf_secret")


def entry(path, **other):
    return {"type": "file", "path": path, "size": 5, "oid": "1" * 40} | other


def test_hostile_names(program):
    names = ["../x", "a/../../b", "/etc/passwd", "a//b", "a/./b", "a\\b", "a\x1b[31m", "a\nb", "", "x" * 513,
             "vae/" + "y" * 300, "\u202econfig.json"]
    for name in names:
        check_pull(program, 5, "path: .*expected a relative path", entries=[entry(name)])
    check_pull(program, 5, "zero byte", entries=[entry("a\0b")])
    check_pull(program, 5, "names vae/config.json twice", entries=[entry("vae/config.json")])
    with Hub(tiny_files() | {"vae/config.json/config.json": Bytes(b"x")}) as hub, Place() as place:
        expect(place.pull(program, hub), 6,  # whichever of both is linked first
                   "vae/config.json(/config.json: its folder can't be made|: the link can't be made: Is a directory)")
    for etag in ("../../x", "A" * 40, "1" * 41, "", None, 5):
        check_pull(program, 5, "oid: .*expected 40 or 64 hex", entries=[entry("vae/LICENSE", oid=etag)])
    check_pull(program, 5, "lfs.oid", entries=[entry("vae/a.safetensors", lfs={"oid": "../x", "size": 5})])
    check_pull(program, 5, "at most 2\\^40 bytes", entries=[entry("vae/LICENSE", size=2**41)])
    check_pull(program, 5, "the answer|real number|too (big|large)", entries=[entry("vae/LICENSE", size=2**63)])
    check_pull(program, 5, "size: -1", entries=[entry("vae/LICENSE", size=-1)])
    check_pull(program, 5, "5013 files of a model, expected at most 1000",
               entries=[entry(f"vae/{i}.safetensors") for i in range(5000)])
    check_pull(program, entries=[entry(f"assets/{i}.png") for i in range(5000)])


def test_page_of_html(program):
    check_pull(program, 5, "page of HTML, expected JSON; perhaps the network asks for a login", html=True)
    check_pull(program, 5, "of HTML, perhaps the page of a login, expected", html_files=True)


def test_stall(program):
    start = time.monotonic()
    check_pull(program, stalls=2, variables=IMPATIENT)
    assert time.monotonic() - start < 30  # the connections would stay open for a minute


def test_resets(program):
    hub, _ = check_pull(program, reset=100000)
    assert hub.sent[LARGE] < 1.5 * hub.files[LARGE].size, hub.sent  # it goes on where it was


def test_limit(program):
    def seconds_of_pull():
        start = time.monotonic()
        check_pull(program, options=("--limit", "1500K"))
        return time.monotonic() - start
    seconds = best_of(5, seconds_of_pull, 6)
    assert 1.2 < seconds < 6, seconds
    check_pull(program, 2, "--limit: 5 bytes a second, expected at least 16K", options=("--limit", "5"))


def test_no_hub(program):
    with Place() as place, served() as (hub, _):
        gone = "http://127.0.0.1:9"
        expect(place.pull(program, None, *ONCE, HF_ENDPOINT=gone), 5,
               "--source names another hub: https://hf-mirror.com or modelscope")
        expect(place.pull(program, None, HF_ENDPOINT="http://example.test"), 5, "--insecure-http allows it")
        expect(place.pull(program, None, HF_ENDPOINT="ftp://x"), 2, "HF_ENDPOINT: \"ftp://x\"")
        expect(place.pull(program, None, "--source", "nowhere"), 2, "--source: \"nowhere\"")
        expect(place.pull(program, hub, HF_HUB_OFFLINE="1"), 5, "HF_HUB_OFFLINE: it is set")
        assert not hub.log
        expect(place.pull(program, None, "--source", hub.url), 0)
        for name in ("tiny", "acme/../x", "acme/ti--ny", "a/b/c", ".acme/x", "acme/"):
            expect(place.pull(program, hub, name=name), 2, "expected ORGANISATION/NAME")
        expect(place.pull(program, hub, "--revision", "../../x"), 2, "--revision: ")


def test_plan_and_include(program):
    with served(gated="auto") as (hub, place):
        result = expect(place.pull(program, hub, "--plan"), 0, "gated: yes.*\n.*3.3 MB are missing")
        assert not os.path.exists(place.cache) and not result.stdout
        expect(place.pull(program, hub, "--include", "pipeline.py"), 3, "no file of a model with such a name")
        expect(place.pull(program, hub, "--include", "vae/*", "--include", "*.bin"), 0)
        place.check_whole(hub, wanted={"vae/config.json", "vae/diffusion_pytorch_model.safetensors"})
        expect(place.pull(program, hub), 0)
        place.check_whole(hub)
        assert hub.sent["vae/config.json"] == hub.files["vae/config.json"].size
        sent = dict(hub.sent)
        expect(place.pull(program, hub), 0)  # once more: nothing is fetched again
        assert hub.sent == sent
    with Hub({"model.gguf": Bytes(b"x")}) as hub, Place() as place:
        expect(place.pull(program, hub), 3, "this is no model in a layout that zimage reads")


def test_revisions(program):
    with served() as (hub, place):
        expect(place.pull(program, hub, "--revision", "refs/pr/1"), 0, f"-m {NAME}@refs/pr/1")
        with open(f"{place.model}/refs/refs/pr/1") as file:
            assert file.read() == hub.commit
        expect(place.run(program, "inspect", NAME), 2, f"zimage pull {NAME} downloads it")
        expect(place.run(program, "inspect", f"{NAME}@refs/pr/1"), 0, "ZImageTransformer2DModel")
        expect(place.run(program, "inspect", f"{NAME}@{hub.commit}"), 0)


def test_json(program):
    with served(flips=1) as (hub, place):
        lines = events(expect(place.pull(program, hub, "--json"), 0))
        assert [lines[0]["event"], lines[-1]["event"]] == ["plan", "done"], lines
        assert lines[0]["missing_bytes"] == lines[0]["bytes"] == sum(hub.files[n].size for n in WANTED)
        assert {e["path"]: e["hash"] for e in lines if e["event"] == "file"} == {n: hub.etag(n) for n in WANTED}
        assert [e for e in lines if e["event"] == "notice"]
        assert lines[-1]["path"].endswith(hub.commit)
        progress = [e for e in lines if e["event"] == "progress"]
        assert progress and all(0 <= e["bytes"] <= e["total"] for e in progress)
    with served(html=True) as (hub, place):
        last = events(expect(place.pull(program, hub, "--json"), 5))[-1]
        assert last["event"] == "error" and last["code"] == 5 and "HTML" in last["message"]


def test_progress_on_a_terminal(program):
    """One line, in 40 columns."""
    with served(rate=1500000) as (hub, place):
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        process = subprocess.Popen([program, "pull", NAME], env=place.environment(hub, TERM="xterm"),
                                   stdout=subprocess.DEVNULL, stderr=follower)
        os.close(follower)
        text = b""
        try:
            while data := os.read(leader, 65536):
                text += data
        except OSError:
            pass
        assert process.wait() == 0
        lines = [re.sub(r"\x1b\[K", "", part) for part in re.findall(r"\r([^\r\n]+\x1b\[K)", text.decode())]
        lines = [line for line in lines if line]
        assert lines and all(len(line) < 40 for line in lines), lines
        assert any(re.match(r".*\d+% (file \d+/13 )?\d\.\d/3\.\d MB.*\d+ s left", line) for line in lines), lines


def test_killed(program):
    killed, twice, most = kill_and_resume(program, 6, 64 << 10, 2, 7)
    assert killed >= 2 and twice <= most, (killed, twice, most)


def test_interrupted(program):
    with served(rate=500000) as (hub, place):
        process = place.start(program, hub)
        while not hub.sent.get(LARGE):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130 and "interrupted" in errors, (process.returncode, errors)
        assert not os.path.exists(f"{place.model}/refs/main")
        expect(place.run(program, "inspect", NAME), 2, f"not complete in the cache; zimage pull {NAME} completes it")
        hub.faults.clear()
        expect(place.pull(program, hub), 0)
        place.check_whole(hub)


def test_two_at_once(program):
    with served(rate=3000000) as (hub, place):
        both = [place.start(program, hub) for _ in range(2)]
        for process in both:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        place.check_whole(hub)
        assert all(hub.sent[n] == hub.files[n].size for n in WANTED), hub.sent


def test_same_content_twice(program):
    files = tiny_files()
    files["text_encoder/config2/config.json"] = files["vae/config.json"]
    files["text_encoder/second.safetensors"] = files[LARGE]
    with Hub(files) as hub, Place() as place:
        expect(place.pull(program, hub), 0)
        place.check_whole(hub, wanted=WANTED | {"text_encoder/config2/config.json", "text_encoder/second.safetensors"})
        assert sum(hub.sent.get(n, 0) for n in (LARGE, "text_encoder/second.safetensors")) == files[LARGE].size


def test_damaged_leftovers(program):
    """Whatever lies where a download left its parts, the result is right."""
    with served() as (hub, place):
        blobs, etag = f"{place.model}/blobs", hub.etag(LARGE)
        for content, marks in ((b"x" * 10, b"y" * 100), (b"", b""), (b"z" * hub.files[LARGE].size, None)):
            os.makedirs(blobs, exist_ok=True)
            with open(f"{blobs}/{etag}.zimage.incomplete", "wb") as file:
                file.write(content)
            if marks is not None:
                with open(f"{blobs}/{etag}.zimage.segments", "wb") as file:
                    file.write(marks)
            expect(place.pull(program, hub), 0)
            place.check_whole(hub)
            os.remove(f"{blobs}/{etag}")
        with open(f"{blobs}/{etag}", "wb") as file:
            file.write(b"short")  # not what it should be
        expect(place.pull(program, hub), 0)
        place.check_whole(hub)


def test_links_are_not_followed(program):
    with served() as (hub, place):
        outside = f"{place.home}/outside"
        os.makedirs(outside)
        os.makedirs(place.model)
        os.symlink(outside, f"{place.model}/blobs")
        expect(place.pull(program, hub), 6)
        os.remove(f"{place.model}/blobs")
        os.makedirs(f"{place.model}/snapshots/{hub.commit}")
        os.symlink(outside, f"{place.model}/snapshots/{hub.commit}/vae")
        expect(place.pull(program, hub), 6)
        assert not os.listdir(outside)


def test_disk_full(program):
    if os.geteuid() != 0 or sys.platform != "linux":
        return print("skipped: a full disk (it needs Linux and root)")
    with served() as (hub, place):
        folder = f"{place.home}/small"
        os.makedirs(folder)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, b"size=1m") != 0:
            return print("skipped: a full disk (no tmpfs can be mounted)")
        try:
            result = place.pull(program, hub, HF_HUB_CACHE=folder)
            expect(result, 6, "3.3 MB are missing, but only .* kB may be written to the cache")
            assert not hub.sent, hub.sent  # refused before the first byte
            # The disk fills up while it downloads: another program takes the space.
            libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 32, b"size=5m")  # MS_REMOUNT
            hub.faults["rate"] = 1000000
            process = place.start(program, hub, HF_HUB_CACHE=folder)
            while not hub.sent:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            with open(f"{folder}/other", "wb") as file:
                try:
                    file.write(bytes(8 << 20))
                    file.flush()
                except OSError:
                    pass
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 6 and "No space left on device" in errors, (process.returncode, errors)
        finally:
            libc.umount2(folder.encode(), 2)
    return None


def test_models(program):
    with served() as (hub, place):
        expect(place.run(program, "models"), 0, "there are no models in the cache")
        expect(place.pull(program, hub), 0)
        expect(place.run(program, "models"), 0, r"acme/tiny +3\.3 MB  complete    main  hf")
        listed = json.loads(expect(place.run(program, "models", "--json"), 0).stdout)["models"]
        assert len(listed) == 1 and listed[0]["commit"] == hub.commit and listed[0]["state"] == "complete"
        assert listed[0]["bytes"] == sum(hub.files[n].size for n in WANTED)
        expect(place.run(program, "models", "--verify", NAME), 0, "acme/tiny: 13 files are right")
        blob = f"{place.model}/blobs/{hub.etag('vae/config.json')}"
        with open(blob, "r+b") as file:
            file.write(b" ")
        expect(place.run(program, "models", "--verify", NAME), 7, "vae/config.json: its hash is")
        os.remove(blob)
        expect(place.run(program, "models"), 0, "incomplete")
        expect(place.run(program, "models", "--verify", NAME), 7, "its content is missing")
        expect(place.pull(program, hub), 0)
        expect(place.run(program, "models", "--verify", NAME, "--json"), 0, '"checked":13')
        with open(f"{place.cache}/.locks/{os.path.basename(place.model)}/{hub.etag(LARGE)}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            expect(place.run(program, "models", "--remove", NAME), 1, "another program is downloading it")
        expect(place.run(program, "models", "--remove", NAME), 0, "removed")
        assert not os.path.exists(place.model)
        expect(place.run(program, "models", "--remove", NAME), 3, "not in the cache")
        expect(place.run(program, "models", "--verify", "x"), 2, "expected ORGANISATION/NAME")


def test_open_by_name(program):
    with served() as (hub, place):
        image = f"{place.home}/a.png"
        make = ("generate", "a red apple", "-m", NAME, "-W", "32", "-H", "48", "--steps", "1", "-s", "1", "-o", image)
        expect(place.run(program, *make, hub=hub), 2,
               f"--model: there is no such folder, and .*zimage pull {NAME} downloads it")
        assert not hub.log  # nothing is downloaded
        expect(place.pull(program, hub), 0)
        requests = len(hub.log)
        expect(place.run(program, *make, hub=hub), 0)
        expect(place.run(program, "tokenize", "a cat", "-m", NAME), 0)
        expect(place.run(program, "tokenize", "a cat", ZIMAGE_MODEL=NAME), 0)
        expect(place.run(program, "serve", "-m", "acme/nothing"), 2, "zimage pull acme/nothing downloads it")
        assert len(hub.log) == requests and os.path.getsize(image) > 0


def test_modelscope(program):
    with served() as (hub, place):
        named = {"MODELSCOPE_ENDPOINT": hub.url, "MODELSCOPE_API_TOKEN": "ms-1", "ZIMAGE_HOME": f"{place.home}/z"}
        result = expect(place.pull(program, None, "--source", "modelscope", **named), 0)
        folder = f"{place.home}/z/modelscope/models--acme--tiny"
        with open(f"{folder}/refs/master") as file:
            commit = file.read()
        assert result.stdout.strip() == f"{folder}/snapshots/{commit}"
        for name in WANTED:
            with open(f"{folder}/snapshots/{commit}/{name}", "rb") as file:
                assert hashlib.sha256(file.read()).hexdigest() == hub.files[name].sha256
            assert os.readlink(f"{folder}/snapshots/{commit}/{name}").endswith(hub.files[name].sha256)
        assert {r["authorization"] for r in hub.requests("hub")} == {"Bearer ms-1"}
        assert {r["cookie"] for r in hub.requests("hub")} == {"m_session_id=ms-1"}
        assert {(r["authorization"], r["cookie"]) for r in hub.requests("cdn")} == {(None, None)}
        expect(place.run(program, "models", **named), 0, "acme/tiny .* complete    master  modelscope")
        expect(place.run(program, "models", "--verify", NAME, **named), 0, "13 files are right")
        expect(place.run(program, "inspect", NAME, **named), 0)
        expect(place.run(program, "pull", "acme/other", "--source", "modelscope", **named), 3, "no such model")


def test_suggest(program):
    """The published sizes: 6,154,908,736, 3,875,544,576 and 9,078,581,248 numbers in the transformers."""
    with Place() as place:
        listed = json.loads(expect(place.run(program, "pull", "--suggest", "--json"), 0).stdout)["models"]
        found = {m["model"]: m for m in listed}
        turbo, klein = found["Tongyi-MAI/Z-Image-Turbo"], found["black-forest-labs/FLUX.2-klein-4B"]
        assert 32.5e9 < turbo["bytes"] < 33.5e9 and 15.5e9 < klein["bytes"] < 16.5e9, listed
        assert found["black-forest-labs/FLUX.2-klein-9B"]["gated"] and not turbo["gated"]
        assert 12.3e9 < turbo["peak_bytes"] < 14e9 and turbo["steps"] == 8 and klein["steps"] == 4, listed
        assert all(m["seconds"] > 0 for m in listed)
        text = expect(place.run(program, "pull", "--suggest"), 0, "FLUX Non-Commercial, has to be accepted on the hub")
        assert text.stdout.count("\n") == 4, text.stdout
        expect(place.run(program, "pull", NAME, "--suggest"), 2, "expected one of them")


def test_certificates(program):
    """https, with a certificate of its own that CURL_CA_BUNDLE names."""
    if not shutil.which("openssl"):
        return print("skipped: https (no openssl)")
    import ssl
    with served() as (hub, place):
        key, certificate = f"{place.home}/key.pem", f"{place.home}/certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"],
                       check=True, stderr=subprocess.DEVNULL)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        for server in hub.servers:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        hub.url, hub.cdn, hub.third = (url.replace("http:", "https:") for url in hub.urls)
        expect(place.pull(program, hub, *ONCE), 5, "(?i)certificate|peer")
        expect(place.pull(program, hub, CURL_CA_BUNDLE=certificate), 0)
        place.check_whole(hub)
        hub.cdn = hub.cdn.replace("https:", "http:")
        expect(place.run(program, "models", "--remove", NAME), 0)
        expect(place.pull(program, hub, CURL_CA_BUNDLE=certificate), 5, "a redirect to http://127.*, expected https")
    return None


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
