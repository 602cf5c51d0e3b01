"""Whether a backward may write over what forward saved: once, and only if nobody reads it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from elman.compiler.emit.reference import Spare


class Saved:
    """What may be written over of one forward's memory as its backwards come. Lists, since their methods are atomic."""

    def __init__(self, spare: Spare) -> None:
        self.spare = spare
        self.left = [spare]  # empty once it has been written over
        self.readers: list[None] = []

    @contextmanager
    def reading(self) -> Iterator[Spare]:
        """For the time of a backward: what it may write over."""
        self.readers.append(None)
        try:
            yield self.taken()
        finally:
            self.readers.pop()

    def taken(self) -> Spare:
        """All, for the one that runs alone and does not keep the graph; nothing for others."""
        keeps = torch._C._autograd._get_current_graph_task_keep_graph()
        if not self.spare or (keeps and self.left):
            return ()
        try:
            spare = self.left.pop()
        except IndexError:  # torch has not heard of it if that backward ended in an error
            raise RuntimeError(
                "an earlier backward through these steps has written over what forward saved, and ended in an error "
                "or is still running: run forward again, or keep the graph in both (retain_graph=True)"
            ) from None
        if len(self.readers) > 1:  # in another thread
            self.left.append(spare)
            return ()
        return spare
