"""Sentences of a small grammar: the place of most words decides what they are, the spelling of made-up ones."""

from __future__ import annotations

import torch

from elman.data.tagged import Tagged

BOTH = "fish watch light saw play walk talk water plant duck book drink paint answer visit swing"
RULES = {
    "SENTENCE": "WHO AUX VERB WHAT .|WHO AUX ADV VERB WHAT .|WHO AUX VERB WHAT WHERE .|AUX WHO VERB WHAT ?|VERB WHAT !|"
    "WHO WHERE AUX VERB ADV .|SOMEONE AUX VERB .",
    "WHO": "DET NOUN|DET ADJ NOUN|DET NOUN WHERE|SOMEONE|PROPN",
    "WHAT": "DET NOUN|DET ADJ NOUN|PRON|PROPN",
    "WHERE": "ADP DET NOUN|ADP DET ADJ NOUN|ADP PROPN",
}
WORDS = {
    "DET": "the a this that every her my",
    "ADJ": "light cold calm kind green fair old clean open quiet -y -ish",
    "NOUN": f"{BOTH} can will cold calm kind green open dog garden river -er -ness",
    "VERB": f"{BOTH} clean open calm see find -ise",
    "AUX": "can will may must",
    "PRON": "her that this them it him",
    "SOMEONE": "I you we they she he it that this",
    "ADP": "in on near by for like",
    "ADV": "often still never well fast -ly",
    "PROPN": "May Will Green -er -y -ton",
}
SYLLABLES = [start + vowel for start in "b br d f g gl k l m n p pl r s st t tr v z".split() for vowel in "aeiou"]


def grammar_sentences(count: int, seed: int) -> list[Tagged]:
    """Sentences, their words tagged by part of speech, an ending as -ly put to syllables; the same ones for a seed."""
    draw = torch.Generator().manual_seed(seed)

    def one_of(choices: list[str]) -> str:
        return choices[int(torch.randint(len(choices), (), generator=draw))]

    def word(kind: str) -> str:
        found = one_of(WORDS[kind].split())
        if found.startswith("-"):
            found = one_of(SYLLABLES) + one_of(SYLLABLES) + "l" + found[1:]
            return found.capitalize() if kind == "PROPN" else found
        return found

    def expand(symbol: str) -> list[tuple[str, str]]:
        if symbol in RULES:
            return [pair for part in one_of(RULES[symbol].split("|")).split() for pair in expand(part)]
        if symbol in WORDS:
            return [(word(symbol), "PRON" if symbol == "SOMEONE" else symbol)]
        return [(symbol, "PUNCT")]

    found = []
    for number in range(1, count + 1):
        words, tags = zip(*expand("SENTENCE"))
        found.append(Tagged(words, tags, "sentences made here", (number,) * len(words)))
    return found
