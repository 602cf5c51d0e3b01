"""Runs beside each other: what there is in a folder, and what sets some of them apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table

from elman.checkpoint import NEWEST, RunFolder
from elman.errors import RunError
from elman.task import TASKS
from elman.task.options import flag_of
from elman.tensors import read_about

AT_MOST = 12  # steps at which runs are compared
UNTOLD = ("files", "run", "resume", "from_step", "report_every", "sample_every", "checkpoints", "tensorboard")
ITS_OWN = "its own"  # the data of a task that was given no files


@dataclass(frozen=True)
class Run:
    """A run folder as it is on the disk, without its data and its weights."""

    path: Path
    task: str
    options: dict[str, Any]
    log: tuple[dict[str, Any], ...]
    saved: tuple[int, float] = (0, 0.0)  # step and seconds of the newest checkpoint
    data: dict[str, Any] = field(default_factory=dict)  # what the task says of its data

    @classmethod
    def read(cls, path: Path) -> Run:
        """Errors: RunError where the folder holds no run, or one that is damaged."""
        folder = RunFolder.open(str(path))
        config = folder.read_json("config.json")
        try:
            log = tuple(map(parsed, folder.lines("log.jsonl")))
            if config["task"] not in TASKS:
                raise ValueError(f"elman has no task {config['task']!r}")
            place = json.loads(read_about(path / NEWEST)["training"]) if (path / NEWEST).exists() else {}
            saved = (int(place.get("step", 0)), float(place.get("seconds", 0)))
            return cls(path, config["task"], dict(config["options"]), log, saved, dict(config.get("data", {})))
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise RunError(f"{path} is no whole run ({error}); restore it, or leave it out") from None

    @property
    def files(self) -> Sequence[str]:
        return self.options.get("files") or ()

    @property
    def steps(self) -> int:
        return max([self.saved[0], *(record["step"] for record in self.log[-1:])])

    @property
    def seconds(self) -> float:
        return max([self.saved[1], *(record["seconds"] for record in self.log[-1:])])

    @cached_property
    def validations(self) -> dict[int, dict[str, float]]:
        """Scores by step."""
        return {record["step"]: record["validation"] for record in self.log if record.get("validation")}

    @property
    def first(self) -> str | None:
        """The name of the score that the best weights are chosen by."""
        return next((name for scores in self.validations.values() for name in scores), None)

    @property
    def losses(self) -> tuple[str, ...]:
        """The names of the scores that are in the unit of the training loss."""
        return TASKS[self.task].losses

    @property
    def best(self) -> int | None:
        """The step at which the first score was best; of equals, the last."""
        sign = 1 if TASKS[self.task].higher else -1
        known = [(sign * value, step) for step in self.validations if (value := self.score(step)) is not None]
        return max(known)[1] if known else None

    def score(self, step: int | None) -> float | None:
        """The first score at a step, None where it was not measured."""
        return None if self.first is None else self.validations.get(step or 0, {}).get(self.first)

    def shown(self, step: int | None) -> str:
        value = self.score(step)
        return "" if value is None else f"{self.first} {value:.4f}"


def parsed(line: str) -> dict[str, Any]:
    """A line of log.jsonl. Errors: ValueError, TypeError, LookupError where it is none."""
    found = json.loads(line)
    numbers = [found["step"], found["seconds"], *found.get("validation", {}).values()]
    if not all(isinstance(number, (int, float, type(None))) for number in numbers):
        raise ValueError(f"log.jsonl has the line {line:.60}")
    return dict(found)


def runs_in(folder: Path) -> tuple[list[Run], list[RunError]]:
    """The runs of a folder, by name, and what is wrong with those that cannot be read.

    Errors: RunError where there is none that can.
    """
    found, wrong = [], []
    for path in sorted(folder.glob("*/config.json")):
        try:
            found.append(Run.read(path.parent))
        except RunError as error:
            wrong.append(error)
    if not found:
        raise wrong[0] if wrong else RunError(f"{folder} holds no run: elman train makes one; or name another folder")
    return found, wrong


def listed(runs: Sequence[Run]) -> Table:
    """A row for each run: how far it went, and its best score on what it held back."""
    table = Table("run", "task", "data", box=None, pad_edge=False)
    for name in ("steps", "seconds", "best", "at step"):
        table.add_column(name, justify="right")
    for run in runs:
        data = ", ".join(Path(name).name for name in run.files) or ITS_OWN
        at = "" if run.best is None else f"{run.best:,}"
        table.add_row(str(run.path), run.task, data, f"{run.steps:,}", f"{run.seconds:.0f}", run.shown(run.best), at)
    return table


def compared(runs: Sequence[Run]) -> Table:
    """A column for each run: data and options that are not alike, how far it went, scores at steps that all have, the
    best.

    Errors: RunError for runs of several tasks.
    """
    if len({run.task for run in runs}) > 1:
        raise RunError(
            "only runs of one task compare: " + ", ".join(f"{run.path} is one of {run.task}" for run in runs)
        )
    table = Table("", *(str(run.path) for run in runs), box=None, pad_edge=False)
    unlike(table, "data", [", ".join(run.files) or ITS_OWN for run in runs])
    for name in dict.fromkeys(name for run in runs for name in run.data):
        values = [run.data.get(name, "") for run in runs]
        unlike(table, name.replace("_", " "), [f"{v:,}" if type(v) is int else str(v)[:12] for v in values])
    for name in dict.fromkeys(name for run in runs for name in run.options if name not in UNTOLD):
        unlike(table, flag_of(name), [run.options.get(name, "") for run in runs])
    table.add_row("steps", *(f"{run.steps:,}" for run in runs))
    table.add_row("seconds", *(f"{run.seconds:.0f}" for run in runs))
    common = sorted(set.intersection(*(set(run.validations) for run in runs)))
    for step in common[:: -(-len(common) // AT_MOST) or 1]:
        table.add_row(f"at step {step:,}", *(run.shown(step) for run in runs))
    table.add_row("best", *(run.shown(run.best) for run in runs))
    return table


def unlike(table: Table, name: str, values: Sequence[Any]) -> None:
    """A row, where the runs do not have the same there."""
    if any(value != values[0] for value in values):
        table.add_row(name, *map(str, values))


def as_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "run": str(run.path), "task": run.task, "options": run.options, "steps": run.steps, "seconds": run.seconds,
            "best": {"step": run.best, **run.validations.get(run.best or 0, {})},
        }
        for run in runs
    ]  # fmt: skip
