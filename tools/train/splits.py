"""What exists, what is trained on and what is kept back.

Training and evaluation both import this module, so that the two can never disagree about which combinations were
withheld. Everything follows from the sorted list of drawings and `SPLIT_SEED`; nothing is stored.

A *thing* is one emoji without skin tone (its key is the code points, "1f34e"). A *drawing* is a (thing, style) pair.

Kept back from training, the autoencoder's included:
  * HELD_PAIRS drawings whose thing is drawn in all three styles: that drawing is never shown, alone, on a colour or beside
    another thing; its thing is seen in the two other styles only;
  * for each thing, half of the twelve background colours: the thing is never shown on those, in any style;
  * HELD_COUPLES pairs of things: never shown side by side, in either order, in any style, on any background.
"""
import hashlib
import random

SPLIT_SEED = 20261123
STYLES = ["noto", "fluent", "twemoji"]
STYLE_FOLDERS = {"noto": "noto", "fluent": "fluent-emoji-flat", "twemoji": "twemoji"}
LANGUAGES = ["en", "zh", "ja", "de", "fr", "es"]
# A caption that names no style means the first of these in which the thing is drawn (and not held back).
DEFAULT_STYLES = ["fluent", "noto", "twemoji"]

# name -> sRGB. White, the first, is meant by a caption that names no background.
BACKGROUNDS = {
    "white": (255, 255, 255),
    "red": (226, 44, 44),
    "orange": (255, 140, 26),
    "yellow": (255, 222, 66),
    "green": (52, 160, 70),
    "turquoise": (48, 200, 190),
    "blue": (38, 96, 222),
    "light blue": (150, 208, 250),
    "purple": (130, 60, 180),
    "pink": (252, 160, 200),
    "brown": (122, 80, 52),
    "gray": (150, 150, 150),
    "black": (16, 16, 16),
}
COLOURS = [name for name in BACKGROUNDS if name != "white"]

HELD_PAIRS = 220
HELD_COUPLES = 400


class Splits:
    """drawings: list of (thing key, style), in the order of the prepared archive."""

    def __init__(self, drawings):
        self.drawings = [tuple(d) for d in drawings]
        self.index = {d: i for i, d in enumerate(self.drawings)}
        self.styles_of = {}
        for thing, style in self.drawings:
            self.styles_of.setdefault(thing, []).append(style)
        self.things = sorted(self.styles_of)

        rng = random.Random(SPLIT_SEED)
        full = [t for t in self.things if len(self.styles_of[t]) == len(STYLES)]
        chosen = rng.sample(full, HELD_PAIRS)
        self.held_pairs = [(t, STYLES[i % len(STYLES)]) for i, t in enumerate(chosen)]
        self.held_pair_set = set(self.held_pairs)

        # What training can't see: not drawn, or kept back. analogies.py makes up a rough drawing for these.
        self.absent = [(t, s) for t in self.things for s in STYLES if not self.trained(t, s)]

        # Couples that are drawn and trained in one common style, so that the test is about the couple and nothing else.
        self.held_couples = []
        seen = set()
        while len(self.held_couples) < HELD_COUPLES:
            a, b = rng.sample(self.things, 2)
            style = rng.choice(STYLES)
            if not (self.trained(a, style) and self.trained(b, style)) or frozenset((a, b)) in seen:
                continue
            seen.add(frozenset((a, b)))
            self.held_couples.append((a, b, style))
        self.held_couple_set = seen
        self._colours = {}

    def trained(self, thing, style):
        """Is there such a drawing, and may training see it?"""
        return (thing, style) in self.index and (thing, style) not in self.held_pair_set

    def trained_styles(self, thing):
        return [s for s in self.styles_of[thing] if (thing, s) not in self.held_pair_set]

    def default_style(self, thing):
        return next(s for s in DEFAULT_STYLES if self.trained(thing, s))

    def seen_colours(self, thing):
        """The six colours on which training may show this thing (white is always allowed)."""
        if thing not in self._colours:
            order = sorted(COLOURS, key=lambda c: hashlib.sha256(f"{SPLIT_SEED}/{thing}/{c}".encode()).digest())
            self._colours[thing] = frozenset(order[: len(COLOURS) // 2])
        return self._colours[thing]

    def unseen_colours(self, thing):
        return [c for c in COLOURS if c not in self.seen_colours(thing)]

    def couple_allowed(self, a, b):
        return a != b and frozenset((a, b)) not in self.held_couple_set
