"""From words to a task: its options, its run folder, and whether it goes on with it."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import tyro

from elman import precision
from elman.checkpoint import NEWEST, RunFolder
from elman.errors import OptionError, RunError
from elman.task import TASKS
from elman.task.options import flag_of, from_json
from elman.train import Processes, check_same_data, summary_writer

BOUNDS = ("steps", "epochs", "seconds")
PRINTED = ("report_every", "validate_every", "sample_every", "tensorboard")
# what --resume may change
FREE = {"run", "resume", "from_step", *BOUNDS, "early_stop", *PRINTED, "checkpoints", "on_divergence"}


def prepared(words: list[str], processes: Processes = Processes()) -> tuple[Any, RunFolder, bool]:
    """The task that words ask for, its run folder, and whether it goes on with it. Errors: ElmanError."""
    task, asked = asked_for(words)
    if processes.restarts and not asked.run:
        raise OptionError("--max-restarts starts the same command again: name the run to go on with by --run")
    if processes.restarts and asked.from_step is not None:
        raise OptionError("--max-restarts starts the same command again, and --from-step would go back each time")
    if asked.resume or (processes.restarts and (Path(asked.run) / "config.json").exists()):
        return resume(task, words[1:], asked.run, processes)
    if asked.from_step is not None:
        raise OptionError(f"--from-step {asked.from_step}: goes with --resume, and an older checkpoint of that run")
    with precision(asked.precision), processes.in_turn():  # refused before data is read and a folder made
        made = task(asked)
    processes.divide(made)
    left = [*made.file_names, "model.safetensors", NEWEST] if processes.restarts else []
    return made, processes.folder(lambda: RunFolder.create(asked.run, task.name, left)), False


def asked_for(words: list[str]) -> tuple[Any, Any]:
    """The kind of task that the first word names, and the options that the others ask for. Errors: OptionError."""
    if words[0] not in TASKS:
        raise OptionError(f"unknown task {words[0]!r}: it is one of {', '.join(TASKS)}, as in: elman train text FILE")
    task = TASKS[words[0]]
    name, words = take_recipe(task, words[1:])
    recipe = task.recipes[name or "default"]
    asked: Any = parse(task.options_type, words, f"elman train {task.name}", recipe.options, help_of(task))
    if asked.tensorboard:
        summary_writer()
    if asked.steps is None and asked.epochs is None and asked.seconds is None:
        asked = replace(asked, steps=recipe.steps, epochs=recipe.epochs, seconds=recipe.seconds)
    return task, asked


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


def resume(task: Any, words: list[str], run: str | None, processes: Processes) -> tuple[Any, RunFolder, bool]:
    """A run to go on with, under its own options; only its bounds and what it prints may be changed."""
    folder = processes.folder(lambda: RunFolder.newest(task.name) if run is None else RunFolder.open(run))
    made, config = reopen(folder, task.name)
    name, words = take_recipe(task, words)
    own = {option: getattr(made.options, option) for option in ({*FREE, "files"} - {*BOUNDS} if name else ())}
    base = replace(task.recipes[name].options if name else made.options, **own, **dict.fromkeys(BOUNDS))
    asked = parse(task.options_type, words, f"elman train {task.name}", base, "")
    for option in sorted({field.name for field in fields(asked)} - FREE):
        if getattr(asked, option) != getattr(made.options, option):
            raise OptionError(
                f"{flag_of(option)} {getattr(asked, option)}: {folder.path} was begun with "
                f"{getattr(made.options, option)}, which cannot change on the way; leave it out, or begin a new run"
            )
    if all(getattr(asked, bound) is None for bound in BOUNDS):
        asked = replace(asked, **{bound: getattr(made.options, bound) for bound in BOUNDS})
    made.options = asked
    with processes.in_turn():
        check_same_data(made, config.get("data"), folder)
    processes.divide(made)
    return made, folder, True


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


def looked_at(run: str, files: Sequence[str] = ()) -> tuple[RunFolder, Any]:
    """A run folder and its trained task; where no files are named, on the very data that it held back."""
    folder = RunFolder.open(run)
    task, config = trained(folder)
    if not files:
        check_same_data(task, config.get("data"), folder)
    return folder, task


def trained(folder: RunFolder) -> tuple[Any, dict[str, Any]]:
    """The task of a run folder, with its trained weights, and its config.json."""
    task, config = reopen(folder)
    folder.load_into(task.model, "model.safetensors")
    return task, config


def parse(options: Any, words: list[str], program: str, default: Any, about: str) -> Any:
    """Options from words. Errors: OptionError in one line, where tyro would draw a box."""
    said = io.StringIO()
    on = {f"__{field.name}" for field in fields(options) if getattr(default, field.name, None) is True}
    words = [word for word in words if word.replace("-", "_") not in on]  # what is on already may be said again
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
        text = clearer(one_line(said.getvalue())) + nearest(words, options)
        raise OptionError(f"{text}; {program} --help lists the flags") from None


NO_NUMBER = (
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: '(.*)'", "a whole number"),
    (r"Error parsing (\S+): could not convert string to float: '(.*)'", "a number"),
    (r"Error parsing (\S+): no type matching \{None\}\|INT could be instantiated from \['(.*)'\]", "a whole number"),
    (r"Error parsing (\S+): no type matching \{None\}\|FLOAT could be instantiated from \['(.*)'\]", "a number"),
)


def clearer(text: str) -> str:
    """What tyro says of a wrong number, in plain words."""
    for pattern, kind in NO_NUMBER:
        if found := re.fullmatch(pattern, text):
            return f"{found[1]} {found[2]}: must be {kind}"
    return text


def nearest(words: list[str], options: Any) -> str:
    """The flag that was meant by one that is not there, where it is nearly the same."""
    known = [flag_of(field.name) for field in fields(options)]
    unknown = [flag for word in words if (flag := word.partition("=")[0]).startswith("--") and flag not in known]
    meant = [close[0] for flag in unknown if (close := difflib.get_close_matches(flag, known, 1))]
    return f" (did you mean {', '.join(meant)}?)" if meant else ""


def one_line(box: str) -> str:
    """The message in a box that tyro draws: what stands between its title and its next rule.

    On a UTF-8 terminal the box has borders and its title is in the upper one; else the title has a line and a rule.
    """
    lines = [line.strip("│ ") for line in box.splitlines()]
    lines = lines[1:] if box.startswith("╭") else lines[2:]
    until = next((i for i, line in enumerate(lines) if not line.strip("─-╰╯")), len(lines))
    return " ".join(lines[:until]).rstrip(".").removeprefix("Error parsing Options: ")
