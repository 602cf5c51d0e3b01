"""Context with a slice of its own at each step, drawn or given, and context that is the same for all rows."""

import pytest
import torch
from tolerance import all_close, close
from torch import nn

import elman


class Noisy(elman.Cell):
    """A leaky cell with noise at each step, a gain for each row, and a mask of the shape of its weight."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.each_step = ("noise",)
        self.whole = ("mask",)
        self.W = nn.Linear(hidden_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)

    def draw(self, x):
        return {"noise": torch.randn(*x.shape[:2], self.hidden_size, dtype=x.dtype)} if self.training else {}

    def step(self, x, h, *, noise=None, gain=None, mask=None):
        weight = self.W.weight if mask is None else self.W.weight * mask
        a = self.U(x) + nn.functional.linear(h, weight, self.W.bias)
        a = a if noise is None else a + noise
        h = torch.tanh(a if gain is None else a * gain)
        return h, (h,)


def by_hand(cell, x, noise, gain, mask):
    h, ys = torch.zeros(x.shape[1], cell.hidden_size, dtype=x.dtype), []
    for t in range(len(x)):
        a = x[t] @ cell.U.weight.t() + cell.U.bias + h @ (cell.W.weight * mask).t() + cell.W.bias + noise[t]
        h = torch.tanh(a * gain)
        ys.append(h)
    return torch.stack(ys)


@pytest.fixture
def given():
    torch.manual_seed(0)
    T, B, I, H = 6, 4, 3, 4  # B = H: the mask must not be taken for rows  # noqa: E741
    shapes = {"x": (T, B, I), "noise": (T, B, H), "gain": (B, H), "mask": (H, H)}
    made = {name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()}
    return elman.Recurrent(Noisy(I, H).double(), checkpoint=2), made


@pytest.mark.parametrize("backend", ["plain", "reference", "fused"])
def test_every_kind_of_context_by_hand(backend, given):
    layer, tensors = given
    x, *context = tensors.values()
    with elman.backend(backend):
        y, _ = layer(x, noise=context[0], gain=context[1], mask=context[2])
    want = by_hand(layer.cell, x, *context)
    close(y, want)
    leaves = [*tensors.values(), *layer.parameters()]
    weights = torch.randn_like(want)
    all_close(*(torch.autograd.grad((v * weights).sum(), leaves, retain_graph=True) for v in (y, want)))


@pytest.mark.parametrize("backend", ["plain", "reference", "fused"])
def test_noise_in_the_padding_reaches_nothing(backend, given):
    layer, tensors = given
    x, noise = tensors["x"], tensors["noise"].detach().clone()
    lengths = torch.tensor([6, 2, 0, 5])
    for b, n in enumerate(lengths):
        noise[n:, b] = float("nan")
    noise.requires_grad_()
    with elman.backend(backend):
        y, last = layer(x, noise=noise, lengths=lengths)
        (gradient,) = torch.autograd.grad(y.sum() + last.h.sum(), noise)
    assert torch.isfinite(y).all()
    assert torch.isfinite(gradient).all()
    alone, _ = layer(x[:2, 1:2], noise=noise[:2, 1:2])
    close(y[:2, 1:2], alone)


def test_what_is_drawn_is_the_same_on_every_backend_and_absent_in_evaluation(given):
    layer, tensors = given
    found = []
    for backend in ("plain", "reference", "fused"):
        torch.manual_seed(5)
        with elman.backend(backend):
            found.append(layer(tensors["x"])[0])
    close(found[1], found[0])
    close(found[2], found[0])
    assert not torch.equal(found[0], layer(tensors["x"])[0])
    layer.eval()
    assert torch.equal(layer(tensors["x"])[0], layer(tensors["x"])[0])


def test_batch_first_and_reverse_turn_the_noise_too(given):
    layer, tensors = given
    x, noise = tensors["x"], tensors["noise"]
    turned = elman.Recurrent(layer.cell, batch_first=True)
    close(turned(x.transpose(0, 1), noise=noise.transpose(0, 1))[0].transpose(0, 1), layer(x, noise=noise)[0])
    back = elman.Recurrent(layer.cell, reverse=True)
    close(back(x, noise=noise)[0], layer(x.flip(0), noise=noise.flip(0))[0].flip(0))


def test_a_stack_hands_every_part_its_own(given):
    layer, tensors = given
    stack = elman.Stacked(layer.cell, Noisy(4, 4).double())
    quiet = torch.zeros_like(tensors["noise"])
    first = elman.Recurrent(layer.cell)(tensors["x"], noise=quiet)[0]
    close(stack(tensors["x"], noise=quiet)[0], elman.Recurrent(stack.parts[1].cell)(first, noise=quiet)[0])


@pytest.mark.parametrize("noise", [torch.zeros(4, 4), torch.zeros(5, 4, 4), 0.5, torch.zeros(4, 6, 4)], ids=str)
def test_noise_of_another_shape_is_one_clear_error(noise, given):
    layer, tensors = given
    with pytest.raises(elman.InputError, match=r"context 'noise' has a slice .* \(T, B, width\)"):
        layer(tensors["x"], noise=noise)
