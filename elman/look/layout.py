"""Where the marks of a folded graph stand: rows from sources to outputs, and an order in each that crosses few lines.

Source: Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures" (1981).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from elman.look.drawing import ONCE, Drawing, Line

PARTS = ("before", "during", "after")
SWEEPS = 12
SLIM = 8.0  # width of a place where a line passes a row
APART = 12.0  # between neighbours
STRAIGHT = 0.8  # how much a line that passes rows keeps to its own mean, beside its neighbours


@dataclass(frozen=True)
class Layout:
    """rows: names from left to right; x: their centres; chains: where a line passes the rows between its ends, by names
    that stand in rows too; bands: first and last row of each part. What is drawn once for all steps has no place."""

    rows: list[list[str]]
    x: dict[str, float]
    chains: dict[Line, list[str]]
    bands: dict[str, tuple[int, int]]

    def row_of(self) -> dict[str, int]:
        return {name: r for r, row in enumerate(self.rows) for name in row}


def layout(drawing: Drawing, widths: Mapping[str, float]) -> Layout:
    """Places for the marks of a folded drawing, of these widths."""
    row, bands = rows_of(drawing)
    lines = [line for line in drawing.lines if line.kind != "loop" and line.source in row]
    rows: list[list[str]] = [[] for _ in range(1 + max(row.values()))]
    for mark in drawing.marks:
        if mark.base in row:
            rows[row[mark.base]].append(mark.base)
    chains: dict[Line, list[str]] = {}
    down: list[tuple[str, str]] = []
    for i, line in enumerate(lines):
        chains[line] = [f"line{i}:{r}" for r in range(row[line.source] + 1, row[line.target])]
        for name, r in zip(chains[line], range(row[line.source] + 1, row[line.target])):
            rows[r].append(name)
        down += pairwise([line.source, *chains[line], line.target])
    above: dict[str, list[str]] = {name: [] for each in rows for name in each}
    below: dict[str, list[str]] = {name: [] for each in rows for name in each}
    for a, b in down:
        above[b].append(a)
        below[a].append(b)
    rows = ordered(rows, above, below)
    return Layout(rows, placed(rows, above, below, widths, chains.values()), chains, bands)


def rows_of(drawing: Drawing) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """The row of each mark but those drawn once for all steps, by longest paths; first and last row of each part.

    States are in the first row of the loop, outputs in the last of their part, inputs just above who reads them first.
    """
    sources: dict[str, list[str]] = {mark.base: [] for mark in drawing.marks}
    users: dict[str, list[str]] = {mark.base: [] for mark in drawing.marks}
    for line in drawing.lines:
        if line.kind != "loop":
            sources[line.target].append(line.source)
            users[line.source].append(line.target)
    row: dict[str, int] = {}
    bands: dict[str, tuple[int, int]] = {}
    first = 0
    for part in PARTS:
        inside = [mark for mark in drawing.marks if mark.part == part]
        lowest = first - 1
        for mark in inside:
            if mark.kind in ("input", "state"):
                row[mark.base] = first
            elif mark.kind != "output":
                above = [row[s] for s in sources[mark.base] if row.get(s, -1) >= first]
                row[mark.base] = max(above, default=first - (part == "after")) + 1
            else:
                continue
            lowest = max(lowest, row[mark.base])
        outputs = [mark.base for mark in inside if mark.kind == "output"]
        row |= dict.fromkeys(outputs, lowest + 1)
        for mark in inside:
            if mark.kind == "input":
                reads = [row[user] for user in users[mark.base] if user in row]
                row[mark.base] = min(reads, default=lowest + 1) - 1
        if inside:
            bands[part] = (first, lowest + bool(outputs))
            first = bands[part][1] + 1
    assert all(mark.base in row for mark in drawing.marks if mark.part != ONCE)
    return row, bands


Neighbours = Mapping[str, Sequence[str]]


def ordered(rows: list[list[str]], above: Neighbours, below: Neighbours) -> list[list[str]]:
    """Each row sorted by the mean place of its neighbours, downwards and upwards in turn; the best that is met."""
    best, fewest = rows, crossings(rows, below)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        rows = [list(row) for row in rows]
        for r in range(1, len(rows)) if down else reversed(range(len(rows) - 1)):
            fixed = {name: float(i) for i, name in enumerate(rows[r - 1 if down else r + 1])}
            near = above if down else below
            own = {name: float(i) for i, name in enumerate(rows[r])}
            rows[r].sort(key=lambda name: mean([fixed[n] for n in near[name]], own[name]))
        count = crossings(rows, below)
        if count < fewest:
            best, fewest = rows, count
    return best


def mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def crossings(rows: list[list[str]], below: Neighbours) -> int:
    """Pairs of lines between neighbouring rows that cross."""
    count = 0
    for upper, lower in pairwise(rows):
        at = {name: i for i, name in enumerate(lower)}
        ends = [end for name in upper for end in sorted(at[n] for n in below[name])]
        count += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return count


def placed(
    rows: list[list[str]],
    above: Neighbours,
    below: Neighbours,
    widths: Mapping[str, float],
    chains: Iterable[list[str]],
) -> dict[str, float]:
    """Centres, each as near to those of its neighbours as its row has room for; lines that pass rows are straight."""
    chain = {name: names for names in chains for name in names}
    half = {name: widths.get(name, SLIM) / 2 for row in rows for name in row}
    offsets: list[list[float]] = []
    x: dict[str, float] = {}
    for row in rows:
        ends = [0.0]
        for a, b in pairwise(row):
            ends.append(ends[-1] + half[a] + half[b] + APART)
        offsets.append(ends)
        x |= {name: end - ends[-1] / 2 for name, end in zip(row, ends)}
    for sweep in range(2 * SWEEPS):
        for r in range(len(rows)) if sweep % 2 == 0 else reversed(range(len(rows))):
            near = above if sweep % 2 == 0 else below
            if sweep >= SWEEPS:
                near = {name: [*above[name], *below[name]] for name in rows[r]}
            wanted = []
            for name, at in zip(rows[r], offsets[r]):
                own = mean([x[n] for n in near[name]], x[name])
                whole = mean([x[n] for n in chain.get(name, ())], own)
                wanted.append(own + STRAIGHT * (whole - own) - at)
            weights = [1.0 if name in widths else 3.0 for name in rows[r]]
            found = rising(wanted, weights)
            x |= {name: value + at for name, value, at in zip(rows[r], found, offsets[r])}
    return x


def rising(wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The numbers nearest to those wanted, by weighted squares, none of which is below the one before it.

    Source: pool adjacent violators, Ayer et al. (1955).
    """
    pools: list[tuple[float, float, int]] = []  # value, weight, how many
    for value, weight in zip(wanted, weights):
        count = 1
        while pools and pools[-1][0] > value:
            other, heavy, many = pools.pop()
            value = (other * heavy + value * weight) / (heavy + weight)
            weight, count = weight + heavy, count + many
        pools.append((value, weight, count))
    return [value for value, _, count in pools for _ in range(count)]
