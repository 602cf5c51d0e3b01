"""A training: a step of it, its measurements, its checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elman import precision
from elman.checkpoint import NEWEST, RunFolder
from elman.console import Report
from elman.errors import DivergenceError, OptionError, RunError
from elman.task.base import Loss, Score, Scores, Task
from elman.task.options import TrainOptions, from_json
from elman.tensors import flatten, read_about, read_tensors, rebuild
from elman.train.board import Board, TensorBoard
from elman.train.divergence import Counts, diverged
from elman.train.optimizers import make_optimizer, memory
from elman.train.processes import Processes, random_name
from elman.train.schedule import Stall, learning_rate, refuse_unvalidated

GROWING = ("log.jsonl", "samples.txt", "snapshots.jsonl")
MOST = 100_000  # processes that a checkpoint may come from


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a checkpoint stands: in the training, and in the files that grow."""

    step: int
    seconds: float
    smoothed: float
    best: float | None  # the first score of the weights that are kept
    log: int
    samples: int
    snapshots: int = 0
    stale: int = 0  # how the validation score has stalled, see Stall
    falls: int = 0
    processes: int = 1  # each with a random state of its own
    since: int = 0  # this and what follows: as in Counts
    clipped: int = 0
    skipped: int = 0
    in_row: int = 0
    back: int = 0


class Training:
    """A task in training: its optimiser, where it is, and the state carried from window to window."""

    def __init__(self, task: Task, folder: RunFolder, report: Report, processes: Processes = Processes()) -> None:
        self.task, self.folder, self.report, self.processes = task, folder, report, processes
        self.options: TrainOptions = task.options
        refuse_unvalidated(task)
        self.optimizer = make_optimizer(task.model, self.options)
        self.step = 0
        self.seconds = 0.0
        self.saved: int | None = None  # the step of the newest checkpoint
        self.smoothed = task.guess
        self.best: float | None = None
        self.stall = Stall()
        self.counts = Counts()
        self.state: Any = task.initial()
        self.board = TensorBoard(folder.path) if self.options.tensorboard and processes.leads else Board()
        self.average = [p.detach().clone() for p in self.parameters] if self.options.average else []
        self.kept = self.weights()  # those to be used: the best, or the last

    @property
    def epoch(self) -> float:
        """Steps in an epoch: a step reads --accumulate batches."""
        return self.task.batches / self.options.accumulate

    @property
    def steps(self) -> float:
        """How many steps this training may take, or infinity."""
        o = self.options
        bounds = [o.steps, None if o.epochs is None else max(1, math.ceil(o.epochs * self.epoch))]
        return min((bound for bound in bounds if bound is not None), default=math.inf)

    @property
    def progress(self) -> float:
        """The part that is done, 0 to 1, by steps or by time, whichever is further."""
        return min(1.0, max(self.step / self.steps, self.seconds / (self.options.seconds or math.inf)))

    @property
    def over(self) -> bool:
        """Whether training has come to its end: its bound, or an early one."""
        return self.progress >= 1 or self.stall.ends(self.options)

    def rate(self) -> float:
        """The learning rate of the next step."""
        o, n = self.options, self.options.accumulate
        pace = sum(map(self.task.pace, range(self.step * n, (self.step + 1) * n))) / n
        return learning_rate(o, self.step, self.progress, self.stall.falls) * self.counts.slower * pace

    def advance(self) -> dict[str, float] | None:
        """One step: forward over its windows, back through time, clip, update. What it measured, for the log.

        None where the step diverged and the options have it skipped, or gone back. Errors: DivergenceError.
        """
        o, random, rate = self.options, torch.get_rng_state(), self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.differentiate()
        if not math.isfinite(loss.value):
            diverged(self, f"the loss became {loss.value}", loss, random)
            return None
        norm = nn.utils.clip_grad_norm_(self.task.model.parameters(), o.clip_norm or math.inf).item()
        if not math.isfinite(norm):
            diverged(self, f"the gradient's norm became {norm}", loss, random)
            return None
        if o.clip_value is not None:
            nn.utils.clip_grad_value_(self.task.model.parameters(), o.clip_value)
        self.optimizer.step()
        if self.average:
            fading = min(o.average, (1 + self.step) / (10 + self.step))  # the first weights are soon forgotten
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - fading)
        self.state = loss.state
        self.smoothed = o.smoothing * self.smoothed + (1 - o.smoothing) * loss.value
        self.step += 1
        self.counts.add(clipped=o.clip_norm is not None and norm > o.clip_norm)
        return {"train": loss.value, "smoothed": self.smoothed, "norm": norm, "rate": rate, **self.counts.shown()}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of a block as training's."""
        began = time.perf_counter()
        yield
        self.seconds = self.processes.told(self.seconds + time.perf_counter() - began)

    def differentiate(self) -> Loss:
        """The gradient of the mean objective of a step's batches, the state carried through them: their mean loss.

        Or the first loss that is not finite, and no gradient.
        """
        n, state, value = self.options.accumulate, self.state, 0.0
        for k in range(self.step * n, (self.step + 1) * n):
            loss = self.processes.combined(self.task.loss(k, state))
            if not math.isfinite(loss.value):
                return loss
            (loss.objective / n).backward()
            state, value = loss.state, value + loss.value / n
        self.processes.add_gradients(self.parameters)
        return loss._replace(value=value)

    def refuse_infinite(self, value: float, what: str) -> None:
        """Errors: DivergenceError where a score is no finite number."""
        if not math.isfinite(value):
            raise DivergenceError(
                f"the {what} became {value} at step {self.step}: lower --rate (now {self.options.rate:g}) or "
                f"--clip-norm; {self.folder.path} keeps its last checkpoint"
            )

    def refuse_lost(self) -> None:
        """Errors: DivergenceError naming a parameter that is no longer finite."""
        for name, parameter in self.task.model.named_parameters():
            if not parameter.isfinite().all():
                raise DivergenceError(
                    f"step {self.step} left {name} with values that are not finite: lower --rate (now "
                    f"{self.options.rate:g}); {self.folder.path} keeps its last checkpoint"
                )

    def tensors(self) -> dict[str, Tensor]:
        """All that training goes on from, by name, in tensors that are its own or like its own."""
        found = {f"model.{name}": value for name, value in self.task.model.state_dict().items()}
        found |= self.processes.whole(flatten(self.state, "state")) | {"random": torch.get_rng_state()}
        count = torch.zeros((), dtype=torch.float32 if self.optimizer.defaults.get("fused") else None)
        for i, parameter in enumerate(self.parameters if self.step else []):
            kept = self.optimizer.state.get(parameter, {})
            for key in memory(self.options):
                first = count if key == "step" else torch.zeros_like(parameter)  # before its first gradient
                found[f"optimizer.{i}.{key}"] = kept.get(key, first)
        found |= {f"kept.{name}": value for name, value in self.kept.items()}
        return found | {f"average.{i}": value for i, value in enumerate(self.average)}

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights to be used, by name: averaged, where they are."""
        with self.averaged():
            return {name: value.detach().clone() for name, value in self.task.model.state_dict().items()}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters in the optimiser's own order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model as it will be used, while the block runs: with its averaged weights, in float32."""
        own = [p.detach().clone() for p in self.parameters] if self.average else []
        put(self.average, self.parameters)
        try:
            with precision("float32"):
                yield
        finally:
            put(own, self.parameters)

    def place(self) -> Place:
        """Where a checkpoint that is written now stands."""
        log, samples, snapshots = map(self.folder.settled, GROWING)
        return Place(
            step=self.step, seconds=self.seconds, smoothed=self.smoothed, best=self.best,
            log=log, samples=samples, snapshots=snapshots,
            stale=self.stall.stale, falls=self.stall.falls, processes=self.task.share.of, **asdict(self.counts),
        )  # fmt: skip

    def save(self, weights: bool = True) -> None:
        """A checkpoint from which training goes on as if it had not stopped. weights: they are those to be used.

        One file holds all, the weights to be used among it. model.safetensors is a copy of them, written first, so that
        it is never older than the checkpoint; where it is newer, `load` makes it anew.
        Errors: DivergenceError where there is nothing to go on from: the last checkpoint stays.
        """
        self.refuse_lost()
        if weights:
            self.kept = self.weights()
            self.folder.write_tensors("model.safetensors", self.kept)
        tensors, about = self.tensors() | self.processes.random(), {"training": json.dumps(asdict(self.place()))}
        older = self.options.checkpoints - 1
        if older and self.saved is not None and self.saved < self.step:
            self.folder.retain(self.saved)
        self.folder.write_tensors(NEWEST, tensors, about)
        self.saved = self.step
        self.folder.forget(sorted(self.folder.older(), reverse=True)[older:])
        self.processes.meet()

    def found(self, asked: int | None = None) -> tuple[Place, dict[str, Tensor]]:
        """The newest checkpoint, or the older one of a step, as `read` gives it.

        Errors: RunError where it is damaged or of another model.
        """
        try:
            return self.read(self.folder.checkpoint(asked))
        except RunError as error:
            others = [step for step in self.folder.older() if step != asked]
            way = f"; or go back to an older checkpoint with --from-step {others[-1]}" if others else ""
            raise RunError(f"{error}{way}") from None

    def take_up(self, place: Place, tensors: Mapping[str, Tensor], asked: int | None = None) -> None:
        """Go on from what was `found`, which is the newest checkpoint from then on."""
        folder = self.folder
        self.task.model.load_state_dict(named(tensors, "model."))
        self.kept = named(tensors, "kept.")
        own = {name: value[self.task.share.rows] for name, value in tensors.items() if name.startswith("state.")}
        self.state = rebuild(self.state, own, "state")
        for i, parameter in enumerate(self.parameters if self.step else []):
            kept = {key: tensors[f"optimizer.{i}.{key}"] for key in memory(self.options)}
            self.optimizer.state[parameter] = kept
        put([tensors[f"average.{i}"] for i in range(len(self.average))], self.average)
        if asked is not None:
            folder.go_back(asked)
        folder.forget(step for step in folder.older() if step > self.step)
        folder.write_tensors("model.safetensors", self.kept)
        for name, size in zip(GROWING, (place.log, place.samples, place.snapshots)):
            folder.cut(name, size)

    def read(self, path: Path) -> tuple[Place, dict[str, Tensor]]:
        """A checkpoint, found right; the step, the figures and the random state are its own then. Errors: RunError."""
        about = read_about(path)
        try:
            place = from_json(Place, json.loads(about.get("training", "null")))
            counts = {field.name: getattr(place, field.name) for field in fields(Counts)}
            positions = (place.step, place.seconds, place.log, place.samples, place.snapshots)
            if min(*positions, place.stale, place.falls, *counts.values()) < 0:
                raise OptionError("a negative position")
            if not 1 <= place.processes <= MOST:
                raise OptionError(f"written by {place.processes} processes")
            self.step, self.seconds, self.smoothed, self.best = place.step, place.seconds, place.smoothed, place.best
            self.saved, self.stall, self.counts = place.step, Stall(place.stale, place.falls), Counts(**counts)
            others = dict.fromkeys(map(random_name, range(1, place.processes)), torch.get_rng_state())
            tensors = read_tensors(path, self.tensors() | others)
            self.processes.draw_from(tensors)
        except (ValueError, RecursionError, RuntimeError) as error:
            raise RunError(f"{path} is damaged ({error}); restore it, or train again") from None
        return place, tensors

    def show_sample(self) -> None:
        if not self.processes.leads:
            return
        with self.averaged():
            text = self.task.sample(self.step)
        if text:
            self.folder.append("samples.txt", f"--- step {self.step}\n{text}\n")
            self.report.sample(self.step, text)
            self.board.sample(self.step, text)

    def take_snapshot(self) -> None:
        """One line of snapshots.jsonl."""
        if not self.processes.leads:
            return
        with self.averaged():
            seen = self.task.snapshot(self.step)
        if seen:
            self.folder.append("snapshots.jsonl", json.dumps({"step": self.step, **seen}) + "\n")

    def log(self, **record: Any) -> None:
        """One line of log.jsonl."""
        self.folder.append(
            "log.jsonl", json.dumps({"step": self.step, "seconds": round(self.seconds, 3), **record}) + "\n"
        )
        self.board.log(self.step, self.seconds, record)

    def validate(self) -> None:
        """Measure on the validation part, and save: the weights too if they are the best so far, or none is."""
        scores, reach = Scores(), {}
        with self.timed():
            if self.processes.leads:
                with self.averaged():
                    scores = self.task.validate()
                    reach = {"lags": lags} if scores and (lags := self.task.gradient_by_lag()) else {}
        scores = {name: Score(*score) for name, score in self.processes.told(scores).items()}
        for name, score in scores.items():
            if score.value is not None:
                self.refuse_infinite(score.value, f"validation ({name})")
        better = True
        if scores:
            first = next(iter(scores.values())).value
            better = self.is_better(first)
            self.stall.note(better and first is not None and first != self.best, self.options)
            self.best = first if better else self.best
            self.log(validation={name: score.value for name, score in scores.items()}, **reach)
            self.report.validation(self.step, self.seconds, scores)
        self.board.measured(self.step)
        with self.timed():
            self.save(weights=better or self.options.keep == "last")

    def is_better(self, value: float | None) -> bool:
        """Whether a first score is better than that of the weights that are kept."""
        if value is None or self.best is None:
            return True
        return value >= self.best if self.task.higher else value <= self.best  # of equals the one trained longer

    def due(self, every: int | None, fallback: int) -> bool:
        """Whether something that happens every so many steps happens now."""
        return self.step % (every or fallback) == 0


def named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def put(values: Sequence[Tensor], places: Sequence[Tensor]) -> None:
    """Copy tensors into others."""
    for value, place in zip(values, places):
        place.copy_(value)
