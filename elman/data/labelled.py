"""Texts with a label each: TSV, CSV, and lines of a label and words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from elman.data.files import read_lines, read_table
from elman.errors import DataError

HEADS = {"label": ("label", "class", "target", "sentiment", "category"), "text": ("text", "sentence", "review")}


class Labelled(NamedTuple):
    """A text, and its label, where that is known."""

    text: str
    label: str | None
    name: str  # file and line


def read_labelled(path: Path) -> list[Labelled]:
    """Each line's label and text. Errors: DataError.

    CSV and TSV by their names: columns called label and text in the first line, else two columns, the label first. Any
    other file: a label, white space, the text, on each line.
    """
    found: list[Labelled] = []
    if not {".csv", ".tsv"} & set(path.suffixes):
        for number, line in enumerate(read_lines(path), 1):
            label, _, text = line.strip().partition("\t" if "\t" in line else " ")
            if line.strip():
                found.append(checked(text, label, path, number))
        return nonempty(found, path)
    rows = list(read_table(path))
    at, where = columns(rows[0][1]) if rows else (None, None)
    if (at is None) != (where is None):
        kind = "label" if at is None else "text"
        raise DataError(f"{path}, line 1 names no column for the {kind}: call one {' or '.join(HEADS[kind])}")
    for number, row in rows if at is None else rows[1:]:
        if len(row) <= max(at or 0, 1 if where is None else where):
            raise DataError(f"{path}, line {number}: {len(row)} columns; it needs a label and a text")
        if where is None and len(row) > 2:
            raise DataError(
                f"{path}, line {number}: {len(row)} columns without names; quote a text with commas, or name "
                "a column label and one text in the first line"
            )
        found.append(checked(row[1 if where is None else where], row[at or 0], path, number))
    return nonempty(found, path)


def read_unlabelled(path: Path) -> list[Labelled]:
    """A text a line; of CSV and TSV the column that `read_labelled` takes for it, or the only one. Errors: DataError"""
    if {".csv", ".tsv"} & set(path.suffixes):
        rows = list(read_table(path))
        _, text = columns(rows[0][1]) if rows else (None, None)
        cells = [(row[min(1 if text is None else text, len(row) - 1)].strip(), n) for n, row in rows]
        some = cells if text is None else cells[1:]
        return nonempty([Labelled(cell, None, f"{path}, line {n}") for cell, n in some if cell], path)
    lines = enumerate(read_lines(path), 1)
    return nonempty([Labelled(line.strip(), None, f"{path}, line {n}") for n, line in lines if line.strip()], path)


def columns(head: Sequence[str]) -> tuple[int | None, int | None]:
    """Where label and text stand, as far as the first line says so."""
    names = [cell.strip().lower() for cell in head]
    label, text = (next((i for i, name in enumerate(names) if name in HEADS[kind]), None) for kind in ("label", "text"))
    return label, text


def checked(text: str, label: str, path: Path, number: int) -> Labelled:
    if not text.strip() or not label.strip():
        raise DataError(
            f"{path}, line {number}: no {'text' if label.strip() else 'label'}; it needs a label and a text"
        )
    return Labelled(text.strip(), label.strip(), f"{path}, line {number}")


def nonempty(found: list[Labelled], path: Path) -> list[Labelled]:
    if not found:
        raise DataError(f"{path} holds no texts; name a file with a label and a text on each line")
    return found
