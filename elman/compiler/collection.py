"""Garbage collection waits while a step is compiled."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Pauses:
    """The blocks that pause it, in any thread: the first one stops it, the last one sets it going if it was."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finaliser may compile, too
        self.inside, self.was = 0, False

    def enter(self) -> None:
        with self.lock:
            if not self.inside:
                self.was = gc.isenabled()
                gc.disable()
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside = max(self.inside - 1, 0)  # 0 in a child that was forked inside a block
            if not self.inside and self.was:
                try:
                    gc.collect(0)
                finally:
                    gc.enable()

    def after_fork(self) -> None:
        """Other threads are not in the child, and do not end their blocks there."""
        if self.inside and self.was:
            gc.enable()
        self.lock, self.inside, self.was = threading.RLock(), 0, False


_pauses = Pauses()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pauses.after_fork)


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection inside the block, in any thread. Also a decorator.

    Tracing, importing LLVM and emitting make many objects, which would set off full collections; each looks at all that
    torch has loaded and takes 0.05-0.1 s. The end of the block looks at the new ones alone, so as not to set one off.
    """
    _pauses.enter()
    try:
        yield
    finally:
        _pauses.leave()
