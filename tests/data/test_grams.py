"""N-grams of a word's letters, hashed."""

import zlib

from elman.data.grams import grams


def test_pieces_of_three_to_five_letters_between_marks():
    pieces = ["<ab", "ab>", "<ab>"]
    assert grams("ab", 1000) == tuple(zlib.crc32(piece.encode()) % 1000 + 1 for piece in pieces)
    assert len(grams("lovely", 1000)) == 6 + 5 + 4


def test_words_of_one_family_share_most_of_them():
    assert len(set(grams("delightful", 10**6)) & set(grams("delightfully", 10**6))) >= 20


def test_numbers_lie_within_the_buckets_and_zero_is_free():
    words = ["a", "", "é", "\ud800", "x" * 500]
    assert {g for w in words for g in grams(w, 7)} <= set(range(1, 8))
    assert grams("", 7) == ()
