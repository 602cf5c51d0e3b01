"""Which examples each training step reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

POOL = 50  # batches, within which examples are sorted by length


class Batches:
    """Every epoch all examples once, in an order of its own, those of like length together.

    Batch k is found from its number and the seed alone, so a resumed training reads what it would have read. The
    last batch of an epoch may be smaller. Batches come in random order, and so do examples of one length.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self.lengths, self.size, self.seed = torch.as_tensor(lengths), size, seed
        self._epoch, self._order = -1, list[list[int]]()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.lengths) // self.size)

    def __getitem__(self, k: int) -> list[int]:
        """The numbers of the examples of batch k, counted over all epochs."""
        epoch, k = divmod(k, len(self))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self.order(epoch)
        return self._order[k]

    def order(self, epoch: int) -> list[list[int]]:
        draw = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        shuffled = torch.randperm(len(self.lengths), generator=draw)
        pools = shuffled.split(self.size * POOL)
        by_length = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        batches = by_length.split(self.size)
        return [batches[i].tolist() for i in torch.randperm(len(batches), generator=draw)]


def in_turn(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """All examples in batches for measuring: the longest first, so that what does not fit in memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for at in range(0, len(order), size):
        yield order[at : at + size]
