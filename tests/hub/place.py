"""Runs zimage pull against the fake hub. Standard library only."""
import contextlib
import json
import os
import random
import re
import subprocess
import tempfile
import time

from fake_hub import NAME, Bytes, Hub, folder_files, is_large

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "tiny")
LARGE = "transformer/diffusion_pytorch_model.safetensors"
SEGMENT = 256 << 10
EXTRA = {"README.md": Bytes(b"# tiny\n"), "LICENSE": Bytes(b"Apache\n"), "pipeline.py": Bytes(b"import os\n"),
         "transformer/pytorch_model.bin": Bytes(b"\x80pickle"), "tiny.safetensors": Bytes(b"\x02" * 1000),
         "assets/picture.png": Bytes(b"\x89PNG")}
WANTED = set(folder_files(TINY)) | {"README.md", "LICENSE"}


def tiny_files():
    return folder_files(TINY) | EXTRA


class Place:
    """A home folder with the caches. `with Place() as place:`"""

    def __init__(self, folder=None):
        self.temporary = None if folder else tempfile.TemporaryDirectory(prefix="zimage-hub-")
        self.home = folder or self.temporary.name
        self.cache = f"{self.home}/hf/hub"
        self.model = f"{self.cache}/models--{NAME.replace('/', '--')}"

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.temporary:
            self.temporary.cleanup()

    def environment(self, hub=None, **variables):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MODELSCOPE", "ZIMAGE_MODEL"))}
        kept |= {"HOME": self.home, "HF_HOME": f"{self.home}/hf", "XDG_CACHE_HOME": f"{self.home}/cache",
                 "HF_HUB_ETAG_TIMEOUT": "30", "HF_HUB_DOWNLOAD_TIMEOUT": "30", "NO_PROXY": "127.0.0.1"}
        if hub:
            kept["HF_ENDPOINT"] = hub.url
        return kept | variables

    def run(self, program, *arguments, hub=None, **variables):
        return subprocess.run([program, *arguments], env=self.environment(hub, **variables), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)

    def pull(self, program, hub, *options, name=NAME, segment=SEGMENT, **variables):
        return self.run(program, "pull", name, "--segment", str(segment), *options, hub=hub, **variables)

    def start(self, program, hub, *options, segment=SEGMENT, **variables):
        return subprocess.Popen([program, "pull", NAME, "--segment", str(segment), *options],
                                env=self.environment(hub, **variables), text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def check_whole(self, hub, folder=None, wanted=None):
        """Every wanted file is there with the right content, nothing else is, and nothing is left of the download."""
        model = folder or self.model
        with open(f"{model}/refs/main") as file:
            commit = file.read()
        assert commit == hub.commit, commit
        snapshot, found = f"{model}/snapshots/{commit}", set()
        for base, _, names in os.walk(snapshot):
            for name in names:
                path = os.path.join(base, name)
                own = os.path.relpath(path, snapshot)
                found.add(own)
                up = "../" * (2 + own.count("/"))
                assert os.readlink(path) == f"{up}blobs/{hub.etag(own)}", os.readlink(path)
                with open(path, "rb") as file:
                    assert file.read() == hub.files[own].read(0, hub.files[own].size), own
        assert found == (wanted or WANTED), found ^ (wanted or WANTED)
        left = [n for n in os.listdir(f"{model}/blobs") if "." in n]
        assert not left, left


def expect(result, code, sentence=""):
    """The exit code, and a regular expression for what it says."""
    assert result.returncode == code, (result.returncode, code, result.stdout, result.stderr)
    assert re.search(sentence, result.stderr + result.stdout), (sentence, result.stderr, result.stdout)
    for word in ("Sanitizer", "runtime error"):
        assert word not in result.stderr, result.stderr
    return result


def events(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


@contextlib.contextmanager
def served(**faults):
    """The fake hub with the tiny model, and an empty place."""
    with Hub(tiny_files(), **faults) as hub, Place() as place:
        yield hub, place


def kill_and_resume(program, kills, segment, connections, seed):
    """Kills it at random moments; then all is right, and few bytes came twice. Returns how often it was killed, the
    bytes that came twice and how many may."""
    moments = random.Random(seed)
    files = tiny_files() | {LARGE: Bytes(moments.randbytes(3 * kills << 19))}
    with Hub(files, rate=2500000) as hub, Place() as place:
        options, killed = ("--connections", str(connections)), 0
        for _ in range(kills):
            process = place.start(program, hub, *options, segment=segment)
            time.sleep(0.02 + 0.35 * moments.random())
            killed += process.poll() is None
            process.kill()
            process.communicate()
        hub.faults.clear()
        expect(place.pull(program, hub, *options, segment=segment), 0)
        place.check_whole(hub)
        twice = sum(max(0, hub.sent[n] - hub.files[n].size) for n in WANTED if is_large(n))
        # A segment of each connection a kill; the fake hub's and the system's buffers hold bytes that nobody read.
        return killed, twice, (killed + 1) * connections * segment
