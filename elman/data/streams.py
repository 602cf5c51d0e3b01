"""A line of symbols read in streams side by side, window after window, and where documents begin in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.errors import DataError

PIECE = 1 << 24  # symbols searched at once
LINES = 1 << 18  # that are put into their new order at once
WHOLE, DEVIATION, LEAST = 0.95, 5.0, 5.0  # windows of random length: how often a whole one, and its spread


class Streams:
    """A line of symbols cut into B streams of equal length, read side by side in windows of T.

    Window k+1 goes on where window k ended, row by row, so the state is carried from one to the next (truncated
    BPTT). A new epoch begins at the beginning, with a fresh state. What is left over after the last whole window of
    each stream is not read. Any window is found from its number alone: nothing moves, so nothing can get out of step.

    begins: the places, rising, at which the state is reset, see `beginnings`. vary: a seed, from which each epoch takes
    the lengths of its windows, as many as otherwise: T with probability 0.95, else T / 2, then normal around it with
    deviation 5, at least 5; all of them stretched by one factor, so that they fill the stream.
    Errors: DataError when the text is too short for one window a stream.
    Source: Merity, Keskar, Socher, "Regularizing and optimizing LSTM language models" (2017), section 5.
    """

    def __init__(
        self, ids: Tensor, batch: int, window: int, begins: Tensor | None = None, vary: int | None = None
    ) -> None:
        length = (len(ids) - 1) // batch
        self.windows = length // window  # in one epoch
        if self.windows < 1:
            raise DataError(
                f"the text is too short: training has {len(ids):,} symbols, one window of {window} in each of {batch} "
                f"streams needs {batch * window + 1:,}; use a longer text, or smaller --window and --batch"
            )
        self.window, self.length, self.begins, self.vary = window, length, begins, vary
        self._x, self._y = (ids[at : at + batch * length].view(batch, length) for at in (0, 1))
        self._epoch, self._edges = -1, list[int]()

    def span(self, k: int) -> tuple[int, int]:
        """The steps of window k of all epochs: its first, and the one after its last."""
        epoch, k = divmod(k, self.windows)
        if self.vary is None:
            return k * self.window, (k + 1) * self.window
        if epoch != self._epoch:
            self._epoch, self._edges = epoch, self._draw_edges(self.vary, epoch)
        return self._edges[k], self._edges[k + 1]

    def _draw_edges(self, seed: int, epoch: int) -> list[int]:
        """Where the windows of an epoch begin, and where the last one ends."""
        draw = torch.Generator().manual_seed((seed + 1_000_003 * epoch) % 2**63)
        whole = torch.rand(self.windows, generator=draw, dtype=torch.float64) < WHOLE
        around = torch.where(whole, self.window, self.window / 2).double()
        ends = torch.normal(around, DEVIATION, generator=draw).clamp(min=LEAST).cumsum(0)
        return [0, *(ends * (self.length / ends[-1])).round().long().tolist()]

    def between(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets from one step of all streams to another, both (T, B) of int64."""
        return self._x[:, start:end].T.long(), self._y[:, start:end].T.long()

    def resets(self, start: int, end: int) -> Tensor | None:
        """Where documents begin in these steps of all streams, (T, B) of bool; None where all is one document."""
        if self.begins is None:
            return None
        at = torch.arange(len(self._x)) * self.length + start
        return begun(self.begins, at, min(end, self.length) - start)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        """Window k of all epochs: inputs and targets, both (T, B)."""
        return self.between(*self.span(k))

    def fresh(self, k: int) -> bool:
        """Whether window k begins an epoch, and so takes a fresh state."""
        return k % self.windows == 0


def beginnings(marks: Tensor, ends: Sequence[int]) -> Tensor:
    """Where documents begin: at the last symbol of each mark, as `marked` finds them, and of each file, rising.

    The symbol that ends a document is what the next one reads first, from an initial state: it is predicted from the
    document that it ends, and all that follows it from itself on. So every symbol of the text is predicted, no
    prediction sees more of another document than this one symbol, and a state that was reset tells nothing of a mark
    that is not yet whole. ends: behind the last symbol of each file, the last of which ends the text.
    """
    files = torch.tensor([end - 1 for end in ends[:-1] if end], dtype=torch.int64)
    return torch.cat([marks, files]).unique() if len(files) else marks


def marked(ids: Tensor, mark: Sequence[int]) -> Tensor:
    """The last symbol of each place where a mark stands in a text (N,): (D,) of int64, rising."""
    found, last = [torch.empty(0, dtype=torch.int64)], len(mark) - 1
    for at in range(0, len(ids) if mark else 0, PIECE):
        piece = ids[at : at + PIECE + last]
        here = torch.ones(max(len(piece) - last, 0), dtype=torch.bool)
        for i, symbol in enumerate(mark):
            here &= piece[i : i + len(here)] == symbol
        found.append(here.nonzero()[:, 0] + at + last)
    return torch.cat(found)


def begun(begins: Tensor, at: Tensor, steps: int) -> Tensor:
    """Which of so many steps from places (B,) on are beginnings, (T, B) of bool."""
    found = torch.zeros(steps, len(at), dtype=torch.bool)
    edges = torch.searchsorted(begins, torch.stack([at, at + steps])).T
    for row, (low, high) in enumerate(edges.tolist()):
        found[begins[low:high] - at[row], row] = True
    return found


def shuffled(ids: Tensor, line_end: int, seed: int) -> Tensor:
    """The lines of a text (N,) in an order fixed by the seed; what stands behind the last line end stays last."""
    ends = (ids == line_end).nonzero()[:, 0] + 1
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])[: len(ends)]
    order = torch.randperm(len(ends), generator=torch.Generator().manual_seed(seed))
    parts = []
    for some in order.split(LINES):
        sizes = (ends - starts)[some]
        before = sizes.cumsum(0) - sizes  # where each line begins in its new place
        at = torch.arange(int(sizes.sum())) + (starts[some] - before).repeat_interleave(sizes)
        parts.append(ids[at])
    return torch.cat([*parts, ids[int(ends[-1]) if len(ends) else 0 :]])
