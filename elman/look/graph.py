"""The computational graph of a cell's step: folded, unfolded over time, and that of its gradient."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from elman.cell.base import Cell
from elman.errors import OptionError
from elman.look.curves import COLOURS, drawing
from elman.look.drawing import KINDS, ONCE, Line, Mark
from elman.look.drawing import folded as folded_drawing
from elman.look.page import INK
from elman.look.scene import HEIGHT, Frame, Point, Scene, Setting
from elman.module.step_graph import step_graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

STEPS = 3
MOST = 20  # steps of an unfolded graph
LEGEND = 34.0  # points below the scene
LOOP = COLOURS[1]
FILLS = {
    "input": COLOURS[0],
    "state": COLOURS[1],
    "parameter": COLOURS[3],
    "number": "#9c6b3f",
    "product": COLOURS[2],
    "sum": COLOURS[4],
    "columns": "#2a9d9d",
    "pointwise": "#8a9099",
    "output": COLOURS[5],
}


def folded(cell: Cell) -> Figure:
    """One step with its loop: the state it finds, what it computes, and the state it leaves, which goes back.

    Every mark and line has an id in the SVG: node-v3 where `elman.explain` says v3, edge-v1-v3; see `Drawing`.
    Errors: CellError, InputError where the step has no graph; OptionError where matplotlib is missing.
    """
    graph = step_graph(cell)
    return drawn(Setting(folded_drawing(graph, graph.forward)).scene())


def unfolded(cell: Cell, steps: int = STEPS) -> Figure:
    """The same over so many steps: parameters once, what is before and after the loop once, the rest once a step.

    Errors: as `folded`; OptionError for another number of steps than 1 to 20.
    """
    graph = step_graph(cell)
    return drawn(Setting(folded_drawing(graph, graph.forward), checked(steps)).scene())


def backward(cell: Cell) -> Figure:
    """The loop of gradients that is derived from the step, in which time runs back; those to parameters are sums."""
    graph = step_graph(cell)
    return drawn(Setting(folded_drawing(graph, graph.backward)).scene())


def checked(steps: int) -> int:
    """A number of steps that can be drawn, or an OptionError."""
    if not 1 <= steps <= MOST:
        raise OptionError(f"a graph is unfolded over 1 to {MOST} steps; got {steps}")
    return steps


def drawn(scene: Scene) -> Figure:
    """A scene as a figure, a point a point."""
    width, height = max(scene.size[0], 470.0), scene.size[1] + LEGEND
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for frame in scene.frames:
            axes.add_artist(framed(frame.left, frame.top, frame.right, frame.bottom))
            left, text = heading(frame, scene)
            axes.text(left, frame.top + 11, text, fontsize=8, alpha=0.75)
        once = {mark.name: FILLS[mark.kind] for mark in scene.drawing.marks if mark.part == ONCE}
        for line in scene.drawing.lines:
            for patch in lined(line, scene, once.get(line.source, "")):
                axes.add_artist(patch)
        for mark in scene.drawing.marks:
            put(axes, mark, scene.at[mark.name], scene.widths[mark.name])
        legend(axes, scene, height)
        return figure


def framed(left: float, top: float, right: float, bottom: float) -> Patch:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (left, top), right - left, bottom - top, boxstyle="round,pad=0,rounding_size=6", fc="none", ec=INK, alpha=0.35,
        lw=0.8, zorder=0, clip_on=False,
    )  # fmt: skip


def put(axes: Any, mark: Mark, at: Point, width: float) -> None:
    """One mark: its shape, its label and its note."""
    (x, y), colour = at, FILLS[mark.kind]
    patch = shape(mark.kind, x, y, width)
    patch.set(facecolor=(colour, 0.16), edgecolor=colour, linewidth=1.1, zorder=3, clip_on=False)
    patch.set_gid(f"{'output' if mark.kind == 'output' else 'node'}-{mark.name}")
    axes.add_artist(patch)
    how = {"ha": "center", "va": "center_baseline", "parse_math": False, "zorder": 4}
    axes.text(x, y - 3.5 if mark.note else y, mark.label, fontsize=9, **how)
    if mark.note:
        axes.text(x, y + 7.5, mark.note, fontsize=6.5, alpha=0.75, **how)


def shape(kind: str, x: float, y: float, width: float, height: float = HEIGHT) -> Patch:
    """The outline by which a kind is told apart without its colour."""
    from matplotlib.patches import FancyBboxPatch, Polygon

    w, h = width / 2, height / 2
    corners = {
        "parameter": [(-w, 0), (-w + 6, -h), (w - 6, -h), (w, 0), (w - 6, h), (-w + 6, h)],
        "columns": [(-w + 5, -h), (w, -h), (w - 5, h), (-w, h)],
        "sum": [(-w, -h), (w, -h), (w - 5, h), (-w + 5, h)],
        "output": [(-w, -h), (w, -h), (w, h - 5), (0, h), (-w, h - 5)],
    }
    if kind in corners:
        return Polygon([(x + dx, y + dy) for dx, dy in corners[kind]], closed=True)
    rounding = {"product": 0.01, "input": 4, "state": h, "pointwise": h, "number": h}[kind]
    h = h - 5 if kind == "number" else h
    rounding = min(rounding, w, h)
    return FancyBboxPatch((x - w, y - h), 2 * w, 2 * h, boxstyle=f"round,pad=0,rounding_size={rounding}")


def heading(frame: Frame, scene: Scene) -> tuple[float, str]:
    """Where a frame's heading begins, as far left as no line passes through it; short where the whole has no room."""
    lines = ((ends, line in scene.smooth) for line, points in scene.ends.items() for ends in pairwise(points))
    near = ([x for x, y in sampled(*ends, smooth) if frame.top < y < frame.top + 15] for ends, smooth in lines)
    blocked = sorted((min(xs), max(xs)) for xs in near if xs)
    for text in (frame.heading, frame.heading.partition(":")[0], frame.heading.partition(" ")[0]):
        need, start = 4.8 * len(text) + 12, frame.left
        for low, high in [*blocked, (frame.right, frame.right)]:
            if min(low, frame.right) - start > need:
                return start + 6, text
            start = max(start, high)
    return frame.left + 6, text


def sampled(one: Point, two: Point, smooth: bool) -> list[Point]:
    """Points on the way from one to another."""
    shares = [i / 16 for i in range(17)]
    down = [1.5 * t - 1.5 * t * t + t**3 if smooth else t for t in shares]
    aside = [3 * t * t - 2 * t**3 if smooth else t for t in shares]
    return [(one[0] + (two[0] - one[0]) * a, one[1] + (two[1] - one[1]) * d) for a, d in zip(aside, down)]


def lined(line: Line, scene: Scene, shared: str) -> list[Patch]:
    """A line, and the arrow at its end; `shared`: the colour of what is the same at every step."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    points = scene.ends[line]
    corners, codes = bent(points) if line in scene.smooth else turned(points)
    colour = LOOP if line.kind == "loop" else shared or INK
    dashes = (0, (4, 2.5)) if line.kind == "loop" else "-"
    alpha = 0.9 if line.kind == "loop" else 0.75 if shared else 0.6
    how: dict[str, Any] = {"alpha": alpha, "clip_on": False, "zorder": 1 if shared else 2}
    way = PathPatch(Path(corners, codes), fc="none", ec=colour, lw=1.0, ls=dashes, **how)
    way.set_gid(f"{line.kind}-{line.source}-{line.target}")
    x, y = points[-1]
    return [way, Polygon([(x, y), (x - 2.4, y - 5), (x + 2.4, y - 5)], closed=True, fc=colour, ec="none", **how)]


def bent(points: list[Point]) -> tuple[list[Point], list[Any]]:
    """A curve that leaves and meets each point upright."""
    from matplotlib.path import Path

    corners, codes = [points[0]], [Path.MOVETO]
    for (x, y), (to, end) in pairwise(points):
        middle = (y + end) / 2
        corners += [(x, middle), (to, middle), (to, end)]
        codes += [Path.CURVE4] * 3
    return corners, codes


def turned(points: list[Point], radius: float = 5.0) -> tuple[list[Point], list[Any]]:
    """Straight lines with round corners."""
    from matplotlib.path import Path

    corners, codes = [points[0]], [Path.MOVETO]
    for before, here, after in zip(points, points[1:], points[2:]):
        ends = [toward(here, other, radius) for other in (before, after)]
        corners += [ends[0], here, ends[1]]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return [*corners, points[-1]], [*codes, Path.LINETO]


def toward(here: Point, other: Point, far: float) -> Point:
    """A point that far on the way to another, or half way where that is near."""
    (x, y), (to, end) = here, other
    length = max(abs(to - x), abs(end - y))
    share = min(far, length / 2) / length if length else 0.0
    return x + (to - x) * share, y + (end - y) * share


def legend(axes: Any, scene: Scene, height: float) -> None:
    """The kinds that are there, in a line below."""
    x, y = 10.0, height - LEGEND / 2
    there = {mark.kind for mark in scene.drawing.marks}
    for kind in (kind for kind in [*KINDS, "output"] if kind in there):
        patch = shape(kind, x + 10, y, 20, 14 + 10 * (kind == "number"))
        patch.set(facecolor=(FILLS[kind], 0.16), edgecolor=FILLS[kind], linewidth=1.0, clip_on=False)
        axes.add_artist(patch)
        axes.text(x + 24, y, kind, fontsize=8, va="center_baseline")
        x += 36 + 4.6 * len(kind)
