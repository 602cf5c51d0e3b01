"""The processes that train one model together: who reads what, what they add up, and who writes.

Every process has the whole model and takes the same steps. Of each batch it reads its share (`Share`); losses and
gradients are added, weighted by the symbols or examples that they are the mean of, so that a step is that of one
process with the whole batch. torch's DistributedDataParallel would weigh all shares alike, and wants every use of the
model to go through its `forward`; tasks do neither, so what it stands on, all_reduce, is used here as it is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn

from elman.checkpoint import RunFolder
from elman.console import Report
from elman.errors import ElmanError, OptionError, RunError
from elman.task.base import Loss, Share, Task
from elman.tensors import packed, unpacked

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # while the first process validates; one that has died is noticed at once
APART = 1_000_003  # between the seeds of processes


class Processes:
    """This process alone: all rows are its own, and there is nobody to agree with."""

    leads = True
    """Whether this is the first process, which alone validates, prints and writes."""
    restarts = False
    """Whether the same command may be started again, to go on with its run."""

    def divide(self, task: Task) -> None:
        """Give a task its share of each batch. Errors: OptionError where the batch cannot be divided."""

    def in_turn(self) -> AbstractContextManager[None]:
        """First one process of each machine, then the others: what the block fetches is fetched once."""
        return nullcontext()

    def folder(self, find: Callable[[], RunFolder]) -> RunFolder:
        """The run folder that the first process finds or makes."""
        return find()

    def report(self) -> Report:
        """What prints."""
        return Report()

    def combined(self, loss: Loss) -> Loss:
        """The loss of the whole batch; the objectives of all processes are now parts of one sum."""
        return loss

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make each gradient the sum of all processes'."""

    def most(self, value: int) -> int:
        """The largest of all processes' values."""
        return value

    def told(self, value: T, by: int = 0) -> T:
        """The value of the first process, or of another by its number; it is one that JSON can say."""
        return value

    def first(self, true: bool) -> int:
        """The number of the first process of which it is true; where it is of none, that of the first."""
        return 0

    def sent(self, tensors: Mapping[str, Tensor], by: int) -> Mapping[str, Tensor]:
        """The tensors of a process, by its number."""
        return tensors

    def whole(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors with all rows, from those with the rows of the share."""
        return rows

    def random(self) -> dict[str, Tensor]:
        """The random states of all processes, by name, where there are more than this one's."""
        return {}

    def draw_from(self, states: Mapping[str, Tensor]) -> None:
        """Go on with this process's random state. Errors: RuntimeError where it is none."""
        torch.set_rng_state(states["random"])

    def meet(self) -> None:
        """Wait until all processes are here."""


class Together(Processes):
    """One of the processes that torchrun has started.

    Errors: RunError from whatever meets the others, once one of them is gone.
    """

    def __init__(self) -> None:
        self.share = Share(dist.get_rank(), dist.get_world_size())
        self.leads = self.share.number == 0
        self.restarts = os.environ["TORCHELASTIC_MAX_RESTARTS"] != "0"
        self.seed = 0

    def divide(self, task: Task) -> None:
        batch, (number, of) = task.options.batch, self.share
        if batch % of:
            raise OptionError(f"--batch {batch} cannot be divided among {of} processes: give a multiple of {of}")
        task.share, self.seed = self.share, task.options.seed
        if not self.leads:
            torch.manual_seed(self.seed + APART * number)  # all have drawn the same weights; dropout is each one's own

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        first = os.environ["LOCAL_RANK"] == "0"
        if not first:
            self.meet()
        yield
        if first:
            self.meet()

    def folder(self, find: Callable[[], RunFolder]) -> RunFolder:
        self.meet()  # before anything is made, all have found their options and data to be right
        found = find() if self.leads else None
        path = Path(self.told(str(found.path) if found else ""))
        return found or Unwritten(path)

    def report(self) -> Report:
        return Report(None if self.leads else Console(quiet=True))

    def combined(self, loss: Loss) -> Loss:
        weight = loss.weight
        sums = torch.tensor([weight, weight * loss.value if weight else 0.0], dtype=torch.float64)
        self._call(dist.all_reduce, sums)
        total, value = sums.tolist()
        total = total or 1.0
        objective = loss.objective * (weight / total) if weight else torch.zeros((), requires_grad=True)
        return loss._replace(objective=objective, value=value / total)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        there = torch.tensor([float(p.grad is not None) for p in parameters]).to(parameters[0])
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        summed = torch.cat([part.flatten() for part in [*parts, there]])
        self._call(dist.all_reduce, summed)
        *parts, there = summed.split([part.numel() for part in [*parts, there]])
        for parameter, part, anywhere in zip(parameters, parts, there.tolist()):
            parameter.grad = part.view_as(parameter) if anywhere else None

    def most(self, value: int) -> int:
        largest = torch.tensor(value)
        self._call(dist.all_reduce, largest, dist.ReduceOp.MAX)
        return int(largest)

    def first(self, true: bool) -> int:
        number, of = self.share
        return (of - self.most(of - number if true else 0)) % of

    def told(self, value: T, by: int = 0) -> T:
        return json.loads(self._heard(json.dumps(value).encode(), by))

    def sent(self, tensors: Mapping[str, Tensor], by: int) -> Mapping[str, Tensor]:
        return unpacked(self._heard(packed(tensors, {}), by))

    def whole(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.stack(self._gathered(tensor), 1).flatten(0, 1) for name, tensor in rows.items()}

    def random(self) -> dict[str, Tensor]:
        return {random_name(number): state for number, state in enumerate(self._gathered(torch.get_rng_state()))}

    def draw_from(self, states: Mapping[str, Tensor]) -> None:
        number = self.share.number
        if random_name(number) in states:
            torch.set_rng_state(states[random_name(number)])
        else:  # there were fewer processes then
            torch.manual_seed(self.seed + APART * number)

    def meet(self) -> None:
        self.most(0)

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of each process; all are of one shape."""
        found = [torch.empty_like(tensor) for _ in range(self.share.of)]
        self._call(dist.all_gather, found, tensor.contiguous())
        return found

    def _heard(self, data: bytes, by: int) -> bytes:
        """The bytes that a process has."""
        said = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        size = torch.tensor(len(said))
        self._call(dist.broadcast, size, by)
        said = said if self.share.number == by else torch.empty(int(size), dtype=torch.uint8)
        self._call(dist.broadcast, said, by)
        return said.numpy().tobytes()

    def _call(self, collective: Callable[..., Any], *given: Any) -> None:
        try:
            collective(*given)
        except RuntimeError as error:  # of sockets that were closed
            said = str(error).partition("\n")[0]
            raise RunError(
                f"another process of this training has ended ({said:.120}); what it had saved is in its run folder: "
                "start it again with --resume"
            ) from None


class Unwritten(RunFolder):
    """The run folder as all but the first process see it: they read it, and what they would write is left out."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        yield

    def write_json(self, name: str, value: Any) -> None: ...

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None
    ) -> None: ...

    def append(self, name: str, text: str) -> None: ...

    def cut(self, name: str, size: int) -> None: ...

    def settled(self, name: str) -> int:
        return self.size(name)

    def retain(self, step: int) -> None: ...

    @contextmanager
    def alone(self) -> Iterator[None]:
        yield

    def go_back(self, step: int) -> None: ...

    def forget(self, steps: Iterable[int]) -> None: ...


def random_name(number: int) -> str:
    """What a process's random state is called in a checkpoint: random, random.1, ..."""
    return f"random.{number}" if number else "random"


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun has started, or this one alone.

    Where they end in errors, the first that has one raises it, and the others end without a word, with the same code.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield Processes()
        return
    kept, rank, count = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    store = dist.PrefixStore(place_to_meet(kept, rank, count), kept)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield Together()
    except ElmanError:
        if said_before(store):
            sys.exit(2)
        raise
    finally:
        dist.destroy_process_group()


def place_to_meet(store: Any, rank: int, count: int) -> str:
    """A name that all processes know, and that was never used before.

    torchrun keeps one store for all starts of the processes: under a name that lasts, those that were started again
    would find the addresses of those that are dead.
    """
    own = uuid4().hex
    if rank:
        store.set(f"here/{rank}", own)
        name = store.get(f"meet/{own}").decode()  # waits for the first process
        store.add(f"{name}/come", 1)
        return name
    while store.add(f"{own}/come", 0) < count - 1:
        for other in range(1, count):
            if store.check([f"here/{other}"]):  # this one, or the one before it, which will not come
                store.set(f"meet/{store.get(f'here/{other}').decode()}", own)
        time.sleep(0.02)
    return own


def said_before(store: Any) -> bool:
    """Whether another process has raised its error already."""
    try:
        return store.add("errors", 1) > 1
    except RuntimeError:  # the machine that would know is gone
        return False
