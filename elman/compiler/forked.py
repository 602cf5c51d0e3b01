"""Whether this process was forked from one in which elman, and so torch, was loaded: it has none of its threads."""

from __future__ import annotations

import os

_here = False


def here() -> bool:
    """This is such a child: GNU OpenMP would wait in it for its parent's threads for ever."""
    return _here


def _note() -> None:
    global _here
    _here = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note)
