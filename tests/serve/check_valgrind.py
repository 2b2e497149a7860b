"""The server under valgrind: each dialect once, and clients that go away. No error, no leak."""
import os
import random
import shlex
import sys
import tempfile

from harness import TINY, Server, form, png, run_tests, send_only, status_of

VALGRIND = ("valgrind --quiet --fair-sched=yes --error-exitcode=99 --leak-check=full "
            "--errors-for-leak-kinds=definite,possible")
REQUEST = {"prompt": "a red apple", "size": "32x48", "steps": 2, "seed": 7}


class Checked(Server):
    """The server of a program that runs under valgrind. Its end tells: code 99 if valgrind found something."""
    patience = 300

    def __init__(self, program, *options):
        self.folder = tempfile.TemporaryDirectory()
        wrapper = os.path.join(self.folder.name, "zimage")
        with open(wrapper, "w") as file:
            file.write(f'#!/bin/sh\nexec {VALGRIND} {shlex.quote(os.path.abspath(program))} "$@"\n')
        os.chmod(wrapper, 0o755)
        super().__init__(wrapper, "-m", TINY, "--device", "cpu", "--job-seconds", "300", *options)


def test_dialects(program):
    with Checked(program) as s:
        for body in {}, {"n": 2, "output_format": "jpeg"}, {"output_format": "webp", "response_format": "url"}:
            assert s.json("POST", "/v1/images/generations", {**REQUEST, **body})["data"]
        stream = s.post("/v1/images/generations", {**REQUEST, "stream": True, "partial_images": 2})
        assert b"image_generation.completed" in stream.body, stream.body[-500:]
        picture = png(32, 48, lambda x, y: (x * 7, y * 5, 90))
        body, headers = form([("prompt", "a red apple"), ("size", "32x48"), ("steps", "2"), ("strength", "0.6"),
                              ("image", picture, "a.png")])
        assert s.json("POST", "/v1/images/edits", body, headers=headers)["data"]
        assert s.json("POST", "/sdapi/v1/txt2img", {"prompt": "a", "width": 32, "height": 48, "steps": 2})["images"]
        job = s.json("POST", "/zimage/v1/jobs", REQUEST, status=202)
        s.wait_for("the job", lambda: s.json("GET", f"/zimage/v1/jobs/{job['id']}")["state"] == "completed", 120)
        for bad in b"{", b"[]", b'{"prompt": 7}', b'{"prompt": "a", "size": "0x0"}':
            assert s.post("/v1/images/generations", bad, **{"Content-Type": "application/json"}).status == 400
        for path in "/", "/metrics", "/openapi.json", "/zimage/v1/capabilities", "/nothing":
            assert s.get(path).status == (404 if path == "/nothing" else 200), path


def test_clients_that_vanish(program):
    dice = random.Random(7)
    with Checked(program) as s:
        for number in range(40):
            whole = number % 2
            connection = send_only(s, "/v1/images/generations", {**REQUEST, "stream": dice.random() < 0.5, "n": 2},
                                   None if whole else dice.randrange(1, 200))
            if whole and dice.random() < 0.3:
                connection.recv(100)
            connection.close()
        s.wait_for("no connections", lambda: s.metric("zimage_connections") == 1, 120)
        s.wait_until_idle(300)
        assert s.metric("zimage_streams") == 0 and status_of(s)[0] < 64


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
