"""What a task is to the training loop and to the command line: a small interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from elman.errors import OptionError
from elman.task.options import Recipe, SampleOptions, TrainOptions


class Share(NamedTuple):
    """Which rows of each batch a process reads: one of every `of` rows, from its own number on; by itself, all."""

    number: int = 0
    of: int = 1

    @property
    def rows(self) -> slice:
        """Those of a batch that are its own. In batches sorted by length, no process has all the long ones."""
        return slice(self.number, None, self.of)

    def size(self, batch: int) -> int:
        """How many they are."""
        return len(range(batch)[self.rows])


class Loss(NamedTuple):
    """What one training batch gives, or a process's share of it."""

    objective: Tensor  # to be differentiated
    value: float  # to be shown, in the task's own unit
    state: Any = ()  # carried to the next batch, detached
    weight: float = 1.0  # how much both are the mean of, as symbols or examples, beside other shares of the batch


class Score(NamedTuple):
    """One figure of a measurement."""

    value: float | None  # None where it could not be measured
    text: str  # as people read it

    @classmethod
    def share(cls, count: int, of: int) -> Score:
        """So many of so many, as a share."""
        if not of:
            return cls(None, "not measured: there are none")
        return cls(count / of, f"{count / of:.2%} ({count:,} of {of:,})")


Scores = dict[str, Score]  # by name; the first is what the best weights are chosen by


class Task(ABC):
    """Data, model, loss and score of one kind of work: all that the training loop and the command line see of it.

    A new task is made from options alone; one from a run folder from its options and the JSON files it had written,
    and reads its training data only when it is asked to train on.
    """

    name: ClassVar[str]
    options_type: ClassVar[type[TrainOptions]]
    recipes: ClassVar[dict[str, Recipe]]
    examples: ClassVar[tuple[str, ...]]
    """Lines of help: commands."""
    file_names: ClassVar[tuple[str, ...]] = ()
    """The names of `files`."""
    higher: ClassVar[bool] = False
    """The first score is better when it is higher."""
    losses: ClassVar[tuple[str, ...]] = ("loss",)
    """The scores of `validate` that are in the unit of the training loss."""
    scoring: ClassVar[str] = ""
    """How `score` measures, where `validate` does not do it so; for people."""
    writes: ClassVar[bool] = False
    """The model writes by itself, as elman sample lets it, in place of answering to input."""

    options: Any
    model: nn.Module
    share: Share = Share()
    """Which rows of each training batch are read here; others where processes train together."""
    state: Any = None
    """What `predict` goes on from and leaves behind, where it was given a state; see `first_state`."""

    @abstractmethod
    def __init__(self, options: Any, files: dict[str, Any] | None = None) -> None:
        """Errors: DataError, OptionError."""

    @property
    @abstractmethod
    def files(self) -> dict[str, Any]:
        """JSON files of the run folder, beside config.json, that the model needs to be used."""

    @property
    @abstractmethod
    def data(self) -> dict[str, Any]:
        """What identifies the data, kept in config.json, so that other data is noticed on resume."""

    @property
    @abstractmethod
    def batches(self) -> int:
        """Training batches in an epoch."""

    @property
    @abstractmethod
    def has_validation(self) -> bool:
        """Whether some of the data is held back."""

    @property
    @abstractmethod
    def guess(self) -> float:
        """The loss of a guess that knows nothing, in the task's unit."""

    @abstractmethod
    def about(self) -> dict[str, str]:
        """What is trained on what, for people: rows of name and text; "backend" among them."""

    def initial(self) -> Any:
        """The state before the first batch, rows of the share first; nothing where none is carried on."""
        return ()

    @abstractmethod
    def loss(self, k: int, state: Any) -> Loss:
        """The share of the k-th batch of the training, counted over all epochs."""

    def pace(self, k: int) -> float:
        """What the learning rate is multiplied by at the k-th batch."""
        return 1.0

    @abstractmethod
    def in_units(self, value: float) -> str:
        """A loss, with its unit, as people read it."""

    @abstractmethod
    def validate(self) -> Scores:
        """Measured on the data held back; empty without such."""

    def gradient_by_lag(self) -> dict[int, float]:
        """Of a fixed batch, how much the last step's loss depends on the state so many steps before; empty where there
        is no such step. See `elman.gradient_by_lag`."""
        return {}

    @abstractmethod
    def score(self, paths: Sequence[str] = (), tick: Callable[[int], None] = lambda n: None) -> Scores:
        """Measured on files, or on the data held back; `tick` is told what is done. Errors: DataError."""

    def sample(self, k: int) -> str:
        """What the model does after k steps, to look at; empty where there is nothing to see."""
        return ""

    def snapshot(self, k: int) -> dict[str, Any]:
        """What is to be seen of the model after k steps, for JSON; empty where nothing is. It is asked for before the
        first step, then ever more seldom, and after the last; it draws no random numbers."""
        return {}

    def write(self, options: SampleOptions) -> Iterator[str]:
        """Pieces of what the model writes. Errors: OptionError, also where the task does not write."""
        raise OptionError(f"{self.name} does not write: elman predict RUN FILE says what it makes of new input")

    def first_state(self) -> Any:
        """The state of `predict` before it has read anything. Errors: OptionError where none goes on."""
        raise OptionError("this run carries no state from one call of predict to the next: leave --state out")

    def predict(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What the model makes of new input: a dictionary for JSON each, of which "text" is for people to read."""
        raise OptionError(f"{self.name} does not predict: elman sample RUN lets it write")

    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """What there is to see of the model on files, or on the data held back; elman.look draws each by its type."""
        return []

    def evolved(self, snapshots: Sequence[dict[str, Any]]) -> list[Any]:
        """What there is to see of its training, of all that `snapshot` gave, with "step" in each; as `views`."""
        return []
