"""Signals that ask a training to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]

HANGUP = getattr(signal, "SIGHUP", None)


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that is empty until a signal asks to stop, so that a step ends before training does.

    Signals: Ctrl-C, SIGTERM, SIGHUP (a terminal that is closed; not under nohup), and SIGUSR1, by which schedulers
    announce that they will take the machine away. Ctrl-C after any of them ends at once.
    """
    stop: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.append(number)

    ignored = {HANGUP} if HANGUP and signal.getsignal(HANGUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, note) for number in STOPS if number not in ignored}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
