"""The page of a run: how it was trained, what it wrote on the way, and what is inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.checkpoint import RunFolder
from elman.errors import RunError
from elman.look import alignments, fits, forecasts, gates, gazes, memory, mistakes, reading, space, spikes, steps, tags
from elman.look.curves import training
from elman.look.page import Page, Section, picture
from elman.runs import Run
from elman.task.alignment import Alignments
from elman.task.base import Task
from elman.task.dynamics import Effect, Space
from elman.task.fits import Ahead, Answers, Forecasts, Learning
from elman.task.gazes import Gazes
from elman.task.inside import Reach, Read, Reading
from elman.task.sentences import Rates, Sentences
from elman.task.spikes import Spikes
from elman.task.views import Confusion, Mistakes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "--- step "
SECTIONS: dict[type, Callable[[Any], Section]] = {
    Read: reading.section,
    Reading: gates.section,
    Reach: memory.section,
    Effect: memory.effects,
    Space: space.section,
    Confusion: mistakes.confused,
    Mistakes: mistakes.wrongest,
    Sentences: tags.section,
    Rates: tags.rates,
    Alignments: alignments.section,
    Spikes: spikes.section,
    Gazes: gazes.section,
    Forecasts: forecasts.section,
    Ahead: forecasts.seen_ahead,
    Answers: fits.answers,
    Learning: fits.learning,
}


def show(folder: RunFolder, task: Task, paths: Sequence[str] = ()) -> Page:
    """The page. Errors: RunError, DataError, OptionError where matplotlib is missing."""
    run = Run.read(folder.path)
    seen = [*task.views(paths), *task.evolved(snapshots(folder))]
    views = [SECTIONS[type(view)](view) for view in seen]
    sections = [trained(folder, run), *views, *steps.of_model(task.model)]
    return Page(f"{task.name}: {folder.path.name}", about(run, task), sections)


def snapshots(folder: RunFolder) -> list[dict[str, Any]]:
    """What was kept of the training to be seen. Errors: RunError where the file is damaged."""
    try:
        return [json.loads(line) for line in folder.lines("snapshots.jsonl")]
    except ValueError as error:
        raise RunError(f"{folder.path / 'snapshots.jsonl'} is damaged ({error}); restore it, or remove it") from None


def write_figures(page: Page, folder: Path) -> list[Path]:
    """Each picture as SVG and as PNG, each film as GIF."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for name in page.figures for kind in ("svg", "png")]
    for path in paths:
        page.figures[path.stem].savefig(path, dpi=150)
    return [*paths, *(film.write(folder / f"{name}.gif") for name, film in page.films.items())]


def about(run: Run, task: Task) -> dict[str, str]:
    """The run in a few words."""
    rows = {
        "network": f"{sum(p.numel() for p in task.model.parameters()):,} parameters",
        "training": f"{run.steps:,} steps, {run.seconds:,.0f} s",
        "options": ", ".join(f"{name} {value}" for name, value in told(run.options).items()),
    }
    return rows | ({"best": f"{run.shown(run.best)} at step {run.best:,}"} if run.best is not None else {})


def told(options: dict[str, Any]) -> dict[str, Any]:
    """The options that say what the network is and how it was trained; files by their names alone."""
    left_out = {"report_every", "validate_every", "sample_every", "smoothing", "run", "resume"}
    found = {name: value for name, value in options.items() if name not in left_out and value not in (None, [], ())}
    if "files" in found:
        found["files"] = " ".join(Path(name).name for name in found["files"])
    paths = {
        name: Path(value).name for name, value in found.items() if isinstance(value, str) and Path(value).is_absolute()
    }
    return found | paths


def trained(folder: RunFolder, run: Run) -> Section:
    """The curves, and the samples as they evolved, with a line over the curve at the moment of each."""
    figure = training(run)
    said = f"Losses and scores, gradient norm, share of steps clipped and learning rate over {run.steps:,} steps."
    body, found = picture(figure, said), samples(folder)
    if not found:
        return Section("Training", body, figures={"training": figure})
    body = body.replace("</svg>", marker(figure) + "</svg>", 1)
    data = [[step, text, across(figure, step)] for step, text in found]
    body += f"""<p><label for="sample-at">what it wrote at <strong id="sample-step"></strong></label>
<input id="sample-at" type="range" min="0" max="{len(found) - 1}" value="{len(found) - 1}"></p>
<pre id="sample" aria-live="polite"></pre>"""
    return Section("Training", body, {"samples": data}, {"training": figure})


def samples(folder: RunFolder) -> list[tuple[int, str]]:
    """Step and text of each sample in samples.txt."""
    found: list[tuple[int, list[str]]] = []
    for line in folder.lines("samples.txt"):
        if line.startswith(MARK) and line.removeprefix(MARK).isdigit():
            found.append((int(line.removeprefix(MARK)), []))
        elif found:
            found[-1][1].append(line)
    return [(step, "\n".join(lines)) for step, lines in found]


def across(figure: Figure, step: int) -> float:
    """Where a step lies in the figure's SVG, in its own units (points)."""
    loss = figure.axes[0]
    return round(float(loss.transData.transform((step, 1))[0]) * 72 / figure.dpi, 2)


def marker(figure: Figure) -> str:
    """The line that the script moves, from top to bottom of the figure."""
    height = figure.get_figheight() * 72
    return f'<line id="marker" class="marker" y1="0" y2="{height:.0f}" x1="-9" x2="-9"/>'
