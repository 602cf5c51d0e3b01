"""log p of whole sequences and sequences drawn from it: by enumeration, by hand, and against each other."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from tolerance import all_close, close
from torch import nn

import elman
from elman.cell import GRU, LSTM, Conditioned, Elman, Feedback

V, E, H, LONGEST = 2, 3, 4, 4
RULES = ["end", "coin", "length"]


def model(stop, symbols=V, longest=LONGEST, inputs=0, seed=0, context=0):
    torch.manual_seed(seed)
    width = inputs + E + (stop == "length")
    cell = GRU(width + context, H).learn_initial()
    cell = Conditioned(cell, context, "input") if context else cell
    made = elman.SequenceModel(cell, symbols=symbols, embedding_size=E, stop=stop, longest=longest).double()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.8)  # far from uniform, so that a mistake shows
    return made


def every_sequence(stop):
    """All sequences as y (LONGEST, N), lengths (N,)."""
    rows = [row for n in range(0 if stop == "end" else 1, LONGEST + 1) for row in itertools.product(range(V), repeat=n)]
    lengths = torch.tensor([len(row) for row in rows])
    return torch.tensor([[*row, *[0] * (LONGEST - len(row))] for row in rows]).t(), lengths


@pytest.mark.parametrize("backend", ["plain", "reference", "fused"])
@pytest.mark.parametrize("stop", RULES)
def test_the_probabilities_of_all_sequences_sum_to_one(stop, backend):
    made = model(stop)
    with elman.backend(backend):
        log_p = made.log_prob(*every_sequence(stop))
    close(log_p.exp().sum(), torch.ones((), dtype=torch.float64))
    assert log_p.max() < -0.1


@pytest.mark.parametrize("stop", RULES)
def test_log_p_by_the_chain_rule_by_hand(stop):
    made, y, lengths = model(stop), *every_sequence(stop)
    cell, embedding, output = made.feedback.cell, made.feedback.embedding, made.feedback.output
    for b in range(0, len(lengths), 5):
        n, (h,) = int(lengths[b]), cell.initial(1)
        log_p = torch.zeros((), dtype=torch.float64)
        if stop == "length":
            log_p = F.log_softmax(made.rule.length(h), -1)[0, n - 1]
        symbols = [*y[:n, b].tolist(), *([V] if stop == "end" and n < LONGEST else [])]
        before = V
        for t, symbol in enumerate(symbols):
            x = embedding(torch.tensor([before]))
            if stop == "length":
                x = torch.cat([torch.tensor([[(n - t) / LONGEST]], dtype=torch.float64), x], -1)
            _, (h,) = cell.step(x, h)
            log_p = log_p + F.log_softmax(output(h), -1)[0, symbol]
            if stop == "coin" and t + 1 < LONGEST:
                a = made.rule.stop(h)[0, 0]
                log_p = log_p + F.logsigmoid(a if t + 1 == n else -a)
            before = symbol
        close(made.log_prob(y[:, b : b + 1], lengths[b : b + 1])[0], log_p)


@pytest.mark.parametrize("stop", RULES)
def test_samples_come_as_often_as_their_probability_says(stop):
    made, (y, lengths) = model(stop), every_sequence(stop)
    N = 20_000
    torch.manual_seed(3)
    drawn = made.sample(N)
    close(drawn.log_prob, made.log_prob(drawn.symbols, drawn.lengths))
    found = {}
    for column, n in zip(drawn.symbols.t().tolist(), drawn.lengths.tolist()):
        found[tuple(column[:n])] = found.get(tuple(column[:n]), 0) + 1
    p = made.log_prob(y, lengths).exp()
    for column, n, expected in zip(y.t().tolist(), lengths.tolist(), p.tolist()):
        wide = 5 * (expected * (1 - expected) / N) ** 0.5 + 1e-4
        assert abs(found.get(tuple(column[:n]), 0) / N - expected) < wide


@pytest.mark.parametrize("stop", RULES)
def test_a_row_depends_on_no_other_and_on_no_padding(stop):
    made, (y, lengths) = model(stop), every_sequence(stop)
    whole = made.log_prob(y, lengths)
    noise = torch.where(torch.arange(LONGEST)[:, None] >= lengths, 77, y)
    close(made.log_prob(noise, lengths), whole)
    for b in (0, 3, len(lengths) - 1):
        n = int(lengths[b])
        close(made.log_prob(y[:n, b : b + 1]), whole[b : b + 1])


def test_given_lengths_and_inputs():
    made = model("given", inputs=2)
    x, y = torch.randn(5, 3, 2, dtype=torch.float64), torch.randint(0, V, (5, 3))
    lengths = torch.tensor([5, 2, 4])
    log_p = made.log_prob(y, lengths, x=x)
    close(log_p[1:2], made.log_prob(y[:2, 1:2], x=x[:2, 1:2]))
    rows = torch.tensor(list(itertools.product(range(V), repeat=3))).t()
    every = made.log_prob(rows, x=x[:3, :1].expand(3, rows.shape[1], 2))
    close(every.exp().sum(), torch.ones((), dtype=torch.float64))
    drawn = made.sample(x=x)
    assert drawn.symbols.shape == (5, 3)
    close(drawn.log_prob, made.log_prob(drawn.symbols, x=x))


def test_a_context_conditions_the_whole_sequence():
    made, (y, lengths) = model("end", context=2), every_sequence("end")
    for _ in range(2):
        v = torch.randn(1, 2, dtype=torch.float64).expand(len(lengths), 2)
        close(made.log_prob(y, lengths, context=v).exp().sum(), torch.ones((), dtype=torch.float64))
    drawn = made.sample(5, context=v[:5])
    close(drawn.log_prob, made.log_prob(drawn.symbols, drawn.lengths, context=v[:5]))


# ---- the truth, or what the model has drawn


def test_fed_with_the_truth_it_is_teacher_forcing():
    made, (y, lengths) = model("coin", symbols=5), every_sequence("coin")
    close(made.fed_log_prob(y, lengths, None, 1.0, {}), made.log_prob(y, lengths))


@pytest.mark.parametrize("stop", RULES)
@pytest.mark.parametrize("truth", [0.0, 0.6])
def test_scheduled_sampling_is_the_same_on_every_backend(stop, truth):
    made, (y, lengths), found = model(stop, symbols=5), every_sequence(stop), []
    for backend in ("plain", "reference", "fused"):
        torch.manual_seed(4)
        with elman.backend(backend):
            loss = made.loss(y, lengths, truth=truth)
        found.append([loss, *torch.autograd.grad(loss, list(made.parameters()), materialize_grads=True)])
    all_close(found[1], found[0])
    all_close(found[2], found[0])
    assert not torch.isclose(found[0][0], made.loss(y, lengths))


def test_free_running_reads_nothing_of_the_truth():
    made, found = model("given", symbols=5), []
    for y in (torch.zeros(6, 3, dtype=torch.int64), torch.randint(0, 5, (6, 3))):
        torch.manual_seed(4)
        read, lengths = made.read(y, torch.full((3,), 6), None), torch.full((3,), 6)
        coin, noise = torch.zeros(6, 3, 1).double(), torch.randn(6, 3, 5).double()
        coin[0] = 1
        found.append(made.fed(read, lengths=lengths, coin=coin, noise=noise)[0])
    close(found[0], found[1])


def test_what_is_drawn_in_the_loop_by_hand():
    torch.manual_seed(0)
    cell = Feedback(Elman(2 + E, H), nn.Embedding(5, E), nn.Linear(H, 5)).double()
    x = torch.randn(6, 3, 2 + E, dtype=torch.float64)
    coin = (torch.rand(6, 3, 1) < 0.5).double()
    noise = torch.randn(6, 3, 5, dtype=torch.float64)
    logits, _ = elman.Recurrent(cell, strict=True)(x, coin=coin, noise=noise)
    h, drawn = torch.zeros(3, H, dtype=torch.float64), torch.zeros(3, E, dtype=torch.float64)
    for t in range(6):
        read = torch.where(coin[t] > 0, x[t, :, 2:], drawn)
        _, (h,) = cell.cell.step(torch.cat([x[t, :, :2], read], -1), h)
        close(logits[t], cell.output(h))
        drawn = cell.embedding((cell.output(h) + noise[t]).argmax(-1))


def test_a_mixture_of_both_losses():
    made, (y, lengths) = model("end"), every_sequence("end")
    torch.manual_seed(1)
    free = -made.fed_log_prob(y, lengths, None, 0.0, {}).mean()
    torch.manual_seed(1)
    close(made.loss(y, lengths, free=0.25), 0.75 * made.loss(y, lengths) + 0.25 * free)


class Memoryless(elman.Cell):
    """No hidden recurrence: all it knows of the past is the symbol before."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)

    def step(self, x):
        return torch.tanh(self.U(x)), ()


def test_teacher_forcing_without_hidden_recurrence_leaves_nothing_in_the_loop():
    torch.manual_seed(0)
    made = elman.SequenceModel(Memoryless(2 + E, H), symbols=5, embedding_size=E, stop="given")
    x, y = torch.randn(4, 3, 2), torch.randint(0, 5, (4, 3))
    read = made.read(y, torch.full((3,), 4), x)
    taught = str(elman.explain(elman.Recurrent(made.feedback.cell), read))
    free = str(elman.explain(made.fed, read, coin=torch.zeros(4, 3, 1), noise=torch.zeros(4, 3, 5)))
    assert "during" not in taught
    assert taught.count("0 nodes at each step, 0 products in it") == 3
    assert "during" in free
    assert made.log_prob(y, x=x).shape == (3,)


def test_schedules():
    feeding = elman.feeding
    assert [feeding.linear(n, 0.25, least=0.1) for n in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.1]
    assert [feeding.exponential(n, 0.5) for n in range(3)] == [1.0, 0.5, 0.25]
    assert feeding.inverse_sigmoid(0, 10) == pytest.approx(10 / 11)
    assert feeding.inverse_sigmoid(10**9, 10) < 1e-300


WRONG = {
    "stop": (lambda: model("never"), elman.OptionError, "stop must be one of end, coin, length, given; got 'never'"),
    "symbols": (
        lambda: elman.SequenceModel(GRU(3, 4), symbols=0, embedding_size=3),
        elman.OptionError,
        "symbols must be a whole number",
    ),
    "no cell": (
        lambda: elman.SequenceModel(nn.GRU(3, 4), symbols=2, embedding_size=3),
        elman.CellError,
        "takes an elman.Cell; got a GRU",
    ),
    "width": (
        lambda: elman.SequenceModel(GRU(3, 4), symbols=2, embedding_size=4),
        elman.CellError,
        "reads 4 numbers and x beside them; GRU takes inputs of width 3",
    ),
    "y": (lambda: model("end").log_prob(torch.zeros(3, 2)), elman.InputError, r"int64 tensor \(T, B\)"),
    "symbol": (lambda: model("end").log_prob(torch.full((3, 2), V)), elman.InputError, r"must lie in 0\.\.1; got 2"),
    "long": (
        lambda: model("end").log_prob(torch.zeros(5, 2, dtype=torch.int64)),
        elman.InputError,
        r"lengths must lie in 0\.\.4",
    ),
    "empty": (
        lambda: model("coin").log_prob(torch.zeros(2, 2, dtype=torch.int64), torch.tensor([2, 0])),
        elman.InputError,
        r"lengths must lie in 1\.\.2",
    ),
    "x": (
        lambda: model("end").log_prob(torch.zeros(2, 2, dtype=torch.int64), x=torch.zeros(2, 2, 1)),
        elman.InputError,
        'stop="given"',
    ),
    "no x": (
        lambda: model("given", inputs=2).log_prob(torch.zeros(2, 2, dtype=torch.int64)),
        elman.InputError,
        r"x must be a tensor \(2, 2, 2\), since the cell reads 5 numbers, 3 of them .*; got nothing",
    ),
    "truth": (
        lambda: model("end").loss(torch.zeros(2, 2, dtype=torch.int64), truth=1.5),
        elman.OptionError,
        "truth is a probability",
    ),
    "temperature": (lambda: model("end").sample(2, temperature=0), elman.OptionError, "temperature must be above 0"),
    "fed": (
        lambda: Feedback(LSTM(3, 4), nn.Embedding(5, 3), nn.Linear(5, 5)),
        elman.CellError,
        "the output layer reads 5",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what):
    make, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        make()
