"""A loss or a gradient that is no finite number: where it arose, what is kept of it, and how training goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.errors import DivergenceError
from elman.module import Located, locate
from elman.task.base import Loss
from elman.tensors import flatten
from elman.train.optimizers import make_optimizer

if TYPE_CHECKING:
    from elman.train.training import Training

IN_ROW = 10  # batches that may be skipped one after another
BACK = 3  # times that training may go back
KEPT = 10  # divergences whose batch is kept


@dataclass
class Counts:
    """How often gradients were clipped since the last line of the log, and what was done about divergences."""

    since: int = 0  # steps since the last line
    clipped: int = 0  # of these
    skipped: int = 0  # in the whole training
    in_row: int = 0  # of these without a good step between
    back: int = 0  # times that training went back

    @property
    def slower(self) -> float:
        """What the learning rate is multiplied by."""
        return float(0.5**self.back)

    def add(self, clipped: bool) -> None:
        """A good step."""
        self.since += 1
        self.clipped += clipped
        self.in_row = 0

    def reported(self) -> None:
        """A line was written."""
        self.since = self.clipped = 0

    def shown(self) -> dict[str, float]:
        """For a line of the log: the share of steps clipped, and skips where there were any."""
        return {"clipped": self.clipped / self.since, **({"skipped": self.skipped} if self.skipped else {})}


def diverged(run: Training, what: str, loss: Loss, random: Tensor) -> None:
    """Find out where it began, keep it, and do as the options say; `random`: the random state before the step.

    Errors: DivergenceError where training is to stop, or nothing helps.
    """
    policy, counts = run.options.on_divergence, run.counts
    found = found_again(run, random)
    finder = run.processes.first(found.kind != "nothing")
    said = run.processes.told(told(run.step, found), finder)
    names = keep(run, said, run.processes.sent(found.batch, finder), random)
    where = f" ({names} in {run.folder.path})" if names else ""
    text = f"{what} at step {run.step}: {said['found']}{where}"
    lost = said["located"]["kind"] == "parameter"  # skipping a batch does not mend it
    if policy == "skip" and not lost and counts.in_row < IN_ROW:
        skip(run, loss, text, said)
    elif policy == "back" and counts.back < BACK:
        go_back(run, text, said)
    else:
        raise DivergenceError(f"{text}; {advice(run, lost)}")


def found_again(run: Training, random: Tensor) -> Located:
    """Where the first number that is not finite arises when the step, its share here, is run once more."""
    n = run.options.accumulate

    def again() -> Tensor:
        torch.set_rng_state(random)
        objective, state = torch.zeros(()), run.state
        for k in range(run.step * n, (run.step + 1) * n):
            loss = run.task.loss(k, state)
            objective, state = objective + loss.objective / n, loss.state
        return objective

    return locate(again, run.task.model, flatten(run.state, "state"))


def told(step: int, found: Located) -> dict[str, Any]:
    """What was found of a training step, as JSON: only what is known."""
    values = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "batch"}
    known = {name: value for name, value in values.items() if value not in ("", None, ())}
    return {"step": step, "found": str(found), "located": known}


def keep(run: Training, said: dict[str, Any], batch: Mapping[str, Tensor], random: Tensor) -> str:
    """Write what was found, and all that running the step again needs: a checkpoint from before it, and the batch.

    Returns the files' names; none beyond the first ten, so that a disk does not fill.
    """
    name = f"diverged-{run.step}"
    others = [path for path in run.folder.path.glob("diverged-*.json") if path.stem != name]
    if run.processes.told(len(others)) >= KEPT:
        return ""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random)
        tensors = run.tensors() | run.processes.random() | {f"batch.{key}": value for key, value in batch.items()}
    run.folder.write_tensors(f"{name}.safetensors", tensors, {"training": json.dumps(asdict(run.place()))})
    run.folder.write_json(f"{name}.json", said)
    return f"{name}.safetensors and .json"


def skip(run: Training, loss: Loss, text: str, said: dict[str, Any]) -> None:
    """Go on with the next batch; the state is that after this one where it is finite, else that before it.

    Of several batches a step those after the one that diverged were not read: then it is a new state.
    """
    run.counts.skipped += 1
    run.counts.in_row += 1
    run.log(diverged=said, then="skip")
    unread = run.options.accumulate > 1 and not math.isfinite(loss.value)
    states = (run.task.initial(),) if unread else (loss.state, run.state, run.task.initial())
    run.state = next(s for s in states if all(v.isfinite().all() for v in flatten(s, "").values()))
    run.step += 1
    run.report.trouble(f"{text}; skipped, {run.counts.skipped} so far", run.step)


def go_back(run: Training, text: str, said: dict[str, Any]) -> None:
    """Take up the last checkpoint again, at half the rate; the time that was lost still counts."""
    seconds, back = run.seconds, run.counts.back + 1
    run.optimizer = make_optimizer(run.task.model, run.options)  # as before its first step, where it goes back so far
    run.take_up(*run.found())
    run.seconds, run.counts.back = seconds, back
    rate = f"{run.options.rate * run.counts.slower:g}"
    run.report.trouble(f"{text}; back to step {run.step:,} and on at a rate of {rate}", run.step)
    run.log(diverged=said, then="back")
    run.save(weights=False)


@contextmanager
def going_back(run: Training) -> Iterator[None]:
    """Where the block finds weights or scores that are not finite: go back, if the options say so.

    Errors: DivergenceError of the block, where they do not, or going back does not help.
    """
    try:
        yield
    except DivergenceError as error:
        if run.options.on_divergence != "back" or run.counts.back >= BACK:
            raise
        go_back(run, str(error), {"step": run.step, "found": str(error)})


def advice(run: Training, lost: bool) -> str:
    """What to do, in words."""
    policy, rate = run.options.on_divergence, run.options.rate * run.counts.slower
    tried = {
        "stop": "",
        "skip": "a parameter is lost, which no skipped batch mends; " if lost else f"{IN_ROW} batches were skipped; ",
        "back": f"training has gone back {BACK} times; ",
    }[policy]
    other = "" if policy == "back" else ", or go on with --resume --on-divergence back"
    return f"{tried}lower --rate (now {rate:g}) or --clip-norm{other}; {run.folder.path} keeps its last checkpoint"
