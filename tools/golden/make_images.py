"""images.safetensors: small image files written by Pillow, and what Pillow reads from them."""

import argparse
import io
import struct

from common import np, save
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

WIDTH, HEIGHT = 19, 13


def picture(name, channels=3):
    """A slope with noise and some edges."""
    random = np.random.Generator(np.random.Philox(sum(name.encode())))
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:channels]
    pixels = 40 + 9 * x + 3 * y * (c - 1) + random.normal(0, 6, x.shape) + np.where((x > 7) & (y > 5), 60, 0)
    return pixels.clip(0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation, big=False):
    order, mark = (">", b"MM\0*") if big else ("<", b"II*\0")
    entries = [(0x0112, 3, 1, orientation)] if big else [(0x0100, 4, 1, WIDTH), (0x0112, 3, 1, orientation)]
    data = mark + struct.pack(order + "IH", 8, len(entries))
    for tag, kind, count, value in entries:
        # A short stands at the begin of the four bytes of its value.
        data += struct.pack(order + "HHI", tag, kind, count)
        data += struct.pack(order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value]))
    return b"Exif\0\0" + data + bytes(4)


def files():
    rgb, rgba, grey = Image.fromarray(picture("rgb")), Image.fromarray(picture("rgba", 4)), picture("grey", 1)[:, :, 0]
    grey = Image.fromarray(grey)
    cmyk = Image.frombytes("CMYK", (WIDTH, HEIGHT), picture("cmyk", 4).tobytes())
    palette = rgb.quantize(8)
    clear = rgb.quantize(8)
    clear.info["transparency"] = bytes([0, 255, 90, 200, 255, 255, 17, 255])
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    srgb = srgb[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + srgb[36:]  # the date of its creation
    other = srgb.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
    assert other != srgb

    yield "png.rgb", encoded(rgb, "PNG")
    yield "png.rgba", encoded(rgba, "PNG")
    yield "png.grey", encoded(grey, "PNG")
    yield "png.grey_alpha", encoded(rgba.convert("LA"), "PNG")
    yield "png.palette", encoded(palette, "PNG")
    yield "png.palette_alpha", encoded(clear, "PNG", transparency=clear.info["transparency"])
    yield "png.bits", encoded(grey.convert("1"), "PNG")
    yield "png.one_clear", encoded(rgb, "PNG", transparency=tuple(int(v) for v in picture("rgb")[3, 4]))
    yield "png.srgb", encoded(rgb, "PNG", icc_profile=srgb)
    yield "png.profile", encoded(rgb, "PNG", icc_profile=other)
    yield "png.turned", encoded(rgb, "PNG", exif=exif(6)[6:])
    yield "png.dot", encoded(rgb.crop((0, 0, 1, 1)), "PNG")

    yield "jpeg.420", encoded(rgb, "JPEG", quality=90, subsampling="4:2:0")
    yield "jpeg.422", encoded(rgb, "JPEG", quality=90, subsampling="4:2:2")
    yield "jpeg.444", encoded(rgb, "JPEG", quality=90, subsampling="4:4:4")
    yield "jpeg.progressive", encoded(rgb, "JPEG", quality=90, progressive=True)
    yield "jpeg.rgb", encoded(rgb, "JPEG", quality=90, keep_rgb=True)
    yield "jpeg.grey", encoded(grey, "JPEG", quality=90)
    yield "jpeg.grey_progressive", encoded(grey, "JPEG", quality=90, progressive=True)
    yield "jpeg.restarts", encoded(rgb, "JPEG", quality=90, restart_marker_blocks=1)
    inks = encoded(cmyk, "JPEG", quality=90)
    mark = inks.index(b"Adobe")
    assert inks[mark + 11] == 0
    yield "jpeg.cmyk", inks
    yield "jpeg.ycck", inks[: mark + 11] + b"\2" + inks[mark + 12 :]  # the same numbers, read as luma, chroma and black
    yield "jpeg.cmyk_without_adobe", inks[: mark - 4] + inks[mark + 12 :]
    yield "jpeg.cmyk_progressive", encoded(cmyk, "JPEG", quality=90, progressive=True)
    yield "jpeg.srgb", encoded(rgb, "JPEG", quality=90, icc_profile=srgb)
    yield "jpeg.profile", encoded(rgb, "JPEG", quality=90, icc_profile=other)
    yield "jpeg.dot", encoded(rgb.crop((0, 0, 1, 1)), "JPEG", quality=90)
    for orientation in range(1, 9):
        yield f"jpeg.turned{orientation}", encoded(grey, "JPEG", quality=90, exif=exif(orientation, orientation % 2))
    yield "jpeg.turned9", encoded(grey, "JPEG", quality=90, exif=exif(9))

    yield "webp.lossless", encoded(rgb, "WEBP", lossless=True)
    yield "webp.lossless_alpha", encoded(rgba, "WEBP", lossless=True, exact=True)
    yield "webp.lossy", encoded(rgb, "WEBP", quality=80)
    yield "webp.lossy_alpha", encoded(rgba, "WEBP", quality=80)
    yield "webp.srgb", encoded(rgb, "WEBP", lossless=True, icc_profile=srgb)
    yield "webp.profile", encoded(rgb, "WEBP", lossless=True, icc_profile=other)
    yield "webp.turned", encoded(rgb, "WEBP", lossless=True, exif=exif(8))
    yield "webp.dot", encoded(rgb.crop((0, 0, 1, 1)), "WEBP", lossless=True)


def texts():
    """A PNG with texts of all kinds, which Pillow writes before and behind the pixels."""
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "a red apple")
    info.add_text("Latin", "caf\xe9 \xfc")
    info.add_text("packed", "left out", zip=True)
    info.add_itxt("Chinese", "\u82f9\u679c", "zh", "\u952e")
    info.add_itxt("packed too", "left out", zip=True)
    return encoded(Image.new("RGB", (2, 2)), "PNG", pnginfo=info)


def make(out):
    tensors = {}
    for name, data in files():
        assert len(data) < 4096, (name, len(data))
        with Image.open(io.BytesIO(data)) as image:
            image = ImageOps.exif_transpose(image)
            has_alpha = image.mode in ("RGBA", "LA") or "transparency" in image.info
            tensors[f"{name}.file"] = np.frombuffer(data, np.uint8)
            tensors[f"{name}.pixels"] = np.array(image.convert("RGBA" if has_alpha else "RGB"))
    moving = [Image.fromarray(picture(name)) for name in ("a", "b")]
    tensors["animated.file"] = np.frombuffer(
        encoded(moving[0], "WEBP", save_all=True, append_images=moving[1:], duration=100), np.uint8
    )
    tensors["texts.file"] = np.frombuffer(texts(), np.uint8)
    save(f"{out}/images.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
