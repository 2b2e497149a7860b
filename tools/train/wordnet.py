"""Reads the nouns of WordNet 3.0, as Debian's package wordnet-base installs them in /usr/share/wordnet.

WordNet's licence allows use, copying and changing for any purpose, with its notice. Nothing of its text is in the repository.
"""
from pathlib import Path

FOLDER = "/usr/share/wordnet"
# Lexicographers' files whose nouns can be drawn (lexnames(5WN)).
CONCRETE = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 18: "person", 20: "plant"}


class WordNet:
    def __init__(self, folder=FOLDER):
        folder = Path(folder)
        self.senses, self.words, self.parents, self.file = {}, {}, {}, {}
        self.children = {}
        for line in self.lines(folder / "index.noun"):
            part = line.split()
            self.senses[part[0]] = part[-int(part[2]):]  # the most frequent first
        for line in self.lines(folder / "data.noun"):
            part = line.split("|")[0].split()
            count = int(part[3], 16)
            self.file[part[0]] = int(part[1])
            self.words[part[0]] = [word.split("(")[0] for word in part[4:4 + 2 * count:2]]
            pointers = part[5 + 2 * count:]
            self.parents[part[0]] = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i")]
        for synset, parents in self.parents.items():
            for parent in parents:
                self.children.setdefault(parent, []).append(synset)
        # Words that are adjectives or adverbs, too.
        self.qualities = {line.split()[0] for part in ("adj", "adv") for line in self.lines(folder / f"index.{part}")}
        self.irregular = {}
        for line in self.lines(folder / "noun.exc"):
            plural, singular = line.split()[:2]
            self.irregular.setdefault(singular, plural)

    @staticmethod
    def lines(path):
        return [line for line in Path(path).read_text().splitlines() if not line.startswith("  ")]

    def synsets(self, text, most=2):
        """The most frequent senses of a word or of words."""
        return self.senses.get(text.lower().replace(" ", "_"), [])[:most]

    def concrete(self, text):
        """Is the most frequent sense one that can be drawn?"""
        return any(self.file[s] in CONCRETE for s in self.synsets(text, 1))

    def synonyms(self, synset):
        return [word.replace("_", " ") for word in self.words[synset]]

    def ancestors(self, synset, depth):
        """{synset: distance} of what this is a kind of."""
        return self.reach(self.parents, synset, depth)

    def descendants(self, synset, depth):
        """{synset: distance} of the kinds of this."""
        return self.reach(self.children, synset, depth)

    @staticmethod
    def reach(edges, synset, depth):
        found, level = {}, [synset]
        for distance in range(1, depth + 1):
            level = [p for s in level for p in edges.get(s, ()) if p not in found]
            found.update(dict.fromkeys(level, distance))
        return found

    def plural(self, noun):
        """The plural of an English noun or of a phrase that ends with one."""
        head, _, last = noun.rpartition(" ")
        low = last.lower()
        if low in self.irregular:
            last = self.irregular[low]
        elif low.endswith(("s", "x", "z", "ch", "sh")):
            last += "es"
        elif low.endswith("y") and len(low) > 1 and low[-2] not in "aeiou":
            last = last[:-1] + "ies"
        else:
            last += "s"
        return f"{head} {last}".strip()
