"""BLEU, by sacrebleu."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from elman.errors import DataError


def has_bleu() -> bool:
    return importlib.util.find_spec("sacrebleu") is not None


def bleu(found: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU of texts, 0 to 100, each with one or several references, all in lower case. Errors: DataError without it.

    Source: Papineni et al. (2002); Post (2018), "A call for clarity in reporting BLEU scores".
    """
    if not has_bleu():
        raise DataError("BLEU needs sacrebleu: pip install elman[score]")
    from sacrebleu.metrics.bleu import BLEU

    most = max(map(len, references))
    streams: list[Any] = [[each[i] if i < len(each) else None for each in references] for i in range(most)]
    return BLEU(lowercase=True).corpus_score(list(found), streams).score
