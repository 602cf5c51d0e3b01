"""What each command takes, but for train, and how it explains itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from elman.task.options import SampleOptions

SAMPLE_HELP = """Let a trained network write.

Examples:
  elman sample runs/text --prompt "def "
  elman sample runs/text --temperature 0.5 --length 2000 --seed 7
"""

SCORE_HELP = """Measure a trained network, by the figures of its task.

Examples:
  elman score runs/text                     the data that the run held back
  elman score runs/text other.txt --json
  elman score runs/classify TESTFOLDER
"""

PREDICT_HELP = """What a trained network makes of new input: a line of text for each, or of JSON.

Examples:
  elman predict runs/classify three.png seven.png
  elman predict runs/tag sentences.txt --json
  echo "a man rides a horse" | elman predict runs/translate
  elman predict runs/regress today.csv --state now.safetensors     goes on where yesterday ended
"""

SEARCH_HELP = """Train a task many times, each time with other flags, and find good ones.

What is searched is named by --over, one word each:
  "rate=1e-3..1e-2 log"      between two numbers, by their logarithm
  dropout=0..0.5             between two numbers
  layers=1..3                between two whole numbers, where the flag takes such
  "cell=lstm|gru"            one of these

All other flags are those of elman train TASK, and hold for every trial.

Each trial is a run in its own folder, as runs/text-search/trial-001, which elman runs runs/text-search lists. Its score
is the first that the task measures on what it holds back, at its best. Optuna draws the values (TPE), and ends a trial
early that is worse than the median of those before at the same step. One that diverges counts as failed. Ctrl-C saves;
the same command goes on, as after a kill, and so does one with more trials. One process at a time.

Examples:
  elman search text book.txt --seconds 60 --over "rate=1e-3..2e-2 log" "hidden=128|256|512" dropout=0..0.5
  elman search classify --epochs 3 --trials 50 --over "rate=1e-4..1e-2 log" --run runs/rates
"""

RUNS_HELP = """The runs of a folder, each with its best score on what it held back.

Examples:
  elman runs
  elman runs experiments --json
"""

COMPARE_HELP = """What sets runs of one task apart: their options, and their scores on the way.

Examples:
  elman compare runs/text runs/text-2
"""


SHOW_HELP = """One page of pictures: how a network was trained, and what is inside. It opens from the disk.

Examples:
  elman show runs/text                      reads the data that the run held back
  elman show runs/text poem.txt --out poem.html
  elman show runs/text --pictures pictures  each picture as SVG and PNG too
"""


GRAPH_HELP = """The computational graph of a cell's step as a page: folded, unfolded over time, and its gradient.

A cell is one of elman's by its name, or one of a Python file: a subclass of elman.Cell that is made from input and
hidden width, or a cell that the file has made. The file is run.

Examples:
  elman graph lstm
  elman graph gru --hidden 128 --steps 5 --out gru.html
  elman graph mycell.py:MyCell --pictures pictures     each picture as SVG and PNG too
"""


@dataclass(frozen=True, kw_only=True)
class SampleArguments(SampleOptions):
    """Which run writes, and how."""

    run: Annotated[str, tyro.conf.Positional]
    """The run folder, as runs/text."""


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """Which run, on what."""

    run: Annotated[str, tyro.conf.Positional]
    """The run folder, as runs/text."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Files or folders, of the kind that the run was trained on. None: what the run held back, or standard input."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class PredictArguments(FileArguments):
    """Which run, on what, from which state."""

    state: str | None = None
    """In step: a file with the state to go on from, where the last one is left; it is made if it is not there."""


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    """Which run, on what, and where the page goes."""

    run: Annotated[str, tyro.conf.Positional]
    """The run folder, as runs/text."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Files to look at the network on. None: the data that the run held back."""
    out: str | None = None
    """The page. Default: show.html in the run folder."""
    pictures: str | None = None
    """A folder for the page's pictures, each as SVG and as PNG; it is made if it is not there."""


@dataclass(frozen=True, kw_only=True)
class GraphArguments:
    """Which cell, how wide, and where the page goes."""

    cell: Annotated[str, tyro.conf.Positional]
    """A cell's name, as lstm, or FILE.py:NAME."""
    input: int = 8
    """The width of x."""
    hidden: int = 16
    """The hidden width."""
    steps: int = 3
    """Steps of the unfolded graph."""
    out: str = "graph.html"
    """The page."""
    pictures: str | None = None
    """A folder for the page's pictures, each as SVG and as PNG; it is made if it is not there."""


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """What is searched, and for how long."""

    over: tuple[str, ...] = ()
    """Flags and their values: NAME=LOW..HIGH, "NAME=LOW..HIGH log" or "NAME=A|B|C"."""
    trials: int = 20
    """How many trainings in all, those of earlier calls among them."""
    run: str | None = None
    """The folder of the search. Default: runs/TASK-search."""


@dataclass(frozen=True, kw_only=True)
class RunsArguments:
    """Which runs."""

    folder: Annotated[str, tyro.conf.Positional] = "runs"
    """The folder with the run folders in it."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Which runs."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folders, two or more."""
    json: bool = False
    """Print JSON."""
