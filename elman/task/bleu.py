"""BLEU, by the package sacrebleu."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from elman.errors import DataError


def has_bleu() -> bool:
    return importlib.util.find_spec("sacrebleu") is not None


def require_bleu() -> None:
    """Errors: DataError without the package."""
    if not has_bleu():
        raise DataError("BLEU needs the package sacrebleu: pip install elman[score]")


def bleu(found: Sequence[str], right: Sequence[Sequence[str]], *, lowercase: bool = False) -> float:
    """Corpus BLEU, 0 to 100, of texts against one or several right ones each; tokens as in mteval-v13a.

    Source: Papineni et al. (2002); Post (2018), arXiv:1804.08771. Errors: DataError without the package.
    """
    require_bleu()
    from sacrebleu.metrics.bleu import BLEU

    most = max(map(len, right), default=1)
    references: list[Any] = [[texts[i] if i < len(texts) else None for texts in right] for i in range(most)]
    return float(BLEU(lowercase=lowercase, tokenize="13a").corpus_score(list(found), references).score)
