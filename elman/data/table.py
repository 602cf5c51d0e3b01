"""Numeric columns of a CSV file, in the order of time, and the time column beside them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from elman.data.files import read_table
from elman.errors import DataError

MISSING = ("", "nan", "na", "n/a", "#n/a", "null", "none", "?", "-")  # cells without a value, in any case

PIECE = 20_000  # rows read at once
SAMPLE = 100  # lines, by which columns of numbers are told from others

PHASES: dict[str, Callable[[datetime], float]] = {
    "hour": lambda t: (t.hour + t.minute / 60) / 24,
    "weekday": lambda t: t.weekday() / 7,
    "month": lambda t: (t.month - 1 + (t.day - 1) / 31) / 12,
}  # how far a time is in the day, the week and the year, 0 to 1


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in the order of time.

    Shapes: values (T, C) of float64, a missing value replaced by the one before it, nan where there is
    none; seen (T, C) of bool, false where the file gives no value; clock (T, M), see `calendar`.
    """

    name: str  # the file
    names: tuple[str, ...]  # of the columns, C
    values: Tensor
    seen: Tensor
    clock: Tensor
    times: tuple[datetime, ...] = ()  # empty without a time column
    time: str | None = None  # the name of that column

    def __len__(self) -> int:
        return len(self.values)

    def digest(self, rows: int) -> str:
        """A checksum of the first rows."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for part in (self.values, self.seen):
            digest.update(part[:rows].reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


class Head(NamedTuple):
    """What the first lines of a file say."""

    names: list[str]  # of all columns
    time: str | None  # of the one that holds times
    numeric: list[str]  # of those whose first cell that is not missing is a number


def read_head(path: Path, time: str | None) -> Head:
    """The names of a file's columns; the time column is `time`, or the first one if that holds times.

    Errors: DataError.
    """
    return head_of(path, list(islice(read_table(path), SAMPLE)), time)


def read_columns(path: Path, names: Sequence[str], time: str | None, kinds: Sequence[str], fill: bool) -> Table:
    """The named columns of a CSV file, and its times, as in `read_head`.

    `kinds`: of calendar, see PHASES. Errors: DataError naming file and line: a column that is not there, a cell that is
    no number, a missing value unless they are to be filled, a line of another length.
    """
    rows = read_table(path)
    first = list(islice(rows, SAMPLE))
    head, body = head_of(path, first, time), chain(first[1:], rows)
    for name in names:
        if name not in head.names:
            raise DataError(f"{path} has no column {name!r}; it has {', '.join(head.names)}")
    at = [head.names.index(name) for name in names]
    parts: list[Tensor] = []
    times: list[datetime] = []
    while piece := list(islice(body, PIECE)):
        for number, row in piece:
            if len(row) != len(head.names):
                wrong = f"{len(row)} cells; the first line names {len(head.names)} columns"
                raise DataError(f"{path}, line {number}: {wrong}")
        columns = [numbers_of(piece, i, fill, path, head.names[i]) for i in at]
        parts.append(torch.tensor(columns, dtype=torch.float64).reshape(len(at), len(piece)).T)
        if head.time is not None:
            column = head.names.index(head.time)
            times += [time_of(row[column], path, line, head.time) for line, row in piece]
    values = torch.cat(parts)  # (T, C)
    del parts
    seen = ~values.isnan()
    if not seen.all():
        values = fill_forward(values)
    check_order(path, times, head.time)
    if head.time is None:
        return Table(str(path), tuple(names), values, seen, torch.empty(len(values), 0))
    return Table(str(path), tuple(names), values, seen, calendar(times, kinds), tuple(times), head.time)


def check_order(path: Path, times: Sequence[datetime], name: str | None) -> None:
    """Errors: DataError where a time lies before that of the row above it, by more than clocks are ever put back."""
    for i, (before, now) in enumerate(pairwise(times)):
        if now < before - timedelta(hours=1):
            raise DataError(
                f"{path}: row {i + 2} below the names has {name} {now}, the row above it {before}; rows stand in the "
                "order of time: sort the file"
            )


def numbers_of(rows: Sequence[tuple[int, list[str]]], column: int, fill: bool, path: Path, name: str) -> list[float]:
    """The cells of a column, as `number_of` has them, fast where all are numbers. Errors: DataError."""
    try:
        found = [float(row[column]) for _, row in rows]
    except ValueError:
        found = [math.nan]
    if all(map(math.isfinite, found)):
        return found
    return [number_of(row[column], fill, path, line, name) for line, row in rows]


def head_of(path: Path, rows: list[tuple[int, list[str]]], time: str | None) -> Head:
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} lines; it needs the names of its columns, and rows of numbers")
    (_, first), (_, second) = rows[:2]
    names = [cell.strip() for cell in first]
    if all(is_number(name) for name in names):
        raise DataError(f"{path}, line 1 holds numbers; it must name the columns: write their names above them")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}, line 1: two columns are called {twice!r}; rename one")
    if time is not None and time not in names:
        raise DataError(f"{path} has no column {time!r} for the time; it has {', '.join(names)}")
    if time is None and not is_number(second[0]) and parsed(second[0]) is not None:
        time = names[0]
    columns = zip(names, zip(*(cells for _, cells in rows[1:] if len(cells) == len(names))))
    return Head(names, time, [name for name, cells in columns if name != time and numeric(cells)])


def numeric(cells: Sequence[str]) -> bool:
    """Whether the first cell that is not missing is a number, or all are missing."""
    return is_number(next((cell for cell in cells if cell.strip().lower() not in MISSING), ""))


def is_number(cell: str) -> bool:
    """Whether a cell is a number, or says that one is missing."""
    if cell.strip().lower() in MISSING:
        return True
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def number_of(cell: str, fill: bool, path: Path, line: int, column: str) -> float:
    """A cell's value, nan where it is missing and may be. Errors: DataError."""
    if is_number(cell):
        missing = cell.strip().lower() in MISSING
        if fill or not missing:
            return math.nan if missing else float(cell)
        what = f"is missing ({cell.strip()!r}); --missing fill repeats the value before it, or mend the line"
    else:
        what = f"is {cell.strip()!r}, not a number; mend it, or leave out {column}"
    raise DataError(f"{path}, line {line}: {column} {what}")


def parsed(cell: str) -> datetime | None:
    """A time as 2016-07-01 13:00:00, 2016-07-01T13:00, 2016/07/01 or 2016-07; None where it is none."""
    text = cell.strip().replace("/", "-").removesuffix("Z")
    for form in (text, f"{text}-01"):
        try:
            return datetime.fromisoformat(form).replace(tzinfo=None)
        except ValueError:
            continue
    return None


def time_of(cell: str, path: Path, line: int, column: str) -> datetime:
    """Errors: DataError where a cell of the time column is no time."""
    time = parsed(cell)
    if time is None:
        raise DataError(f"{path}, line {line}: {column} is {cell.strip()!r}, not a time as 2016-07-01 13:00; mend it")
    return time


def fill_forward(values: Tensor) -> Tensor:
    """Each nan replaced by the last value above it, if there is one; values (T, C)."""
    rows, filled = torch.arange(len(values)), []
    for column in values.unbind(1):
        last = torch.where(column.isnan(), -1, rows).cummax(0).values  # the row of the last value, -1 for none
        filled.append(column[last.clamp(min=0)])
    return torch.stack(filled, 1)


def calendar(times: Sequence[datetime], kinds: Sequence[str]) -> Tensor:
    """Sine and cosine of how far each time is in the day, the week, the year: (T, 2 K)."""
    columns = [torch.tensor([PHASES[kind](time) for time in times]) * (2 * math.pi) for kind in kinds]
    turns = [turn for function in (torch.sin, torch.cos) for turn in map(function, columns)]
    return torch.stack(turns, -1) if kinds else torch.empty(len(times), 0)


def times_after(times: Sequence[datetime], count: int) -> list[datetime]:
    """The times that go on at the same distance, or month by month; none where the last three keep no distance."""
    if len(times) < 3:
        return []
    a, b, c = times[-3:]
    months = [12 * t.year + t.month for t in (a, b, c)]
    if a.day == b.day == c.day == 1 and months[1] - months[0] == months[2] - months[1] >= 1:
        ahead = [months[2] - 1 + k * (months[2] - months[1]) for k in range(1, count + 1)]
        return [c.replace(year=m // 12, month=m % 12 + 1) for m in ahead]
    if b - a != c - b or c - b <= timedelta(0):
        return []
    return [c + k * (c - b) for k in range(1, count + 1)]
