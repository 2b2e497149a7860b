"""Captions in six languages, and the tokenizer trained on them.

A caption says: a thing (by label, by tags, or by the emoji itself), optionally a second thing, a style, a background.
`Captioner.caption` words one at random; `Captioner.prompt` words it plainly, as the evaluation does.
"""
import json
import random
from pathlib import Path

from splits import BACKGROUNDS, COLOURS, DEFAULT_STYLES, LANGUAGES, STYLES, Splits

LANGUAGE_WEIGHTS = [18, 18, 16, 16, 16, 16]

# What training captions say, and their shares.
MIX = {
    "label": 0.42,       # a thing by its label (or the emoji itself), on white
    "tags": 0.14,        # a thing by some of its tags, on white
    "background": 0.18,  # a thing, mostly by its label, on one of its six trained colours
    "absent": 0.10,      # a thing in a style in which training has no drawing of it: see analogies.py
    "couple": 0.16,      # two things side by side, on white or on a colour that both are trained on
}

# {c}: colour word; {d}: its German dative.
COLOUR_WORDS = {
    "en": {"white": ["white"], "red": ["red"], "orange": ["orange"], "yellow": ["yellow"], "green": ["green"],
           "turquoise": ["turquoise", "teal", "cyan"], "blue": ["blue"], "light blue": ["light blue", "sky blue"],
           "purple": ["purple", "violet"], "pink": ["pink"], "brown": ["brown"], "gray": ["gray", "grey"],
           "black": ["black"]},
    "zh": {"white": ["白色", "白"], "red": ["红色", "红"], "orange": ["橙色", "橘色"], "yellow": ["黄色", "黄"],
           "green": ["绿色", "绿"], "turquoise": ["青色", "青绿色"], "blue": ["蓝色", "蓝"],
           "light blue": ["浅蓝色", "淡蓝色", "天蓝色"], "purple": ["紫色", "紫"], "pink": ["粉色", "粉红色"],
           "brown": ["棕色", "褐色"], "gray": ["灰色", "灰"], "black": ["黑色", "黑"]},
    "ja": {"white": ["白", "白色"], "red": ["赤", "赤色"], "orange": ["オレンジ", "オレンジ色"],
           "yellow": ["黄色"], "green": ["緑", "緑色"], "turquoise": ["ターコイズ", "青緑"], "blue": ["青", "青色"],
           "light blue": ["水色"], "purple": ["紫", "紫色"], "pink": ["ピンク", "ピンク色"], "brown": ["茶色"],
           "gray": ["灰色", "グレー"], "black": ["黒", "黒色"]},
    "de": {"white": ["weiß"], "red": ["rot"], "orange": ["orange"], "yellow": ["gelb"], "green": ["grün"],
           "turquoise": ["türkis"], "blue": ["blau"], "light blue": ["hellblau"], "purple": ["lila", "violett"],
           "pink": ["rosa"], "brown": ["braun"], "gray": ["grau"], "black": ["schwarz"]},
    "fr": {"white": ["blanc"], "red": ["rouge"], "orange": ["orange"], "yellow": ["jaune"], "green": ["vert"],
           "turquoise": ["turquoise"], "blue": ["bleu"], "light blue": ["bleu clair", "bleu ciel"],
           "purple": ["violet"], "pink": ["rose"], "brown": ["marron", "brun"], "gray": ["gris"], "black": ["noir"]},
    "es": {"white": ["blanco"], "red": ["rojo"], "orange": ["naranja"], "yellow": ["amarillo"], "green": ["verde"],
           "turquoise": ["turquesa"], "blue": ["azul"], "light blue": ["azul claro", "celeste"],
           "purple": ["morado", "violeta"], "pink": ["rosa"], "brown": ["marrón"], "gray": ["gris"],
           "black": ["negro"]},
}
GERMAN_DATIVE = {"weiß": "weißem", "rot": "rotem", "orange": "orangem", "gelb": "gelbem", "grün": "grünem",
                 "türkis": "türkisem", "blau": "blauem", "hellblau": "hellblauem", "lila": "lila",
                 "violett": "violettem", "rosa": "rosa", "braun": "braunem", "grau": "grauem", "schwarz": "schwarzem"}
ENGLISH_AN = {"orange"}

# Each list: the wording used most (and by the evaluation) first. "{x}" is what has been said so far.
STYLE_FORMS = {
    "en": ["{x}, {s} style", "{x} in {s} style", "{x}, {s}", "{x} in the {s} style", "{x} ({s} style)", "{x} {s} style",
           "{x} in the style of {s}", "{s} style {x}", "{s} {x}", "{x} as a {s} emoji", "{x} {s}"],
    "zh": ["{x}，{s}风格", "{s}风格的{x}", "{x} {s}风格", "{s} 风格的{x}", "{x}，{s} 风格", "{x}（{s}风格）", "{x}，{s}"],
    "ja": ["{x}、{s}スタイル", "{s}スタイルの{x}", "{s}風の{x}", "{x} {s}スタイル", "{x}、{s}風", "{x}（{s}スタイル）",
           "{x}、{s}"],
    "de": ["{x} im {s}-Stil", "{x}, {s}-Stil", "{x} im {s} Stil", "{x}, {s} Stil", "{x} im Stil von {s}", "{x}, {s}"],
    "fr": ["{x}, style {s}", "{x} dans le style {s}", "{x} style {s}", "{x} en style {s}", "{x} au style {s}", "{x}, {s}"],
    "es": ["{x}, estilo {s}", "{x} al estilo {s}", "{x} estilo {s}", "{x} en estilo {s}", "{x} con estilo {s}", "{x}, {s}"],
}
BACKGROUND_FORMS = {
    "en": ["{x} on {a} {c} background", "{x}, {c} background", "{x} on {c}", "{x} on {c} background",
           "{x} with {a} {c} background", "{x} against {a} {c} background", "{x} in front of {a} {c} background"],
    "zh": ["{x}，{c}背景", "{c}背景上的{x}", "{x} {c}背景", "{x}在{c}背景上", "{c}背景的{x}", "{x}，{c}的背景"],
    "ja": ["{x}、{c}の背景", "{c}の背景に{x}", "{c}の背景の{x}", "{x}、背景は{c}", "{x} {c}背景", "{c}背景の{x}"],
    "de": ["{x} auf {d} Hintergrund", "{x} vor {d} Hintergrund", "{x}, Hintergrund {c}", "{x} auf {c}",
           "{x} mit {d} Hintergrund"],
    "fr": ["{x} sur fond {c}", "{x} sur un fond {c}", "{x}, fond {c}", "{x} avec un fond {c}",
           "{x} sur un arrière-plan {c}"],
    "es": ["{x} sobre fondo {c}", "{x} sobre un fondo {c}", "{x} con fondo {c}", "{x}, fondo {c}",
           "{x} en un fondo {c}"],
}
COUPLE_FORMS = {
    "en": ["{l} and {r}", "{l} next to {r}", "{l} beside {r}", "{l} and {r} side by side", "{l} & {r}",
           "{l} on the left and {r} on the right", "{l} to the left of {r}"],
    "zh": ["{l}和{r}", "{l}与{r}", "{l} 和 {r}", "{l}和{r}并排", "左边{l}，右边{r}", "左边是{l}，右边是{r}"],
    "ja": ["{l}と{r}", "{l} と {r}", "{l}と{r}を並べて", "左に{l}、右に{r}"],
    "de": ["{l} und {r}", "{l} neben {r}", "{l} und {r} nebeneinander", "links {l}, rechts {r}"],
    "fr": ["{l} et {r}", "{l} à côté de {r}", "{l} et {r} côte à côte", "à gauche {l}, à droite {r}"],
    "es": ["{l} y {r}", "{l} junto a {r}", "{l} al lado de {r}", "a la izquierda {l}, a la derecha {r}"],
}
PICTURE_FORMS = {
    "en": ["emoji of {x}", "a picture of {x}", "picture of {x}", "an emoji of {x}", "a drawing of {x}", "{x} emoji",
           "an image of {x}", "draw {x}"],
    "zh": ["{x}的图片", "一张{x}的图片", "{x}表情", "{x}的表情符号", "画{x}"],
    "ja": ["{x}の絵", "{x}の絵文字", "{x}のイラスト", "{x}の画像"],
    "de": ["ein Bild von {x}", "Emoji von {x}", "Bild von {x}", "{x} Emoji", "eine Zeichnung von {x}"],
    "fr": ["une image de {x}", "émoji de {x}", "un dessin de {x}", "emoji {x}"],
    "es": ["una imagen de {x}", "emoji de {x}", "un dibujo de {x}", "dibujo de {x}"],
}
ARTICLES = {"zh": ["一个{x}", "一只{x}"], "de": ["ein {x}", "eine {x}", "der {x}", "die {x}", "das {x}"],
            "fr": ["un {x}", "une {x}", "le {x}", "la {x}"], "es": ["un {x}", "una {x}", "el {x}", "la {x}"]}


def pick(rng, forms, first=0.45):
    """The first form with probability `first`, else any other."""
    return forms[0] if len(forms) == 1 or rng.random() < first else forms[rng.randrange(1, len(forms))]


class Captioner:
    def __init__(self, things, splits):
        self.things = things
        self.splits = splits
        self.unique_tags = {}
        self.unique_labels = {}
        for lang in LANGUAGES:
            count, labels = {}, {}
            for thing in things.values():
                for tag in {t.casefold() for t in thing["tags"][lang]}:
                    count[tag] = count.get(tag, 0) + 1
                label = thing["labels"][lang].casefold()
                labels[label] = labels.get(label, 0) + 1
            for code, thing in things.items():
                self.unique_tags[lang, code] = [t for t in thing["tags"][lang]
                                                if count[t.casefold()] == 1 and t.casefold() not in labels]
            self.unique_labels[lang] = {code for code, thing in things.items()
                                        if labels[thing["labels"][lang].casefold()] == 1}

    @classmethod
    def load(cls, work):
        work = Path(work)
        things = json.loads((work / "things.json").read_text())
        drawings = json.loads((work / "drawings.json").read_text())["drawings"]
        return cls(things, Splits(drawings))

    # ---- the thing -------------------------------------------------------------------------------------------------
    def label(self, rng, lang, code):
        """The label, or a close variant of one with a colon ("flag: France")."""
        label = self.things[code]["labels"][lang]
        if ":" in label and rng.random() < 0.5:
            head, tail = [part.strip() for part in label.split(":", 1)]
            forms = [f"{head} {tail}", f"{head}: {tail}", f"{tail} {head}"]
            if lang == "en" and head == "flag":
                forms += [f"flag of {tail}", f"{tail} flag", f"the flag of {tail}"]
            elif lang in ("zh", "ja"):
                forms += [f"{tail}の{head}" if lang == "ja" else f"{tail}{head}", f"{head}:{tail}"]
            elif lang == "de" and head == "Flagge":
                forms += [f"Flagge von {tail}"]
            elif lang == "fr" and head == "drapeau":
                forms += [f"drapeau de {tail}"]
            elif lang == "es" and head == "Bandera":
                forms += [f"Bandera de {tail}"]
            return rng.choice(forms)
        return label

    def name(self, rng, lang, code, by_tags=False):
        tags = self.things[code]["tags"][lang]
        unique = self.unique_tags[lang, code]
        r = rng.random()
        if r < 0.03:
            return self.things[code]["emoji"]
        if unique and r < (0.22 if by_tags else 0.06):
            return rng.choice(unique)
        if by_tags and tags:
            comma = "，" if lang == "zh" else "、" if lang == "ja" else ", "
            if r < 0.55:
                return comma.join([self.label(rng, lang, code)] + rng.sample(tags, min(len(tags), rng.randint(1, 3))))
            if len(tags) > 1 or unique:
                words = rng.sample(tags, min(len(tags), rng.randint(2, 4)))
                if unique and rng.random() < 0.7 and not set(words) & set(unique):
                    words[0] = rng.choice(unique)
                return (comma if rng.random() < 0.5 else " ").join(words)
        return self.article(rng, lang, self.label(rng, lang, code))

    def article(self, rng, lang, label, p=0.35):
        if rng.random() >= p:
            return label
        if lang == "en":
            if rng.random() < 0.1:
                return "the " + label
            return ("an " if label[0].lower() in "aeiou" else "a ") + label
        return rng.choice(ARTICLES[lang]).format(x=label) if lang in ARTICLES else label

    # ---- the rest --------------------------------------------------------------------------------------------------
    def words(self, rng, lang, x, style, background, first, picture):
        def add_style(x):
            forms = STYLE_FORMS[lang]
            if lang != "en" and rng.random() < 0.03 * picture:
                forms = STYLE_FORMS["en"]
            return pick(rng, forms, first).format(x=x, s=style)

        def add_background(x):
            colour = pick(rng, COLOUR_WORDS[lang][background], 0.7 if first < 1 else 1)
            return pick(rng, BACKGROUND_FORMS[lang], first).format(
                x=x, c=colour, a="an" if colour in ENGLISH_AN else "a", d=GERMAN_DATIVE.get(colour))

        steps = ([add_style] if style else []) + ([add_background] if background else [])
        if rng.random() < 0.35 * picture:
            steps.reverse()
        for step in steps:
            x = step(x)
        return x

    def caption(self, rng, lang, code, style=None, background=None, second=None, by_tags=False):
        """One random wording."""
        x = self.name(rng, lang, code, by_tags)
        if second is not None:
            x = pick(rng, COUPLE_FORMS[lang], 0.6).format(l=x, r=self.name(rng, lang, second))
        if rng.random() < 0.12:
            x = rng.choice(PICTURE_FORMS[lang]).format(x=x)
        x = self.words(rng, lang, x, style, background, 0.45, 1)
        r = rng.random()
        if r < 0.12:
            x = x.lower()
        elif r < 0.22:
            x = x[0].upper() + x[1:]
        elif r < 0.24:
            x = x.upper()
        if rng.random() < 0.06:
            x += "。" if lang in ("zh", "ja") else "."
        return x

    def prompt(self, rng, lang, code, style=None, background=None, second=None):
        """A plain wording of what a user would type: labels, articles in English, one of the usual forms."""
        p = 0.5 if lang == "en" else 0
        x = self.article(rng, lang, self.things[code]["labels"][lang], p)
        if second is not None:
            x = COUPLE_FORMS[lang][0].format(l=x, r=self.article(rng, lang, self.things[second]["labels"][lang], p))
        return self.words(rng, lang, x, style, background, 0.75, 0)

    # ---- random training targets -----------------------------------------------------------------------------------
    def random_language(self, rng):
        return rng.choices(LANGUAGES, LANGUAGE_WEIGHTS)[0]

    def random_single(self, rng, kind):
        """(caption, drawing index, background index) of a drawing that training may see; kind: a key of MIX. Pairs of
        splits.absent are counted on after the drawings."""
        splits = self.splits
        if kind == "absent":
            drawing = rng.randrange(len(splits.absent))
            code, style = splits.absent[drawing]
            drawing += len(splits.drawings)
        else:
            while True:
                drawing = rng.randrange(len(splits.drawings))
                code, style = splits.drawings[drawing]
                if (code, style) not in splits.held_pair_set:
                    break
        said = style
        if style == splits.default_style(code) and rng.random() < 0.35:
            said = None
        background = None
        if kind == "background" or kind == "absent" and rng.random() < 0.25:
            background = rng.choice(sorted(splits.seen_colours(code)))
        elif rng.random() < 0.02:
            background = "white"
        by_tags = kind == "tags" or kind in ("background", "absent") and rng.random() < 0.1
        text = self.caption(rng, self.random_language(rng), code, said, background, by_tags=by_tags)
        return text, drawing, list(BACKGROUNDS).index(background or "white")

    def random_couple(self, rng):
        """(left drawing, right drawing, background index) that training may see."""
        splits = self.splits
        if not hasattr(self, "by_style"):
            self.by_style = {s: [c for c in splits.things if splits.trained(c, s)] for s in STYLES}
        style = rng.choice(STYLES)
        while True:
            left, right = rng.choice(self.by_style[style]), rng.choice(self.by_style[style])
            if splits.couple_allowed(left, right):
                break
        background = "white"
        if rng.random() < 0.3:
            both = sorted(splits.seen_colours(left) & splits.seen_colours(right))
            background = rng.choice(both) if both else "white"
        return splits.index[left, style], splits.index[right, style], list(BACKGROUNDS).index(background)

    def couple_caption(self, rng, left, right, background):
        splits = self.splits
        (a, style), (b, _) = splits.drawings[left], splits.drawings[right]
        background = list(BACKGROUNDS)[background]
        if background == "white" and rng.random() < 0.95:
            background = None
        said = style
        if style == self.couple_default(a, b) and rng.random() < 0.4:
            said = None
        return self.caption(rng, self.random_language(rng), a, said, background, b)

    def couple_default(self, a, b):
        return next((s for s in DEFAULT_STYLES if self.splits.trained(a, s) and self.splits.trained(b, s)), None)


# ---- tokenizer -----------------------------------------------------------------------------------------------------
VOCABULARY = 5120
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")
TEMPLATE = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
CHAT_TEMPLATE = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def train_tokenizer(work, samples=400_000):
    """A byte-level BPE of the structure of Qwen2's: NFC, the Qwen2 split pattern, byte level, the same special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    captioner = Captioner.load(work)
    rng = random.Random(1)

    def texts():
        for _ in range(samples):
            kind = rng.choices(list(MIX), MIX.values())[0]
            if kind == "couple":
                text = captioner.couple_caption(rng, *captioner.random_couple(rng))
            else:
                text = captioner.random_single(rng, kind)[0]
            yield f"user\n{text}"
            yield "\nassistant\n"

    byte_level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.post_processor = processors.ByteLevel(**byte_level)
    tokenizer.decoder = decoders.ByteLevel(**byte_level)
    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ADDED), min_frequency=2, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ADDED[:3]])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ADDED[3:]])
    out = Path(work) / "tokenizer"
    out.mkdir(exist_ok=True)
    raw = json.loads(tokenizer.to_str())
    (out / "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False, separators=(",", ":")))
    added = {str(t["id"]): {k: t[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")}
             for t in raw["added_tokens"]}
    (out / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None,
        "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
        "errors": "replace", "model_max_length": 512, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}, ensure_ascii=False, indent=2) + "\n")
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    size = (out / "tokenizer.json").stat().st_size
    print(f"tokenizer: {VOCABULARY} entries, {size} bytes")
