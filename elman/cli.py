"""elman train | score | predict | sample: the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from elman import __version__
from elman.arguments import (
    COMPARE_HELP,
    PREDICT_HELP,
    RUNS_HELP,
    SAMPLE_HELP,
    SCORE_HELP,
    SHOW_HELP,
    CompareArguments,
    FileArguments,
    PredictArguments,
    RunsArguments,
    SampleArguments,
    ShowArguments,
)
from elman.checkpoint import RunFolder
from elman.console import Report
from elman.errors import ElmanError, OptionError, RunError
from elman.look.show import show
from elman.runs import Run, as_json, compared, listed, runs_in
from elman.task import TASKS
from elman.task.base import Scores
from elman.task.options import from_json
from elman.tensors import flatten, read_tensors, rebuild
from elman.train import Processes, check_same_data, joined, train

USAGE = """elman: write the step; elman unfolds it through time.

  elman train TASK [FILE ...]   train a network; TASK is one of:
{tasks}
  elman score RUN [FILE ...]    measure it, on the data held back or on files
  elman predict RUN [FILE ...]  what it makes of new input
  elman sample RUN              let a trained network write (text)
  elman show RUN [FILE ...]     one page of pictures: its training, and what is inside
  elman runs [FOLDER]           the runs there are, with their scores
  elman compare RUN RUN ...     what sets runs apart

Try: elman train text           (learns Python from the standard library's source)
     elman train classify       (no data named: each task makes or finds its own)
Each command explains itself: elman train text --help, elman predict --help
"""

WIDE = 2000  # columns of a table that is to be printed whole
BOUNDS = ("steps", "epochs", "seconds")
PRINTED = ("report_every", "validate_every", "sample_every")
FREE = {"run", "resume", "from_step", *BOUNDS, "early_stop", *PRINTED, "checkpoints"}  # what --resume may change


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
        "show": run_show, "runs": run_runs, "compare": run_compare,
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
    if words[0] not in TASKS:
        raise OptionError(f"unknown task {words[0]!r}: it is one of {', '.join(TASKS)}, as in: elman train text FILE")
    with joined() as processes:
        return begin(TASKS[words[0]], words[1:], processes)


def begin(task: Any, words: list[str], processes: Processes) -> int:
    """A new run, or one that goes on. Errors: ElmanError."""
    name, words = take_recipe(task, words)
    recipe = task.recipes[name or "default"]
    asked: Any = parse(task.options_type, words, f"elman train {task.name}", recipe.options, help_of(task))
    if processes.restarts and not asked.run:
        raise OptionError("--max-restarts starts the same command again: name the run to go on with by --run")
    if asked.resume or (processes.restarts and (Path(asked.run) / "config.json").exists()):
        return resume(task, words, asked.run, recipe.options if name else None, processes)
    if asked.from_step is not None:
        raise OptionError(f"--from-step {asked.from_step}: goes with --resume, and an older checkpoint of that run")
    if asked.steps is None and asked.epochs is None and asked.seconds is None:
        asked = replace(asked, steps=recipe.steps, epochs=recipe.epochs, seconds=recipe.seconds)
    with processes.in_turn():
        made = task(asked)
    processes.divide(made)
    folder = processes.folder(lambda: RunFolder.create(asked.run, task.name))
    return carry_through(made, folder, processes, resumed=False)


def take_recipe(task: Any, words: list[str]) -> tuple[str | None, list[str]]:
    """The recipe that --recipe NAME (or --recipe=NAME) names, if any, and the other words."""
    rest, name, given = [], None, iter(words)
    for word in given:
        if word == "--recipe":
            name = next(given, "")
        elif word.startswith("--recipe="):
            name = word.partition("=")[2]
        else:
            rest.append(word)
    if name is not None and name not in task.recipes:
        raise OptionError(f"unknown recipe {name!r}: {task.name} has {', '.join(task.recipes)}")
    return name, rest


def help_of(task: Any) -> str:
    recipes = "\n".join(
        f"  --recipe {name:14} {recipe.about}; {recipe.length}" for name, recipe in task.recipes.items()
    )
    return (
        f"{task.__doc__}\n\nRecipes (presets; flags given beside one override it):\n{recipes}\n\nExamples:\n"
        + "\n".join(f"  {line}" for line in task.examples)
    )


def resume(task: Any, words: list[str], name: str | None, recipe: Any, processes: Processes) -> int:
    """Go on with a run, under its own options; only its bounds and what it prints may be changed."""
    folder = processes.folder(lambda: RunFolder.newest(task.name) if name is None else RunFolder.open(name))
    made, config = reopen(folder, task.name)
    base = replace(recipe or made.options, **dict.fromkeys(BOUNDS))
    asked = parse(task.options_type, words, f"elman train {task.name}", base, "")
    for option in sorted({field.name for field in fields(asked)} - FREE):
        if getattr(asked, option) != getattr(made.options, option):
            raise OptionError(
                f"--{option.replace('_', '-')} {getattr(asked, option)}: {folder.path} was begun with "
                f"{getattr(made.options, option)}, which cannot change on the way; leave it out, or begin a new run"
            )
    if all(getattr(asked, bound) is None for bound in BOUNDS):
        asked = replace(asked, **{bound: getattr(made.options, bound) for bound in BOUNDS})
    made.options = asked
    with processes.in_turn():
        check_same_data(made, config.get("data"), folder)
    processes.divide(made)
    return carry_through(made, folder, processes, resumed=True)


def carry_through(task: Any, folder: RunFolder, processes: Processes, resumed: bool) -> int:
    """Train, then score; where a signal ended it, say how to go on."""
    report = processes.report()
    if signal := train(task, folder, report, resumed, processes):
        report.say(f"stopped and saved; go on with: elman train {task.name} --run {folder.path} --resume")
        return 128 + signal
    if task.has_validation and processes.leads:
        report.scores(measured(report.console, task, ()))
    verb = "sample" if task.writes else "predict"
    report.say(f"next: elman {verb} {folder.path}{'' if task.writes else ' FILE'}")
    return 0


# score, predict and sample


def run_score(words: list[str]) -> int:
    asked = parse(FileArguments, words, "elman score", None, SCORE_HELP)
    folder = RunFolder.open(asked.run)
    task, config = trained(folder)
    if not asked.files:
        check_same_data(task, config.get("data"), folder)
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
    folder = RunFolder.open(asked.run)
    task, config = trained(folder)
    if not asked.files:
        check_same_data(task, config.get("data"), folder)
    path = Path(asked.out) if asked.out else folder.path / "show.html"
    RunFolder(path.parent).write_text(path.name, show(folder, task, asked.files))
    print(path)
    return 0


def run_runs(words: list[str]) -> int:
    asked = parse(RunsArguments, words, "elman runs", None, RUNS_HELP)
    found = runs_in(Path(asked.folder))
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


# run folders and flags


def reopen(folder: RunFolder, name: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The task of a run folder, without its weights, and its config.json. Errors: RunError."""
    config = folder.read_json("config.json")
    known = isinstance(config, dict) and isinstance(config.get("task"), str) and config["task"] in TASKS
    if not known:
        raise RunError(f"{folder.path / 'config.json'} describes no run of elman; restore it, or train again")
    if name is not None and config["task"] != name:
        raise RunError(f"{folder.path} is a run of {config['task']}, not of {name}")
    task = TASKS[config["task"]]
    try:
        options = from_json(task.options_type, config.get("options"))
        return task(options, {name: folder.read_json(name) for name in task.file_names}), config
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # what JSON of another form leads to
        raise RunError(
            f"{folder.path} does not fit this version of elman ({error}); restore it, or train again"
        ) from None


def trained(folder: RunFolder) -> tuple[Any, dict[str, Any]]:
    """The task of a run folder, with its trained weights, and its config.json."""
    task, config = reopen(folder)
    folder.load_into(task.model, "model.safetensors")
    return task, config


def parse(options: Any, words: list[str], program: str, default: Any, about: str) -> Any:
    """Options from words. Errors: OptionError in one line, where tyro would draw a box."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                options,
                args=words,
                prog=program,
                description=about,
                config=(tyro.conf.FlagCreatePairsOff,),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise OptionError(f"{one_line(said.getvalue())}; {program} --help lists the flags") from None


def one_line(box: str) -> str:
    """The message in a box that tyro draws: what stands between its title and its next rule.

    On a UTF-8 terminal the box has borders and its title is in the upper one; else the title has a line and a rule.
    """
    lines = [line.strip("│ ") for line in box.splitlines()]
    lines = lines[1:] if box.startswith("╭") else lines[2:]
    until = next((i for i, line in enumerate(lines) if not line.strip("─-╰╯")), len(lines))
    return " ".join(lines[:until]).rstrip(".").removeprefix("Error parsing Options: ")
