"""Sentences in two languages: two files in step, or one with two columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import torch

from elman.data.files import read_lines
from elman.errors import DataError

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
STYLES = ("{d} {month} {y}", "{month} {d}, {y}", "{day}, {d} {month} {y}", "{d}.{m}.{y}", "{day}, {month} {d}, {y}")


class Pair(NamedTuple):
    """A text, and what it becomes, where that is known."""

    source: str
    target: str | None
    name: str  # file and line


def read_pairs(paths: Sequence[str]) -> list[Pair]:
    """The pairs of two files, source and target, or of one with two columns. Errors: DataError."""
    if len(paths) == 2:
        found = read_in_step(Path(paths[0]), Path(paths[1]))
    elif len(paths) == 1:
        found = read_columns(Path(paths[0]))
    else:
        raise DataError(
            f"{len(paths)} files: name two, a line of the second for each of the first, or one with two columns "
            "and a tab between them"
        )
    if not found:
        raise DataError(f"{paths[0]} holds no text; name a file with a text on each line")
    return found


def read_in_step(source: Path, target: Path) -> list[Pair]:
    """Line n of one file with line n of the other; lines empty in both are left out. Errors: DataError."""
    sides = [[line.strip() for line in read_lines(path)] for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{source} has {len(sides[0]):,} lines and {target} {len(sides[1]):,}: each line of the second translates "
            "that of the first, so mend the files until they pair up"
        )
    found = []
    for number, pair in enumerate(zip(*sides), 1):
        if any(pair):
            empty, other = (target, source) if pair[0] else (source, target)
            if not all(pair):
                raise DataError(f"{empty}, line {number}: empty, and that of {other} is not; fill it, or take out both")
            found.append(Pair(pair[0], pair[1], f"{source}, line {number}"))
    return found


def read_columns(path: Path) -> list[Pair]:
    """Source and target on each line, a tab between them; empty lines are left out. Errors: DataError."""
    found = []
    for number, line in enumerate(read_lines(path), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if any(cells) and len(cells) != 2:
            raise DataError(
                f"{path}, line {number}: {len(cells)} columns; it needs source and target with a tab between, or name "
                "two files"
            )
        if any(cells) and not all(cells):
            raise DataError(f"{path}, line {number}: the {'target' if cells[0] else 'source'} is empty; fill it in")
        if any(cells):
            found.append(Pair(cells[0], cells[1], f"{path}, line {number}"))
    return found


def read_sources(path: Path) -> list[Pair]:
    """Each line of a file as a source, empty ones too, so that answers stay in step. Errors: DataError.

    Of two columns, a tab between them in the first line of text, the source is the first.
    """
    lines = read_lines(path)
    two = has_columns(lines)
    sources = [line.strip().partition("\t")[0] if two else line.strip() for line in lines]
    return [Pair(source, None, f"{path}, line {number}") for number, source in enumerate(sources, 1)]


def has_columns(lines: Sequence[str]) -> bool:
    """Whether a tab stands in the first line of text."""
    return "\t" in next((line.strip() for line in lines if line.strip()), "")


def read_either(paths: Sequence[str]) -> list[Pair]:
    """What `read_pairs` reads; one file without a tab in its first line of text as sources, none of them empty."""
    if len(paths) > 1 or has_columns(read_lines(Path(paths[0]))):
        return read_pairs(paths)
    return [pair for pair in read_sources(Path(paths[0])) if pair.source] or read_pairs(paths)


def made_dates(count: int, seed: int) -> list[Pair]:
    """Days of two centuries as people write them, "March 3, 1987", each with its ISO form, "1987-03-03"."""
    draw = torch.Generator().manual_seed(seed)
    first = date(1900, 1, 1)
    numbers = torch.randperm((date(2100, 1, 1) - first).days, generator=draw)[:count].tolist()
    styles = torch.randint(len(STYLES), (count,), generator=draw).tolist()
    found = []
    for n, style in zip(numbers, styles):
        it = first + timedelta(days=n)
        parts = {"d": it.day, "m": it.month, "y": it.year, "month": MONTHS[it.month - 1], "day": DAYS[it.weekday()]}
        found.append(Pair(STYLES[style].format(**parts), it.isoformat(), f"date {n}"))
    return found
