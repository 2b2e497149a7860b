#!/usr/bin/env python3
"""Makes the list of 300 everyday words that `evaluate` tests: everyday_seen.tsv and everyday_held.tsv.

    everyday.py --work WORK [--wordnet /usr/share/wordnet] [--out FOLDER]

The list was made once, on 2026-11-30, before any training with words, and is not made again: a test that changes measures
nothing. This script says how it was made. Word frequencies: PyPI's wordfreq 3.1.1 (Apache-2.0, data CC BY-SA 4.0); nouns:
WordNet 3.0 (Debian wordnet-base); what counts as right: labels and tags of emojibase-data 17.0.0 and WordNet.

Groups, each in the order of frequency, the most frequent first:
    word    180 English nouns that no label spells, in no form
    form     60 English nouns that a label spells, in a form that none spells: a plural, a capital, an article
    zh, ja, de, fr, es    12 nouns each that no label spells; none with an article
A noun: WordNet's most frequent sense of it is one that can be drawn (animal, artifact, body, food, object, person, plant); in
other languages: the tag of a thing whose English label is such a noun. A word that no drawing shows is left out, and so
are those in STRUCK, which were struck by hand before the split, without looking at any picture.

Right for a word: every thing with the word (or its singular or plural) as a tag or as its label's head (lexicon.heads); in English also
every thing whose label is a synonym of the word or a kind of it (WordNet, most frequent senses).

Forms of English words follow from SHA-256 of the word: as it is (30 %), with a or an (30 %), with a capital (20 %), as a
plural (20 %). Halves: the words of a group in the order of their SHA-256, one for the half that may be looked at, one for
the half that is never looked at before the end of the work. Only `evaluate` reads the second file. The lexicon (lexicon.py) is
made by rules from the same public tables, so its words are trained on, in both halves; what the second half tests is that no
rule, weight or word was chosen because of it. A word may be added to the lexicon by hand only for the first half.
"""
import argparse
import hashlib
import json
from pathlib import Path

import wordfreq

from lexicon import Lexicon, heads, pieces
from wordnet import FOLDER, WordNet

COUNTS = {"word": 180, "form": 60, "zh": 12, "ja": 12, "de": 12, "fr": 12, "es": 12}
STRUCK = {
    "word":
        "can come body room john friend art works father mother miss player ground stand mom son cover hair "
        "daughter die internet sir piece track ass manager dad lady leader sister bar floor machine block "
        "equipment cell drug structure arms mike winner handle spirit produce housing stick guide treat web "
        "steps sky launch sugar transport feed pool studio actor neck assembly facility frame diet parent "
        "transportation chest paint witness employee facing mount actress bars covering tape gym rail root "
        "saint landing string bench mill passenger settle gene tube breast tear terrorist knee trap fighter "
        "tissue chip sauce loop pump guardian lover rip pipe shelter bullet palm pole climb chips dish holder "
        "developer implement wrap nerve tobacco barrel chuck dam bubble casino warrior barrier crop horn "
        "organ rod stairs sweat zoo closet lip murphy".split(),
    "form":
        "mate cook guard hole".split(),
    "zh":
        "中国 工作 日本 时间 爱 吃 看 听 自由 法律 玩 小时 科学 工业 比赛 人物 正式 印度 死亡 方向 抓 跑 阅读 身体 欧洲 和平 运动 视频".split(),
    "ja":
        "人 あり 時間 かも 上 しか ゲーム なん アメリカ 動画 なし 娘 放送 研究 風 愛 夏 カード 撮影".split(),
    "de":
        "zeit weiss sehen arbeit schön liebe spielen schwer europa schreiben hilfe leicht lesen richtung "
        "gross zukunft all fahren idee alt preis rolle tod blick sprechen video hören sommer".split(),
    "fr":
        "son été temps rien grand petit mort part travail parle loi père gros jeune heure idée vue or fort "
        "aide retour vite pierre peur jouer points santé culture direction mode".split(),
    "es":
        "personas nueva mayor punto hablar idea muerte amor padre servicio personal paz servicios chile "
        "justicia libertad vista joven espacio santa feliz campaña negro blanco oro plata defensa".split(),
}
MOST = 40  # things that may be right for a word
FIELDS = ["id", "group", "language", "word", "prompt", "seed", "things"]


def digest(word):
    return hashlib.sha256(f"everyday/{word}".encode()).digest()


class Judge:
    """What counts as right."""

    def __init__(self, things, wordnet):
        self.things, self.net, self.lexicon = things, wordnet, Lexicon(things)
        self.of_synset, self.of_token = {}, {}
        for code, thing in things.items():
            label = thing["labels"]["en"]
            for token in heads("en", label):
                self.of_token.setdefault(token, set()).add(code)
            if ":" not in label and wordnet.concrete(label):
                synset = wordnet.synsets(label, 1)[0]
                for kind in {synset: 0, **wordnet.ancestors(synset, 8)}:
                    self.of_synset.setdefault(kind, set()).add(code)

    def right(self, lang, word):
        word = word.casefold()
        tagged = self.lexicon.tagged[lang]
        if lang != "en":
            found = tagged.get(word, set()) | {c for c, t in self.things.items() if lang in ("zh", "ja") and
                                               word in t["labels"][lang] and len(word) > 1}
            return found | {c for c, t in self.things.items() if word in pieces(t["labels"][lang])}
        found = set()
        for form in (word, self.net.plural(word)):
            found |= tagged.get(form, set()) | self.of_token.get(form, set())
        synset = self.net.synsets(word, 1)
        return found | (self.of_synset.get(synset[0], set()) if synset else set())


def frequent(lang, most):
    return [word for word in wordfreq.get_frequency_dict(lang, "large") if len(word) > (2 if lang == "en" else 0)][:most]


def candidates(group, things, judge):
    """Words in the order of frequency with what is right for them."""
    net, lexicon = judge.net, judge.lexicon
    lang = group if len(group) == 2 else "en"
    labels = set(lexicon.labels[lang]) | {net.plural(label) for label in lexicon.labels["en"]}
    nouns = None
    if lang != "en":
        nouns = {tag for tag, codes in lexicon.tagged[lang].items()
                 if any(net.concrete(things[c]["labels"]["en"]) for c in codes)}
    for word in frequent(lang, 40_000 if lang == "en" else 200_000):
        if word in STRUCK.get(group, ()) or group == "form" and (word not in lexicon.labels["en"] or " " in word):
            continue
        if group != "form" and word in labels or lang == "en" and not (net.concrete(word) and word.isalpha()):
            continue
        if lang == "en" and (word in net.qualities or word not in net.synonyms(net.synsets(word, 1)[0])):
            continue
        if nouns is not None and word not in nouns:
            continue
        right = judge.right(lang, word)
        if 0 < len(right) <= MOST:
            yield word, sorted(right, key=list(things).index)


def wording(group, word, net):
    """What is typed."""
    if group not in ("word", "form"):
        return word[0].upper() + word[1:] if group == "de" else word
    share = digest(word)[0] / 256
    if group == "form":
        share = 0.3 + 0.7 * share  # as it is, a label spells it
    article = "an" if word[0] in "aeiou" else "a"
    if group == "form" and share < 0.6:
        return f"{article.capitalize()} {word}"
    return word if share < 0.3 else f"{article} {word}" if share < 0.6 else word.capitalize() if share < 0.8 else net.plural(word)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--wordnet", default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    args = parser.parse_args()
    things = json.loads((args.work / "things.json").read_text())
    judge = Judge(things, WordNet(args.wordnet))
    halves = ([], [])
    for group, count in COUNTS.items():
        found = []
        for word, right in candidates(group, things, judge):
            found.append((word, right))
            if len(found) == count:
                break
        for n, (word, right) in enumerate(sorted(found, key=lambda pair: digest(pair[0]))):
            lang = group if len(group) == 2 else "en"
            row = [f"word-{n % 2}-{len(halves[n % 2]):03d}", group, lang, word, wording(group, word, judge.net),
                   str(int.from_bytes(digest(word)[1:4], "big")), " ".join(right)]
            halves[n % 2].append("\t".join(row))
    for name, rows in zip(("everyday_seen.tsv", "everyday_held.tsv"), halves):
        (args.out / name).write_text("\t".join(FIELDS) + "\n" + "".join(row + "\n" for row in rows))
        print(f"{name}: {len(rows)} words")


if __name__ == "__main__":
    main()
