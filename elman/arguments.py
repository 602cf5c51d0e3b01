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
