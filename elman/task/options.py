"""Options of training and sampling, their checks, recipes, and how they come back from JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from elman.errors import OptionError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How any task is trained. A task adds its own options."""

    run: str | None = None
    """The run folder. Default: runs/TASK, numbered when taken."""
    resume: bool = False
    """Go on with the run folder, exactly where it stopped. Without --run: with the newest of runs/TASK."""
    from_step: int | None = None
    """With --resume: go on from an older checkpoint that --checkpoints kept; what came after it is forgotten."""
    steps: int | None = None
    """Stop after this many steps. Without --steps, --epochs or --seconds: as many as the recipe says."""
    epochs: float | None = None
    """Stop after reading the training part this many times."""
    seconds: float | None = None
    """Stop after this much time. The weights then depend on the machine's speed; --steps gives the same bits twice."""
    seed: int = 0
    """Fixes the initial weights, dropout and samples."""

    optimizer: Literal["adamw", "adam", "adagrad", "sgd", "rmsprop"] = "adamw"
    """The optimiser, from torch.optim. adamw: with the second moment over 100 steps; adam: over 1000, as torch has it.
    Each wants a --rate of its own: sgd a larger one than adamw."""
    momentum: float = 0.0
    """Of sgd and rmsprop: how much of the last update goes into the next, 0 to below 1."""
    rate: float = 6e-3
    """Learning rate, at its highest."""
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    """How the rate falls: cosine to zero at the end, not at all, or each time that the validation score stalls."""
    patience: int = 3
    """With --schedule plateau: the rate falls each time that the first validation score has not become better for so
    many measurements."""
    plateau_factor: float = 0.5
    """With --schedule plateau: what the rate is multiplied by."""
    early_stop: int | None = None
    """End the training when the first validation score has not become better for so many measurements; None: not.
    The run has then reached its end; --resume goes on with a larger number."""
    warmup: int = 50
    """Steps over which the rate first rises from zero."""
    decay: float = 0.01
    """Weight decay of all but vectors (biases, initial states). adamw and adam: apart from the gradient; else in it."""
    decay_rules: tuple[str, ...] = ()
    """Weight decay by name of parameter, as PATTERN=DECAY: "embedding*=0" "*.W.weight=0.1". The last pattern that fits
    holds; where none does, --decay."""
    accumulate: int = 1
    """Batches read for each step; their mean objective is differentiated. A step is an update of the weights."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this norm over all parameters; None: not."""
    clip_value: float | None = None
    """Each gradient entry is cut to plus or minus this value; None: not."""
    on_divergence: Literal["stop", "skip", "back"] = "stop"
    """Where a loss or a gradient is no finite number: stop, and say where it arose; skip the batch, at most ten in a
    row; or go back to the last checkpoint and on at half the rate, at most three times."""
    average: float = 0.0
    """Use an average of the weights over training, in which those of each step fade by this factor; 0: the last."""
    keep: Literal["best", "last"] = "best"
    """Which weights the run ends with: those that validated best, or the last."""

    precision: Literal["float32", "bf16"] = "float32"
    """Of the products in training. bf16: their operands are rounded, all else stays float32, weights too; needs a
    processor with AMX or AVX512-BF16. What is trained is measured and used in float32."""

    report_every: int = 50
    """Steps between printed lines."""
    validate_every: int | None = 250
    """Steps between measurements on the validation part, each followed by a checkpoint. None: once an epoch,
    or every 50 steps where that is more."""
    checkpoints: int = 1
    """How many checkpoints are kept: the newest, and those before it."""
    sample_every: int | None = 100
    """Steps between samples; None: after each measurement."""
    tensorboard: bool = False
    """Write figures, samples, the graph and histograms for TensorBoard, into tensorboard/ in the run folder."""
    smoothing: float = 0.98
    """The training loss shown is smoothed: this much of the old, the rest of the new, from that of a uniform guess."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How a model is asked to write."""

    prompt: str = ""
    """Text that the model reads before it writes; printed first."""
    length: int = 500
    """How many symbols to write."""
    temperature: float = 0.8
    """Below 1 it plays safe, above 1 it dares; 0 always takes the most probable symbol."""
    top_k: int | None = None
    """Choose among the k most probable symbols only; None: among all."""
    seed: int = 0
    """The same seed gives the same text."""


ABOVE_0 = 1e-9
# Smallest values; the rest of the checks stand with the types.
AT_LEAST: Mapping[str, float] = {
    "steps": 1, "epochs": ABOVE_0, "seconds": ABOVE_0, "seed": 0, "rate": 0, "warmup": 0, "decay": 0,
    "clip_norm": ABOVE_0, "clip_value": ABOVE_0, "average": 0,
    "momentum": 0, "patience": 1, "plateau_factor": ABOVE_0, "early_stop": 1, "accumulate": 1, "from_step": 0,
    "checkpoints": 1, "report_every": 1, "validate_every": 1, "sample_every": 1, "smoothing": 0,
}  # fmt: skip


MOST_LAYERS = 200  # each is made, compiled and kept by itself


def flag_of(name: str) -> str:
    """An option as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def check_ranges(options: object, least: Mapping[str, float]) -> None:
    """Errors: OptionError naming the first option below its smallest value, or not a finite number."""
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and not low <= value < float("inf"):
            bound = "above 0" if low == ABOVE_0 else f"at least {low:g}"
            raise OptionError(f"{flag_of(name)} {value}: must be {bound}")
        if value is not None and value >= 2**62:
            raise OptionError(f"{flag_of(name)} {value}: must be below 2 to the 62")
        if name.endswith("layers") and value > MOST_LAYERS:
            raise OptionError(f"{flag_of(name)} {value}: must be at most {MOST_LAYERS}")


def check_below_one(options: object, *names: str) -> None:
    """Errors: OptionError naming the first option, a probability or a share, that is not below 1."""
    for name in names:
        if getattr(options, name) >= 1:
            raise OptionError(f"{flag_of(name)} {getattr(options, name)}: must be below 1")


def check_training(options: TrainOptions) -> None:
    """Errors: OptionError naming an option of the optimiser or the schedule that cannot be."""
    check_below_one(options, "momentum", "plateau_factor", "average", "smoothing")
    if options.momentum and options.optimizer not in ("sgd", "rmsprop"):
        raise OptionError(f"--momentum {options.momentum:g}: {options.optimizer} takes none, only sgd and rmsprop do")
    parse_rules(options.decay_rules)


def parse_rules(rules: Sequence[str]) -> list[tuple[str, float]]:
    """Patterns of parameter names, and the decay that each gives. Errors: OptionError naming a rule that is none."""
    found = []
    for rule in rules:
        pattern, _, decay = rule.rpartition("=")
        try:
            value = float(decay)
        except ValueError:
            value = math.nan
        if not pattern or not 0 <= value < math.inf:
            raise OptionError(f"--decay-rules {rule}: not PATTERN=DECAY with a decay of at least 0, as 'embedding*=0'")
        found.append((pattern, value))
    return found


def from_json(kind: type[T], saved: Any) -> T:
    """A dataclass from what JSON gave for it. Errors: OptionError naming the first field that does not fit."""
    hints = get_type_hints(kind)
    if not isinstance(saved, dict):
        raise OptionError(f"expected named values, got {saved!r:.60}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    for name, value in values.items():
        if name not in hints:
            raise OptionError(f"unknown field {name!r}")
        if not fits(value, hints[name]):
            raise OptionError(f"{name} is {value!r:.60}")
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in values]  # type: ignore[arg-type]
    if missing:
        raise OptionError(f"no {missing[0]}")
    return kind(**values)


def fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a field's type: numbers, text, choices, tuples of one type, alternatives."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(fits(each, parts[0]) for each in value)
    if parts:
        return any(fits(value, part) for part in parts)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint and (hint is not int or abs(value) < 2**62)


class Recipe(NamedTuple):
    """A named preset: options, and how far it goes unless told otherwise."""

    options: TrainOptions
    about: str
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None

    @property
    def length(self) -> str:
        """How far it goes, for people."""
        bounds = {"steps": self.steps, "epochs": self.epochs, "s": self.seconds}
        return " or ".join(f"{bound:,g} {unit}" for unit, bound in bounds.items() if bound)
