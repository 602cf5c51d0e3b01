"""What tasks over single examples share: what is read, what is held back, batches, and how they are measured."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
import tyro
from torch import nn

from elman.data.batches import Batches, in_turn
from elman.data.download import kept, located
from elman.errors import DataError, OptionError
from elman.task.base import Loss, Scores, Task
from elman.task.networks import in_memory
from elman.task.options import AT_LEAST, TrainOptions, check_ranges, check_training

E = TypeVar("E")


@dataclass(frozen=True, kw_only=True)
class SupervisedOptions(TrainOptions):
    """How a task over examples is trained. A task adds its own options."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Training data. None: what the task makes for itself."""
    validation: str = "0.1"
    """The share of the training examples that is held back to validate, or a file or folder to validate on."""
    batch: int = 32
    """Examples in a batch."""
    validate_every: int | None = None
    sample_every: int | None = None
    warmup: int = 0
    smoothing: float = 0.95

    def __post_init__(self) -> None:
        check_ranges(self, {**AT_LEAST, "batch": 1})
        check_training(self)
        object.__setattr__(self, "files", tuple(map(kept, self.files)))
        if self.share is None:
            object.__setattr__(self, "validation", str(Path(self.validation).absolute()))

    @property
    def share(self) -> float | None:
        """The share that is held back; None where a file is named."""
        try:
            share = float(self.validation)
        except ValueError:
            return None
        return share if 0 <= share < 1 else None

    @property
    def validation_files(self) -> tuple[str, ...]:
        """The files to validate on; none where a share is held back."""
        return (self.validation,) if self.share is None else ()


class Supervised(Task, Generic[E]):
    """A task over examples of type E.

    A subclass says how examples are read (`read`, `made`), what is taken from the training examples beside weights
    (`fit`, kept as JSON), the network (`build`), the loss of a batch (`objective`) and its figures (`measure`).
    """

    options: Any

    def __init__(self, options: Any, files: dict[str, Any] | None = None) -> None:
        self.options = options
        if files is None:
            check_validation(options)
        self._files = self.fit(self.training) if files is None else files
        self.prepare(self._files)
        torch.manual_seed(options.seed)
        with in_memory(options):
            self.model = self.build()

    # what a task says

    @abstractmethod
    def read(self, paths: Sequence[str], training: bool) -> Sequence[E]:
        """The examples of files, with what is right, to train on or to measure on. Errors: DataError."""

    @abstractmethod
    def made(self) -> Sequence[E]:
        """The examples that are made where no file is named, the same ones each time."""

    @abstractmethod
    def fit(self, examples: Sequence[E]) -> dict[str, Any]:
        """JSON files with what the model needs of the training data: vocabularies, labels, means."""

    @abstractmethod
    def prepare(self, files: dict[str, Any]) -> None:
        """Take in what `fit` found. Errors: DataError where it is not that."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network."""

    @abstractmethod
    def length(self, example: E) -> int:
        """Steps of an example, by which batches are put together."""

    @abstractmethod
    def objective(self, examples: Sequence[E]) -> Loss:
        """The mean loss of examples, what is shown of it, and what it is the mean of."""

    @abstractmethod
    def measure(self, examples: Sequence[E], tick: Callable[[int], None]) -> Scores:
        """Figures of the model on examples, `tick` told how many are done; the model is in evaluation."""

    # the data

    @cached_property
    def _split(self) -> tuple[Sequence[E], Sequence[E]]:
        """The examples to train on, and those held back."""
        o = self.options
        examples = self.read(find(o.files), training=True) if o.files else self.made()
        if o.share is None:
            return examples, self.read(o.validation_files, training=False)
        count = max(round(len(examples) * o.share), 1 if o.share else 0)
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(o.seed)).tolist()
        held = sorted(order[:count])
        if count == len(examples):
            raise DataError(f"{len(examples)} examples are too few to hold {o.share:g} of them back")
        return [examples[i] for i in sorted(order[count:])], [examples[i] for i in held]

    @property
    def training(self) -> Sequence[E]:
        return self._split[0]

    @property
    def held_back(self) -> Sequence[E]:
        return self._split[1]

    @property
    def has_validation(self) -> bool:
        return self.options.share != 0

    @property
    def files(self) -> dict[str, Any]:
        return self._files

    @cached_property
    def data(self) -> dict[str, Any]:
        named = [*self.options.files, *self.options.validation_files]
        found = {"examples": len(self.training), "held_back": len(self.held_back)}
        return {**found, "sha256": fingerprint(find(named))} if named else found

    @cached_property
    def _batches(self) -> Batches:
        return Batches([self.length(e) for e in self.training], self.options.batch, self.options.seed)

    @property
    def batches(self) -> int:
        return len(self._batches)

    # training and measuring

    def loss(self, k: int, state: Any) -> Loss:
        self.model.train()
        examples = [self.training[i] for i in self._batches[k][self.share.rows]]
        if not examples:  # a last batch that is smaller than there are processes
            return Loss(torch.zeros(()), 0.0, weight=0)
        return self.objective(examples)

    def validate(self) -> Scores:
        return self.figures(self.held_back) if self.has_validation else {}

    def score(self, paths: Sequence[str] = (), tick: Callable[[int], None] = lambda n: None) -> Scores:
        if not paths and not self.has_validation:
            raise DataError("this run held nothing back to validate: name a file to score, as in: elman score RUN FILE")
        return self.figures(self.read(find(paths), training=False) if paths else self.held_back, tick)

    @torch.no_grad()
    def figures(self, examples: Sequence[E], tick: Callable[[int], None] = lambda n: None) -> Scores:
        training = self.model.training
        self.model.eval()
        try:
            return self.measure(examples, tick)
        finally:
            self.model.train(training)

    def in_batches(self, examples: Sequence[E], tick: Callable[[int], None] = lambda n: None) -> Iterator[list[int]]:
        """The numbers of all examples, in batches of like length."""
        for numbers in in_turn([self.length(e) for e in examples], 4 * self.options.batch):
            yield numbers
            tick(len(numbers))


def check_validation(options: SupervisedOptions) -> None:
    """Errors: OptionError where --validation names nothing that is there."""
    if options.share is None and not Path(options.validation).exists():
        raise OptionError(
            f"--validation {Path(options.validation).name}: neither a share from 0 to below 1 nor an existing file; "
            "give one of these"
        )


def find(names: Sequence[str]) -> list[str]:
    """Where files and sets of these names lie; sets are fetched."""
    return [str(located(name)) for name in names]


def fingerprint(paths: Sequence[str]) -> str:
    """SHA-256 of files, and of all files in folders, by name and content."""
    digest = hashlib.sha256()
    for name in paths:
        path = Path(name)
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with open(file, "rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
