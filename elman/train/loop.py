"""From the first step, or the last checkpoint, to the end."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import asdict
from typing import Any

from elman import __version__, precision
from elman.checkpoint import RunFolder
from elman.console import Report
from elman.errors import FinishedError, RunError
from elman.task.base import Task
from elman.train.divergence import going_back
from elman.train.processes import Processes
from elman.train.schedule import snapshot_due
from elman.train.signals import interruptible
from elman.train.training import Training

SELDOM = 50  # steps: what happens once an epoch happens no more often


def train(
    task: Task, folder: RunFolder, report: Report, resume: bool = False, processes: Processes = Processes()
) -> int:
    """Train until the bound of the options. 0 when it was reached, else the number of the signal that ended it earlier.

    Either way the run folder holds a checkpoint of the last whole step. Errors: DivergenceError, RunError, OptionError
    where the processor lacks the precision that is asked for.
    """
    with precision(task.options.precision), folder.alone():
        return through(begun(task, folder, report, resume, processes))


def begun(task: Task, folder: RunFolder, report: Report, resume: bool, processes: Processes) -> Training:
    """A training before its first step, its folder filled; or one that goes on from a checkpoint."""
    if resume:
        run = Training(task, folder, report, processes)
        place, tensors = run.found(task.options.from_step)
        refuse_finished(run)
        run.take_up(place, tensors, task.options.from_step)
        folder.write_json("config.json", describe(task))
        return run
    with folder.whole():
        run = Training(task, folder, report, processes)
        for name, value in task.files.items():
            folder.write_json(name, value)
        run.save()
        folder.write_json("config.json", describe(task))  # last: where it is, there is a run
    return run


def through(run: Training) -> int:
    """All steps that are left, with what is printed, measured and saved on the way."""
    o, report = run.options, run.report
    report.begin(run.task, run.folder, run.step, run.steps, o.seconds)
    epoch, seen = max(math.ceil(run.epoch), SELDOM), -1
    run.board.begin(run.task, run.step, run.seconds)
    with interruptible() as stop, report.bar(), closing(run.board):
        if run.step == 0:
            show(run)
        while not run.over and not (signal := run.processes.most(stop[0] if stop else 0)):
            before = run.step
            with run.timed():
                measured = run.advance()
            if run.step <= before:
                continue  # gone back to the last checkpoint
            report.tick(run.progress)
            if measured and run.due(o.report_every, epoch):
                run.log(**measured)
                report.line(run.step, run.seconds, measured)
                run.counts.reported()
            if run.progress < 1:
                sample = run.due(o.sample_every, o.validate_every or epoch)
                show(run, sample=sample, snapshot=snapshot_due(run.step))
            if run.progress < 1 and run.due(o.validate_every, epoch):
                with going_back(run):
                    run.validate()
                    seen = run.step
        if not run.over:
            run.save(weights=run.best is None or o.keep == "last")
            return signal
        if run.progress >= 1 and run.step == seen:  # time was over while it was measured
            show(run, sample=False, snapshot=not snapshot_due(run.step))
            run.save(weights=o.keep == "last")  # with the time that makes it finished
        elif run.progress >= 1:
            show(run)
            run.validate()
        else:
            report.say(f"stopped early at step {run.step:,}: {stalled(run)}")
        run.folder.load_into(run.task.model, "model.safetensors")
    return 0


def show(run: Training, sample: bool = True, snapshot: bool = True) -> None:
    """A sample, a snapshot, or both; their time counts."""
    if sample or snapshot:
        with run.timed():
            if snapshot:
                run.take_snapshot()
            if sample:
                run.show_sample()


def stalled(run: Training) -> str:
    """Why a run has ended early, for people."""
    return f"the validation score has not become better for {run.stall.stale} measurements"


def describe(task: Task) -> dict[str, Any]:
    """config.json: what the task is, under which options, on which data."""
    options = asdict(task.options)
    for name in ("run", "resume", "from_step"):
        del options[name]
    return {"elman": __version__, "task": task.name, "options": options, "data": task.data}


def refuse_finished(run: Training) -> None:
    """Errors: FinishedError when nothing is left to do."""
    if run.over and run.progress < 1:
        raise FinishedError(
            f"{run.folder.path} has stopped early, at step {run.step}: {stalled(run)}; give a larger --early-stop to "
            "go on"
        )
    if run.over:
        raise FinishedError(
            f"{run.folder.path} has reached its end, step {run.step} after {run.seconds:.0f} s: give a larger --steps, "
            "--epochs or --seconds to go on"
        )


def check_same_data(task: Task, saved: Any, folder: RunFolder) -> None:
    """Errors: RunError when the data is not what the run began with."""
    if task.data != saved:
        raise RunError(
            f"the data of {folder.path} has changed since it was trained: now {task.data}, then {saved!r:.120}; bring "
            "the old files back, or train anew"
        )
