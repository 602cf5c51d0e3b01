"""Vocabularies, files and streams."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman import DataError
from elman.data import corpus
from elman.data.corpus import Corpus
from elman.data.stdlib import FILES, standard_library
from elman.data.text import Bytes, Characters, Words, vocabulary_from_json


def read_files(paths, level):
    return "".join(Corpus(paths, level).pieces())


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1), st.sampled_from(["byte", "char"]))
def test_bytes_and_characters_give_back_what_they_read(text, level):
    if level == "byte":
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    vocabulary = Bytes() if level == "byte" else Characters(sorted(set(text)))
    ids = vocabulary.encode(text)
    assert ids.dtype == torch.int64
    assert 0 <= ids.min() <= ids.max() < len(vocabulary)
    again = vocabulary_from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert torch.equal(again.encode(text), ids)
    if level == "char":
        assert vocabulary.decode(ids) == text


def test_bytes_write_utf8_as_it_completes():
    write = Bytes().decoder()
    assert [write(b) for b in "aé€".encode()] == ["a", "", "é", "", "", "€"]


def words_of(folder, text, limit):
    (folder / "words.txt").write_text(text)
    return Corpus([folder / "words.txt"], "word").vocabulary(limit)


def test_words_by_frequency_with_line_ends_and_unknowns(tmp_path):
    text = "the cat\nthe dog sat\n\nthe end"
    vocabulary = words_of(tmp_path, text, 4)
    assert vocabulary.symbols == ("<unk>", "<eos>", "the", "cat")
    ids = vocabulary.encode(text)
    assert ids.tolist() == [2, 3, 1, 2, 0, 0, 1, 1, 2, 0]
    assert vocabulary.decode(ids[:4]) == "the cat \nthe "


def test_words_take_unk_and_eos_written_in_the_text_as_symbols(tmp_path):
    vocabulary = words_of(tmp_path, "a <unk> b <eos> a\n", 100)
    assert vocabulary.symbols == ("<unk>", "<eos>", "a", "b")


def test_line_ends_are_newlines_for_characters_and_bytes_are_as_they_are(tmp_path):
    (tmp_path / "it.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_files([tmp_path / "it.txt"], "char") == "a\nb\nc\n"
    assert Bytes().encode(read_files([tmp_path / "it.txt"], "byte")).tolist() == list(b"\xef\xbb\xbfa\r\nb\rc\n")


def test_several_files_are_one_text(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name * 3)
    assert read_files([tmp_path / "a", tmp_path / "b"], "char") == "aaabbb"


def test_files_that_cannot_be(tmp_path):
    def words(path, level="char"):
        with pytest.raises(DataError) as error:
            read_files([path], level)
        return str(error.value)

    assert words(tmp_path / "none").endswith("none: no such file; name an existing text file")
    assert "cannot be read: Is a directory" in words(tmp_path)
    (tmp_path / "empty").touch()
    assert words(tmp_path / "empty").endswith("empty: empty; name a file with text in it")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert "latin is not UTF-8 (byte 0xe9 at offset 3): use --level byte" in words(tmp_path / "latin")
    assert len(read_files([tmp_path / "latin"], "byte")) == 4


@pytest.mark.parametrize("level", ["byte", "char", "word"])
def test_a_text_in_pieces_and_on_disk_is_the_text(tmp_path, monkeypatch, level):
    text = "the café\r\nis näh\n\nat the énd of\x85it all " * 30
    for name in "ab":
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    whole = Corpus([tmp_path / "a", tmp_path / "b"], level)
    vocabulary = whole.vocabulary(9)
    ids, ends = whole.encode(vocabulary)
    assert len(ends) == 2
    assert ends[1] == len(ids)
    assert ids.dtype == torch.uint8
    assert torch.equal(vocabulary.encode(read_files(whole.paths, level)), ids.long())
    monkeypatch.setattr(corpus, "PIECE", 7)
    monkeypatch.setattr(corpus, "LARGE", 100)
    maps, memmap = [], np.memmap
    monkeypatch.setattr(corpus.np, "memmap", lambda *how, **more: maps.append(how) or memmap(*how, **more))
    assert whole.vocabulary(9).symbols == vocabulary.symbols
    again = whole.encode(vocabulary)
    assert torch.equal(again.ids, ids)
    assert again.ends == ends
    assert len(maps) == 1
    (tmp_path / "b").write_bytes(b"caf\xc3\xa9, caf\xe9")
    if level != "byte":
        with pytest.raises(DataError, match="byte 0xe9 at offset 10"):
            whole.vocabulary(9)


def test_words_of_a_text_in_one_line_come_in_pieces(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("one two three " * 50 + "end")
    whole = Corpus([tmp_path / "a"], "word")
    vocabulary = whole.vocabulary(10)
    ids = whole.encode(vocabulary).ids
    monkeypatch.setattr(corpus, "PIECE", 5)
    assert max(map(len, whole.pieces())) <= 10
    assert torch.equal(whole.encode(vocabulary).ids, ids)
    assert whole.vocabulary(10).symbols == vocabulary.symbols


def test_many_words_take_more_bytes(tmp_path):
    (tmp_path / "a").write_text(" ".join(str(i) for i in range(40_000)))
    words = Corpus([tmp_path / "a"], "word")
    assert words.encode(words.vocabulary(300)).ids.dtype == torch.int16
    ids = words.encode(words.vocabulary(50_000)).ids
    assert ids.dtype == torch.int32
    assert len(ids.unique()) == 40_000


def test_unknown_characters_are_named():
    vocabulary = Characters("abc")
    with pytest.raises(DataError, match=re.escape("the vocabulary of 3 characters does not have 'x', 'é'")):
        vocabulary.encode("axbéx")


DAMAGED = [
    None,
    [],
    {},
    {"level": "char", "symbols": []},
    {"level": "char", "symbols": ["b", "a"]},
    {"level": "char", "symbols": ["ab"]},
    {"level": "word", "symbols": ["a", "b"]},
    {"level": "word", "symbols": ["<unk>", 3]},
    {"level": "x", "symbols": ["a"]},
]


@pytest.mark.parametrize("saved", DAMAGED)
def test_damaged_vocabularies_are_refused(saved):
    with pytest.raises(DataError, match="not a vocabulary"):
        vocabulary_from_json(saved)


def test_the_standard_library_is_read_from_a_fixed_list():
    text = read_files(standard_library(), "char")
    assert len(standard_library()) == len(FILES.split()) == 53
    assert 1_200_000 < len(text) < 1_800_000
    assert text.isascii()


def test_a_python_without_its_library_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="no text was named, and this Python does not have its standard library"):
        standard_library()


def test_words_encode_only_through_their_vocabulary():
    assert Words(["<unk>", "<eos>"]).encode("never seen\n").tolist() == [0, 0, 1]
