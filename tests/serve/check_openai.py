"""Tests of zimage serve by OpenAI's own package: check_openai.py PROGRAM [TEST...]"""
import asyncio
import base64
import io
import os
import sys
import tempfile
import zlib

import openai
from prometheus_client.parser import text_string_to_metric_families

from harness import SMALL, Server, png, png_of, png_pixels, run_tests

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


def test_errors(program):
    with tempfile.NamedTemporaryFile("w") as keys:
        keys.write("the-key\n")
        keys.flush()
        with Server(program, "--api-key-file", keys.name, "--max-wait", "0.001") as s:
            good = client_of(s, api_key="the-key")

            def expect(kind, code, call, param=None):
                try:
                    call()
                except kind as error:
                    assert error.code == code, (code, error)
                    assert param is None or error.param == param, error
                else:
                    raise AssertionError(f"accepted, expected {code}")

            expect(openai.AuthenticationError, "invalid_api_key", lambda: client_of(s).models.list())
            expect(openai.BadRequestError, "invalid_value", lambda: good.images.generate(prompt="x", size="65x65"),
                   "size")
            expect(openai.BadRequestError, "unknown_parameter",
                   lambda: good.images.generate(prompt="x", extra_body={"sed": 1}), "sed")
            expect(openai.NotFoundError, "model_not_found", lambda: good.images.generate(prompt="x", model="none"),
                   "model")
            expect(openai.NotFoundError, "unsupported_endpoint", lambda: good.images.create_variation(image=PICTURE))
            expect(openai.PermissionDeniedError, "host_not_allowed",
                   lambda: good.models.list(extra_headers={"Host": "evil.example"}))
            expect(openai.APIStatusError, "request_too_large",
                   lambda: good.images.generate(prompt="x", user="u" * 300000))
            expect(openai.RateLimitError, "wait_exceeds_timeout",
                   lambda: good.images.generate(prompt="x", size="512x512", timeout=0.05))


def test_metrics(program):
    """Prometheus' own parser reads them."""
    with Server(program) as s:
        client_of(s).images.generate(**MAKE)
        text = s.get("/metrics").body.decode()
        samples = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
        assert samples["zimage_steps_total"].value == 2 and samples["zimage_stage_seconds_count"].value >= 0
        families = [family.name for family in text_string_to_metric_families(text)]
        assert len(families) == len(set(families)) >= 15


def test_retries_and_async(program):
    with Server(program) as s:
        async def make():
            async with openai.AsyncOpenAI(base_url=f"{s.url}/v1", api_key="none", max_retries=2) as client:
                answers = await asyncio.gather(*(client.images.generate(**MAKE) for _ in range(4)))
                return {a.data[0].b64_json for a in answers}
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
