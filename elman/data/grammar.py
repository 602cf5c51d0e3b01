"""Sentences of a small grammar in which most words can be several parts of speech, and their place decides."""

from __future__ import annotations

import torch

from elman.data.tagged import Tagged

BOTH = "fish watch light saw play walk talk water plant duck book drink paint answer visit swing"
WORDS = {
    "DET": "the a this that every her my",
    "ADJ": "light cold calm kind green fair old clean open quiet",
    "NOUN": f"{BOTH} can will cold calm kind green open dog garden river",
    "VERB": f"{BOTH} clean open calm cold-shoulder see find",
    "AUX": "can will may must",
    "PRON": "her that this them it him",
    "SUBJECT": "I you we they she he it that this",
    "ADP": "in on near by for like",
    "ADV": "often still never well fast",
}
TAGS = {name: name for name in WORDS} | {"SUBJECT": "PRON"}
RULES = {
    "SENTENCE": ("WHO AUX VERB WHAT .", "WHO AUX ADV VERB WHAT .", "WHO AUX VERB WHAT WHERE .", "AUX WHO VERB WHAT ?",
                 "VERB WHAT !", "WHO WHERE AUX VERB ADV ."),
    "WHO": ("DET NOUN", "DET ADJ NOUN", "SUBJECT"),
    "WHAT": ("DET NOUN", "DET ADJ NOUN", "PRON"),
    "WHERE": ("ADP DET NOUN", "ADP DET ADJ NOUN"),
}  # fmt: skip


def grammar_sentences(count: int, seed: int) -> list[Tagged]:
    """Sentences, their words tagged by part of speech; the same ones for a seed."""
    draw = torch.Generator().manual_seed(seed)

    def one_of(choices: tuple[str, ...]) -> str:
        return choices[int(torch.randint(len(choices), (), generator=draw))]

    def expand(symbol: str) -> list[tuple[str, str]]:
        if symbol in RULES:
            return [pair for part in one_of(RULES[symbol]).split() for pair in expand(part)]
        return [(one_of(tuple(WORDS[symbol].split())), TAGS[symbol])] if symbol in WORDS else [(symbol, "PUNCT")]

    found = []
    for number in range(1, count + 1):
        words, tags = zip(*expand("SENTENCE"))
        found.append(Tagged(words, tags, "sentences made here", (number,) * len(words)))
    return found
