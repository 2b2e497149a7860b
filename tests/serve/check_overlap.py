"""The two workers of a GPU: check_overlap.py PROGRAM [TEST...]. The program finds the emulated GPU beside it."""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

from harness import Server, png_pixels, run_tests

JOBS = "/zimage/v1/jobs"
MODEL = os.path.join(os.path.dirname(__file__), "..", "golden", "tiny")
GPU = ["--device", "cuda", "--quiet"]
SMALL = {"prompt": "a red apple", "size": "32x32", "steps": 2, "seed": 7}
LONG = {**SMALL, "steps": 16}


class Watcher:
    """Looks at the slots again and again: the most that ran at the same time, the most there were."""

    def __init__(self, server):
        self.server, self.running, self.slots, self.is_over = server, 0, 0, False
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.is_over:
            slots = self.server.json("GET", "/slots")
            self.slots = max(self.slots, len(slots))
            self.running = max(self.running, sum(slot["state"] == "running" for slot in slots))
            time.sleep(0.005)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.is_over = True
        self.thread.join()


def start(program, *options, model=MODEL):
    return Server(program, *GPU, "-m", model, *options)


def begin(s, request):
    return s.json("POST", JOBS, request, 202)["id"]


def finish(s, job):
    done = s.json("GET", f"{JOBS}/{job}?wait=60")
    assert done["state"] in ("completed", "cancelled", "failed"), done
    return done


def picture(s, job, index=0):
    done = finish(s, job)
    assert done["state"] == "completed", done
    return s.get(done["pictures"][index]["url"]).body


def pictures(s, requests):
    """Files of pictures that are asked for at the same time, and what a watcher saw meanwhile."""
    with Watcher(s) as seen:
        jobs = [begin(s, request) for request in requests]
        files = [picture(s, job) for job in jobs]
    return files, seen


def pictures_side_by_side(s, requests, count=2):
    """The same, again until the watcher saw `count` of them at the same time: on a busy machine it may come too late."""
    for _ in range(5):
        files, seen = pictures(s, requests)
        if seen.running == count:
            break
    assert seen.running == count, f"{seen.running} images were made at the same time, expected {count}"
    return files, seen


def slots_running(s, count):
    s.wait_for(f"{count} images at the same time",
               lambda: sum(slot["state"] == "running" for slot in s.json("GET", "/slots")) == count)


def requests_of_all_kinds():
    prompts = ["a red apple", "a red apple on a table", "tree"]
    return [{**SMALL, "prompt": prompts[i % 3], "seed": i, "size": ["32x32", "32x48"][i % 2]} for i in range(6)]


def cli_pixels(program, request):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "image.png")
        subprocess.run([program, "generate", request["prompt"], "--size", request["size"], "--steps", "2", "-s",
                        str(request["seed"]), "-q", "--device", "cuda", "-m", MODEL, "-o", path],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path, "rb") as file:
            return png_pixels(file.read())


def test_same_pictures(program):
    requests = requests_of_all_kinds()
    with start(program, "--no-overlap") as s:
        expected, seen = pictures(s, requests)
        assert (seen.running, seen.slots) == (1, 1), "--no-overlap makes two images at the same time"
    with start(program) as s:
        made, seen = pictures_side_by_side(s, requests)
        assert seen.slots == 2, seen.slots
    assert made == expected, "pictures beside others are not the same files"
    for i in (0, 1):
        assert png_pixels(made[i]) == cli_pixels(program, requests[i]), "the pixels are not the program's"


def test_jobs_of_several_images(program):
    """They take turns with others."""
    with start(program) as s:
        alone = picture(s, begin(s, SMALL))
        jobs = [begin(s, {**SMALL, "n": 3, "seed": seed, "user": str(seed)}) for seed in (7, 17)]
        for job in jobs:
            assert len(finish(s, job)["pictures"]) == 3
        assert picture(s, jobs[0]) == alone


def test_cancel(program):
    """An image that waits for its turn, and the one it waits for, can be cancelled; the others go on."""
    with start(program) as s:
        expected = picture(s, begin(s, SMALL))
        for cancelled in (0, 1):
            jobs = [begin(s, LONG), begin(s, LONG)]
            slots_running(s, 2)
            at = time.monotonic()
            s.json("DELETE", f"{JOBS}/{jobs[cancelled]}")
            assert finish(s, jobs[cancelled])["state"] == "cancelled"
            taken = time.monotonic() - at
            assert finish(s, jobs[1 - cancelled])["state"] == "completed"
            whole = time.monotonic() - at
            assert taken < max(3, whole / 2), f"cancelling took {taken:.1f} s, the other image {whole:.1f} s"
        jobs = [begin(s, LONG) for _ in range(4)]
        slots_running(s, 2)
        for job in jobs:
            s.json("DELETE", f"{JOBS}/{job}")
        assert [finish(s, job)["state"] for job in jobs] == ["cancelled"] * 4
        assert picture(s, begin(s, SMALL)) == expected


def plan_of(program, size):
    text = subprocess.run([program, "generate", "--plan", SMALL["prompt"], "--size", size, "--steps", "2", "--device",
                           "cuda", "-m", MODEL, "--json"], check=True, capture_output=True).stdout
    return json.loads(text)["device"]


def test_memory(program):
    """Where both images do not fit, the second worker does not join, or gives its memory back."""
    small, large = plan_of(program, "32x32"), plan_of(program, "96x96")
    beside = small["activation_bytes"] + small["workspace_bytes"]  # the weights are the first worker's
    room = (large["activation_bytes"] - small["activation_bytes"]) // 2
    requests = [{**SMALL, "steps": 8}, {**SMALL, "size": "96x96"}]
    with start(program) as s:
        expected = [picture(s, begin(s, request)) for request in requests]
    with start(program, "--vram", str(small["total_bytes"] + beside - room)) as s:
        made, seen = pictures(s, [requests[0]] * 3)
        assert seen.running == 1 and made == [expected[0]] * 3, "the limit was passed"
    with start(program, "--vram", str(small["total_bytes"] + beside + room)) as s:
        made, _ = pictures_side_by_side(s, [requests[0]] * 3)
        assert made == [expected[0]] * 3
        assert picture(s, begin(s, requests[1])) == expected[1]
        assert len(s.json("GET", "/slots")) == 1, "the large image did not get the memory of the second session"


def test_several_models(program):
    """Another model's image waits for both workers; idle ones close their sessions."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(os.path.abspath(MODEL), os.path.join(folder, "other"))
        with start(program, "-m", os.path.join(folder, "other"), "--idle-seconds", "1") as s:
            requests = [{**SMALL, "model": ["tiny", "other"][i // 3 % 2], "seed": i} for i in range(9)]
            made, _ = pictures_side_by_side(s, requests)
            again, _ = pictures(s, [requests[0], requests[3]])
            assert again == [made[0], made[3]]
            s.wait_for("closed models", lambda: not any(m["meta"]["loaded"] for m in s.json("GET", "/v1/models")["data"]))
            assert len(s.json("GET", "/slots")) == 1
            assert pictures(s, requests[:2])[0] == made[:2]


def test_end(program):
    """The server ends while both workers have images."""
    with start(program, "--drain", "0") as s:
        at = time.monotonic()
        picture(s, begin(s, SMALL))
        two_steps = time.monotonic() - at
        jobs = [begin(s, LONG) for _ in range(3)]
        slots_running(s, 2)
        at = time.monotonic()
        s.terminate()
        s.process.wait(timeout=60)
        taken = time.monotonic() - at
        assert taken < max(5, 4 * two_steps) and jobs, taken  # of three times 16 steps


with tempfile.TemporaryDirectory() as cache:  # what the emulated GPU measures once
    os.environ["XDG_CACHE_HOME"] = cache
    run_tests(sys.modules[__name__])
