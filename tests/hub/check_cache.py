"""The cache is that of huggingface_hub: what one of both wrote, the other reads. check_cache.py PROGRAM [TEST...]"""
import os
import subprocess
import sys

from fake_hub import NAME
from place import EXTRA, TINY, WANTED, Place, expect, served

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "serve"))
from harness import run_tests  # noqa: E402


def python(place, hub, text, **variables):
    """Runs a text with huggingface_hub; HF_HUB_DISABLE_XET: the fake hub has no such storage."""
    variables |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_ETAG_TIMEOUT": "10"}
    result = subprocess.run([sys.executable, "-c", "from huggingface_hub import *\n" + text], text=True,
                            env=place.environment(hub, **variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_python_reads_ours(program):
    with served() as (hub, place):
        path = expect(place.pull(program, hub), 0).stdout.strip()
        requests = len(hub.log)
        offline = python(place, None, f"""
print(snapshot_download("{NAME}", local_files_only=True))
print(try_to_load_from_cache("{NAME}", "vae/config.json"))
info = scan_cache_dir()
assert not info.warnings, info.warnings
[repo] = info.repos
[revision] = repo.revisions
print(repo.repo_id, revision.commit_hash, sorted(revision.refs), len(revision.files), repo.size_on_disk)
""", HF_HUB_OFFLINE="1").splitlines()
        size = sum(hub.files[n].size for n in WANTED)
        scanned = f"{NAME} {hub.commit} ['main'] {len(WANTED)} {size}"
        assert offline == [path, f"{path}/vae/config.json", scanned], offline
        assert len(hub.log) == requests
        # Online no file is fetched again: only the others, which zimage leaves out.
        sent = dict(hub.sent)
        assert python(place, hub, f'print(snapshot_download("{NAME}"))').strip() == path
        assert {n for n in hub.sent if hub.sent[n] != sent.get(n)} == set(EXTRA) - {"README.md", "LICENSE"}


def test_we_read_pythons(program):
    with served() as (hub, place):
        path = python(place, hub, f'print(snapshot_download("{NAME}"))').strip()
        requests = len(hub.log)
        expect(place.run(program, "inspect", NAME), 0, path)
        expect(place.run(program, "models"), 0, r"acme/tiny .* not known +main  hf")
        expect(place.run(program, "models", "--verify", NAME), 0, f"{len(WANTED) + 4} files are right")
        assert len(hub.log) == requests
        sent = dict(hub.sent)
        assert expect(place.pull(program, hub), 0).stdout.strip() == path
        assert hub.sent == sent, (hub.sent, sent)
        expect(place.run(program, "models"), 0, r"acme/tiny .* complete +main  hf")
        expect(place.run(program, "models", "--remove", NAME), 0)
        assert not os.path.exists(place.model)


def test_same_files(program):
    """Both write the same links, blobs, locks and references."""
    def files(place):
        found = {}
        for base, folders, names in os.walk(place.cache):
            for name in names:
                file = os.path.join(base, name)
                own = os.path.relpath(file, place.cache)
                if "/zimage/" not in own and "/trees/" not in own and not own.startswith(".locks"):
                    found[own] = os.readlink(file) if os.path.islink(file) else os.path.getsize(file)
        found.pop("CACHEDIR.TAG")
        return found, set(os.listdir(f"{place.cache}/.locks/{os.path.basename(place.model)}"))

    with served() as (hub, ours), Place() as theirs:
        expect(ours.pull(program, hub), 0)
        python(theirs, hub, f'snapshot_download("{NAME}", ignore_patterns={sorted(set(EXTRA) - WANTED)})')
        assert files(ours) == files(theirs), (files(ours), files(theirs))


def test_both_at_once(program):
    """Their locks keep them apart."""
    with served(rate=3000000) as (hub, place):
        process = place.start(program, hub)
        python(place, hub, f'snapshot_download("{NAME}", allow_patterns=["*/*"])')
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        place.check_whole(hub, wanted=WANTED | {n for n in EXTRA if "/" in n})
        expect(place.run(program, "models", "--verify", NAME), 0)


assert os.path.isdir(TINY)
if __name__ == "__main__":
    run_tests(sys.modules[__name__])
