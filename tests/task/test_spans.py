"""Spans and their F1, against what conlleval says."""

import pytest

from elman.task.spans import is_bio, span_f1, spans

CASES = {
    "O O": [],
    "B-A": [("A", 0, 1)],
    "B-A I-A O B-A": [("A", 0, 2), ("A", 3, 4)],
    "B-A B-A I-A": [("A", 0, 1), ("A", 1, 3)],
    "O I-A I-A": [("A", 1, 3)],
    "B-A I-B I-B": [("A", 0, 1), ("B", 1, 3)],
    "I-A B-B I-A": [("A", 0, 1), ("B", 1, 2), ("A", 2, 3)],
    "I-A O I-A": [("A", 0, 1), ("A", 2, 3)],
}


@pytest.mark.parametrize("tags", CASES)
def test_spans(tags):
    assert spans(tags.split()) == set(CASES[tags])


def test_f1_counts_whole_spans_over_all_sentences():
    right = [t.split() for t in ("B-A I-A O B-B", "B-A O O", "O O")]
    found = [t.split() for t in ("B-A I-A O B-A", "B-A I-A O", "O B-B")]
    f1, precision, recall = span_f1(right, found)  # one of three is there; four are said
    assert (precision, recall) == (1 / 4, 1 / 3)
    assert f1 == pytest.approx(2 / (4 + 3))
    assert span_f1(right, right) == (1, 1, 1)
    assert span_f1([["O"]], [["O"]]) == (0, 0, 0)


def test_which_tags_are_bio():
    assert is_bio(["O", "B-A", "I-A"])
    assert is_bio(["I-A"])
    assert not is_bio(["O"])
    assert not is_bio(["O", "B-A", "X"])
    assert not is_bio(["O", "B-"])
    assert not is_bio(["NOUN", "VERB"])
