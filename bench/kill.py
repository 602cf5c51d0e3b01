"""Kills trainings at random moments (kill -9), goes on, and compares what they leave with runs that nobody killed.

    python bench/kill.py --kills 30

A third of the kills for each task. Some come at any moment, some as soon as a file is being written, some when the
weights that will be the best ones are. After each the folder must open, or say that no run has begun; at its end every
run must hold the same bits as the uninterrupted one: weights, optimiser, random state, older checkpoints, log, samples.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from elman.checkpoint import RunFolder
from elman.cli import trained
from elman.errors import RunError
from elman.runs import Run
from elman.tensors import read_about

ALIKE = (
    "--hidden 48 --dropout 0.2 --average 0.9 --warmup 5 --steps 60 --validate-every 3 --report-every 2 "
    "--sample-every 6 --checkpoints 3"
)
TASKS = {
    "text": "--embedding 16 --batch 16 --window 16 --sample-length 40 --rate 0.1",
    "classify": "--embedding 16 --batch 16 --rate 0.03",
    "translate": "--embedding 16 --batch 16 --level word --least 1 --beam 2 --rate 0.03",
}
KINDS = ("moment", "write", "best")
NAMES = "zero one two three four five six seven eight nine".split()


@dataclass
class Tally:
    """What a task's runs went through."""

    kills: int = 0
    inside: int = 0  # a file was half written
    apart: int = 0  # model.safetensors was newer than training.safetensors
    unbegun: int = 0  # there was no run yet
    runs: int = 0
    wrong: list[str] = field(default_factory=list)


def data_for(task: str, path: Path) -> None:
    """Data that is soon learnt by heart, so that the best weights are not the last."""
    draw = random.Random(1)
    rows = [draw.choices(range(10), k=draw.randrange(2, 6)) for _ in range(200)]
    said = [(" ".join(map(str, row)), " ".join(NAMES[i] for i in row), sum(row) + draw.randrange(9)) for row in rows]
    lines = {
        "text": [digits for digits, _, _ in said],
        "classify": ["label\ttext"] + [f"{'odd' if number % 2 else 'even'}\t{names}" for _, names, number in said],
        "translate": [f"{digits}\t{names}" for digits, names, _ in said],
    }[task]
    path.write_text("\n".join(lines) + "\n")


def begun(task: str, folder: Path) -> subprocess.Popen[bytes]:
    """A training of the task in the folder: a new one, or one that goes on."""
    words = ["--resume"] if folder.exists() else [f"{task}.tsv", *ALIKE.split(), *TASKS[task].split()]
    command = [sys.executable, "-m", "elman", "train", task, "--run", folder.name, *words]
    with open(folder.parent / "said", "wb") as said:
        return subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=said)


def touched(folder: Path) -> int:
    """A number that changes when a file comes into the folder."""
    return folder.stat().st_mtime_ns if folder.exists() else 0


def until(child: subprocess.Popen[bytes], condition: Callable[[], bool]) -> bool:
    """Wait for a condition, or for the training to end. Whether the condition came."""
    while child.poll() is None:
        if condition():
            return True
        time.sleep(0.0003)
    return False


def killed(child: subprocess.Popen[bytes], folder: Path, kind: str, delay: float, best: int) -> bool:
    """Kill a training in the way that is asked for; not where it ended before."""
    before = touched(folder)
    arrived = until(child, lambda: touched(folder) != before)
    moment = time.perf_counter() + delay
    if kind == "best":
        mark = f'"step": {best}, '
        arrived = arrived and until(
            child, lambda: any(mark in line and "validation" in line for line in RunFolder(folder).lines("log.jsonl"))
        )
        arrived = arrived and until(child, (folder / "model.safetensors.part").exists)
    else:
        arrived = arrived and until(child, lambda: time.perf_counter() >= moment)
        if kind == "write":
            arrived = arrived and until(child, lambda: any(folder.glob("*.part")))
    child.kill()
    child.wait()
    return arrived and child.returncode < 0


def examine(folder: Path, tally: Tally) -> None:
    """What a kill left: it opens, or it says that no run has begun, and is taken away."""
    tally.kills += 1
    tally.inside += any(folder.glob("*.part"))
    try:
        trained(RunFolder.open(str(folder)))
        Run.read(folder)
    except RunError as error:
        if "holds no run" not in str(error):
            tally.wrong.append(f"after kill {tally.kills}: {error}")
        tally.unbegun += 1
        shutil.rmtree(folder)
        return
    newest, copy = load_file(folder / "training.safetensors"), load_file(folder / "model.safetensors")
    tally.apart += any(not torch.equal(value, newest[f"kept.{name}"]) for name, value in copy.items())


def left(folder: Path) -> dict[str, object]:
    """All that a run leaves, but for its times: by file, and tensors by file and name."""
    found: dict[str, object] = {
        path.name: path.read_bytes() for path in (*folder.glob("*.txt"), *folder.glob("*.json"))
    }
    log = [json.loads(line) for line in RunFolder(folder).lines("log.jsonl")]
    found["log.jsonl"] = [{name: value for name, value in line.items() if name != "seconds"} for line in log]
    for path in folder.glob("*.safetensors"):
        place = json.loads(read_about(path).get("training", "{}"))
        found[path.name] = {name: value for name, value in place.items() if name not in ("seconds", "log")}
        for name, value in load_file(path).items():
            found[f"{path.name}: {name}"] = (value.dtype, value.shape, value.numpy().tobytes())
    return found


def differences(one: dict[str, object], two: dict[str, object]) -> list[str]:
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def endure(task: str, folder: Path, kills: int, seed: int) -> Tally:
    """Runs of one task in an empty folder, killed so many times in all."""
    draw, tally = random.Random(f"{seed} {task}"), Tally()
    data_for(task, folder / f"{task}.tsv")
    child = begun(task, folder / "straight")
    until(child, lambda: touched(folder / "straight") > 0)
    began = time.perf_counter()
    child.wait()
    takes, want = time.perf_counter() - began, left(folder / "straight")
    best = Run.read(folder / "straight").best or 0
    while tally.kills < kills:
        run = folder / f"killed-{tally.runs}"
        while tally.kills < kills:
            kind = KINDS[tally.kills % 3]
            if run.exists() and kind == "best" and Run.read(run).steps >= best:
                kind = "write"
            child = begun(task, run)
            if not killed(child, run, kind, draw.uniform(0, takes / 2), best):
                break
            examine(run, tally)
        if child.returncode < 0:
            child = begun(task, run)
            child.wait()
        tally.runs += 1
        said = (folder / "said").read_text()
        if child.returncode and "has reached its end" not in said:  # killed when all had been written
            tally.wrong.append(f"{run.name}: {said}")
        else:
            tally.wrong += [f"{run.name}: {name}" for name in differences(want, left(run))]
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    failed = False
    for i, task in enumerate(TASKS):
        kills = asked.kills * (i + 1) // len(TASKS) - asked.kills * i // len(TASKS)
        with tempfile.TemporaryDirectory() as folder:
            found = endure(task, Path(folder), kills, asked.seed)
        print(
            f"{task}: {found.kills} kills of {found.runs} runs; {found.inside} inside a write, {found.apart} between "
            f"model.safetensors and training.safetensors, {found.unbegun} before there was a run; "
            f"{'all runs as uninterrupted' if not found.wrong else 'WRONG: ' + '; '.join(found.wrong)}",
            flush=True,
        )
        failed = failed or bool(found.wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
