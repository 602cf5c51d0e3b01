"""Time series with a label each: the .ts files of the UCR and UEA archives, and CSV with a series a line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from elman.data.files import read_lines, read_table
from elman.errors import DataError


class Series(NamedTuple):
    """Values (T, D), and the label, where that is known."""

    values: Tensor
    label: str | None
    name: str  # file and line


def read_series(path: Path) -> list[Series]:
    """The series of a .ts or .csv file. Errors: DataError naming file and line."""
    found = read_ts(path) if ".ts" in path.suffixes else read_csv(path)
    if not found:
        raise DataError(f"{path} holds no series; name a file with one on each line")
    widths = {series.values.shape[1]: series.name for series in found}
    if len(widths) > 1:
        (a, first), (b, second) = list(widths.items())[:2]
        raise DataError(f"{first} has {a} variables and {second} has {b}; all series must have the same")
    return found


def read_ts(path: Path) -> list[Series]:
    """Dimensions apart by ":", values by ",", the label last unless the head says there is none."""
    found, labelled, begun = [], True, False
    for number, line in enumerate(read_lines(path), 1):
        words = line.lower().split()
        if not words or line.startswith("#"):
            continue
        if line.startswith("@"):
            begun = begun or words[0] == "@data"
            if words[0] == "@classlabel":
                labelled = words[1:2] == ["true"]
            continue
        if not begun:
            raise DataError(f"{path}, line {number}: values before @data; is this a .ts file?")
        *parts, label = line.strip().split(":") if labelled else [*line.strip().split(":"), ""]
        name = f"{path}, line {number}"
        columns = [numbers(part.split(","), name) for part in parts]
        if not columns or len({len(column) for column in columns}) > 1:
            raise DataError(f"{name}: its variables have {[len(c) for c in columns]} values; all need as many")
        found.append(Series(torch.tensor(columns).T.contiguous(), label.strip() if labelled else None, name))
    return found


def read_csv(path: Path) -> list[Series]:
    """A label and then the values of one variable on each line."""
    rows = list(read_table(path))
    if rows and rows[0][1][0].strip().lower() in ("label", "class", "target"):
        rows = rows[1:]
    found = []
    for number, row in rows:
        name = f"{path}, line {number}"
        if len(row) < 2:
            raise DataError(f"{name}: {len(row)} columns; it needs a label and values")
        found.append(Series(torch.tensor([numbers(row[1:], name)]).T.contiguous(), row[0].strip(), name))
    return found


def numbers(cells: list[str], name: str) -> list[float]:
    """Errors: DataError for a cell that is no finite number."""
    values = []
    for i, cell in enumerate(cells, 1):
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{name}: value {i} is {cell.strip()!r}, not a number; mend it or leave the line out")
        values.append(value)
    return values
