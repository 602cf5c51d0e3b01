"""Back-propagation through time, written out by hand in numpy, against autograd through the layer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import elman

PARAMETERS = ("U", "W", "V", "b", "c")


def softmax(o):
    e = np.exp(o - o.max())
    return e / e.sum()


def bptt(x, y, U, W, V, b, c):
    """The equations of an Elman network with a softmax output, tau steps of one sequence.

    a = b + W h(t-1) + U x(t);  h = tanh(a);  o = c + V h;  yhat = softmax(o);  L = sum_t -log yhat(t)[y(t)].
    x (tau, I), y (tau,) -> L and its gradient with respect to every parameter.
    """
    tau, H = len(x), len(b)
    h, yhat = np.zeros((tau + 1, H)), np.zeros((tau, len(c)))  # h[t] is the state before step t
    for t in range(tau):
        h[t + 1] = np.tanh(b + W @ h[t] + U @ x[t])
        yhat[t] = softmax(c + V @ h[t + 1])
    L = -sum(np.log(yhat[t, y[t]]) for t in range(tau))

    do = yhat - np.eye(len(c))[y]  # dL/do(t) = yhat(t) - onehot(y(t))
    dh = np.zeros((tau, H))
    dh[tau - 1] = V.T @ do[tau - 1]  # dL/dh(tau) = V' dL/do(tau)
    for t in range(tau - 2, -1, -1):  # dL/dh(t) = W' diag(1 - h(t+1)^2) dL/dh(t+1) + V' dL/do(t)
        dh[t] = W.T @ ((1 - h[t + 2] ** 2) * dh[t + 1]) + V.T @ do[t]
    da = (1 - h[1:] ** 2) * dh  # diag(1 - h(t)^2) dL/dh(t)
    return L, {
        "c": do.sum(0),
        "b": da.sum(0),
        "V": sum(np.outer(do[t], h[t + 1]) for t in range(tau)),
        "W": sum(np.outer(da[t], h[t]) for t in range(tau)),
        "U": sum(np.outer(da[t], x[t]) for t in range(tau)),
    }


def by_autograd(x, y, H, K):
    """The same network from elman's parts: loss, parameters and gradients by name, as numpy."""
    layer = elman.Recurrent(elman.cell.Elman(x.shape[1], H)).double()
    head = torch.nn.Linear(H, K).double()
    with torch.no_grad():
        layer.cell.U.bias.normal_()
    hs, _ = layer(torch.from_numpy(x)[:, None])
    loss = F.cross_entropy(head(hs[:, 0]), torch.from_numpy(y), reduction="sum")
    loss.backward()
    named = {
        "U": layer.cell.U.weight,
        "W": layer.cell.W.weight,
        "b": layer.cell.U.bias,
        "V": head.weight,
        "c": head.bias,
    }
    values = {name: p.detach().numpy() for name, p in named.items()}
    return loss.item(), values, {name: p.grad.numpy() for name, p in named.items()}


@pytest.mark.parametrize(("tau", "I", "H", "K"), [(1, 2, 3, 4), (2, 1, 1, 2), (5, 4, 3, 6), (40, 3, 17, 5)])
def test_the_equations_of_bptt_are_what_autograd_computes(tau, I, H, K):  # noqa: E741
    torch.manual_seed(tau)
    rng = np.random.default_rng(tau)
    x, y = rng.normal(size=(tau, I)), rng.integers(0, K, size=tau)
    loss, values, got = by_autograd(x, y, H, K)
    want_loss, want = bptt(x, y, **values)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-12)
    for name in PARAMETERS:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-9, atol=1e-12, err_msg=f"d{name}")


def test_the_equations_themselves_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), rng.integers(0, 3, size=4)
    values = {"U": rng.normal(size=(3, 2)), "W": rng.normal(size=(3, 3)), "V": rng.normal(size=(3, 3)),
              "b": rng.normal(size=3), "c": rng.normal(size=3)}  # fmt: skip
    _, gradient = bptt(x, y, **values)
    for name in PARAMETERS:
        for index in np.ndindex(values[name].shape):
            up, down = ({k: v.copy() for k, v in values.items()} for _ in range(2))
            up[name][index] += 1e-6
            down[name][index] -= 1e-6
            slope = (bptt(x, y, **up)[0] - bptt(x, y, **down)[0]) / 2e-6
            assert abs(slope - gradient[name][index]) < 1e-7
