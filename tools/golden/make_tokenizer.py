"""tokenizer-*.safetensors: many strings and their ids by the `tokenizers` package; templated prompts by transformers.

    python make_tokenizer.py --tokenizer DIR --out FILE --count 21500 --labels EMOJI_LABELS_DIR
    python make_tokenizer.py --tokenizer OTHER_DIR --out FILE --count 3000 --strings FILE_MADE_BEFORE
"""

import argparse
import json
import random

from common import np, save, torch

import regex
import unicodedata2
from safetensors.numpy import load_file
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import AutoTokenizer

LANGUAGES = ("en", "zh", "ja", "de", "fr", "es")
ALL = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
NOT_SPACES = "\u180e\u200b\u200c\u200d\u2060\ufeff\x1c\x1d\x1e\x1f\x00"
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>",
         "<tool_response>", "</tool_response>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|fim_prefix|>",
         "<|repo_name|>", "<|file_sep|>", "<|quad_end|>", "<|box_start|>", "<|object_ref_start|>"]  # fmt: skip
WORDS = ["apple", "red", "cat", "Don't", "naïve", "café", "Straße", "你好", "世界", "ねこ", "東京", "고양이", "кошка", "مرحبا",
         "नमस्ते", "สวัสดี", "x1", "3.14", "1024px", "—", "“q”", "…", "🐱", "🚀", "C++", "a_b", "http://x.y/z?q=1", "É", "ñ"]  # fmt: skip


# ---------------------------------------------------------------- the Unicode versions of the reference
def ranges(values):
    out = []
    for c in sorted(values):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return torch.tensor(out, dtype=torch.int32).reshape(-1, 2)


def code_points_matching(pattern):
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    out = set()
    for i in range(0, len(ALL), 20000):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, ALL[i : i + 20000]))):
            out.update(map(ord, piece))
    return out


def nfc_inert():
    """Code points that today's Unicode reorders or composes, but that the reference's NFC leaves as they are."""
    nfc = normalizers.NFC().normalize_str
    inert, known, composites = set(), set(), []
    for c in ALL:
        s, k = chr(c), unicodedata2.combining(chr(c))
        decomposition = unicodedata2.decomposition(s)
        canonical = [int(x, 16) for x in decomposition.split()] if decomposition and decomposition[0] != "<" else []
        if k and not canonical:
            letter, above, overlay = "\u0915", "\u0301", "\u0334"
            moved = nfc(letter + s + overlay) != letter + s + overlay if k > 1 else nfc(letter + above + s) != letter + above + s
            if not moved:
                inert.add(c)
        if canonical:
            want = unicodedata2.normalize("NFC", s)
            if nfc(unicodedata2.normalize("NFD", s)) == want and nfc(s) == want:
                known.update(canonical)
            else:
                composites.append([c, *canonical])
    for c, *parts in composites:
        inert.add(c)
        inert.update(p for p in parts if p not in known)
    return inert


# ---------------------------------------------------------------- strings
def labels(folder, r):
    pools, emoji = [], []
    for language in LANGUAGES:
        with open(f"{folder}/{language}/data.json", encoding="utf-8") as f:
            data = json.load(f)
        pool = []
        for entry in data:
            pool.append(entry["label"])
            pool += entry.get("tags", [])
            emoji += [entry["emoji"]] + [s["emoji"] for s in entry.get("skins", [])]
        pools.append(sorted(set(pool)))
    names = [r.choice(pool) for pool in pools for _ in range(1100)]
    for _ in range(700):
        a, b = r.choice(r.choice(pools)), r.choice(r.choice(pools))
        names.append(r.choice(["{} and {}", "{}, {}", "{} {}", "a {} on a {} background", "{}（{}）", "{}和{}", "{}/{}"]).format(a, b))
    return names, sorted(set(emoji))


def code(r):
    name = lambda: r.choice(["i", "foo_bar", "camelCase", "X1", "__init__", "größe", "变量", "a.b.c", "ptr->next"])
    value = lambda: r.choice(["0x1F", "3.14e-10", "'str'", '"a\\n"', "NULL", "None", "1_000", "{}", "[]", "-1", "true", "42u"])
    indent = r.choice(["", "  ", "    ", "\t", "\t\t"])
    line = r.choice([
        "{i}for ({n} = {v}; {n} < {v}; ++{n}) {{", "{i}if ({n} != {v} && !{n})", "{i}return {n} + {v};", "#include <{n}.h>",
        "{i}def {n}(self, {n}={v}):", "{i}{n}[{v}] = {v}  # {n}", "{i}// {n}: {v}", "SELECT * FROM {n} WHERE {n}='{v}';",
        "{i}let {n} = ({n}) => {{ {v} }};", "<div class=\"{n}\">{v}</div>", "$ {n} --{n}={v} | grep -v '{v}'", "{i}{n}::{n}<{n}>({v})",
        "{i}/* {v} */", "{i}{n} := {v}", "\\frac{{{n}}}{{{v}}} \\cdot {n}^{v}", "{{\"{n}\": {v}}},", "{i}@{n}", "{i}}} else {{",
    ])  # fmt: skip
    text = line
    while "{n}" in text or "{v}" in text:
        text = text.replace("{n}", name(), 1).replace("{v}", value(), 1)
    text = text.replace("{i}", indent).replace("{{", "{").replace("}}", "}")
    return text + r.choice(["", "", "\n", "\r\n", "\n\n" + indent, "  \n"])


def emoji_sequence(r, emoji):
    parts = []
    for _ in range(r.randint(1, 4)):
        kind = r.random()
        if kind < 0.6:
            parts.append(r.choice(emoji))
        elif kind < 0.7:
            parts.append("".join(chr(0x1F1E6 + r.randrange(26)) for _ in range(r.randint(1, 4))))
        elif kind < 0.8:
            parts.append("\u200d".join(r.choice(emoji) for _ in range(2)))
        elif kind < 0.9:
            parts.append(r.choice(emoji) + r.choice(["\ufe0f", "\ufe0e", "\u20e3", "\U0001f3fb", "\U0001f3ff"]))
        else:
            parts.append(r.choice("0123456789#*") + "\ufe0f\u20e3")
        parts.append(r.choice(["", "", " ", "  ", "a", "!", "\n", "1"]))
    return r.choice(["", "a ", " "]) + "".join(parts)


def spacing(r):
    out = []
    for _ in range(r.randint(1, 5)):
        out.append("".join(r.choice(SPACES if r.random() < 0.35 else " \t\r\n " if r.random() < 0.9 else NOT_SPACES[:-1])
                           for _ in range(r.choice([0, 1, 1, 2, 2, 3, 5]))))  # fmt: skip
        out.append(r.choice(WORDS + ["", "", "!", "'s", ".", "1"]))
    return "".join(out)


def contraction(r):
    head = r.choice(["", "I", "don", "it", " he", "THEY", "é", "1", "你", "!", "\n", " ", "''", "x’"])
    mark = r.choice(["'"] * 8 + ["’", "''", "' ", "'\u200d", "ʼ"])
    tail = r.choice(["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Re", "rE", "VE", "vE", "M", "LL", "lL", "D",
                     "\u017f", "\u017fa", "\u017f\u017f", "\u212a", "\u212as", "r", "v", "l", "ß", "\ufb06", "\u0149", "st", "dd",
                     "lll", "ree", "R\u00c9", "\u0130", "\u0131", "K"])  # fmt: skip
    return head + mark + tail + r.choice(["", "", "a", " b", "'s", "1", "!", "\u0301", "\n"])


def special(r):
    out = []
    for _ in range(r.randint(1, 3)):
        token = r.choice(ADDED[:5] * 3 + ADDED)
        kind = r.random()
        if kind < 0.2:  # nearly
            i = r.randrange(len(token))
            token = token[:i] + r.choice(["", " ", "x", "<", "|", "\u0338"]) + token[i + r.randint(0, 1) :]
        elif kind < 0.25:
            token = token.upper()
        out += [r.choice(["", "", " ", "a", "e", "\n", "<", "<|", "你", "'"]), token,
                r.choice(["", "", " ", "b", "\n", ">", "|>", "\u0301", "\u0338", "s"])]  # fmt: skip
    return "".join(out)


def nfc_text(r):
    base = lambda: r.choice([*"aeiouAEIOUcnysSTzK<>=", "\u1100", "\u1112", "\uac00", "\uac01", "\u0915", "\u09c7", "\u0b47", "\u0dd9",
                             "\u1025", "\u3046", "\u304b", "\u30cf", "\u2126", "\u212b", "\u212a", "\u1e9b", "\u0958", "\u0344", "\u0340",
                             "\u0374", "\u037e", "\u0387", "\u1f71", "\uf900", "\ufa10", "\U0002f800", "\ufb1d", "\U0001d15e", "ﬁ",
                             "\u1e69", "\u01d5", "ậ", "\u06d2", "\u0c46"])  # fmt: skip
    mark = lambda: r.choice([*"\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0323\u0327\u0328\u0304\u0307\u031b\u0338\u0345\u0334",
                             "\u1161", "\u1175", "\u11a8", "\u11c2", "\u093c", "\u09be", "\u09d7", "\u0b3e", "\u0dcf", "\u102e", "\u3099",
                             "\u309a", "\u0f71", "\u0f72", "\u05b4", "\u0653", "\u0c56", "\u20dd", "\u200d", "\ufe0f"])  # fmt: skip
    return "".join(base() + "".join(mark() for _ in range(r.choice([0, 1, 1, 2, 3]))) + r.choice(["", "", " "])
                   for _ in range(r.randint(1, 4)))  # fmt: skip


def make_strings(folder, count):
    r = random.Random(20260801)
    sample = lambda pool, n: [r.choice(pool) for _ in range(n)]
    letters = [c for c in ALL if regex.match(r"\p{L}", chr(c))]
    marks = [c for c in ALL if regex.match(r"\p{M}", chr(c))]
    numbers = [c for c in ALL if regex.match(r"\p{N}", chr(c))]
    unassigned = [c for c in ALL if regex.match(r"\p{Cn}", chr(c))]
    punctuation = [c for c in ALL if regex.match(r"[\p{P}\p{S}]", chr(c))]
    controls = [*range(1, 0x20), *range(0x7F, 0xA0), 0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), 0xFEFF, 0xFFF9, 0xFFFD, 0xFFFF]
    jamo = [*range(0x1100, 0x1200), *range(0xA960, 0xA97D), *range(0xD7B0, 0xD7FC), *range(0xAC00, 0xAC40)]
    inert = sorted(nfc_inert())
    text = lambda pool, low, high: "".join(map(chr, sample(pool, r.randint(low, high))))
    names, emoji = labels(folder, r)

    def random_text():
        kind = r.randrange(10)
        if kind == 0:
            return text(ALL, 1, 6)
        if kind == 1:
            return text([c for c in sample(ALL, 40) if c < 0x10000] or [65], 1, 7)
        if kind == 2:
            return text(letters, 1, 5)
        if kind == 3:
            return text(letters, 1, 2) + text(marks, 1, 3) + text(letters, 0, 2)
        if kind == 4:
            return text(unassigned, 1, 4) + r.choice(["", "a", " "])
        if kind == 5:
            return text(punctuation, 1, 4) + text(letters, 0, 2) + r.choice(["", " ", "\n"])
        if kind == 6:
            return r.choice(["", "a", " "]) + text(controls, 1, 3) + r.choice(["", "b", " c", "\n"])
        if kind == 7:
            return text(jamo, 2, 6)
        if kind == 8:  # characters that differ between Unicode versions
            return r.choice(["a", "\u0915", "ᄀ"]) + text(marks, 0, 2) + text(inert, 1, 2) + text(marks, 0, 2)
        pool = [c for p in (letters, marks, numbers, punctuation, controls, jamo, inert) for c in sample(p, 2)]
        return text(pool + [32, 32, 10, 39, 65], 2, 8)

    def digits():
        start = r.choice([c for c in numbers if regex.match(r"\p{Nd}", chr(c)) and unicodedata2.digit(chr(c), 1) == 0])
        out = "".join(chr(start + r.randrange(10)) for _ in range(r.randint(1, 5)))
        return r.choice(["", " ", "x", "-", "$"]) + out + r.choice(["", ".", "px", " ", chr(r.choice(numbers)), "²½", "Ⅷ①"])

    made = [""] + names
    made += [code(r) for _ in range(1700)]
    made += [emoji_sequence(r, emoji) for _ in range(1500)]
    made += [random_text() for _ in range(5200)]
    made += [nfc_text(r) for _ in range(1500)]
    made += [spacing(r) for _ in range(2200)]
    made += [contraction(r) for _ in range(1000)]
    made += [special(r) for _ in range(900)]
    made += [digits() for _ in range(800)]
    made += [r.choice(WORDS) + "\0" + r.choice(["", "\0", " ", *WORDS]) for _ in range(60)]
    made += [" ".join(sample(WORDS, r.randint(2, 5))) for _ in range(600)]
    made += [c * n for c in ("a", " ", "\n", "你", "1", "!", "\r\n", "\u0301", "🐱", "\t") for n in (2, 3, 7, 64)]
    unique = list(dict.fromkeys(made))
    r.shuffle(unique)
    while len(unique) < count:
        more = random_text()
        if more not in unique:
            unique.append(more)
    return unique[:count]


def read_strings(path, count):
    t = load_file(path)
    blob, offsets = t["text"].tobytes(), t["text_offsets"]
    strings = [blob[a:b].decode() for a, b in zip(offsets[:-1], offsets[1:])]
    short = [s for s in strings if len(s.encode()) <= 40]
    return short[:: max(1, len(short) // count)][:count]


def prompts(tokenizer):
    """40 bare prompts; some are made so that the whole template has exactly 511, 512 or 513 tokens."""
    out = ["", " ", "\n", "\r\n", "\n\nleading newlines", "trailing newlines\n\n", "  two spaces  ", "\ttab", "a red apple", "红苹果",
           "赤いりんご", "ein roter Apfel", "une pomme rouge", "una manzana roja", "🐱🚀", "A cat, 4k, f/1.8, 50mm — “bokeh”…", "don't it'S",
           "e\u0301 \u212b \u1112\u1161\u11ab", "<|im_start|>system\nyou are<|im_end|>", "a <think> b </think>", "<|endoftext|>",
           "<tool_response>x</tool_response>", "{{ x }} {% y %}", "{PROMPT}", "1234567890", "\u3000全角　空白", "line one\nline two\r\nline three",
           "\u0338 starts with a mark", "\ufeffbom", "x" * 300]  # fmt: skip
    fixed = len(template_ids(tokenizer, "", True, None))
    for total in (511, 512, 513):
        out.append(" a" * (total - fixed))
        assert len(template_ids(tokenizer, out[-1], True, None)) == total
    out.append("a photograph of a red apple on a wooden table, soft light, " * 60)
    out.append("一张红苹果放在木桌上的照片，柔和的光线。" * 40)
    out.append("🐱🚀" * 150)
    out.append("1" * 600)
    out.append(" a" * (512 - fixed) + "<|im_end|>")
    out.append(" a" * 400 + "\n\n" + "!" * 400)
    out.append("no newline then a very long word " + "ab" * 400)
    assert len(out) == 40
    return out


def template_ids(tokenizer, prompt, thinking, limit=512):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    wanted = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" + ("" if thinking else "<think>\n\n</think>\n\n")
    assert text == wanted, (text, wanted)
    return tokenizer(text, **(dict(truncation=True, max_length=limit) if limit else {})).input_ids


def packed(name, items, dtype):
    arrays = [np.frombuffer(i.encode(), np.uint8) if isinstance(i, str) else np.array(i, dtype) for i in items]
    offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
    return {name: np.concatenate(arrays).astype(dtype), f"{name}_offsets": offsets}


def make(folder, out, count, label_folder=None, strings_from=None, tables=True):
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    transformers = AutoTokenizer.from_pretrained(folder)
    strings = make_strings(label_folder, count) if label_folder else read_strings(strings_from, count)
    ids = [e.ids for e in tokenizer.encode_batch(strings)]
    assert ids == transformers(strings).input_ids
    tensors = packed("text", strings, np.uint8) | packed("ids", ids, np.int32)
    bare = prompts(transformers)
    tensors |= packed("prompt.text", bare, np.uint8)
    for name, thinking in (("z-image", True), ("klein", False)):
        tensors |= packed(f"template.{name}.ids", [template_ids(transformers, p, thinking) for p in bare], np.int32)
    if tables:
        tensors["unicode.letters"] = ranges(code_points_matching(r"\p{L}+"))
        tensors["unicode.numbers"] = ranges(code_points_matching(r"\p{N}+"))
        tensors["unicode.spaces"] = ranges(code_points_matching(r"\s+"))
        tensors["unicode.nfc_inert"] = ranges(nfc_inert())
    save(out, tensors)
    print(f"  {len(strings)} strings, {sum(len(s.encode()) for s in strings):,} bytes, {sum(map(len, ids)):,} ids")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json and tokenizer_config.json")
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=21500)
    parser.add_argument("--labels", help="emojibase folder: en/data.json, zh/data.json, ...")
    parser.add_argument("--strings", help="take the strings of an earlier output instead")
    a = parser.parse_args()
    make(a.tokenizer, a.out, a.count, a.labels, a.strings, tables=a.labels is not None)
