"""Each cell against its paper's equations, written again in numpy, a row at a time."""

import sys

import numpy as np
import pytest
import torch
from tolerance import close

import elman
from elman import cell

T, B, I, H, P = 5, 3, 4, 6, 2  # noqa: E741


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normal(a, gain, shift=0.0):
    return gain * (a - a.mean()) / np.sqrt(a.var() + 1e-5) + shift


def gates(p, x, h):
    """The LSTM's four sums, i, f, g, o."""
    return np.split(p["U.weight"] @ x + p["U.bias"] + p["W.weight"] @ h, 4)


def jordan(p, x, y):
    h = np.tanh(p["U.bias"] + p["W.weight"] @ y + p["U.weight"] @ x)
    y = p["V.bias"] + p["V.weight"] @ h
    return y, (y,)


def layer_norm_lstm(p, x, h, c):
    a = normal(p["U.weight"] @ x, p["normal_x.weight"], p["normal_x.bias"])
    i, f, g, o = np.split(a + normal(p["W.weight"] @ h, p["normal_h.weight"]), 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(normal(c, p["normal_c.weight"], p["normal_c.bias"]))
    return h, (h, c)


def peephole_lstm(p, x, h, c):
    i, f, g, o = gates(p, x, h)
    i, f = sigmoid(i + p["peep_i"] * c), sigmoid(f + p["peep_f"] * c)
    c = f * c + i * np.tanh(g)
    h = sigmoid(o + p["peep_o"] * c) * np.tanh(c)
    return h, (h, c)


def projected_lstm(p, x, h, c):
    i, f, g, o = gates(p, x, h)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = p["P.weight"] @ (sigmoid(o) * np.tanh(c))
    return h, (h, c)


def original_gru(p, x, h):
    rx, zx, nx = np.split(p["U.weight"] @ x + p["U.bias"], 3)
    rh, zh = np.split(p["W.weight"] @ h, 2)
    r, z = sigmoid(rx + rh), sigmoid(zx + zh)
    n = np.tanh(nx + p["W_n.weight"] @ (r * h))
    h = z * h + (1 - z) * n
    return h, (h,)


def min_gru(p, x, h):
    z, n = np.split(p["U.weight"] @ x + p["U.bias"], 2)
    h = (1 - sigmoid(z)) * h + sigmoid(z) * n
    return h, (h,)


def indrnn(p, x, h):
    h = np.maximum(p["U.weight"] @ x + p["w"] * h + p["U.bias"], 0)
    return h, (h,)


def rate(p, x, r):
    drive = np.maximum(p["W.weight"] @ r + p["U.weight"] @ x + p["U.bias"], 0)
    r = r + 0.02 / 0.1 * (-r + drive)
    return r, (r,)


def rate_dale(p, x, r):
    """Units 0-2 excite, 3-5 inhibit, and none meets itself."""
    W = np.abs(p["W.weight"]) * np.array([1, 1, 1, -1, -1, -1]) * (1 - np.eye(H))
    return rate({**p, "W.weight": W}, x, r)


CELLS = {
    "jordan": (lambda: cell.Jordan(I, H, P), jordan),
    "layer-norm-lstm": (lambda: cell.LayerNormLSTM(I, H), layer_norm_lstm),
    "peephole-lstm": (lambda: cell.PeepholeLSTM(I, H), peephole_lstm),
    "projected-lstm": (lambda: cell.ProjectedLSTM(I, H, P), projected_lstm),
    "original-gru": (lambda: cell.OriginalGRU(I, H), original_gru),
    "min-gru": (lambda: cell.MinGRU(I, H), min_gru),
    "indrnn": (lambda: cell.IndRNN(I, H), indrnn),
    "rate": (lambda: cell.Rate(I, H, tau=0.1, dt=0.02), rate),
    "rate-dale": (lambda: cell.Rate(I, H, tau=0.1, dt=0.02, excitatory=0.5), rate_dale),
}


@pytest.mark.parametrize("kind", CELLS)
def test_the_equation(kind):
    torch.manual_seed(0)
    make, step = CELLS[kind]
    one = make().double()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # biases and gains too
    x = torch.randn(T, B, I, dtype=torch.float64)
    state = tuple(torch.randn(B, width, dtype=torch.float64) for width in one.state_sizes.values())
    y, last = elman.Recurrent(one, strict=True)(x, state)
    p = {name: value.detach().numpy() for name, value in one.named_parameters()}
    for b in range(B):
        now = tuple(s[b].numpy() for s in state)
        for t in range(T):
            want, now = step(p, x[t, b].numpy(), *now)
            close(y[t, b], torch.from_numpy(want), f"row {b}, step {t}")
        for found, expected in zip(last, now):
            close(found[b], torch.from_numpy(expected))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_proved_by_check(kind, monkeypatch):
    monkeypatch.setattr(sys.modules["elman.module.check"], "ROUNDS", 1)
    report = elman.check(CELLS[kind][0]())
    assert report.ok, report
    assert report.backend == "fused"


def test_a_projected_lstm_is_torchs():
    torch.manual_seed(0)
    theirs, ours = torch.nn.LSTM(I, H, proj_size=P).double(), cell.ProjectedLSTM(I, H, P).double()
    with torch.no_grad():
        ours.U.weight.copy_(theirs.weight_ih_l0)
        ours.U.bias.copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
        ours.W.weight.copy_(theirs.weight_hh_l0)
        ours.P.weight.copy_(theirs.weight_hr_l0)
    x = torch.randn(T, B, I, dtype=torch.float64)
    y, (h, c) = elman.Recurrent(ours)(x)
    want, (last_h, last_c) = theirs(x)
    close(y, want)
    close(h, last_h[0])
    close(c, last_c[0])


WATCHED = {
    "jordan": ["h"],
    "layer-norm-lstm": ["input_gate", "forget_gate", "candidate", "output_gate"],
    "peephole-lstm": ["input_gate", "forget_gate", "candidate", "output_gate"],
    "projected-lstm": ["input_gate", "forget_gate", "candidate", "output_gate"],
    "original-gru": ["reset_gate", "update_gate", "candidate"],
    "min-gru": ["update_gate", "candidate"],
    "indrnn": ["a"],
    "rate": ["a"],
    "rate-dale": ["a"],
}


@pytest.mark.parametrize("kind", CELLS)
def test_gates_are_watched_by_name(kind):
    _, _, seen = elman.Recurrent(CELLS[kind][0](), strict=True)(torch.randn(T, B, I), watch=WATCHED[kind])
    assert {name: tuple(value.shape) for name, value in seen.items()} == dict.fromkeys(WATCHED[kind], (T, B, H))


def orthonormal(block):
    product = block @ block.T if len(block) <= block.shape[1] else block.T @ block
    return torch.allclose(product, torch.eye(len(product)), atol=1e-5)


@pytest.mark.parametrize(
    ("matrix", "blocks"),
    [
        (lambda: cell.Jordan(I, H, P).W.weight, 1),
        (lambda: cell.LayerNormLSTM(I, H).W.weight, 4),
        (lambda: cell.PeepholeLSTM(I, H).W.weight, 4),
        (lambda: cell.ProjectedLSTM(I, H, P).W.weight, 4),
        (lambda: cell.ProjectedLSTM(I, 3, 5).W.weight, 4),
        (lambda: cell.OriginalGRU(I, H).W.weight, 2),
        (lambda: cell.OriginalGRU(I, H).W_n.weight, 1),
        (lambda: cell.Rate(I, H).W.weight, 1),
    ],
)
def test_recurrent_weights_start_orthogonal_block_by_block(matrix, blocks):
    assert all(orthonormal(block) for block in matrix().detach().chunk(blocks))


@pytest.mark.parametrize(
    "bias",
    [
        lambda: cell.PeepholeLSTM(I, H).U.bias,
        lambda: cell.ProjectedLSTM(I, H, P).U.bias,
        lambda: cell.LayerNormLSTM(I, H).normal_x.bias,
    ],
)
def test_forget_gates_start_open(bias):
    assert bias().tolist() == [0.0] * H + [1.0] * H + [0.0] * 2 * H


def test_weights_of_single_units_start_bounded():
    assert 0 <= cell.IndRNN(I, 1000).w.min() <= cell.IndRNN(I, 1000).w.max() <= 1
    assert max(p.abs().max() for n, p in cell.PeepholeLSTM(I, H).named_parameters() if n.startswith("peep")) <= 0.1


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "4"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(cell.Jordan, "output_size"), (cell.ProjectedLSTM, "projection_size")],
    ids=["jordan", "projected"],
)
def test_a_size_that_is_none(kind, name, size):
    with pytest.raises(elman.CellError, match=f"{kind.__name__}: {name} must be a whole number of at least 1"):
        kind(I, H, size)
