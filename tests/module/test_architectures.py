"""Whatever is built of elman's parts runs on the fused backend, forwards and backwards, and says so."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import close
from torch import nn

import elman
from elman.cell import GRU, LSTM, LSTM2D, Attend, Conditioned, Elman, Feedback

T, B, I, H, V, S, M = 6, 3, 4, 5, 7, 9, 6  # noqa: E741
SYMBOLS = torch.randint(0, V, (T, B), generator=torch.Generator().manual_seed(0))


def layered(layer, **context):
    return layer, (torch.randn(T, B, I),), context


def sequence(cell, stop="end", **context):
    extra = {"symbols": V, "embedding_size": I, "longest": 8}
    return elman.SequenceModel(cell, stop=stop, **extra), (SYMBOLS,), context


def translator(cell, encoder=None):
    encoder = encoder or elman.Bidirectional(GRU(I, H), GRU(I, H))
    decoder = elman.SequenceModel(cell, symbols=V, embedding_size=I, longest=8)
    lengths = torch.tensor([T, 2, 4])
    return elman.EncoderDecoder(encoder, decoder, nn.Embedding(V, I)), (SYMBOLS, lengths, SYMBOLS, lengths), {}


def memory():
    return {"memory": torch.randn(B, S, M), "mask": torch.arange(S) < torch.tensor([[9], [1], [4]])}


BUILT = {
    "stacked, unequal": lambda: layered(elman.Stacked(LSTM(I, 7), nn.Dropout(0.5), Elman(7, 3), nn.Linear(3, 2))),
    "bidirectional": lambda: layered(elman.Bidirectional(GRU(I, H), LSTM(I, 3))),
    "deep bidirectional": lambda: layered(
        elman.Stacked(elman.Bidirectional(GRU(I, H), GRU(I, H)), elman.Bidirectional(LSTM(2 * H, 3), GRU(2 * H, 2)))
    ),
    "conditioned": lambda: layered(elman.Recurrent(Conditioned(GRU(I + 2, H), 2, "both")), context=torch.randn(B, 2)),
    "conditioned below, bidirectional above": lambda: layered(
        elman.Stacked(Conditioned(GRU(I + 2, H), 2), elman.Bidirectional(GRU(H, 3), GRU(H, 3))),
        context=torch.randn(B, 2),
    ),
    "grid": lambda: (elman.Grid(LSTM2D(2, H)), (torch.randn(B, 3, 4, 2),), {}),
    "grid, four corners": lambda: (
        elman.Grid(*(LSTM2D(2, H) for _ in range(4)), merge="sum"),
        (torch.randn(B, 3, 4, 2),),
        {},
    ),
    "output fed back": lambda: layered(
        elman.Recurrent(Feedback(GRU(I, H), nn.Embedding(V, I), nn.Linear(H, V))),
        coin=torch.zeros(T, B, 1),
        noise=torch.randn(T, B, V),
    ),
    "end symbol": lambda: sequence(GRU(I, H)),
    "stop coin": lambda: sequence(LSTM(I, H), "coin"),
    "drawn length": lambda: sequence(Conditioned(GRU(I + 1, H), 2, "state"), "length", context=torch.randn(B, 2)),
    "attention, dot": lambda: layered(elman.Recurrent(Attend(GRU(I, M), M, "dot", False)), **memory()),
    "attention, general, fed": lambda: layered(elman.Recurrent(Attend(LSTM(I + H, H), M)), **memory()),
    "attention, additive, fed": lambda: layered(elman.Recurrent(Attend(LSTM(I + H, H), M, "additive")), **memory()),
    "encoder-decoder": lambda: translator(Conditioned(GRU(I, H), 2 * H, "state")),
    "encoder-decoder with attention": lambda: translator(
        Conditioned(Attend(LSTM(I + H, H), 2 * H, "additive"), 2 * H, "state")
    ),
    "autoencoder": lambda: translator(Conditioned(GRU(I + H, H), H, "both"), elman.Recurrent(GRU(I, H))),
}


@pytest.mark.parametrize("name", BUILT)
def test_it_is_fused_and_says_so(name):
    torch.manual_seed(0)
    model, inputs, options = BUILT[name]()
    found = elman.explain(model, *inputs, **options)
    assert set(found.backends) == {"fused"}
    assert "backward" in found.text


@pytest.mark.parametrize("name", BUILT)
def test_gradients_are_the_plain_loops(name):
    torch.manual_seed(0)
    model, inputs, options = BUILT[name]()
    model = model.double().eval()
    inputs = [v.double() if v.is_floating_point() else v for v in inputs]
    options = {k: v.double() if v.is_floating_point() else v for k, v in options.items()}
    found = []
    for backend in ("fused", "plain"):
        with elman.backend(backend):
            out = model(*inputs, **options)
        y = out if isinstance(out, torch.Tensor) else out[0]
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        leaves = [p for p in model.parameters() if p.requires_grad]
        found.append([y, *torch.autograd.grad((y * weights).sum(), leaves, materialize_grads=True)])
    for got, want in zip(*found):
        close(got, want)


@settings(max_examples=8, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", [n for n in BUILT if any(w in n for w in ("direction", "stacked", "attention,"))])
def test_a_row_of_a_deep_layer_depends_on_no_other(name, data):
    """Lengths and resets mixed at random."""
    torch.manual_seed(0)
    layer, (x,), options = BUILT[name]()
    layer, x = layer.double().eval(), x.double()
    options = {k: v.double() if v.is_floating_point() else v for k, v in options.items()}
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    reset = torch.tensor(data.draw(st.lists(st.booleans(), min_size=T * B, max_size=T * B))).view(T, B)
    y, _ = layer(x, lengths=lengths, reset=reset, **options)
    b = data.draw(st.integers(0, B - 1))
    n = int(lengths[b])
    assert not y[n:, b].any()
    if n:
        own = {k: v[b : b + 1] for k, v in options.items()}
        close(layer(x[:n, b : b + 1], reset=reset[:n, b : b + 1], **own)[0], y[:n, b : b + 1])


@settings(max_examples=8, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", [n for n in BUILT if any(w in n for w in ("coder", "symbol", "coin", "length"))])
def test_log_p_of_a_row_depends_on_no_other(name, data):
    """Sequences and sources of random lengths, with nonsense in their padding."""
    torch.manual_seed(0)
    model, inputs, options = BUILT[name]()
    model, options = model.double().eval(), {k: v.double() for k, v in options.items()}
    count = st.lists(st.integers(1, T), min_size=B, max_size=B)
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    sides = []
    for _ in range(2 if len(inputs) == 4 else 1):
        symbols, lengths = torch.randint(0, V, (T, B), generator=draw), torch.tensor(data.draw(count))
        sides.append((symbols, lengths))
    whole = model.log_prob(*(value for side in sides for value in side), **options)
    b = data.draw(st.integers(0, B - 1))
    alone = [value for symbols, n in sides for value in (symbols[: n[b], b : b + 1], n[b : b + 1])]
    close(model.log_prob(*alone, **{k: v[b : b + 1] for k, v in options.items()}), whole[b : b + 1])
    for symbols, n in sides:
        symbols[torch.arange(T)[:, None] >= n] = V - 1
    close(model.log_prob(*(value for side in sides for value in side), **options), whole)
