"""Batches by number alone: every example once an epoch, those of like length together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.data.batches import Batches, in_turn


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=300),
    size=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_an_epoch_reads_every_example_once(lengths, size, seed):
    batches = Batches(lengths, size, seed)
    for epoch in range(2):
        read = [batches[epoch * len(batches) + k] for k in range(len(batches))]
        assert sorted(i for batch in read for i in batch) == list(range(len(lengths)))
        assert all(len(batch) <= size for batch in read)
        assert sum(len(batch) < size for batch in read) <= 1


def test_a_batch_is_found_from_its_number_alone():
    lengths = torch.randint(1, 30, (200,)).tolist()
    straight = Batches(lengths, 8, seed=3)
    every = [straight[k] for k in range(60)]
    for k in (59, 0, 31, 24, 25):
        assert Batches(lengths, 8, seed=3)[k] == every[k]
    assert every[0] != every[len(straight)]  # an order of its own each epoch
    assert Batches(lengths, 8, seed=4)[0] != every[0]


def test_like_lengths_come_together():
    lengths = torch.randint(1, 100, (1000,)).tolist()
    batches = Batches(lengths, 10, seed=0)
    spread = [
        max(lengths[i] for i in batch) - min(lengths[i] for i in batch)
        for batch in map(batches.__getitem__, range(100))
    ]
    assert sum(spread) / len(spread) < 5  # of 100 in random batches it would be about 80


def test_measuring_begins_with_the_longest():
    assert list(in_turn([3, 9, 1, 9], 2)) == [[1, 3], [0, 2]]


def test_the_default_order_of_a_lexicon_is_by_count_then_name():
    from elman.data.lexicon import Lexicon
    from elman.errors import DataError

    words = Lexicon.of("b a c b a d".split(), "<unk>", limit=3)
    assert words.words == ("<unk>", "a", "b", "c")
    assert words.ids(["b", "z", "<unk>"]).tolist() == [2, 0, 0]
    assert Lexicon.from_json(words.to_json(), "<unk>").words == words.words
    with pytest.raises(DataError, match="'z' was never seen in training, which had: a, b"):
        Lexicon(["a", "b"]).id("z")
    with pytest.raises(DataError, match="stands twice"):
        Lexicon.from_json(["a", "a"])
    with pytest.raises(DataError, match="not a list of words"):
        Lexicon.from_json({"a": 1})


def test_any_seed_is_one():
    assert len(Batches([1, 2, 3], 2, seed=2**62 - 1)[0]) in (1, 2)
