"""What those who call a layer see of it: the line that a warning names, and nothing where torch.compile looks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from elman.compiler.frames import TORCH
from elman.errors import BackendWarning

ELMAN = str(Path(__file__).parents[1])

P = ParamSpec("P")
R = TypeVar("R")


_said: set[str] = set()


def warn(text: str) -> None:
    """A BackendWarning at the line that called elman, however many of torch's functions lie between; said once."""
    if text in _said:
        return
    _said.add(text)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith((TORCH, ELMAN, "<")):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, BackendWarning, stacklevel=level)


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, of which torch.compile sees nothing: it breaks its graph there, as for torch's own LSTM."""
    hidden: list[Callable[P, R]] = []

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:  # its import takes two seconds, and nobody compiles without it
            return function(*args, **kwargs)
        if not hidden:
            hidden.append(torch.compiler.disable(function))
        return hidden[0](*args, **kwargs)

    return call
