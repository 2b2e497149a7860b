"""Several devices, each of which makes images: check_devices.py PROGRAM [TEST...]. The program finds the emulated GPUs
beside it."""
import json
import os
import subprocess
import sys
import tempfile

from harness import TINY, Server, run_tests

COUNT = 6
GPUS = {**os.environ, "ZIMAGE_EMULATED_GPUS": "2"}


def generate(program, folder, *options, environment=GPUS):
    return subprocess.run([program, "generate", "-m", TINY, "--steps", "2", "--json", "-q", "--no-cache", *options],
                          cwd=folder, env=environment, capture_output=True, text=True)


def write_batch(folder):
    with open(os.path.join(folder, "batch.jsonl"), "w") as file:
        for i in range(COUNT):
            line = {"prompt": f"a red apple {i % 2}", "seed": i, "size": ["32x32", "32x48"][i % 2]}
            file.write(json.dumps({**line, "output": f"{i}.png"}) + "\n")


def files_of(folder):
    files = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            files[name] = file.read()
    return files


def test_batch(program):
    """Both GPUs make images of one batch, and the files are those of one GPU."""
    with tempfile.TemporaryDirectory() as folder:
        write_batch(folder)
        batch = ("--batch", "batch.jsonl", "--out-dir")
        for kind, devices in (("cuda:0", {None}), ("cuda", {"cuda:0", "cuda:1"}), ("auto", {"cuda:0", "cuda:1"}),
                              ("cuda:1,cuda:0", {"cuda:0", "cuda:1"})):
            result = generate(program, folder, *batch, kind, "--device", kind)
            assert result.returncode == 0, result
            images = json.loads(result.stdout)["images"]
            assert len(images) == COUNT and {image.get("device") for image in images} == devices, (kind, images)
            assert files_of(f"{folder}/{kind}") == files_of(f"{folder}/cuda:0"), f"--device {kind}: other files"
        result = generate(program, folder, *batch, "resumed", "--device", "cuda", "--resume", "--shard", "0/1")
        assert result.returncode == 0 and len(json.loads(result.stdout)["images"]) == COUNT, result
        result = generate(program, folder, "a red apple", "--size", "32x32", "-n", "4", "-o", "a.png", "--device",
                          "cuda")
        assert result.returncode == 0, result
        names = sorted(image["path"] for image in json.loads(result.stdout)["images"])
        assert names == [f"a-{i}.png" for i in range(1, 5)], names


def test_faults(program):
    with tempfile.TemporaryDirectory() as folder:
        write_batch(folder)
        for device, expected, code in (
                ("cuda:0,cuda:0", '--device: "cuda:0,cuda:0" names cuda:0 twice', 2),
                ("cuda:0,", '--device: "cuda:0,", expected 1 to 16 devices, separated by commas', 2),
                ("cuda:0,cuda:7", "cuda:7", 1)):
            result = generate(program, folder, "--batch", "batch.jsonl", "--out-dir", "faults", "--device", device)
            assert result.returncode == code and expected in result.stderr, result
            assert not os.path.exists(f"{folder}/faults"), os.listdir(f"{folder}/faults")
        # One image that fails ends the work of all; what was made until then is reported.
        with open(f"{folder}/batch.jsonl", "a") as file:
            file.write('{"prompt": "a", "size": "32x32", "seed": 1, "output": "gone/../../7.png"}\n')
        result = generate(program, folder, "--batch", "batch.jsonl", "--out-dir", "faults", "--device", "cuda")
        assert result.returncode == 2 and "line 7" in result.stderr, result


def test_cpu_stays_alone(program):
    """What only the CPU has is computed there, though there are GPUs."""
    with tempfile.TemporaryDirectory() as folder:
        write_batch(folder)
        for options in ("--compute", "int8"), ("--reference",), ("--cpu-mask", "generic"):
            result = generate(program, folder, "--batch", "batch.jsonl", "--out-dir", "cpu", *options)
            assert result.returncode == 0, result
            assert {image.get("device") for image in json.loads(result.stdout)["images"]} == {None}, result.stdout
            assert "device" not in json.loads(result.stdout), "a GPU was used"


def test_server(program):
    """The server has workers for each GPU without being told, and they make images at the same time."""
    with Server(program, "-m", TINY, "--quiet", environment={"ZIMAGE_EMULATED_GPUS": "2"}) as s:
        assert {slot["device"] for slot in s.json("GET", "/slots")} == {"cuda:0", "cuda:1"}
        request = {"prompt": "a red apple", "size": "32x32", "steps": 16}
        jobs = [s.json("POST", "/zimage/v1/jobs", {**request, "seed": seed}, 202)["id"] for seed in range(4)]
        s.wait_for("an image on each GPU", lambda: {slot["device"] for slot in s.json("GET", "/slots")
                                                    if slot["state"] == "running"} == {"cuda:0", "cuda:1"})
        for job in jobs:
            assert s.json("GET", f"/zimage/v1/jobs/{job}?wait=60")["state"] == "completed"


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
