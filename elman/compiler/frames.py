"""Whose line of code is running: the user's, found through torch's and the compiler's own."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import walk_tb
from types import FrameType

import torch

TORCH = str(Path(torch.__file__).parent)
OWN = str(Path(__file__).parent)


def frame_of_user(*others: str) -> FrameType | None:
    """Innermost frame that is neither torch's nor the compiler's, nor of a file whose path begins as `others` say."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((TORCH, OWN, "<", *others)):
        frame = frame.f_back
    return frame


def line_of_user() -> str:
    """file:line of that frame."""
    frame = frame_of_user()
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def line_of_error(error: BaseException, *others: str) -> str:
    """The same of the frame in which an error came up, with a colon; empty where there is none."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    found = [f"{Path(file).name}:{line}: " for file, line in frames if not file.startswith((TORCH, OWN, "<", *others))]
    return found[-1] if found else ""
