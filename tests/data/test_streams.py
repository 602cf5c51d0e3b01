"""Streams of a text: windows that stay aligned, of random length if asked, and where documents begin."""

import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman import DataError
from elman.data import streams as module
from elman.data.corpus import Corpus
from elman.data.streams import Streams, beginnings, begun, marked


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 9))
def test_streams_stay_aligned(n, batch, window):
    ids = torch.arange(n)
    if (n - 1) // batch < window:
        with pytest.raises(DataError, match=re.escape(f"needs {batch * window + 1:,}")):
            Streams(ids, batch, window)
        return
    streams = Streams(ids, batch, window)
    windows = [streams[k] for k in range(streams.windows)]
    assert streams.windows == (n - 1) // batch // window
    assert all(torch.equal(y, x + 1) for x, y in windows)  # the target is the next symbol of the text
    assert all(torch.equal(a[0][-1] + 1, b[0][0]) for a, b in pairwise(windows))  # and each row goes on
    assert torch.equal(streams[streams.windows][0], windows[0][0])
    assert [k for k in range(2 * streams.windows) if streams.fresh(k)] == [0, streams.windows]
    starts = windows[0][0][0]
    assert starts[0] == 0
    assert batch == 1 or torch.equal(starts.diff(), torch.full((batch - 1,), (n - 1) // batch))


@settings(max_examples=100, deadline=None)
@given(st.integers(61, 900), st.integers(1, 4), st.integers(10, 15), st.integers(0, 2**62 - 1))
def test_windows_of_random_length_read_every_symbol_once_an_epoch(n, batch, window, seed):
    streams = Streams(torch.arange(n), batch, window, vary=seed)
    for epoch in range(3):
        spans = [streams.span(k) for k in range(epoch * streams.windows, (epoch + 1) * streams.windows)]
        assert spans[0][0] == 0
        assert spans[-1][1] == (n - 1) // batch
        assert all(a[1] == b[0] for a, b in pairwise(spans))
        assert all(start < end for start, end in spans)
    x, y = streams[streams.windows - 1]
    assert torch.equal(y, x + 1)


def test_windows_of_random_length_follow_from_seed_and_number_alone():
    ids = torch.zeros(100_001, dtype=torch.uint8)
    one, two, other = Streams(ids, 2, 50, vary=3), Streams(ids, 2, 50, vary=3), Streams(ids, 2, 50, vary=4)
    numbers = range(2 * one.windows)
    spans = [one.span(k) for k in numbers]
    assert spans == [two.span(k) for k in reversed(numbers)][::-1]
    assert spans != [other.span(k) for k in numbers]
    assert spans[: one.windows] != spans[one.windows :]
    assert [one.fresh(k) for k in numbers] == [span[0] == 0 for span in spans]


def test_windows_of_random_length_are_as_awd_lstm_has_them():
    streams = Streams(torch.zeros(1_000_001, dtype=torch.uint8), 1, 100, vary=0)
    lengths = torch.tensor([end - start for start, end in map(streams.span, range(streams.windows))]).double()
    assert len(lengths) == 10_000
    whole, half = lengths[lengths > 77], lengths[lengths <= 77]
    assert 0.04 < len(half) / len(lengths) < 0.06
    longer = 1 / 0.975  # stretched, as halves leave symbols over
    assert whole.mean() == pytest.approx(100 * longer, rel=0.005)
    assert half.mean() == pytest.approx(50 * longer, rel=0.02)
    assert whole.std() == pytest.approx(5 * longer, rel=0.05)


@settings(max_examples=100, deadline=None)
@given(st.text("ab\n", max_size=60), st.text("ab\n", min_size=1, max_size=3), st.integers(1, 20))
def test_marks_are_found_wherever_they_stand(text, mark, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        found = marked(torch.tensor([ord(c) for c in text], dtype=torch.uint8), [ord(c) for c in mark])
    assert found.tolist() == [i + len(mark) - 1 for i in range(len(text)) if text.startswith(mark, i)]


def test_files_begin_documents_beside_marks():
    marks = marked(torch.tensor([1, 9, 2, 2, 9, 3]), [9])
    assert beginnings(marks, [2, 2, 4, 6]).tolist() == [1, 3, 4]
    assert beginnings(marks, [0, 6]).tolist() == [1, 4]
    assert beginnings(marks, []).tolist() == [1, 4]


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 99)), st.lists(st.integers(0, 90), min_size=1, max_size=5), st.integers(1, 9))
def test_beginnings_inside_windows(begins, at, steps):
    found = begun(torch.tensor(sorted(begins), dtype=torch.int64), torch.tensor(at), steps)
    assert found.tolist() == [[place + t in begins for place in at] for t in range(steps)]


def test_streams_say_where_documents_begin():
    ids = torch.arange(31)
    begins = torch.tensor([4, 5, 12, 29])
    streams = Streams(ids, 3, 4, begins)
    assert Streams(ids, 3, 4).resets(0, 4) is None
    for start, end in ((0, 4), (4, 8), (8, 12)):
        x, _ = streams.between(start, end)
        assert torch.equal(streams.resets(start, end), torch.isin(x, begins))


@pytest.mark.parametrize("level", ["byte", "char", "word"])
def test_each_file_ends_where_its_last_symbol_does(tmp_path, level):
    texts = ["one two\nthree", "four\n", "\nfive"]
    paths = [tmp_path / str(i) for i in range(3)]
    for path, text in zip(paths, texts):
        path.write_text(text)
    corpus = Corpus(paths, level, apart=True)
    vocabulary = corpus.vocabulary(20)
    ids, ends = corpus.encode(vocabulary)
    alone = [vocabulary.encode(text) for text in texts]
    assert ids.tolist() == torch.cat(alone).tolist()
    assert ends == torch.tensor([len(part) for part in alone]).cumsum(0).tolist()


@pytest.mark.parametrize("lines", [1, 2, 100])
def test_lines_are_shuffled_whole(lines, monkeypatch):
    monkeypatch.setattr(module, "LINES", lines)
    text = [[1, 2, 0], [0], [3, 0], [4, 5, 6, 0], [7, 8]]
    ids = torch.tensor([i for line in text for i in line], dtype=torch.uint8)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(3)).tolist()
    assert order != [0, 1, 2, 3]
    found = module.shuffled(ids, 0, seed=3)
    assert found.tolist() == [i for n in [*order, 4] for i in text[n]]
    assert found.dtype == torch.uint8
    assert module.shuffled(ids[-2:], 0, seed=3).tolist() == [7, 8]
