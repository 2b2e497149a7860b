"""tokenizer-qwen3-vocabulary.safetensors: the complete published Qwen3 tokenizer.json in an eighth of its size.

    python make_vocabulary.py --tokenizer DIR --out FILE

Three facts about the published file make this possible; the script checks each. The ids are 0, 1, 2, ... . Every
character of a token stands for one byte. Merge i makes the token 256 + i. So it is enough to store the bytes of each
token, and the length of each merge's left part. The script needs only Python.
"""

import argparse
import json
import os


def byte_alphabet():
    """The byte of each character: the inverse of GPT-2's bytes_to_unicode."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


def pack(tokenizer):
    byte_of = byte_alphabet()
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    names = sorted(vocabulary, key=vocabulary.get)
    assert [vocabulary[name] for name in names] == list(range(len(names)))
    assert len(merges) == len(names) - 256
    assert all(left + right == names[256 + i] for i, (left, right) in enumerate(merges))
    rest = {**tokenizer, "model": {**tokenizer["model"], "vocab": {}, "merges": []}}
    return {
        "merges.left": bytes(len(left) for left, _ in merges),
        "tokenizer": json.dumps(rest, ensure_ascii=False, separators=(",", ":")).encode(),
        "vocabulary.lengths": bytes(len(name) for name in names),
        "vocabulary.tokens": bytes(byte_of[c] for name in names for c in name),
    }


def unpack(tensors):
    """Rebuilds the file's content, as the test does."""
    character_of = {b: c for c, b in byte_alphabet().items()}
    tokenizer, names, at = json.loads(tensors["tokenizer"]), [], 0
    for length in tensors["vocabulary.lengths"]:
        names.append("".join(character_of[b] for b in tensors["vocabulary.tokens"][at : at + length]))
        at += length
    tokenizer["model"]["vocab"] = {name: i for i, name in enumerate(names)}
    tokenizer["model"]["merges"] = [[n[:left], n[left:]] for n, left in zip(names[256:], tensors["merges.left"])]
    return tokenizer


def make(folder, out):
    with open(f"{folder}/tokenizer.json", encoding="utf-8") as f:
        tokenizer = json.load(f)
    tensors = pack(tokenizer)
    assert unpack(tensors) == tokenizer
    header, at = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(out, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(tensors.values()))
    print(f"{out}: {len(tensors)} tensors, {os.path.getsize(out):,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder with the published tokenizer.json")
    parser.add_argument("--out", required=True)
    a = parser.parse_args()
    make(a.tokenizer, a.out)
