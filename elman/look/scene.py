"""A drawing in points: where its marks stand, the corners of its lines, and the frames around its parts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from elman.look.drawing import ONCE, Drawing, Line, Mark, unfolded
from elman.look.layout import Layout, layout, rising

HEIGHT = 27.0  # of a mark
GAP = 20.0  # between rows, the more the farther a line goes aside
BUS = 6.0  # between lines side by side
PAD = 14.0  # within frames
HEAD = 15.0  # of a frame
LEAST = 190.0  # width within the frames of a folded graph, for their headings
SHARED = "shared by all steps"
Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """A rectangle around a part, with its heading."""

    heading: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Scene:
    """y goes down. ends: the points of a line; smooth: it bends between them, else it turns at corners."""

    drawing: Drawing
    at: dict[str, Point]
    widths: dict[str, float]
    ends: dict[Line, list[Point]]
    smooth: set[Line]
    frames: list[Frame]
    size: Point


def width_of(mark: Mark) -> float:
    """Room for a mark's label at 9 points and its note at 6.5."""
    return max(5.5 * len(mark.label) + 12, 3.75 * len(mark.note) + 12, 20.0 if mark.kind == "number" else 32.0)


class Setting:
    """Makes the scene of a folded drawing, or with `steps` of the same unfolded."""

    def __init__(self, drawing: Drawing, steps: int = 0) -> None:
        self.drawing, self.steps = drawing, steps
        self.shown = unfolded(drawing, steps) if steps else drawing
        self.widths: dict[str, float] = {}
        for mark in self.shown.marks:
            self.widths[mark.base] = max(self.widths.get(mark.base, 0.0), width_of(mark))
        self.once = [mark.base for mark in drawing.marks if mark.part == ONCE]
        self.lay: Layout = layout(drawing, {k: w for k, w in self.widths.items() if k not in self.once})
        self.row = self.lay.row_of()
        self.loops = [line for line in drawing.lines if line.kind == "loop"]
        self.buses: dict[int, list[str]] = {}  # what enters a row from the side, from the outermost line
        for line in drawing.lines:
            if line.source in self.once:
                entering = self.buses.setdefault(self.row[line.target], [])
                entering += [line.source] * (line.source not in entering)
        self.y = self.heights()
        self.side = PAD + 8 + BUS * len(self.once)  # from the frames to what is the same at every step
        (left, right), lanes = self.reach("during"), BUS * len(self.loops)
        self.pitch = right - left + 2 * PAD + lanes + 16  # from one step to the next
        self.wide = max([5.0 * len(SHARED), *(self.widths[name] for name in self.once)])

    # down

    def heights(self) -> list[float]:
        """The middle of each row."""
        y, found = 0.0, []
        starts = {first: part for part, (first, _) in self.lay.bands.items()}
        room = BUS * len(self.loops) + 6
        for r, names in enumerate(self.lay.rows):
            if r in starts:
                y += HEAD + PAD + (room if starts[r] == "during" else 0) + (room if starts[r] == "after" else 0)
            else:
                y += GAP + min(36.0, 0.09 * self.slant(r, names))
            y += BUS * len(self.buses.get(r, []))
            found.append(y + HEIGHT / 2)
            y += HEIGHT
            y += PAD if any(r == last for _, last in self.lay.bands.values()) else 0
        return found

    def slant(self, r: int, names: list[str]) -> float:
        """How far aside a line goes on its way to a row from that above it."""
        x, far = self.lay.x, [0.0]
        for line, chain in self.lay.chains.items():
            way = [line.source, *chain, line.target]
            far += [abs(x[a] - x[b]) for a, b in pairwise(way) if self.row[b] == r]
        return max(far)

    # across

    def reach(self, *parts: str) -> Point:
        """The left and right ends of the marks in these parts; none where a cell has no state, and so no loop."""
        ends = [
            (self.lay.x[name] - self.widths.get(name, 0.0) / 2, self.lay.x[name] + self.widths.get(name, 0.0) / 2)
            for part in parts
            if part in self.lay.bands
            for row in self.lay.rows[self.lay.bands[part][0] : self.lay.bands[part][1] + 1]
            for name in row
        ]
        return min((left for left, _ in ends), default=0.0), max((right for _, right in ends), default=0.0)

    def x(self, name: str, step: int) -> float:
        """The centre of a name in a step; of what stands once for all steps, in the middle below or above them."""
        first, last = self.lay.bands.get("during", (0, -1))
        if first <= self.row[name] <= last:
            return self.lay.x[name] + self.pitch * max(0, step - 1)
        return self.lay.x[name] + self.pitch * max(0, self.steps - 1) / 2

    def bounds(self) -> Point:
        """The left and right ends of all frames."""
        (a, b), (left, right) = self.reach("during"), self.reach("before", "after", "during")
        if not self.steps:
            more = max(0.0, LEAST - (right - left)) / 2
            return left - PAD - more, right + PAD + BUS * len(self.loops) + 4 + more
        ends = [(a, b + self.pitch * (self.steps - 1))]
        middle = self.pitch * (self.steps - 1) / 2
        for part in {"before", "after"} & set(self.lay.bands):
            low, high = self.reach(part)
            ends.append((low + middle, high + middle))
        return min(low for low, _ in ends) - PAD, max(high for _, high in ends) + PAD

    # all together

    def scene(self) -> Scene:
        """The scene, its upper left corner at 0."""
        left, right = self.bounds()
        at = {m.name: (self.x(m.base, m.step), self.y[self.row[m.base]]) for m in self.shown.marks if m.part != ONCE}
        at |= self.beside(left)
        base = {mark.name: (mark.base, mark.step) for mark in self.shown.marks}
        whole = {(line.source, line.target): line for line in self.drawing.lines}
        ends: dict[Line, list[Point]] = {}
        smooth = set()
        for line in self.shown.lines:
            (source, first), (target, last) = base[line.source], base[line.target]
            if line.kind == "loop":
                ends[line] = self.back(line, whole[source, target], at, first, right)
            elif source in self.once:
                ends[line] = self.bus(line, source, target, at, left)
            else:
                ends[line] = self.curve(line, whole[source, target], at, first or last or (self.steps + 1) // 2)
                smooth.add(line)
        outer = left - 10 - (self.side + self.wide + PAD / 2 if self.once else 0)
        bottom = self.y[-1] + HEIGHT / 2 + PAD + (BUS * len(self.loops) + 6) * ("after" not in self.lay.bands) + 6

        def moved(p: Point) -> Point:
            return p[0] - outer, p[1]

        frames = self.frames(left, right) + self.column(at)
        frames = [Frame(f.heading, f.left - outer, f.top, f.right - outer, f.bottom) for f in frames]
        return Scene(
            self.shown,
            {name: moved(p) for name, p in at.items()},
            {mark.name: self.widths[mark.base] for mark in self.shown.marks},
            {line: [moved(p) for p in points] for line, points in ends.items()},
            smooth,
            frames,
            (right - outer + 10 + (BUS * len(self.loops) if self.steps else 0), bottom),
        )

    def beside(self, left: float) -> dict[str, Point]:
        """What is the same at every step, in a column on the left, each near the row that reads it first."""
        if not self.once:
            return {}
        first = {name: min(self.bus_height(r, name) for r, names in self.buses.items() if name in names)
                 for name in self.once}  # fmt: skip
        order = sorted(self.once, key=lambda name: first[name])
        each = HEIGHT + 6
        found = rising([first[name] - each * i for i, name in enumerate(order)], [1.0] * len(order))
        lowest = max(0.0, HEAD + PAD + HEIGHT / 2 - found[0])
        x = left - self.side - self.wide / 2
        return {name: (x, max(y, found[0] + lowest) + each * i) for i, (name, y) in enumerate(zip(order, found))}

    def column(self, at: dict[str, Point]) -> list[Frame]:
        """The frame around what is the same at every step."""
        if not self.once:
            return []
        ys = [at[name][1] for name in self.once]
        x, side = at[self.once[0]][0], self.wide / 2 + PAD / 2
        return [Frame(SHARED, x - side, min(ys) - HEIGHT / 2 - HEAD - 2, x + side, max(ys) + HEIGHT / 2 + 6)]

    def bus_height(self, r: int, name: str) -> float:
        """The height at which a line from the side runs above a row."""
        return self.y[r] - HEIGHT / 2 - 9 - BUS * self.buses[r].index(name)

    def bus(self, line: Line, source: str, target: str, at: dict[str, Point], left: float) -> list[Point]:
        """From the left, along the row, down to who reads it."""
        (x, y), (to, end) = at[line.source], at[line.target]
        turn = left - 8 - BUS * self.once.index(source)
        entering = self.buses[self.row[target]]
        height, width = self.bus_height(self.row[target], source), self.widths[target]
        to += width * (0.35 * (entering.index(source) + 1) / (len(entering) + 1) - 0.4)
        edge = x + self.widths[source] / 2
        return [(edge, y), (turn, y), (turn, height), (to, height), (to, end - HEIGHT / 2)]

    def curve(self, line: Line, whole: Line, at: dict[str, Point], step: int) -> list[Point]:
        """Down through the rows between."""
        (x, y), (to, end) = at[line.source], at[line.target]
        passing = [(self.x(name, step), self.y[self.row[name]]) for name in self.lay.chains[whole]]
        through = [(px, py + side) for px, py in passing for side in (-HEIGHT / 2, HEIGHT / 2)]
        return [(x, y + HEIGHT / 2), *through, (to, end - HEIGHT / 2)]

    def back(self, line: Line, whole: Line, at: dict[str, Point], step: int, right: float) -> list[Point]:
        """From what is carried on around the side to the state it becomes."""
        i = self.loops.index(whole)
        (x, y), (to, end) = at[line.source], at[line.target]
        lane = right - 6 - BUS * i
        if self.steps:
            lane = self.reach("during")[1] + PAD + 8 + BUS * i + self.pitch * (step - 1)
        low, high = y + HEIGHT / 2 + 7 + BUS * i, end - HEIGHT / 2 - 9 - BUS * i
        return [(x, y + HEIGHT / 2), (x, low), (lane, low), (lane, high), (to, high), (to, end - HEIGHT / 2)]

    def frames(self, left: float, right: float) -> list[Frame]:
        """A frame for each part, in an unfolded graph one for each step."""
        found = []
        room = BUS * len(self.loops) + 6
        for part, (first, last) in self.lay.bands.items():
            inner = room if part == "during" else 0
            top = self.y[first] - HEIGHT / 2 - BUS * len(self.buses.get(first, [])) - PAD - inner - 2
            bottom = self.y[last] + HEIGHT / 2 + PAD - 6 + inner
            if part == "during" and self.steps:
                low, high = self.reach("during")
                for k in range(self.steps):
                    move = self.pitch * k
                    found.append(Frame(f"step {k + 1}", low - PAD + move, top, high + PAD + move, bottom))
            else:
                found.append(Frame(heading(part, self.drawing.reverse), left, top, right, bottom))
        return found


def heading(part: str, reverse: bool) -> str:
    """What a part is."""
    order = ", backwards" * reverse
    return {
        "before": "before the loop: all steps at once",
        "during": f"during the loop: step by step{order}",
        "after": "after the loop: all steps at once",
    }[part]
