"""The graphs of steps on a page: of one cell, and of every cell in a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from elman.cell import Cell, Feedback
from elman.compiler import show
from elman.errors import CellError, InputError
from elman.look.drawing import folded
from elman.look.graph import STEPS, checked, drawn
from elman.look.page import Page, Section, choice, escape, picture
from elman.look.scene import Setting
from elman.module import Recurrent
from elman.module.step_graph import StepGraph, step_graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 3  # layers in a caption


def page_of(cell: Cell, steps: int = STEPS) -> Page:
    """The graph of a cell's step in three pictures, and as text. Errors: as `step_graph`; OptionError for the steps."""
    graph = step_graph(cell)
    widths = ", ".join(f"{name} {width}" for name, width in cell.state_sizes.items())
    about = {
        "step": Path(graph.where).name,
        "widths": f"x {cell.input_size}, {widths}",
        "parameters": f"{sum(p.numel() for p in cell.parameters()):,}",
    }
    figures = pictures(graph, steps)
    items = {name: wide(figure, f"{graph.name}, {said}") for name, (figure, said) in figures.items()}
    sections = [
        Section("The graph", choice("drawn", items), figures={name.split()[0]: f for name, (f, _) in figures.items()}),
        Section("The same as text", f'<pre class="tall" tabindex="0">{escape(graph.text)}</pre>'),
    ]
    return Page(f"{graph.name}: the graph of its step", about, sections)


def pictures(graph: StepGraph, steps: int) -> dict[str, tuple[Figure, str]]:
    """The three pictures of a graph by name, each with what it shows."""
    forward, back = folded(graph, graph.forward), folded(graph, graph.backward)
    given = ", ".join(f"{name} of {' x '.join(map(str, size))}" for name, size in graph.context.items())
    given = f" Drawn with {given}." if given else ""
    over = f"unfolded over {steps} step{'s' * (steps > 1)}"
    return {
        "folded": (
            drawn(Setting(forward).scene()),
            f"folded: one step, {len(graph.forward.nodes())} values. Dashed: what it leaves is the state that the next "
            f"one finds. Below each operation its name in the text, what the step calls it, and its width.{given}",
        ),
        over: (
            drawn(Setting(forward, checked(steps)).scene()),
            f"{over}: the loop once a step, all else once; every step reads the same parameters.",
        ),
        "backward": (
            drawn(Setting(back).scene()),
            f"backward: the loop of gradients, {len(graph.backward.nodes())} values, from the last step to the first. "
            "Blue: what comes in, gradients and values of the forward step. \u03a3 is a sum over all rows and steps.",
        ),
    }


def wide(figure: Figure, said: str) -> str:
    """A picture in a size in which it can be read, wider than the page where it must be."""
    return f'<div class="wide" style="--own: {figure.get_figwidth() * 96:.0f}px">{picture(figure, said)}</div>'


def of_model(model: nn.Module) -> list[Section]:
    """The graph of the step of every cell that a model's recurrent layers unfold, those that are alike once."""
    graphs, refused = graphs_in(model)
    items: dict[str, str] = {}
    figures: dict[str, Figure] = {}
    for k, (graph, layers) in enumerate(graphs, 1):
        more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
        where = f"{graph.name} ({', '.join(layers[:NAMED])}{more})"
        for name, (figure, said) in pictures(graph, STEPS).items():
            figures[f"graph-{k}-{name.split()[0]}" if k > 1 else f"graph-{name.split()[0]}"] = figure
            said += f" Widths as in {layers[0]}." * (len(layers) > 1)
            items[f"{where}, {name}" if len(graphs) > 1 else name] = wide(figure, f"{where}, {said}")
    notes = "".join(f'<p class="note">Not drawn: {escape(reason)}.</p>' for reason in refused)
    if not items and not notes:
        return []
    return [Section("The graph of its step", (choice("drawn", items) if items else "") + notes, figures=figures)]


def graphs_in(model: nn.Module) -> tuple[list[tuple[StepGraph, list[str]]], list[str]]:
    """Each distinct graph with the names of the layers that have it, and why others have none.

    Layers that differ only in the width of x have one graph, that of the first. A cell that reads its own symbols is
    drawn as it is taught: it reads those given.
    """
    found: dict[str, tuple[StepGraph, list[str]]] = {}
    refused: dict[str, None] = {}
    for name, part in model.named_modules():
        if isinstance(part, Recurrent):
            cell = part.cell.cell if isinstance(part.cell, Feedback) else part.cell
            try:
                graph = step_graph(cell)
            except (CellError, InputError) as error:
                refused[str(error)] = None
            else:
                found.setdefault(f"{graph.name}\n{show(graph.forward)}", (graph, []))[1].append(name)
    return list(found.values()), list(refused)
