"""Which of many examples are looked at, and which of these are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(examples: Sequence[T], count: int) -> list[T]:
    """At most so many of them, evenly spread, in their order."""
    N = len(examples)
    return [examples[i * N // count] for i in range(count)] if count < N else list(examples)


def worst_first(worst: Sequence[T], others: Sequence[T], count: int) -> list[T]:
    """At most so many: half of them the first of the worst, or more where there are few others; then others."""
    kept = worst[: max(count // 2, count - len(others))]
    return [*kept, *spread(others, count - len(kept))]
