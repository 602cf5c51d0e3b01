"""Garbage collection waits while a step is compiled."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection inside the block. Also a decorator.

    Tracing, importing LLVM and emitting make many objects, which would set off full collections; each looks at all that
    torch has loaded and takes 0.05-0.1 s. The end of the block looks at the new ones alone, so as not to set one off.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            try:
                gc.collect(0)
            finally:
                gc.enable()
