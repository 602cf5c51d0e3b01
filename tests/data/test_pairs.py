"""Pairs of texts: two files in step, a file with two columns, dates; and what is wrong with them."""

import gzip
import io
import sys
from datetime import date
from pathlib import Path

import pytest

from elman import DataError
from elman.data.files import input_lines
from elman.data.pairs import Pair, made_dates, read_pairs, read_sources


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file in the working folder and give its name."""
    monkeypatch.chdir(tmp_path)

    def written(name, text):
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return name

    return written


def test_two_files_pair_up_line_by_line(write):
    found = read_pairs([write("a.en", "one man\n\n two \n"), write("a.de.gz", "ein Mann\n\nzwei\n")])
    assert found == [Pair("one man", "ein Mann", "a.en, line 1"), Pair("two", "zwei", "a.en, line 3")]


def test_one_file_has_two_columns(write):
    found = read_pairs([write("pairs.txt", "Go.\tVa !\n\nHi, you.\tSalut.\n")])
    assert found == [Pair("Go.", "Va !", "pairs.txt, line 1"), Pair("Hi, you.", "Salut.", "pairs.txt, line 3")]


def test_sources_keep_their_empty_lines(write):
    assert [pair.source for pair in read_sources(Path(write("a.en", "one\n\ntwo\n")))] == ["one", "", "two"]


def test_sources_of_two_columns(write):
    found = read_sources(Path(write("a.tsv", "\none\teins\n\ntwo\n")))
    assert [pair.source for pair in found] == ["", "one", "", "two"]


BAD = {
    "more lines": (("a", "1\n2\n3\n"), ("b", "1\n2\n"), "a has 3 lines and b 2: each line of the second translates"),
    "no target": (("a", "1\n2\n"), ("b", "1\n\n"), "b, line 2: empty, and that of a is not; fill it, or take out both"),
    "no source": (("a", " \n2\n"), ("b", "1\n2\n"), "a, line 1: empty, and that of b is not"),
    "both empty": (("a", "\n"), ("b", "\n"), "a holds no text; name a file with a text on each line"),
    "three columns": (("a.tsv", "1\t2\n1\t2\t3\n"), "a.tsv, line 2: 3 columns; it needs source and target with a tab"),
    "one column": (("a.tsv", "1\n"), "a.tsv, line 1: 1 columns; it needs source and target with a tab"),
    "empty source": (("a.tsv", "1\t2\n \t3\n"), "a.tsv, line 2: the source is empty; fill it in"),
    "empty target": (("a.tsv", "1\t\n"), "a.tsv, line 1: the target is empty; fill it in"),
    "no lines": (("a.tsv", ""), "a.tsv holds no text"),
    "three files": (("a", "1\n"), ("b", "1\n"), ("c", "1\n"), "3 files: name two, a line of the second for each"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_pair_up(case, write):
    *files, words = BAD[case]
    with pytest.raises(DataError) as error:
        read_pairs([write(*file) for file in files])
    assert str(error.value).startswith(words)


def test_a_file_that_is_not_there(write):
    with pytest.raises(DataError, match=r"none: no such file; name an existing one"):
        read_pairs([write("a", "1\n"), "none"])


def test_standard_input_comes_line_by_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ein Mädchen\n\nzwei\n".encode() + b"\xff\n")))
    lines = input_lines()
    assert [next(lines) for _ in range(3)] == [(1, "ein Mädchen"), (2, ""), (3, "zwei")]
    with pytest.raises(DataError, match="standard input, line 4: byte 0xff is not UTF-8"):
        next(lines)


def test_made_dates_are_right_and_the_same_each_time():
    pairs = made_dates(500, seed=1)
    assert pairs == made_dates(500, seed=1) != made_dates(500, seed=2)
    assert len({pair.target for pair in pairs}) == 500
    for pair in pairs:
        day = date.fromisoformat(pair.target)
        assert str(day.year) in pair.source
        assert str(day.day) in pair.source
        named = pair.source.partition("day,")[0]
        assert named == pair.source or f"{day:%A}" == f"{named}day"


def test_multi30k_pairs_up(real_data):
    multi30k = real_data("multi30k_en_de")
    for part, count in (("train", 29000), ("val", 1014), ("test_2016_flickr", 1000)):
        assert len(read_pairs([str(multi30k / f"{part}.en.gz"), str(multi30k / f"{part}.de.gz")])) == count
    first = read_pairs([str(multi30k / "val.en.gz"), str(multi30k / "val.de.gz")])[1]
    assert first[:2] == ("A man sleeping in a green room on a couch.",
                         "Ein Mann schläft in einem grünen Raum auf einem Sofa.")  # fmt: skip
