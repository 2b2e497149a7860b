"""Captions in six languages, and the tokenizer trained on them.

A caption says: a thing (by label, by tags, by the emoji itself, or by a word of lexicon.py), optionally a second thing, a
style, a background, a colour or a size of the thing, a number up to three, a place.
`Captioner.caption` words one at random; `Captioner.prompt` words it plainly, as the evaluation does.
"""
import json
import random
from itertools import accumulate
from pathlib import Path

from splits import BACKGROUNDS, COLOURS, DEFAULT_STYLES, LANGUAGES, STYLES, Splits

LANGUAGE_WEIGHTS = [18, 18, 16, 16, 16, 16]

# What training captions say, and their shares.
MIX = {
    "label": 0.24,       # a thing by its label (or the emoji itself), on white
    "word": 0.33,        # a thing by a word of the lexicon, on white
    "tags": 0.04,        # a thing by some of its tags, on white
    "background": 0.10,  # a thing by its label or a word, on one of its six trained colours
    "absent": 0.08,      # a thing in a style in which training has no drawing of it: see analogies.py
    "couple": 0.07,      # two things side by side, on white or on a colour that both are trained on
    "colour": 0.05,      # a thing painted in a colour, on white or on a trained colour
    "count": 0.05,       # two or three of a thing
    "size": 0.02,        # a small or a big thing
    "place": 0.02,       # a thing on the left, on the right, at the top, at the bottom
}

# One thing on white, as it is said most often.
PLAIN = {kind: MIX[kind] for kind in ("label", "word", "tags")}

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
# An adjective of colour before or behind its noun; German, French and Spanish endings at random, as articles are.
PAINT_FORMS = {
    "en": {c: [f"{w} {{x}}" for w in words] for c, words in COLOUR_WORDS["en"].items()},
    "zh": {c: [f"{words[0]}的{{x}}", f"{words[0]}{{x}}"] for c, words in COLOUR_WORDS["zh"].items()},
    "ja": {"red": ["赤い{x}"], "orange": ["オレンジ色の{x}"], "yellow": ["黄色い{x}"], "green": ["緑の{x}", "緑色の{x}"],
           "blue": ["青い{x}"], "purple": ["紫の{x}", "紫色の{x}"], "pink": ["ピンクの{x}"], "brown": ["茶色い{x}"],
           "gray": ["灰色の{x}"], "white": ["白い{x}"], "black": ["黒い{x}"]},
    "de": {c: [f"{w}{end} {{x}}" for end in ("e", "er", "es")] for c, w in
           {"red": "rot", "yellow": "gelb", "green": "grün", "blue": "blau", "brown": "braun", "gray": "grau",
            "white": "weiß", "black": "schwarz"}.items()} | {"orange": ["orange {x}"], "purple": ["lila {x}"],
                                                             "pink": ["rosa {x}"]},
    "fr": {"red": ["{x} rouge"], "orange": ["{x} orange"], "yellow": ["{x} jaune"], "green": ["{x} vert", "{x} verte"],
           "blue": ["{x} bleu", "{x} bleue"], "purple": ["{x} violet", "{x} violette"], "pink": ["{x} rose"],
           "brown": ["{x} marron", "{x} brun", "{x} brune"], "gray": ["{x} gris", "{x} grise"],
           "white": ["{x} blanc", "{x} blanche"], "black": ["{x} noir", "{x} noire"]},
    "es": {"red": ["{x} rojo", "{x} roja"], "orange": ["{x} naranja"], "yellow": ["{x} amarillo", "{x} amarilla"],
           "green": ["{x} verde"], "blue": ["{x} azul"], "purple": ["{x} morado", "{x} morada", "{x} violeta"],
           "pink": ["{x} rosa"], "brown": ["{x} marrón"], "gray": ["{x} gris"], "white": ["{x} blanco", "{x} blanca"],
           "black": ["{x} negro", "{x} negra"]},
}
SMALL_FORMS = {
    "en": ["small {x}", "little {x}", "tiny {x}"], "zh": ["小{x}", "小小的{x}"], "ja": ["小さな{x}", "小さい{x}"],
    "de": ["kleine {x}", "kleiner {x}", "kleines {x}"], "fr": ["petit {x}", "petite {x}", "{x} minuscule"],
    "es": ["{x} pequeño", "{x} pequeña", "pequeño {x}"],
}
BIG_FORMS = {
    "en": ["big {x}", "large {x}", "huge {x}"], "zh": ["大{x}", "大大的{x}"], "ja": ["大きな{x}", "大きい{x}"],
    "de": ["große {x}", "großer {x}", "großes {x}"], "fr": ["grand {x}", "grande {x}", "gros {x}"],
    "es": ["{x} grande", "gran {x}"],
}
# German plurals follow no rule, so German counts nothing.
COUNT_FORMS = {
    2: {"en": ["two {x}", "2 {x}", "a pair of {x}"], "zh": ["两只{x}", "两个{x}", "2个{x}"], "ja": ["2つの{x}", "二つの{x}", "二匹の{x}"],
        "fr": ["deux {x}", "2 {x}"], "es": ["dos {x}", "2 {x}"]},
    3: {"en": ["three {x}", "3 {x}"], "zh": ["三只{x}", "三个{x}", "3个{x}"], "ja": ["3つの{x}", "三つの{x}", "三匹の{x}"],
        "fr": ["trois {x}", "3 {x}"], "es": ["tres {x}", "3 {x}"]},
}
PLACE_FORMS = {
    "left": {"en": "{x} on the left", "zh": "左边的{x}", "ja": "左に{x}", "de": "{x} links", "fr": "{x} à gauche",
             "es": "{x} a la izquierda"},
    "right": {"en": "{x} on the right", "zh": "右边的{x}", "ja": "右に{x}", "de": "{x} rechts", "fr": "{x} à droite",
              "es": "{x} a la derecha"},
    "top": {"en": "{x} at the top", "zh": "上面的{x}", "ja": "上に{x}", "de": "{x} oben", "fr": "{x} en haut", "es": "{x} arriba"},
    "bottom": {"en": "{x} at the bottom", "zh": "下面的{x}", "ja": "下に{x}", "de": "{x} unten", "fr": "{x} en bas",
               "es": "{x} abajo"},
}


def plural(lang, noun, english):
    """The plural in Chinese and Japanese (the same word), French and Spanish (of the first word, by rule) and English (by
    the lexicon's list); None where it is not known."""
    if lang in ("zh", "ja"):
        return noun
    if lang == "en":
        return english.get(noun.casefold())
    first, _, rest = noun.partition(" ")
    if lang == "de" or rest and lang in ("fr", "es") and not rest.islower():
        return None
    if lang == "fr":
        first += "" if first[-1] in "sxz" else "x" if first.endswith(("eau", "eu")) else "s"
    else:
        first += "s" if first[-1] in "aeiouáéó" else "" if first.endswith("s") else "es"
        first = first[:-3] + "ces" if first.endswith("zes") else first
    return f"{first} {rest}".strip()


def pick(rng, forms, first=0.45):
    """The first form with probability `first`, else any other."""
    return forms[0] if len(forms) == 1 or rng.random() < first else forms[rng.randrange(1, len(forms))]


class Captioner:
    def __init__(self, things, splits, lexicon=None, painted=None):
        """lexicon: what lexicon.py wrote; painted: the drawings whose own colour is most of them (scenes.own_colour)."""
        lexicon = lexicon or {"words": {}, "weights": {}}
        self.words_of = {lang: list(lexicon["words"].get(lang, {}).items()) for lang in LANGUAGES}
        self.weights_of = {lang: list(accumulate(lexicon["weights"].get(lang, []))) for lang in LANGUAGES}
        self.known = {lang: set(dict(words)) for lang, words in self.words_of.items()}
        self.plurals = lexicon.get("plurals", {})
        self.names_of = {lang: {} for lang in LANGUAGES}
        for lang, words in self.words_of.items():
            for word, code in words:
                self.names_of[lang].setdefault(code, []).append(word)
        self.painted = painted or []
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
        extra = [json.loads((work / name).read_text()) if (work / name).exists() else None
                 for name in ("lexicon.json", "painted.json")]
        return cls(things, Splits(drawings), *extra)

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

    def said_style(self, rng, code, style, p):
        """The style to say, or None, with probability p, where it is what is meant without one."""
        return None if style == self.splits.default_style(code) and rng.random() < p else style

    def noun(self, rng, lang, code):
        """A name to be put beside an adjective or a number: the label or a word of the lexicon."""
        words = self.names_of[lang].get(code)
        if words and rng.random() < 0.5:
            return rng.choice(words)
        return self.things[code]["labels"][lang]

    def finish(self, rng, lang, x, style=None, background=None, article=0.35):
        """A caption of what has been said so far, as caption() makes it."""
        x = self.words(rng, lang, self.article(rng, lang, x, article), style, background, 0.45, 1)
        r = rng.random()
        return x.lower() if r < 0.1 else x[0].upper() + x[1:] if r < 0.3 else x.upper() if r < 0.32 else x

    def random_drawing(self, rng, code=None):
        """(drawing, thing, style) that training may see."""
        splits = self.splits
        if code is None:
            drawing = rng.randrange(len(splits.drawings))
            while splits.drawings[drawing] in splits.held_pair_set:
                drawing = rng.randrange(len(splits.drawings))
            return drawing, *splits.drawings[drawing]
        styles = splits.trained_styles(code)
        style = splits.default_style(code) if rng.random() < 0.5 else rng.choice(styles)
        return splits.index[code, style], code, style

    def colour_behind(self, rng, code, p):
        """A trained colour's name with probability p, else None."""
        return rng.choice(sorted(self.splits.seen_colours(code))) if rng.random() < p else None

    def random_scene(self, rng, kind, canvas=0):
        """(caption, row of scenes.py); kind: a key of MIX but "couple"."""
        from scenes import CANVASES, PAINTS, PLACES

        def row(drawing, background=None, paint=0, small=0, place=0, count=1):
            return [drawing] * count + [-1] * (3 - count) + [list(BACKGROUNDS).index(background or "white"), canvas, paint,
                                                             small, place]

        if kind in ("label", "tags", "background", "absent") and not (kind == "background" and rng.random() < 0.5):
            text, drawing, background = self.random_single(rng, kind)
            return text, row(drawing, list(BACKGROUNDS)[background])
        lang = self.random_language(rng)
        if kind in ("word", "background"):
            if not self.words_of[lang]:
                return self.random_scene(rng, "label", canvas)
            word, code = rng.choices(self.words_of[lang], cum_weights=self.weights_of[lang])[0]
            drawing, code, style = self.random_drawing(rng, code)
            background = self.colour_behind(rng, code, kind == "background")
            if lang == "en" and word in self.plurals and rng.random() < 0.25:
                word = self.plurals[word]
            if lang == "de" and rng.random() < 0.6:
                word = word[0].upper() + word[1:]
            if rng.random() < 0.05:
                word = rng.choice(PICTURE_FORMS[lang]).format(x=word)
            return self.finish(rng, lang, word, self.said_style(rng, code, style, 0.8), background), row(drawing, background)
        if kind == "colour" and self.painted:
            drawing = rng.choice(self.painted)
            code, style = self.splits.drawings[drawing]
            paint = rng.choice(PAINTS)
            form = rng.choice(PAINT_FORMS[lang][paint])
            x = form.format(x=self.noun(rng, lang, code))
            if x.casefold() in self.known[lang]:  # "black cat" is a thing of its own
                return self.random_scene(rng, "word", canvas)
            background = self.colour_behind(rng, code, 0.35)
            return (self.finish(rng, lang, x, self.said_style(rng, code, style, 0.8), background, 0.5),
                    row(drawing, background, 1 + PAINTS.index(paint)))
        drawing, code, style = self.random_drawing(rng)
        said, noun = self.said_style(rng, code, style, 0.8), self.noun(rng, lang, code)
        if kind == "count":
            several, count = plural(lang, noun, self.plurals), rng.choice((2, 2, 3))
            if lang == "de" or not several:
                return self.random_scene(rng, "word", canvas)
            return (self.finish(rng, lang, rng.choice(COUNT_FORMS[count][lang]).format(x=several), said, article=0),
                    row(drawing, count=count))
        if kind == "place":
            width, height = CANVASES[canvas]
            name = rng.choice(PLACES[1:] if width == height else PLACES[1:3] if width > height else PLACES[3:])
            x = PLACE_FORMS[name][lang].format(x=self.article(rng, lang, noun))
            return (self.finish(rng, lang, x, said, article=0),
                    row(drawing, small=int(width == height), place=PLACES.index(name)))
        small = rng.random() < 0.6
        x = rng.choice((SMALL_FORMS if small else BIG_FORMS)[lang]).format(x=noun)
        if x.casefold() in self.known[lang]:
            return self.random_scene(rng, "word", canvas)
        return self.finish(rng, lang, x, said), row(drawing, small=int(small))

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
                text = captioner.random_scene(rng, kind)[0]
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
