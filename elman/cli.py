"""elman train | search | score | predict | sample | show | graph | runs | compare: the command line."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from elman import __version__
from elman.arguments import (
    COMPARE_HELP,
    GRAPH_HELP,
    PREDICT_HELP,
    RUNS_HELP,
    SAMPLE_HELP,
    SCORE_HELP,
    SEARCH_HELP,
    SHOW_HELP,
    CompareArguments,
    FileArguments,
    GraphArguments,
    PredictArguments,
    RunsArguments,
    SampleArguments,
    SearchArguments,
    ShowArguments,
)
from elman.begin import asked_for, looked_at, parse, prepared, trained
from elman.checkpoint import RunFolder, write_whole
from elman.console import Report
from elman.errors import ElmanError, FinishedError, OptionError, RunError
from elman.look.named import named, told
from elman.look.page import Page
from elman.look.show import show, write_figures
from elman.look.steps import page_of
from elman.runs import Run, as_json, compared, listed, runs_in
from elman.search import parted, search
from elman.task import TASKS
from elman.task.base import Scores
from elman.tensors import flatten, read_tensors, rebuild
from elman.train import Processes, joined, train

USAGE = """elman: write the step; elman unfolds it through time.

  elman train TASK [FILE ...]   train a network; TASK is one of:
{tasks}
  elman search TASK [FILE ...]  train it many times and find good flags; needs Optuna
  elman score RUN [FILE ...]    measure it, on the data held back or on files
  elman predict RUN [FILE ...]  what it makes of new input
  elman sample RUN              let a trained network write (text)
  elman show RUN [FILE ...]     one page of pictures: its training, and what is inside
  elman graph CELL              the computational graph of a cell's step, in pictures
  elman runs [FOLDER]           the runs there are, with their scores
  elman compare RUN RUN ...     what sets runs apart

Try: elman train text           (learns Python from the standard library's source)
     elman train classify       (no data named: each task makes or finds its own)
Each command explains itself: elman train text --help, elman predict --help
"""

WIDE = 2000  # columns of a table that is to be printed whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 bad input, 128 + n stopped by signal n (130: Ctrl-C)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return command(words)
    except ElmanError as error:
        print(f"elman: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has had enough, as in: elman sample RUN | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"elman: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nelman: stopped", file=sys.stderr)
        return 130


def run() -> None:
    """The elman command."""
    sys.exit(main())


def command(words: list[str]) -> int:
    """Hand over to the named command. Errors: ElmanError."""
    verbs: dict[str, Callable[[list[str]], int]] = {
        "train": run_train, "score": run_score, "predict": run_predict, "sample": run_sample,
        "show": run_show, "graph": run_graph, "search": run_search, "runs": run_runs, "compare": run_compare,
    }  # fmt: skip
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if first == "--version":
        print(f"elman {__version__}")
        return 0
    if first not in verbs:
        raise OptionError(f"unknown command {first!r}: it is one of {', '.join(verbs)}; elman --help explains them")
    return verbs[first](words[1:])


def usage() -> str:
    tasks = (f"      {name:11} {(task.__doc__ or '').splitlines()[0]}" for name, task in TASKS.items())
    return USAGE.format(tasks="\n".join(tasks))


# train


def run_train(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    with joined() as processes:
        return carry_through(*prepared(words, processes), processes)


def carry_through(task: Any, folder: RunFolder, resumed: bool, processes: Processes) -> int:
    """Train, then score; where a signal ended it, say how to go on."""
    report = processes.report()
    try:
        signal = train(task, folder, report, resumed, processes)
    except FinishedError as error:
        if not processes.restarts:
            raise
        report.say(str(error))  # the same command, given again
        return 0
    if signal:
        report.say(f"stopped and saved; go on with: elman train {task.name} --run {folder.path} --resume")
        return 128 + signal
    if task.has_validation and processes.leads:
        scores = measured(report.console, task, ())
        report.say(f"the weights that are kept, on the validation part{task.scoring}:")
        report.scores(scores)
    verb = "sample" if task.writes else "predict"
    report.say(f"next: elman {verb} {folder.path}{'' if task.writes else ' FILE'}")
    return 0


def run_search(words: list[str]) -> int:
    own, words = parted(words)
    asked = parse(SearchArguments, own, "elman search TASK [FILE ...]", None, SEARCH_HELP)
    return search(asked, words, asked_for, prepared)


# score, predict and sample


def run_score(words: list[str]) -> int:
    asked = parse(FileArguments, words, "elman score", None, SCORE_HELP)
    _, task = looked_at(asked.run, asked.files)
    report = Report()
    scores = measured(report.console, task, asked.files, quiet=asked.json)
    if asked.json:
        print(json.dumps({name: score.value for name, score in scores.items()}))
    else:
        report.scores(scores)
    return 0


def measured(console: Console, task: Any, files: tuple[str, ...], quiet: bool = False) -> Scores:
    """The scores, with a bar while they are being measured."""
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        row = bar.add_task("scoring", total=None)
        return task.score(files, tick=lambda n: bar.advance(row, n))


def run_predict(words: list[str]) -> int:
    asked = parse(PredictArguments, words, "elman predict", None, PREDICT_HELP)
    task, _ = trained(RunFolder.open(asked.run))
    if asked.state:
        task.state = warm_state(task, Path(asked.state))
    for found in task.predict(asked.files):
        print(json.dumps(found, ensure_ascii=False) if asked.json else found["text"], flush=True)
    if asked.state:
        path = Path(asked.state)
        RunFolder(path.parent).write_tensors(path.name, flatten(task.state, "state"))
    return 0


def warm_state(task: Any, path: Path) -> Any:
    """The state in a file, or the first one where there is no such file. Errors: OptionError, RunError."""
    first = task.first_state()
    if not path.exists():
        return first
    return rebuild(first, read_tensors(path, flatten(first, "state")), "state")


def run_sample(words: list[str]) -> int:
    asked = parse(SampleArguments, words, "elman sample", None, SAMPLE_HELP)
    task, _ = trained(RunFolder.open(asked.run))
    for piece in task.write(asked):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def run_show(words: list[str]) -> int:
    asked = parse(ShowArguments, words, "elman show", None, SHOW_HELP)
    out = page_named(asked.out) if asked.out else None
    check_pictures(asked.pictures)
    folder, task = looked_at(asked.run, asked.files)
    path = out or folder.path / "show.html"
    return written(show(folder, task, asked.files), path, asked.pictures)


def run_graph(words: list[str]) -> int:
    asked = parse(GraphArguments, words, "elman graph", None, GRAPH_HELP)
    path = page_named(asked.out)
    check_pictures(asked.pictures)
    with told(asked.cell):
        page = page_of(named(asked.cell, asked.input, asked.hidden), asked.steps)
    return written(page, path, asked.pictures)


def page_named(out: str) -> Path:
    """Where a page goes. Errors: OptionError for a name that says something else, or a folder that is not there."""
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(
            f"--out is a page, whose name ends in .html; got {out!r}: name it {path.with_suffix('.html')}, and for "
            "pictures as SVG and PNG give a folder with --pictures"
        )
    if not path.parent.is_dir():
        raise OptionError(f"--out {out}: there is no folder {path.parent}; make it, or name another")
    return path


def check_pictures(folder: str | None) -> None:
    """Errors: OptionError where --pictures is something else than a folder, or one to be made."""
    if folder and Path(folder).exists() and not Path(folder).is_dir():
        raise OptionError(f"--pictures {folder}: is no folder; name another, which is made if it is not there")


def written(page: Page, path: Path, pictures: str | None) -> int:
    """Write a page, and where a folder is named its pictures; print where they are."""
    try:
        write_whole(path, page.html.encode("utf-8", "replace"))  # a question mark for what UTF-8 has no form for
    except OSError as error:
        what = f"cannot write {path}: {error.strerror}"
        raise RunError(f"{what}; free some space, or name another page with --out") from None
    print(path)
    if pictures:
        print(*write_figures(page, Path(pictures)), sep="\n")
    return 0


def run_runs(words: list[str]) -> int:
    asked = parse(RunsArguments, words, "elman runs", None, RUNS_HELP)
    found, wrong = runs_in(Path(asked.folder))
    for error in wrong:
        print(f"elman: {error}", file=sys.stderr)
    say_runs(found, None if asked.json else listed(found))
    return 0


def run_compare(words: list[str]) -> int:
    asked = parse(CompareArguments, words, "elman compare", None, COMPARE_HELP)
    if len(asked.runs) < 2:
        raise OptionError(f"elman compare takes two runs or more; got {len(asked.runs)}")
    found = [Run.read(Path(name)) for name in asked.runs]
    say_runs(found, None if asked.json else compared(found))
    return 0


def say_runs(found: list[Run], table: Table | None) -> None:
    """A table, or JSON where there is none."""
    if table is None:
        print(json.dumps(as_json(found), ensure_ascii=False))
    else:
        Console(width=WIDE, highlight=False, emoji=False).print(table)
