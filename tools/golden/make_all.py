"""Makes every fixture of tests/golden:

    python tools/golden/make_all.py --out tests/golden --qwen3-tokenizer DIR --labels EMOJI_LABELS_DIR

Without --labels the tokenizer fixtures use the strings of the present tokenizer-qwen3.safetensors. Two runs on one kind
of machine give the same bytes.
"""

import argparse
import os

import common  # noqa: F401  (quiet libraries and one thread, before they load)
import check_spec
import make_flux2
import make_images
import make_img2img
import make_klein
import make_mlx
import make_noise
import make_pipeline
import make_resize
import make_scheduler
import make_text_encoder
import make_tiny
import make_tokenizer
import make_transformer
import make_vae
import make_vocabulary

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="tests/golden")
parser.add_argument("--qwen3-tokenizer", help="folder with the published tokenizer.json and tokenizer_config.json")
parser.add_argument("--labels", help="emojibase folder: en/data.json, zh/data.json, ...")
parser.add_argument("--count", type=int, default=21000)
parser.add_argument(
    "--only",
    nargs="*",
    help="tiny transformer flux2 klein text_encoder vae scheduler noise pipeline img2img resize images mlx tokenizer "
    "formula",
)
a = parser.parse_args()

out = a.out
os.makedirs(out, exist_ok=True)


def tokenizers():
    qwen3, tiny = f"{out}/tokenizer-qwen3.safetensors", f"{out}/tokenizer-tiny.safetensors"
    if a.qwen3_tokenizer and a.labels:
        make_tokenizer.make(a.qwen3_tokenizer, qwen3, a.count, label_folder=a.labels)
    elif a.qwen3_tokenizer:
        make_tokenizer.make(a.qwen3_tokenizer, qwen3, a.count, strings_from=qwen3)
    else:
        print("no --qwen3-tokenizer: tokenizer-qwen3*.safetensors stay as they are")
    if a.qwen3_tokenizer:
        make_vocabulary.make(a.qwen3_tokenizer, f"{out}/tokenizer-qwen3-vocabulary.safetensors")
    make_tokenizer.make(f"{out}/tiny/tokenizer", tiny, 3000, strings_from=qwen3, tables=False)


steps = {
    "tiny": lambda: make_tiny.make_all(out),
    "transformer": lambda: make_transformer.make(out),
    "flux2": lambda: make_flux2.make(out),
    "klein": lambda: make_klein.make(out),
    "text_encoder": lambda: make_text_encoder.make(out),
    "vae": lambda: make_vae.make_all(out),
    "scheduler": lambda: make_scheduler.make(out),
    "noise": lambda: make_noise.make(out),
    "pipeline": lambda: make_pipeline.make(out),
    "img2img": lambda: make_img2img.make(out),
    "resize": lambda: make_resize.make(out),
    "images": lambda: make_images.make(out),
    "mlx": lambda: make_mlx.make(out),
    "formula": lambda: check_spec.make(out),
    "tokenizer": tokenizers,
}
for name, step in steps.items():
    if not a.only or name in a.only:
        step()
