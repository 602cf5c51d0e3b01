"""Sentences whose words have a tag each: CoNLL-U, columns of words and tags; and sentences without tags."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from elman.data.files import read_lines
from elman.errors import DataError

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
FEATURES = CONLLU.index("feats")

Row = tuple[int, list[str]]  # a line's number and its cells; none at the end of a sentence


class Tagged(NamedTuple):
    """A sentence's words, and their tags, where those are known."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    path: str
    lines: tuple[int, ...]  # where each word stands

    def at(self, i: int) -> str:
        """File and line of word i."""
        return f"{self.path}, line {self.lines[i]}"


def read_tagged(path: Path, column: str) -> list[Tagged]:
    """The sentences of a file with a word on each line and a blank line between sentences, tags from `column`.

    CoNLL-U, where the name says so or the first word's line has its ten columns: `column` is the name of a column, a
    number from 1, or the name of a feature, `_` where a word lacks it; auto: upos. Words whose id is a range or has a
    point are left out. Any other file: a word, then other columns, between tabs or, where a line has none, white
    space, the same number on each line; `column` is a number, auto: the last. Errors: DataError.
    """
    lines = read_lines(path)
    if is_conllu(path, lines):
        rows = conllu_rows(path, lines)
        return put_together(path, rows, 1, conllu_tag(path, rows, column))
    rows = column_rows(lines)
    at = column_number(path, rows, column)
    return put_together(path, even(path, rows, at), 0, lambda cells: cells[at])


def read_words(path: Path, column: str, labels: Collection[str]) -> list[Tagged]:
    """The sentences of a file, without tags: each line is one, its words between white space.

    A file that `read_tagged` reads, its tags passed over: CoNLL-U; columns, where the first line has a tab, or all
    lines have as many and a known label for tag. Errors: DataError.
    """
    lines = read_lines(path)
    if is_conllu(path, lines):
        return put_together(path, conllu_rows(path, lines), 1)
    rows = column_rows(lines)
    if is_columns(lines, rows, column, labels):
        return put_together(path, even(path, rows, 1), 0)
    texts = ((number, tuple(line.split())) for number, line in enumerate(lines, 1))
    found = [Tagged(words, None, str(path), (number,) * len(words)) for number, words in texts if words]
    return nonempty(path, found)


def read_either(path: Path, column: str, labels: Collection[str]) -> list[Tagged]:
    """The sentences of a file, with tags where `read_tagged` finds them, else without, as `read_words` reads them."""
    lines = read_lines(path)
    if is_conllu(path, lines):
        rows = conllu_rows(path, lines)
        return put_together(path, rows, 1, conllu_tag(path, rows, column) if has_tags(rows, column) else None)
    tagged = is_columns(lines, column_rows(lines), column, labels)
    return read_tagged(path, column) if tagged else read_words(path, column, labels)


def is_conllu(path: Path, lines: list[str]) -> bool:
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    cells = first.split("\t")
    return ".conllu" in path.suffixes or (len(cells) == len(CONLLU) and cells[0][:1].isdigit())


def is_columns(lines: list[str], rows: list[Row], column: str, labels: Collection[str]) -> bool:
    if "\t" in next((line for line in lines if line.strip()), ""):
        return True
    if column != "auto" and not column.isdigit():  # a column of CoNLL-U, which has tabs
        return False
    at = int(column) - 1 if column.isdigit() else -1
    some = [cells for _, cells in rows if cells]
    return len({*map(len, some)}) == 1 and all(len(cells) > max(at, 1) and cells[at] in labels for cells in some)


def conllu_rows(path: Path, lines: list[str]) -> list[Row]:
    """Errors: DataError where a line has not ten columns."""
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        cells = line.split("\t") if line.strip() else []
        if line.startswith("#"):
            continue
        if cells and len(cells) != len(CONLLU):
            raise DataError(
                f"{path}, line {number}: {shown_count(cells)}; CoNLL-U has ten between tabs: {', '.join(CONLLU)}"
            )
        if not cells or not {"-", "."} & set(cells[0]):
            rows.append((number, cells))
    return rows


def column_rows(lines: list[str]) -> list[Row]:
    """The rows of a file of columns. A line of the word -DOCSTART- is the end of a sentence, as in CoNLL-2003."""
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        cells = line.split("\t") if "\t" in line else line.split()
        rows.append((number, [] if not line.strip() or cells[0] == "-DOCSTART-" else cells))
    return rows


def conllu_tag(path: Path, rows: list[Row], column: str) -> Callable[[list[str]], str]:
    """What takes a word's tag from its cells. Errors: DataError where it is _ for all words."""
    if has_tags(rows, column):
        return taker(column)
    some = sorted({feature for _, cells in rows if cells for feature in features(cells)})
    there = f"columns {', '.join(CONLLU)}; features {', '.join(some) or '(none)'}"
    raise DataError(f"{path}: no word has anything for --column {column_name(column)}; the file has {there}")


def has_tags(rows: list[Row], column: str) -> bool:
    """Whether a tag is not _ for all words, or there are no words."""
    return {taker(column)(cells) for _, cells in rows if cells} != {"_"}


def taker(column: str) -> Callable[[list[str]], str]:
    """What takes a word's tag from its cells: a column, or a feature."""
    name = column_name(column)
    if name in CONLLU:
        return lambda cells: cells[CONLLU.index(name)]
    return lambda cells: features(cells).get(name, "_")


def column_name(column: str) -> str:
    """The name of a column, of a feature, or of a column by its number."""
    if column.isdigit() and 0 < int(column) <= len(CONLLU):
        return CONLLU[int(column) - 1]
    return "upos" if column == "auto" else column


def features(cells: list[str]) -> dict[str, str]:
    pairs = (feature.partition("=") for feature in cells[FEATURES].split("|"))
    return {name: value for name, _, value in pairs if value}


def column_number(path: Path, rows: list[Row], column: str) -> int:
    """Where the tags stand, from 0. Errors: DataError."""
    if column == "auto":
        return max(1, next((len(cells) for _, cells in rows if cells), 2) - 1)
    if not column.isdigit() or int(column) < 1:
        raise DataError(f"{path}: --column {column} names a column of CoNLL-U; in this file give its number, 1 or more")
    return int(column) - 1


def even(path: Path, rows: list[Row], at: int) -> list[Row]:
    """Rows that have a column `at`, and all the same columns. Errors: DataError."""
    first, width = next(((number, len(cells)) for number, cells in rows if cells), (0, 0))
    for number, cells in rows:
        if 0 < len(cells) <= at:
            raise DataError(
                f"{path}, line {number}: {shown_count(cells)}; it needs a word and, in column {at + 1}, its tag"
            )
        if cells and len(cells) != width:
            raise DataError(
                f"{path}, line {number}: {shown_count(cells)}; line {first} has {width}: put tabs between columns "
                "where words have spaces, and a blank line between sentences"
            )
    return rows


def put_together(path: Path, rows: list[Row], word: int, tag: Callable[[list[str]], str] | None = None) -> list[Tagged]:
    """Rows as sentences. Errors: DataError where there is no word, or a word or its tag is empty."""
    found: list[Tagged] = []
    for there, group in groupby(rows, lambda row: bool(row[1])):
        if not there:
            continue
        block = list(group)
        tags = tuple(tag(cells) for _, cells in block) if tag else None
        words = tuple(cells[word] for _, cells in block)
        found.append(Tagged(words, tags, str(path), tuple(number for number, _ in block)))
        for i, (name, label) in enumerate(zip(words, tags or words)):
            if not name.strip() or not label.strip():
                raise DataError(f"{found[-1].at(i)}: an empty {'tag' if name.strip() else 'word'}; mend the line")
    return nonempty(path, found)


def nonempty(path: Path, found: list[Tagged]) -> list[Tagged]:
    if not found:
        raise DataError(f"{path} holds no words; name a CoNLL-U file, or one with a word and its tag on each line")
    return found


def shown_count(cells: list[str]) -> str:
    return f"{len(cells)} {'column' if len(cells) == 1 else 'columns'}, {' '.join(cells)!r:.40}"
