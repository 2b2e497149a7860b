#!/usr/bin/env python3
"""Which thing a word means: for each language a table from words that people type to one thing.

    lexicon.py --work WORK --out LEXICON.json [--wordnet /usr/share/wordnet]     prints how many words each language has

A caption that fits several drawings makes the network average them, so every word means one thing, the best by these rules
(the number is its points; the order of Unicode decides between equals):
    the label itself                                                                       100
    English, WordNet: the word and the label, or the label's head, are synonyms           80, 40 (head); 10 less in a second
                                                              sense of the label, 25 less in a second sense of the word
    the label's head is the word ("red apple": "apple"; "Laubbaum": "Baum"; "苹果" ends with it)   45 to 65
    the word is a tag of one thing                                                         60
    the word is a tag; of few things, and beside a short label, better                     30 to 45
    English, WordNet: the label is a kind of the word ("collie": "dog"), or the other way round   28 - 4 for each level,
                                                                                           at most 4 up and 2 down
    Japanese, SudachiDict: another spelling of a label or tag ("鯨" of "クジラ")           10 less than that
10 more for words that WordNet gives and that are tags as well. Faces, people, symbols and flags lose 15 points: who types
"apple" means the fruit. English plurals mean what their singulars do; Japanese
words are taken in both kana. WordNet's words count if they are no rarer than two
in a million (wordfreq's Zipf frequency of 3.3), its phrases if they are tags.

Each word has a weight, how often training says it: 1 for a rare one, twice as much for each power of ten of its frequency above
one in a million, at most 6. Phrases, English words that are no nouns of things that can be drawn, and the words of
plain_words.txt have 1.
"""
import argparse
import json
import math
import re
from pathlib import Path

import wordfreq

from splits import LANGUAGES
from typed import word_rows
from wordnet import FOLDER, WordNet
from words import listed_words

PENALTY = 15
COMMON = 3.3
# What a word such as "woman" names is a person: these tags' own words lose nothing.
SECONDARY = re.compile(r"\b(face|person|man|woman|people|men|women|boy|girl|button|symbol|keycap|flag|clock face|sign)\b|:")


def pieces(text):
    return re.findall(r"[^\W_]+", text.casefold())


def kana(word):
    """The word with hiragana for katakana and the other way round."""
    return "".join(chr(ord(c) + 0x60) if "ぁ" <= c <= "ゖ" else chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in word)


def heads(lang, label):
    """Words or ends of a label that name its thing alone, each with the share of the label that it is."""
    if ":" in label:
        return {}
    if lang in ("zh", "ja"):
        return {label[i:]: (len(label) - i) / len(label) for i in range(1, len(label) - 1)}
    words = pieces(label)
    if lang in ("fr", "es"):
        return {words[0]: 1 / len(words)} if len(words) > 1 else {}
    before = pieces(re.split(" with | and | of ", label)[0])
    found = {before[-1]: 1 / len(words)} if lang == "en" and len(words) > 1 and before else {}
    if lang == "de":  # compounds: the last part, of at least four letters, is found among the tags and other labels
        last = words[-1] if words else ""
        for i in range(3, len(last) - 3):
            found.setdefault(last[i:], (len(last) - i) / len(last) / max(1, len(words)))
    return found


class Spellings:
    """Japanese nouns by SudachiDict's normal form, which is one for kanji, hiragana and katakana."""

    def __init__(self):
        from sudachipy import Dictionary, SplitMode
        self.tokenizer = Dictionary().tokenizer(mode=SplitMode.C)
        self.words = [word for word in wordfreq.top_n_list("ja", 60000) if not word.isascii()]

    def normal(self, word):
        """None: it is no noun, or several words."""
        found = self.tokenizer.tokenize(word)
        if len(found) != 1 or found[0].part_of_speech()[0] != "名詞":
            return None
        return found[0].normalized_form()


class Lexicon:
    def __init__(self, things, wordnet=None, frequency=lambda word: 8, spellings=None):
        """frequency: of an English word or phrase, as wordfreq.zipf_frequency."""
        self.frequency = frequency
        self.things, self.wordnet, self.order = things, wordnet, {code: i for i, code in enumerate(things)}
        self.labels = {lang: {} for lang in LANGUAGES}
        self.tagged = {lang: {} for lang in LANGUAGES}
        for code, thing in things.items():
            for lang in LANGUAGES:
                self.labels[lang].setdefault(thing["labels"][lang].casefold(), []).append(code)
                tags = thing["tags"][lang]
                if lang == "ja":
                    tags = tags + [kana(word) for word in tags + [thing["labels"][lang]] if ":" not in word]
                for tag in tags:
                    self.tagged[lang].setdefault(tag.casefold(), set()).add(code)
        self.points = {lang: {} for lang in LANGUAGES}
        for lang in LANGUAGES:
            for code, thing in things.items():
                self.by_label(lang, code, thing["labels"][lang])
            for tag, codes in self.tagged[lang].items():
                self.by_tag(lang, tag, codes)
        if wordnet:
            for code in things:
                self.by_wordnet(code)
        if spellings:
            self.by_spelling(spellings)

    def add(self, lang, word, code, points):
        if points < 80 and SECONDARY.search(self.things[code]["labels"]["en"]):
            points -= PENALTY
        of_word = self.points[lang].setdefault(word.casefold(), {})
        of_word[code] = max(points, of_word.get(code, 0))

    def by_label(self, lang, code, label):
        self.add(lang, label, code, 100)
        for word, share in heads(lang, label).items():
            # An end of a label is a word if it is known as one; WordNet knows the English ones.
            known = word in self.tagged[lang] or word in self.labels[lang]
            if known or lang == "en" and self.wordnet and self.wordnet.synsets(word):
                own = word in (tag.casefold() for tag in self.things[code]["tags"][lang])
                self.add(lang, word, code, 45 + 10 * share + 10 * own)

    def by_tag(self, lang, tag, codes):
        for code in codes:
            length = len(pieces(self.things[code]["labels"]["en"]))
            points = 60 if len(codes) == 1 else 45 - 3 * math.log2(len(codes)) - 1.5 * min(4, length - 1)
            self.add(lang, tag, code, max(30, points))

    def by_wordnet(self, code):
        label, net = self.things[code]["labels"]["en"], self.wordnet
        if ":" in label:
            return
        for rank, synset in enumerate(net.synsets(label)):
            self.by_synset(code, label, synset, 80 - 10 * rank)
        for head in list(heads("en", label))[:1]:
            for synset in net.synsets(head, 1):
                self.by_synset(code, head, synset, 40)
        for synset in net.synsets(label, 1) if net.concrete(label) else []:
            for found, kinds in ((net.ancestors(synset, 4), 1), (net.descendants(synset, 2), 0)):
                for other, distance in found.items():
                    for word in net.synonyms(other):
                        if net.synsets(word, 1) == [other]:
                            self.add_wordnet(word, code, 28 - 4 * distance - (not kinds))

    def by_synset(self, code, text, synset, points):
        for word in self.wordnet.synonyms(synset):
            if word.lower() != text.lower():
                self.add_wordnet(word, code, points - 25 * (self.wordnet.synsets(word, 1) != [synset]))

    def by_spelling(self, spellings):
        known = {}
        for word, points in self.points["ja"].items():
            # "イヌ" has no other form, "いぬ" has "犬".
            forms = {word, kana(word)} if max(points.values()) == 100 else {word}
            for normal in {spellings.normal(form) for form in forms}:
                known.setdefault(normal, []).append((word, dict(points)))
        for word in spellings.words:
            normal = spellings.normal(word)
            for other, points in known.get(normal, ()) if normal else ():
                for code, number in points.items() if other != word else ():
                    self.add("ja", word, code, number - 10)

    def add_wordnet(self, word, code, points):
        tagged = code in self.tagged["en"].get(word, ())
        if word.islower() and (tagged or " " not in word and self.frequency(word) >= COMMON):
            self.add("en", word, code, points + 10 * tagged)

    def best(self, lang, word):
        """The thing that a word means, or None."""
        word = word.casefold()
        points = self.points[lang].get(word, {})
        if lang == "en" and self.wordnet and word in self.singulars and max(points.values(), default=0) < 60:
            points = self.points[lang][self.singulars[word]]
        return min(points, key=lambda code: (-points[code], self.order[code])) if points else None

    @property
    def singulars(self):
        if not hasattr(self, "_singulars"):
            self._singulars = {self.wordnet.plural(word): word for word in self.points["en"]}
        return self._singulars

    def table(self, lang, least=1):
        """{word: code} of the words with so many points."""
        result = {}
        for word in self.points[lang]:
            code = self.best(lang, word)
            if max(self.points[lang][word].values()) >= least and len(word) > (0 if lang in ("zh", "ja") else 1):
                result[word] = code
        return result

    def tables(self):
        """{language: table}. A caption doesn't say its language: a spelling that means different things in several
        languages ("tree" is a German tag of T-Rex) is kept where it has the most points, in the first of them if equal."""
        result, owner = {lang: self.table(lang) for lang in LANGUAGES}, {}
        for lang in LANGUAGES:
            for word, code in result[lang].items():
                points = max(self.points[lang][word].values())
                if word not in owner or points > owner[word][0]:
                    owner[word] = (points, code)
        return {lang: {word: code for word, code in table.items() if owner[word][1] == code}
                for lang, table in result.items()}


def singular(word, plurals):
    return next((one for one, many in plurals.items() if many == word), word)


def weight(word, lang, wordnet, plain):
    if word in plain or len(wordfreq.tokenize(word, lang)) > 1 or lang == "en" and not wordnet.concrete(word):
        return 1
    return round(min(6, max(1, 2 ** (wordfreq.zipf_frequency(word, lang) - 3))), 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wordnet", default=FOLDER)
    args = parser.parse_args()
    things = json.loads((args.work / "things.json").read_text())
    wordnet = WordNet(args.wordnet)
    lexicon = Lexicon(things, wordnet, lambda word: wordfreq.zipf_frequency(word, "en"), Spellings())
    tables = lexicon.tables()
    # Plurals of nouns that can be drawn, so that nothing else has to know WordNet.
    plurals = {word: wordnet.plural(word) for word in tables["en"] if wordnet.concrete(word)
               and wordnet.plural(word) not in tables["en"] and not word.endswith("s")}
    plain = listed_words()
    weights = {lang: [weight(word, lang, wordnet, plain) for word in table] for lang, table in tables.items()}
    # weights: in the order of the words
    args.out.write_text(json.dumps({"words": tables, "weights": weights, "plurals": plurals}, ensure_ascii=False) + "\n")
    for lang in LANGUAGES:
        said = sum(word in lexicon.labels[lang] for word in tables[lang])
        print(f"{lang}: {len(tables[lang])} words, {said} of them labels")
    print(f"{len(plurals)} English plurals; {args.out.stat().st_size:,} bytes")
    # Only of the half that may be looked at.
    meant = [(row, tables[row["language"]].get(singular(row["word"].casefold(), plurals))) for row in word_rows("seen")]
    print(f"everyday words with a right thing: {sum(code in row['things'] for row, code in meant)} of {len(meant)}")


if __name__ == "__main__":
    main()
