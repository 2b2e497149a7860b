"""tests/golden/tokenizers: small tokenizer folders as transformers 4 and 5 save them, and the reference's ids.

    python4 make_tokenizer_folders.py save4 --tiny ../../tests/golden/tiny/tokenizer --out ../../tests/golden/tokenizers
    python5 make_tokenizer_folders.py save5 --out ../../tests/golden/tokenizers
    python5 make_tokenizer_folders.py ids --out ../../tests/golden/tokenizers
    python4 make_tokenizer_folders.py check --out ../../tests/golden/tokenizers

python4 has transformers 4.57 (4.57.6 made these files), python5 what requirements.txt pins. Neither needs torch.

`old` is saved by the Python class of transformers 4: vocab.json and merges.txt, no tokenizer.json. `fast` is saved by the
other class of transformers 4, `new` by transformers 5. The other folders hold a few files that are laid over a copy of
their base (VARIANTS). `ids` writes ids.safetensors; `check` compares transformers 4 with it.
"""

import argparse
import json
import os
import random
import shutil
import tempfile

import numpy as np
from chat_template import CHAT_TEMPLATE
from safetensors.numpy import load_file, save_file

MERGES = 120
LIMIT = 512  # max_sequence_length of the pipeline
CHAT_SYSTEM = (
    "{% set ns = namespace(first=true) %}\n"
    "{% for m in messages[::-1] if m['role'] == 'user' and not m.content.startswith('<no>') %}\n"
    "  {% if ns.first %}\n"
    "<|im_start|>system\nYou paint.<|im_end|>\n"
    "  {% set ns.first = false %}\n"
    "  {% endif %}\n"
    "{{ '<|im_start|>' ~ m.role }}: {{ m.content | trim }}{{ eos_token }}{{ bos_token }}\n"
    "{% else %}\n"
    "nothing {{ messages | length }}\n"
    "{% endfor %}\n"
    "{%- if add_generation_prompt and enable_thinking %} <think>{% endif %}"
)


def plain(content, special=False):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}


def edit(base, change):
    def files(out):
        with open(f"{out}/{base}/tokenizer_config.json", encoding="utf-8") as f:
            config = json.load(f)
        change(config)
        return {"tokenizer_config.json": json.dumps(config, indent=1, ensure_ascii=False) + "\n"}

    return files


def more_tokens(config):  # only here, not in tokenizer.json
    first = 256 + MERGES
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<new>", "<|only here|>"]
    config["added_tokens_decoder"] = {str(first + i): plain(n, n.startswith("<|")) for i, n in enumerate(names)}


def more_special(config):  # "the" is in the vocabulary, "<|x|>" nowhere
    del config["extra_special_tokens"]
    config["additional_special_tokens"] = ["<|im_start|>", "<|x|>", "the"]


def legacy(config):  # what transformers of 2023 wrote: the tokens in files of their own
    for key in ("added_tokens_decoder", "eos_token", "pad_token", "unk_token", "additional_special_tokens", "extra_special_tokens"):
        config.pop(key, None)


VARIANTS = {  # name: (base, files to lay over it, files to remove)
    "config-tokens": ("new", edit("new", more_tokens), []),
    "additional": ("old", edit("old", more_special), []),
    "legacy": ("old", edit("old", legacy), []),
    "split-special": ("new", edit("new", lambda c: c.update(split_special_tokens=True)), []),
    "left": ("new", edit("new", lambda c: c.update(truncation_side="left", padding_side="left", model_max_length=16)), []),
    "ignored": ("fast", edit("fast", lambda c: c.update(add_bos_token=True, add_eos_token=True, bos_token="<|im_start|>",
                clean_up_tokenization_spaces=True, errors="strict", model_max_length=7)), []),  # fmt: skip
    "template": ("new", lambda out: {"chat_template.jinja": CHAT_SYSTEM}, []),
    "no-config": ("new", lambda out: {}, ["tokenizer_config.json"]),
}
FOLDERS = ["old", "new", "fast", *VARIANTS]


def assemble(out, name, to):
    """The complete folder in `to`, as the test makes it."""
    base, _, removed = VARIANTS.get(name, (name, None, []))
    shutil.copytree(f"{out}/{base}", to, dirs_exist_ok=True)
    if base != name and os.path.isdir(f"{out}/{name}"):
        shutil.copytree(f"{out}/{name}", to, dirs_exist_ok=True)
    for file in removed:
        os.remove(f"{to}/{file}")


def save4(tiny, out):
    from transformers import AddedToken, Qwen2Tokenizer, Qwen2TokenizerFast

    with open(f"{tiny}/tokenizer.json", encoding="utf-8") as f:
        model = json.load(f)["model"]
    vocab = {name: i for name, i in model["vocab"].items() if i < 256 + MERGES}
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/vocab.json", "w", encoding="utf-8") as f:
            json.dump(vocab, f)
        with open(f"{folder}/merges.txt", "w", encoding="utf-8") as f:
            f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"][:MERGES]))
        for name, kind in (("old", Qwen2Tokenizer), ("fast", Qwen2TokenizerFast)):
            tokenizer = kind(f"{folder}/vocab.json", f"{folder}/merges.txt", unk_token=None, eos_token="<|im_end|>",
                             pad_token="<|endoftext|>", additional_special_tokens=["<|im_start|>"], chat_template=CHAT_TEMPLATE,
                             added_tokens_decoder={256 + MERGES + i: AddedToken(t, special=True, normalized=False)
                                                   for i, t in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])})  # fmt: skip
            tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in ("<think>", "</think>")])
            tokenizer.save_pretrained(f"{out}/{name}")


def save5(out):
    from transformers import Qwen2Tokenizer

    Qwen2Tokenizer.from_pretrained(f"{out}/old").save_pretrained(f"{out}/new")
    for name, (_, files, _) in VARIANTS.items():
        for file, text in files(out).items():
            os.makedirs(f"{out}/{name}", exist_ok=True)
            with open(f"{out}/{name}/{file}", "w", encoding="utf-8") as f:
                f.write(text)


def texts():
    r = random.Random(20261128)
    parts = ["a", "the", " the", "red apple", "Don't", "IT'S", "x1", " 3.14", "你好", "ねこ", "é", "e\u0301", "\u1112\u1161\u11ab", "Å",
             "q\u0307\u0323", "🐱", "—", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "<think>", "</think>", "<|im_start|>",
             "<|im_end|>", "<|endoftext|>", "<new>", "<|only here|>", "<|x|>", "<|im_", "|>", "<", "{{ x }}", "\\n", "\u2028"]  # fmt: skip
    out = ["", *parts]
    while len(out) < 240:
        out.append("".join(r.choice(parts) for _ in range(r.randint(2, 6))))
    return list(dict.fromkeys(out))


def prompts():
    return ["", " ", "a red apple", "\n\nthe apple\n", "<no>apple", "  <no> ", "<think>", "你好 🐱", "the " * 600 + "end", "<|im_end|>" * 520]


def ids_of(kind, folder):
    tokenizer = kind.from_pretrained(folder)
    plain_ids = [tokenizer(t).input_ids for t in texts()]
    chat_ids = []
    for prompt in prompts() if getattr(tokenizer, "chat_template", None) else []:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        chat_ids.append(tokenizer(text, max_length=LIMIT, truncation=True).input_ids)
    return plain_ids, chat_ids


END = 0xFFFF  # stands after each text's ids; zero bytes stand between texts


def packed_ids(lists):
    return np.array([i for ids in lists for i in [*ids, END]], np.uint16)


def unpacked_ids(array):
    out, last = [], 0
    for end in np.flatnonzero(array == END):
        out.append(array[last:end].tolist())
        last = end + 1
    return out


def packed_texts(items):
    return np.frombuffer("".join(f"{i}\0" for i in items).encode(), np.uint8)


def ids(out):
    from transformers import Qwen2Tokenizer

    tensors = {"text": packed_texts(texts()), "prompt": packed_texts(prompts())}
    for name in FOLDERS:
        with tempfile.TemporaryDirectory() as folder:
            assemble(out, name, folder)
            plain_ids, chat_ids = ids_of(Qwen2Tokenizer, folder)
        tensors |= {f"{name}.ids": packed_ids(plain_ids), f"{name}.chat.ids": packed_ids(chat_ids)}
    save_file(tensors, f"{out}/ids.safetensors")
    os.chmod(f"{out}/ids.safetensors", 0o644)


def check(out):
    from transformers import Qwen2Tokenizer, Qwen2TokenizerFast

    tensors = load_file(f"{out}/ids.safetensors")
    for name in FOLDERS:
        with tempfile.TemporaryDirectory() as folder:
            assemble(out, name, folder)
            for kind in (Qwen2Tokenizer, Qwen2TokenizerFast):
                if kind is Qwen2Tokenizer and not os.path.exists(f"{folder}/vocab.json"):
                    continue
                found = ids_of(kind, folder)
                other = [sum(a != b for a, b in zip(f, unpacked_ids(tensors[f"{name}.{k}"]), strict=True))
                         for f, k in zip(found, ("ids", "chat.ids"))]  # fmt: skip
                print(f"{name}, {kind.__name__}: {other[0]} texts and {other[1]} prompts with other ids")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["save4", "save5", "ids", "check"])
    parser.add_argument("--tiny", help="save4: the tokenizer folder of the tiny model")
    parser.add_argument("--out", required=True)
    a = parser.parse_args()
    save4(a.tiny, a.out) if a.step == "save4" else {"save5": save5, "ids": ids, "check": check}[a.step](a.out)
