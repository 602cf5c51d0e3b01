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

    CSV and TSV by their names: columns called label and text in the first line, else the first two columns. Any other
    file: a label, white space, the text, on each line.
    """
    found: list[Labelled] = []
    if not {".csv", ".tsv"} & set(path.suffixes):
        for number, line in enumerate(read_lines(path), 1):
            label, _, text = line.strip().partition("\t" if "\t" in line else " ")
            if line.strip():
                found.append(checked(text, label, path, number))
        return nonempty(found, path)
    rows = list(read_table(path))
    named = columns(rows[0][1]) if rows else None
    at, where = named or (0, 1)
    for number, row in rows[1:] if named else rows:
        if len(row) <= max(at, where):
            raise DataError(f"{path}, line {number}: {len(row)} columns; it needs a label and a text")
        found.append(checked(row[where], row[at], path, number))
    return nonempty(found, path)


def read_unlabelled(path: Path) -> list[Labelled]:
    """A text a line. Errors: DataError."""
    lines = enumerate(read_lines(path), 1)
    return nonempty([Labelled(line.strip(), None, f"{path}, line {n}") for n, line in lines if line.strip()], path)


def columns(head: Sequence[str]) -> tuple[int, int] | None:
    """Where label and text stand, if the first line says so."""
    names = [cell.strip().lower() for cell in head]
    found = [[i for i, name in enumerate(names) if name in HEADS[kind]] for kind in ("label", "text")]
    return (found[0][0], found[1][0]) if found[0] and found[1] else None


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
