"""Attention by hand, beam search by enumeration, and a sequence from another."""

import itertools

import pytest
import torch
from tolerance import close
from torch import nn

import elman
from elman.cell import GRU, LSTM, Attend, Conditioned

V, E, H, M, LONGEST = 3, 4, 5, 6, 4


@pytest.fixture(params=["plain", "reference", "fused"], autouse=True)
def backend(request):
    with elman.backend(request.param):
        yield request.param


def spread(made, scale=0.8):
    """Parameters far from where they start, so that a mistake shows."""
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=scale)
    return made.double()


# ---- attention


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("score", ["dot", "general", "additive"])
def test_attention_by_hand(score, feeding):
    torch.manual_seed(0)
    size = H if score == "dot" else M
    cell = spread(Attend(GRU(2 + (H if feeding else 0), H), size, score, feeding))
    T, B, S = 5, 3, 4
    x, memory = torch.randn(T, B, 2, dtype=torch.float64), torch.randn(B, S, size, dtype=torch.float64)
    mask = torch.arange(S) < torch.tensor([[4], [1], [3]])
    y, last, seen = elman.Recurrent(cell)(x, memory=memory, mask=mask, watch="attention")
    for b, n in enumerate(mask.sum(1).tolist()):
        h, a = torch.zeros(1, H, dtype=torch.float64), torch.zeros(1, H, dtype=torch.float64)
        for t in range(T):
            _, (h,) = cell.cell.step(torch.cat([x[t, b : b + 1], a], -1) if feeding else x[t, b : b + 1], h)
            rows = memory[b, :n]
            if score == "dot":
                scores = rows @ h[0]
            elif score == "general":
                scores = rows @ (cell.query.weight @ h[0])
            else:
                mixed = torch.tanh(cell.query.weight @ h[0] + rows @ cell.keys.weight.t() + cell.keys.bias)
                scores = mixed @ cell.reduce
            weights = scores.softmax(0)
            a = torch.tanh(cell.combine(torch.cat([weights @ rows, h[0]])))[None]
            close(y[t, b], a[0])
            close(seen["attention"][t, b, :n], weights)
            assert not seen["attention"][t, b, n:].any()
    assert last._fields == (("h", "attended") if feeding else ("h",))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Attend(GRU(5, 4), 3, "cosine"), elman.OptionError, "score must be one of dot, general, additive"),
        (lambda: Attend(GRU(3, 4), 3), elman.CellError, "reads the 4 numbers of its output beside x; GRU takes 3"),
        (lambda: Attend(GRU(5, 4), 3, "dot"), elman.CellError, "must give 3 numbers, as M; it gives 4"),
        (lambda: Attend(nn.GRU(5, 4), 3), elman.CellError, "goes around an elman.Cell"),
    ],
)
def test_attention_that_cannot_be(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("memory", "mask", "message"),
    [
        (torch.zeros(3, 4, M + 1), None, r"memory must be a tensor \(B=3, S, M=6\)"),
        (torch.zeros(2, 4, M), None, r"memory must be a tensor \(B=3, S, M=6\)"),
        (torch.zeros(3, 4, M), torch.zeros(3, 4), r"mask must be a bool tensor \(3, 4\)"),
    ],
)
def test_a_memory_that_does_not_fit(memory, mask, message):
    layer = elman.Recurrent(Attend(GRU(2 + H, H), M))
    with elman.backend("plain"), pytest.raises(elman.InputError, match=message):
        layer(torch.zeros(5, 3, 2), memory=memory, mask=mask)


# ---- beam search


def every_sequence():
    rows = [row for n in range(LONGEST + 1) for row in itertools.product(range(V), repeat=n)]
    lengths = torch.tensor([len(row) for row in rows])
    return torch.tensor([[*row, *[0] * (LONGEST - len(row))] for row in rows]).t(), lengths


def conditioned():
    torch.manual_seed(0)
    cell = Conditioned(GRU(E, H), 2, "state")
    return spread(elman.SequenceModel(cell, symbols=V, embedding_size=E, longest=LONGEST))


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_a_beam_of_everything_finds_the_best_of_all(alpha):
    model = conditioned()
    v = torch.randn(3, 2, dtype=torch.float64)
    found = elman.beam_search(model, 3, width=V**LONGEST, best=5, alpha=alpha, context=v)
    y, lengths = every_sequence()
    for b in range(3):
        log_p = model.log_prob(y, lengths, context=v[b : b + 1].expand(len(lengths), 2))
        score, index = (log_p / ((5 + lengths.double()) / 6) ** alpha).topk(5)
        close(found.score[b], score)
        close(found.log_prob[b], log_p[index])
        for i, which in enumerate(index.tolist()):
            n = int(lengths[which])
            assert found.lengths[b, i] == n
            assert found.symbols[:n, b, i].tolist() == y[:n, which].tolist()
            assert not found.symbols[n:, b, i].any()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_scores_are_the_models_own_and_rows_do_not_meet(width):
    model = conditioned()
    v = torch.randn(6, 2, dtype=torch.float64)
    found = elman.beam_search(model, 6, width=width, best=width, context=v)
    for i in range(width):
        there = found.score[:, i] > float("-inf")
        log_p = model.log_prob(found.symbols[:, :, i], found.lengths[:, i], context=v)
        close(found.log_prob[there, i], log_p[there])
    assert (found.score.diff(dim=1) <= 0).all()
    for b in range(6):
        alone = elman.beam_search(model, 1, width=width, best=width, context=v[b : b + 1])
        close(alone.score[0], found.score[b])
    wide = elman.beam_search(model, 6, width=V**LONGEST, context=v)
    assert (found.score[:, 0] <= wide.score[:, 0] + 1e-12).all()


@pytest.mark.parametrize(
    "how", [{"width": 0}, {"width": 2, "best": 3}, {"alpha": -1.0}, {"width": 1, "best": 0}], ids=str
)
def test_beam_search_options(how):
    with pytest.raises(elman.OptionError, match="1 <= best <= width and alpha >= 0"):
        elman.beam_search(conditioned(), 1, **how, context=torch.zeros(1, 2).double())


def test_beam_search_needs_an_end():
    with pytest.raises(elman.OptionError, match='stop="end"'):
        elman.beam_search(elman.SequenceModel(GRU(3, 4), symbols=2, embedding_size=3, stop="coin"))


# ---- a sequence from another

KINDS = {
    "state": lambda: Conditioned(GRU(E, H), 2 * H, "state"),
    "attention": lambda: Attend(GRU(E, H), 2 * H, feeding=False),
    "both": lambda: Conditioned(Attend(LSTM(E + H, H), 2 * H, "additive"), 2 * H, "state"),
}


def translator(kind):
    torch.manual_seed(0)
    encoder = elman.Bidirectional(GRU(E, H), GRU(E, H))
    model = elman.SequenceModel(KINDS[kind](), symbols=V, embedding_size=E, longest=LONGEST)
    return spread(elman.EncoderDecoder(encoder, model, nn.Embedding(V, E)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_decides_and_its_padding_does_not(kind):
    model = translator(kind)
    source, lengths = torch.randint(0, V, (5, 4)), torch.tensor([5, 1, 3, 2])
    y, ends = torch.randint(0, V, (LONGEST, 4)), torch.tensor([4, 2, 0, 3])
    whole = model.log_prob(y, ends, source, lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = model.log_prob(y[: ends[b], b : b + 1], None, source[:n, b : b + 1])
        close(whole[b : b + 1], alone)
    rows, counts = every_sequence()
    one = source[:, :1].expand(-1, rows.shape[1])
    close(model.log_prob(rows, counts, one).exp().sum(), torch.ones((), dtype=torch.float64))
    drawn = model.sample(source, lengths)
    close(drawn.log_prob, model.log_prob(drawn.symbols, drawn.lengths, source, lengths))
    greedy = model.sample(source, lengths, greedy=True)
    close(greedy.log_prob, model.log_prob(greedy.symbols, greedy.lengths, source, lengths))
    found = model.beam_search(source, lengths, width=V**LONGEST)
    assert (found.log_prob[:, 0] >= greedy.log_prob - 1e-12).all()
    close(found.log_prob[:, 0], model.log_prob(found.symbols[..., 0], found.lengths[:, 0], source, lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    model = translator(kind)
    source, y = torch.randint(0, V, (5, 4)), torch.randint(0, V, (LONGEST, 4))
    for how in ({}, {"truth": 0.5}, {"free": 0.5}):
        model.zero_grad()
        model.loss(y, None, source, torch.tensor([5, 1, 3, 2]), **how).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_an_autoencoder_is_made_of_the_same_parts():
    torch.manual_seed(0)
    encoder = elman.Recurrent(GRU(E, 16))
    cell = Conditioned(GRU(E, 16), 16, "state")
    made = elman.SequenceModel(cell, symbols=V, embedding_size=E, longest=3)
    model = elman.EncoderDecoder(encoder, made, nn.Embedding(V, E))
    y = torch.tensor(list(itertools.product(range(V), repeat=3))).t()
    best = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        best.zero_grad()
        model.loss(y, None, y).backward()
        best.step()
    assert torch.equal(model.sample(y, greedy=True).symbols, y)


WRONG = {
    "parts": (
        lambda: elman.EncoderDecoder(nn.GRU(3, 4), conditioned()),
        elman.CellError,
        "takes a layer and a SequenceModel; got a GRU",
    ),
    "deaf": (
        lambda: elman.EncoderDecoder(
            elman.Recurrent(GRU(3, 4)), elman.SequenceModel(GRU(3, 4), symbols=2, embedding_size=3)
        ),
        elman.CellError,
        "takes nothing of the source",
    ),
    "batch first": (
        lambda: elman.EncoderDecoder(elman.Recurrent(GRU(3, 4), batch_first=True), conditioned()),
        elman.CellError,
        "leave its batch_first out",
    ),
    "source": (
        lambda: translator("state").sample(torch.zeros(3, 2, 4)),
        elman.InputError,
        r"source must be a tensor \(S, B\) of symbols",
    ),
    "empty": (
        lambda: translator("state").sample(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([1, 0])),
        elman.InputError,
        "source_lengths must be at least 1",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what):
    make, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        make()
