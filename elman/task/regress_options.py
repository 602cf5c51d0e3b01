"""The options and recipes of regress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elman.data.table import PHASES
from elman.errors import OptionError
from elman.task.networks import CellName
from elman.task.options import Recipe, check_below_one, check_ranges
from elman.task.supervised import SupervisedOptions
from elman.task.windows import parse_split


@dataclass(frozen=True, kw_only=True)
class Options(SupervisedOptions):
    """Which columns are read and answered with, and by what network."""

    inputs: str | None = None
    """Names of the columns that are read: a,b. None: all numeric ones (in step: all that are no targets)."""
    targets: str | None = None
    """Names of the columns that are answered with: c,d. None: all numeric ones (in step: all that are no inputs)."""
    time: str | None = None
    """The column that holds times. None: the first column, if it does."""
    calendar: str = "hour,weekday"
    """What of the time a forecast reads: hour, weekday, month (where in the year); nothing: --calendar ''."""
    missing: Literal["refuse", "fill"] = "refuse"
    """Missing values (empty cells, nan): an error, or the value before it again, and an input that says so."""
    validate_every: int | None = 200
    horizon: int = 24
    """How many steps ahead are forecast; 0: the targets of each step are answered in step."""
    context: int = 96
    """Steps of the past that a forecast reads; in step: the steps of a training window."""
    split: str | None = None
    """Rows to train, to validate and to test, in the order of time: 0.6,0.2,0.2 or 8640,2880,2880 (without the third:
    all others). None: the last --validation of the rows validates."""
    season: int = 1
    """The naive forecast, to compare: the value so many steps before."""
    quantiles: str | None = None
    """Quantiles to learn, as 0.1,0.5,0.9, by the pinball loss. None: the mean, by the squared error."""

    cell: CellName = "gru"
    """The recurrent cell."""
    hidden: int = 64
    """Width of each recurrent layer."""
    layers: int = 1
    """Recurrent layers, one above the other."""
    dropout: float = 0.0
    """Probability of dropping an entry of each layer's output."""
    segment: int = 1
    """Forecasting: steps that are read at once, as one input."""
    centre: Literal["none", "last", "window"] = "last"
    """Forecasting: what is taken from each window and given back: its last value, or its mean and deviation."""
    apart: bool = False
    """Forecasting: each target by its own past alone, all through the same weights."""
    carry: bool = False
    """In step: carry the state from each training window to the next, in --batch streams side by side."""
    beside: bool = False
    """In step: train a network without memory beside, of the same width, to compare."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"horizon": 0, "context": 1, "season": 1, "hidden": 1, "layers": 1, "dropout": 0, "segment": 1}
        check_ranges(self, least)
        check_below_one(self, "dropout")
        if self.split is not None:
            parse_split(self.split)
            if self.share is None:
                raise OptionError(
                    f"--validation {Path(self.validation).name} and --split {self.split} both say what to validate on; "
                    "leave the first out, or give --split None"
                )
        for name in self.kinds:
            if name not in PHASES:
                raise OptionError(f"--calendar {self.calendar}: {name!r} is none of {', '.join(PHASES)}")
        if not all(0 < q < 1 for q in self.levels) or sorted(set(self.levels)) != list(self.levels):
            raise OptionError(f"--quantiles {self.quantiles}: must rise and lie between 0 and 1, as 0.1,0.5,0.9")
        self.check_direction()

    def check_direction(self) -> None:
        """Errors: OptionError where options of forecasting and of answering in step meet."""
        if self.horizon:
            for name in ("carry", "beside"):
                if getattr(self, name):
                    raise OptionError(
                        f"--{name} is for answers in step; --horizon {self.horizon} forecasts: leave one out"
                    )
            if self.context % self.segment:
                raise OptionError(f"--context {self.context} is no multiple of --segment {self.segment}")
            if self.season > self.context:
                raise OptionError(f"--season {self.season} is longer than --context {self.context}")
        elif self.apart or self.segment > 1:
            raise OptionError("--apart and --segment are for forecasts; --horizon 0 answers in step: leave them out")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What of the time is read; nothing in step."""
        return names(self.calendar) if self.horizon else ()

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantiles; empty for the mean. Errors: OptionError."""
        try:
            return tuple(float(word) for word in names(self.quantiles or ""))
        except ValueError:
            raise OptionError(f"--quantiles {self.quantiles}: give numbers between 0 and 1, as 0.1,0.5,0.9") from None


def names(text: str) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


RECIPES: dict[str, Recipe] = {
    "default": Recipe(Options(rate=3e-3), "a GRU forecasts all columns from the last 96 steps", epochs=5),
    "ett": Recipe(
        Options(
            split="8640,2880,2880", calendar="hour", context=336, segment=24, apart=True, hidden=128, dropout=0.3,
            batch=32, rate=2e-3, average=0.99,
        ),
        "ETTh1.csv, 24 hours ahead: each variable by its own last two weeks, a day at a time",
        epochs=4,
    ),
    "sine-cosine": Recipe(
        Options(
            horizon=0, context=20, batch=50, carry=True, beside=True, cell="lstm", hidden=16, optimizer="adam",
            rate=6e-3, schedule="constant", decay=0.0, clip_norm=None, report_every=20, validate_every=100,
        ),
        "the cosine from the sine: LSTM 16, Adam 6e-3, 20 steps a window, the state carried",
        steps=200,
    ),
}  # fmt: skip
