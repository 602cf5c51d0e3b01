"""Pieces of text: taken apart and put together again, unknown ones, and what is kept of them."""

import json
import sys

import pytest

from elman import DataError
from elman.data.lexicon import Lexicon
from elman.data.pieces import Spelled, Subwords, joined, words
from elman.errors import RunError

TEXTS = ["A man, sleeping (on a couch).", "Two men don't sleep.", 'The "green" room: 3 sofas!'] * 3


@pytest.mark.parametrize("text", TEXTS[:3])
def test_words_spell_the_text_again(text):
    assert joined(words(text)) == text
    assert joined(list(text)) == text


def test_words_know_where_a_space_stood():
    assert words("A man's (dog).") == ["▁A", "▁man", "'", "s", "▁(", "dog", ")", "."]


def test_subwords_spell_every_text_of_letters_they_know():
    pieces = Subwords.of(TEXTS, 60)
    assert len(pieces) <= 60
    for text in [*TEXTS, "menace"]:
        ids, parts = pieces.read(text)
        assert joined(map(pieces.piece, ids)) == joined(parts) == text
        assert 0 not in ids
    assert len(pieces.read("sleeping")[0]) < len("sleeping")


def test_an_unknown_letter_is_0_and_keeps_its_face():
    ids, parts = Subwords.of(TEXTS, 60).read("a man 日")
    assert ids[-1] == 0
    assert parts[-1] == "日"


def test_rare_words_are_0():
    pieces = Spelled.of(["a b b", "a c"], words, 2, 10)
    assert pieces.read("a b c") == ([1, 2, 0], ["▁a", "▁b", "▁c"])
    assert len(Spelled.of(["a b b", "a c"], words, 1, 2)) == 3  # with the unknown one


def test_what_is_kept_gives_the_same_pieces():
    pieces = Subwords.of(TEXTS, 60)
    again = Subwords.from_json(json.loads(json.dumps(pieces.to_json())))
    assert again.read(TEXTS[0]) == pieces.read(TEXTS[0])
    spelled = Spelled.of(TEXTS, words, 1, 100)
    assert Spelled(Lexicon.from_json(spelled.to_json(), "<unk>"), words).read(TEXTS[1]) == spelled.read(TEXTS[1])
    with pytest.raises(DataError, match="not a tokenizer"):
        Subwords.from_json({"model": 3})


def test_training_subwords_twice_gives_the_same_ones():
    assert Subwords.of(TEXTS, 60).to_json() == Subwords.of(TEXTS, 60).to_json()


def test_without_the_package_subwords_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for error, call in ((DataError, lambda: Subwords.of(TEXTS, 60)), (RunError, lambda: Subwords.from_json({}))):
        with pytest.raises(error, match=r"package tokenizers: pip install elman\[translate\], or use --level word"):
            call()
