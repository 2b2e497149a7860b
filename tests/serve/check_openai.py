"""Tests of zimage serve by OpenAI's own package: check_openai.py PROGRAM [TEST...]"""
import asyncio
import base64
import io
import os
import re
import shutil
import sys
import tempfile
import time
import zlib

import openai
from prometheus_client.parser import text_string_to_metric_families

from harness import SMALL, Server, bundled_model, change_tensors, png, png_of, png_pixels, run_tests

EXTRA = {"steps": 2, "seed": 7}
MAKE = {"prompt": SMALL["prompt"], "size": "64x64", "model": "emoji", "extra_body": EXTRA}


def client_of(server, **options):
    return openai.OpenAI(base_url=f"{server.url}/v1", **{"api_key": "none", "max_retries": 0, **options})


def bomb(side):
    """A grey PNG of zeros: some hundred KB that become side * side bytes."""
    compressor = zlib.compressobj()
    rows = b"".join(compressor.compress(bytes(1 + side)) for _ in range(side))
    return png_of(side, side, 0, rows + compressor.flush())


PICTURE = png(64, 64, lambda x, y: (4 * x, 4 * y, 128))
MASK = png(64, 64, lambda x, y: (0, 0, 0, 0 if x < 32 else 255))


def test_models(program):
    with Server(program) as s:
        client = client_of(s)
        assert [m.id for m in client.models.list()] == ["emoji"]
        assert client.models.retrieve("emoji").owned_by == "zimage"


def test_generate(program):
    with Server(program) as s:
        client = client_of(s)
        one = client.images.generate(**MAKE)
        assert one.data[0].seed == 7 and one.size == "64x64" and one.usage.total_tokens > 0
        three = client.images.generate(**MAKE, n=3)
        assert [d.seed for d in three.data] == [7, 8, 9] and three.data[0].b64_json == one.data[0].b64_json
        for name, magic in (("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")):
            image = base64.b64decode(client.images.generate(**MAKE, output_format=name).data[0].b64_json)
            assert image.startswith(magic), name
        small, large = (len(client.images.generate(**MAKE, output_format="jpeg", output_compression=q).data[0].b64_json)
                        for q in (10, 100))
        assert small < large
        linked = client.images.generate(**MAKE, response_format="url").data[0].url
        assert s.get(linked.split(str(s.port), 1)[1]).body == base64.b64decode(one.data[0].b64_json)


def test_stream(program):
    with Server(program) as s:
        client = client_of(s)
        whole = client.images.generate(**{**MAKE, "extra_body": {"seed": 7}})
        for partials in range(4):
            stream = client.images.generate(**{**MAKE, "extra_body": {"seed": 7}}, stream=True, partial_images=partials)
            seen = list(stream)
            assert [e.type for e in seen] == ["image_generation.partial_image"] * partials + [
                "image_generation.completed"]
            assert [e.partial_image_index for e in seen[:-1]] == list(range(partials))
            assert seen[-1].b64_json == whole.data[0].b64_json and seen[-1].usage.output_tokens == 4


def peak_mib(server):
    """The most memory that the server's process has held."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def test_edit(program):
    with Server(program) as s:
        client = client_of(s)
        edit = {"prompt": "a green apple", "extra_body": {"steps": 4, "seed": 7, "strength": 0.6}}
        one = client.images.edit(image=PICTURE, **edit)
        assert one.size == "64x64"
        listed = client.images.edit(image=[("a.png", PICTURE, "image/png")], **edit)
        assert listed.data[0].b64_json == one.data[0].b64_json
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "picture.png")
            with open(path, "wb") as file:
                file.write(PICTURE)
            with open(path, "rb") as file:
                assert client.images.edit(image=file, **edit).data[0].b64_json == one.data[0].b64_json
        masked = client.images.edit(image=PICTURE, mask=MASK, **edit)
        assert masked.data[0].b64_json != one.data[0].b64_json
        seen = list(client.images.edit(image=io.BytesIO(PICTURE), stream=True, partial_images=1, **edit))
        assert [e.type for e in seen] == ["image_edit.partial_image", "image_edit.completed"]
        assert seen[-1].b64_json == one.data[0].b64_json
        wrong_size = png(32, 64, lambda x, y: (255, 255, 255))
        for bad, code in (({"image": b"<svg></svg>"}, "invalid_image"), ({"image": PICTURE[:100]}, "invalid_image"),
                          ({"image": PICTURE, "mask": wrong_size}, "invalid_value"),
                          ({"image": [PICTURE, PICTURE]}, "invalid_value"), ({"image": b""}, "invalid_image")):
            try:
                client.images.edit(**{**edit, **bad})
                raise AssertionError(f"accepted: {code}")
            except openai.BadRequestError as error:
                assert error.code == code, error
        file = bomb(20000)
        before = peak_mib(s)
        try:
            client.images.edit(**{**edit, "image": file})
            raise AssertionError("accepted: 20000 x 20000")
        except openai.APIStatusError as error:
            assert error.status_code in (400, 413) and "20000" in error.message, error
        assert peak_mib(s) - before < 64, "a picture that is refused took memory"


def expect(kind, status, code, call, param=None):
    """Expects that a call of the package raises that error; returns it."""
    try:
        call()
    except kind as error:
        assert type(error) is kind and error.status_code == status and error.code == code, (code, repr(error))
        assert error.body["message"] and error.body["type"], error.body
        assert param is None or error.param == param, error
        return error
    raise AssertionError(f"accepted, expected {code}")


def requests_with(server, status):
    """How many requests got that status, of all routes."""
    pattern = rf'^zimage_requests_total{{.*code="{status}".*}} (\d+)$'
    return sum(int(n) for n in re.findall(pattern, server.get("/metrics").body.decode(), re.M))


# What a client may do wrong: the class of the package's error, status, code, the field, and the call.
WRONG = [
    (openai.BadRequestError, 400, "invalid_json", None,
     lambda c: c.post("/images/generations", cast_to=object, content=b"{",
                      options={"headers": {"Content-Type": "application/json"}})),
    (openai.BadRequestError, 400, "invalid_value", "size", lambda c: c.images.generate(prompt="x", size="65x65")),
    (openai.BadRequestError, 400, "unknown_parameter", "sed",
     lambda c: c.images.generate(prompt="x", extra_body={"sed": 1})),
    (openai.BadRequestError, 400, "unsupported_value", "quality",
     lambda c: c.images.generate(prompt="x", quality="max")),
    (openai.BadRequestError, 400, "unsupported_parameter", "url",
     lambda c: c.images.generate(prompt="x", extra_body={"url": "http://127.0.0.1/"})),
    (openai.BadRequestError, 400, "missing_required_parameter", "prompt",
     lambda c: c.images.generate(prompt=None)),
    (openai.BadRequestError, 400, "string_too_long", "prompt", lambda c: c.images.generate(prompt="x" * 32001)),
    (openai.BadRequestError, 400, "invalid_image", "image", lambda c: c.images.edit(prompt="x", image=b"<svg></svg>")),
    (openai.PermissionDeniedError, 403, "host_not_allowed", None,
     lambda c: c.models.list(extra_headers={"Host": "evil.example"})),
    (openai.PermissionDeniedError, 403, "origin_not_allowed", None,
     lambda c: c.models.list(extra_headers={"Origin": "null"})),
    (openai.NotFoundError, 404, "model_not_found", "model", lambda c: c.images.generate(prompt="x", model="none")),
    (openai.NotFoundError, 404, "file_not_found", None, lambda c: c.get("/files/none-0.png", cast_to=object)),
    (openai.NotFoundError, 404, "unsupported_endpoint", None, lambda c: c.images.create_variation(image=PICTURE)),
    (openai.APIStatusError, 405, "method_not_allowed", None, lambda c: c.get("/images/generations", cast_to=object)),
    (openai.APIStatusError, 413, "request_too_large", None,
     lambda c: c.images.generate(prompt="x", user="u" * 300000)),
    (openai.APIStatusError, 415, "unsupported_media_type", None,
     lambda c: c.post("/images/generations", cast_to=object, content=b"{}",
                      options={"headers": {"Content-Type": "text/plain"}})),
    (openai.RateLimitError, 429, "wait_exceeds_timeout", None,
     lambda c: c.images.generate(prompt="x", size="512x512", timeout=0.05)),
]


def test_errors(program):
    """Each error of a client, by the package's plain and asynchronous clients; none of them is sent again by itself."""
    with tempfile.NamedTemporaryFile("w") as keys:
        keys.write("the-key\n")
        keys.flush()
        with Server(program, "--api-key-file", keys.name, "--rate", "0", "--metrics-public") as s:
            good = client_of(s, api_key="the-key", max_retries=2)
            expect(openai.AuthenticationError, 401, "invalid_api_key", lambda: client_of(s).models.list())
            for kind, status, code, param, call in WRONG:
                before = requests_with(s, status)
                client = good if status != 429 else good.with_options(max_retries=0)
                expect(kind, status, code, lambda: call(client), param)
                assert requests_with(s, status) == before + 1, f"{code} was sent again"

            async def all_of_them():
                async with openai.AsyncOpenAI(base_url=f"{s.url}/v1", api_key="the-key", max_retries=0) as client:
                    return await asyncio.gather(*(call(client) for *_, call in WRONG), return_exceptions=True)
            for error, (kind, status, code, param, _) in zip(asyncio.run(all_of_them()), WRONG):
                assert type(error) is kind and error.status_code == status and error.code == code, (code, repr(error))
                assert param is None or error.param == param, repr(error)

            key = {"Idempotency-Key": "one"}
            good.images.generate(**MAKE, extra_headers=key)
            expect(openai.ConflictError, 409, "idempotency_mismatch",
                   lambda: good.images.generate(**{**MAKE, "prompt": "a pear"}, extra_headers=key))
            assert requests_with(s, 409) == 1, "a conflict was sent again"


class Stalling(io.BytesIO):
    """A picture whose second half takes longer than the server waits."""

    def read(self, size=-1):
        if self.tell() == len(PICTURE) // 2:
            time.sleep(1.5)
        return super().read(len(PICTURE) // 2)


def test_body_timeout(program):
    with Server(program, "--body-seconds", "1") as s:
        client = client_of(s, max_retries=1)
        error = expect(openai.APIStatusError, 408, "body_timeout",
                       lambda: client.images.edit(prompt="x", image=Stalling(PICTURE)))
        assert error.body["type"] == "timeout_error" and error.request_id, error.body
        s.wait_for("the count", lambda: requests_with(s, 408) == 2)  # the package sends such a request again
        s.wait_for("closed connections", lambda: s.metric("zimage_connections") <= 1)
        assert s.metric("zimage_upload_bytes_in_flight") == 0
        head = f"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: 127.0.0.1:{s.port}\r\nContent-Type: application/json\r\n"
        answer = s.send_raw(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert answer.startswith(b"HTTP/1.1 408 ") and b'{"error":"body_timeout","detail":"the body' in answer, answer


def test_server_errors(program):
    """What is the server's fault: 500 and 503."""
    folder = bundled_model(program)
    with tempfile.TemporaryDirectory() as root:
        def copy(name, file, change):
            shutil.copytree(folder, os.path.join(root, name))
            change_tensors(os.path.join(root, name, file), change)

        transformer, vae = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("transformer", "vae"))
        infinite = b"\x80\x7f"  # in BF16
        copy("infinite", transformer, lambda name, data: infinite * (len(data) // 2) if "final_layer" in name else data)
        copy("no-encoder", vae, lambda name, data: None if name.startswith("encoder") else data)
        copy("bad", vae, lambda name, data: None)
        copy("cut", transformer, lambda name, data: bytes([data[0] ^ 1]) + data[1:])  # equal ones would be shared
        models = [f"{root}/{name}" for name in ("infinite", "no-encoder", "bad", "cut")]
        with Server(program, "-m", folder, *(w for m in models for w in ("-m", m)), "--keep-models", "2") as s:
            client = client_of(s, max_retries=2)
            extra = {"steps": 1, "seed": 7}

            def make(model):
                return lambda: client.images.generate(prompt="x", size="64x64", model=model, extra_body=extra)
            error = expect(openai.InternalServerError, 500, "not_finite", make("infinite"))
            assert error.response.headers["x-should-retry"] == "false" and error.type == "server_error"
            assert requests_with(s, 500) == 1, "what fails again was sent again"
            make("no-encoder")()
            expect(openai.BadRequestError, 400, "unsupported_model", lambda: client.images.edit(
                prompt="x", image=PICTURE, model="no-encoder"), "model")
            before = requests_with(s, 503)  # of /health
            expect(openai.InternalServerError, 503, "model_failed", make("bad"))
            assert requests_with(s, 503) == before + 1, "what fails again was sent again"
            make("cut")()
            os.truncate(f"{root}/cut/{transformer}", 1 << 20)
            error = expect(openai.InternalServerError, 500, "internal_error", make("cut"))
            assert root not in error.message, "the message names a folder of the server"
            make("emoji")()


def test_retries(program):
    """Refusals of a busy server say when to try again, and the package does so."""
    body = {"prompt": "x", "size": "128x128", "steps": 4, "n": 5}
    with Server(program, "--max-queue", "1", "--max-uploads", "1M") as s:
        jobs = [s.json("POST", "/zimage/v1/jobs", body, 202)["id"]]
        s.wait_for("a running job", lambda: s.json("GET", "/slots")[0]["state"] == "running")
        jobs += [s.json("POST", "/zimage/v1/jobs", body, 202)["id"]]
        error = expect(openai.RateLimitError, 429, "queue_full", lambda: client_of(s).images.generate(**MAKE))
        assert 1 <= int(error.response.headers["retry-after"]) <= 120
        s.json("DELETE", f"/zimage/v1/jobs/{jobs[1]}")
        jobs += [s.json("POST", "/zimage/v1/jobs", {**body, "n": 1}, 202)["id"]]
        s.json("DELETE", f"/zimage/v1/jobs/{jobs[0]}")
        assert client_of(s, max_retries=9).images.generate(**MAKE).data
        large = PICTURE + bytes(1 << 20)
        error = expect(openai.InternalServerError, 503, "insufficient_memory",
                       lambda: client_of(s).images.edit(prompt="x", image=large))
        assert error.response.headers["retry-after"] == "1"
    with Server(program, "--rate", "2", "--burst", "2") as s:
        client = client_of(s)
        expect(openai.RateLimitError, 429, "rate_limit_exceeded", lambda: [client.models.list() for _ in range(20)])
        assert client_of(s, max_retries=2).models.list()
    for _ in range(9):  # the model is open soon
        with Server(program, "--max-wait", "0", is_waiting=False) as s:
            refusal = s.post("/v1/images/generations", SMALL)
            assert client_of(s, max_retries=2).images.generate(**MAKE).data
        if refusal.status == 503:
            break
    assert b'"model_loading"' in refusal.body and refusal.getheader("Retry-After") == "1", refusal.body
    with Server(program, "--drain", "60") as s:
        s.json("POST", "/zimage/v1/jobs", body, 202)
        s.wait_for("a running job", lambda: s.json("GET", "/slots")[0]["state"] == "running")
        s.terminate()
        s.wait_for("the refusal", lambda: s.get("/health").status == 503)
        error = expect(openai.InternalServerError, 503, "shutting_down",
                       lambda: client_of(s).images.generate(**MAKE))
        assert error.response.headers["retry-after"] == "60"


def test_metrics(program):
    """Prometheus' own parser reads them."""
    with Server(program) as s:
        client_of(s).images.generate(**MAKE)
        text = s.get("/metrics").body.decode()
        samples = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
        assert samples["zimage_steps_total"].value == 2 and samples["zimage_stage_seconds_count"].value >= 0
        families = [family.name for family in text_string_to_metric_families(text)]
        assert len(families) == len(set(families)) >= 15


def test_async(program):
    with Server(program) as s:
        async def make():
            async with openai.AsyncOpenAI(base_url=f"{s.url}/v1", api_key="none", max_retries=2) as client:
                answers = await asyncio.gather(*(client.images.generate(**MAKE) for _ in range(4)))
                stream = await client.images.generate(**MAKE, stream=True, partial_images=1)
                seen = [event async for event in stream]
                edited = await client.images.edit(prompt="x", image=PICTURE, extra_body=EXTRA)
                assert edited.data and [m.id async for m in client.models.list()] == ["emoji"]
                return {a.data[0].b64_json for a in answers} | {seen[-1].b64_json}
        assert len(asyncio.run(make())) == 1
        client = client_of(s, max_retries=2, timeout=0.2)
        try:  # the server says at once that it takes longer; the client's retries get the same
            client.images.generate(prompt="x", size="512x512", extra_body={"steps": 32})
            raise AssertionError("no error")
        except (openai.RateLimitError, openai.APITimeoutError):
            pass
        s.wait_until_idle()
        assert png_pixels(base64.b64decode(client_of(s).images.generate(**MAKE).data[0].b64_json))


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
