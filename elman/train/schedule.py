"""The learning rate of each step, what follows when the validation score becomes no better, and when to look."""

from __future__ import annotations

import math
from dataclasses import dataclass

from elman.errors import OptionError
from elman.task.base import Task
from elman.task.options import TrainOptions


@dataclass
class Stall:
    """How long the first validation score has not become better, and how often the rate has fallen for that."""

    stale: int = 0  # measurements since it last became better
    falls: int = 0

    def note(self, improved: bool, options: TrainOptions) -> None:
        """Take in a measurement."""
        self.stale = 0 if improved else self.stale + 1
        if options.schedule == "plateau" and self.stale and self.stale % options.patience == 0:
            self.falls += 1

    def ends(self, options: TrainOptions) -> bool:
        """Whether this is the early end that the options ask for."""
        return options.early_stop is not None and self.stale >= options.early_stop


def learning_rate(options: TrainOptions, step: int, progress: float, falls: int) -> float:
    """The learning rate of the step after so many, where so much of the training is done, 0 to 1."""
    o, factor = options, 1.0
    if o.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * progress))
    elif o.schedule == "plateau":
        factor = o.plateau_factor**falls
    rising = min(1.0, (step + 1) / o.warmup) if o.warmup else 1.0
    return o.rate * rising * factor


def snapshot_due(step: int) -> bool:
    """Whether a snapshot is taken after so many steps: of the first eight after each, then four while they double."""
    return step % (1 << max(0, step.bit_length() - 3)) == 0


def refuse_unvalidated(task: Task) -> None:
    """Errors: OptionError where the options go by a validation score and nothing is held back."""
    o: TrainOptions = task.options
    asked = "--schedule plateau" if o.schedule == "plateau" else f"--early-stop {o.early_stop}" if o.early_stop else ""
    if asked and not task.has_validation:
        raise OptionError(
            f"{asked} goes by the validation score, and this run holds nothing back to validate: leave it out, or "
            "give the run a validation part"
        )
