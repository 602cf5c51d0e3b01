"""What a training prints: what it works on, a bar, lines of figures, samples as they evolve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from elman.checkpoint import RunFolder
from elman.task.base import Scores, Task


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60:d}:{int(seconds) % 60:02d}"


class Report:
    """Prints a training as it goes; the bar only where a person is watching."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True, emoji=False)
        self.in_units: Callable[[float], str] = str
        self.end = ""
        self.progress: Progress | None = None
        self.mark = (0, time.perf_counter())

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def begin(self, task: Task, folder: RunFolder, step: int, steps: float, seconds: float | None) -> None:
        """Data, model, parameters, backend, where it is kept and how long it goes."""
        self.in_units = task.in_units
        self.end = f"/{steps:,}" if steps < math.inf else ""
        bounds = [f"{steps:,} steps"] if steps < math.inf else []
        bounds += [f"{seconds:g} s"] if seconds else []
        rows = task.about()
        backend = rows.pop("backend")
        rows["parameters"] = f"{sum(p.numel() for p in task.model.parameters()):,}"
        each = f" in each of {task.share.of} processes" if task.share.of > 1 else ""
        rows["backend"] = f"{backend}; cpu, {torch.get_num_threads()} threads{each}"
        rows["run"] = (
            f"{folder.path}, {'from step ' + format(step, ',') if step else 'new'}, until {' or '.join(bounds)}"
        )
        for name, value in rows.items():
            self.console.print(f"[bold]{name:>10}[/]  {escape(value)}")
        self.mark = (step, time.perf_counter())

    @contextmanager
    def bar(self) -> Iterator[None]:
        """A progress bar with the time left, while the block runs."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        watched = self.console.is_terminal
        with Progress(
            *columns, TextColumn("left"), TimeRemainingColumn(), console=self.console, disable=not watched
        ) as bar:
            self.progress = bar
            self.row = bar.add_task("training", total=1.0)
            yield
        self.progress = None

    def tick(self, done: float) -> None:
        """Move the bar to the part that is done, 0 to 1."""
        if self.progress is not None:
            self.progress.update(self.row, completed=done)

    def line(self, step: int, seconds: float, measured: Mapping[str, float]) -> None:
        """Time, step, training loss, gradient norm, rate, steps per second since the last line."""
        before, then = self.mark
        self.mark = (step, time.perf_counter())
        speed = (step - before) / max(self.mark[1] - then, 1e-9)
        clipped = f"  clipped {measured['clipped']:.0%}" if measured["clipped"] else ""
        skipped = f"  skipped {measured['skipped']:,}" if "skipped" in measured else ""
        self.console.print(
            f"{clock(seconds):>6}  step {step:,}{self.end}  train {self.in_units(measured['smoothed'])}  "
            f"|grad| {measured['norm']:.3g}{clipped}  rate {measured['rate']:.2g}  {speed:.1f} steps/s{skipped}"
        )

    def trouble(self, text: str, step: int) -> None:
        """What was found of a step that diverged and what is done about it, before going on from a step."""
        self.console.print(text, markup=False, style="bold red")
        self.mark = (step, time.perf_counter())

    def validation(self, step: int, seconds: float, scores: Scores) -> None:
        """A line of figures on the data held back, the best so far or not."""
        shown = ", ".join(f"{name} {score.text}" for name, score in scores.items())
        self.console.print(f"{clock(seconds):>6}  step {step:,}{self.end}  [bold]validation {escape(shown)}[/]")
        self.mark = (step, time.perf_counter())

    def scores(self, scores: Scores) -> None:
        """Figures, a line each."""
        for name, score in scores.items():
            self.console.print(f"{name:>16}  {score.text}", markup=False)

    def sample(self, step: int, text: str) -> None:
        self.console.rule(f"sample at step {step:,}", align="left", style="dim")
        self.console.print(text, markup=False, style="green")
        self.console.rule(style="dim")
