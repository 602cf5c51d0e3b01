"""Signals that ask a training to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that is empty until a signal asks to stop, so that a step ends before training does.

    Signals: Ctrl-C, SIGTERM, and SIGUSR1, by which schedulers announce that they will take the machine away. Ctrl-C
    after any of them ends at once.
    """
    stop: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.append(number)

    before = {number: signal.signal(number, note) for number in STOPS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
