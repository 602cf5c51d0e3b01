"""A cell of one's own: write the step, prove it, see what it compiles to, train it.

python examples/own_cell.py
"""

import torch
from torch import nn

import elman

T, B = 60, 64


class Gated(elman.Cell):
    """h moves towards a candidate as far as a gate lets it, and is normed before it is used."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 2 * hidden_size)
        self.W = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size)
        nn.init.constant_(self.U.bias[hidden_size:], -3.0)  # keep, to begin with

    def step(self, x, h):
        a, gate = (self.U(x) + self.W(self.norm(h))).chunk(2, -1)
        z = torch.sigmoid(gate)
        self.watch("gate", z)
        h = (1 - z) * h + z * torch.tanh(a)
        return h, (h,)


def batch():
    """To remember: numbers and a mark that is 1 at one of the first ten steps, (T, B, 2); the marked number, (B, 1)."""
    x = torch.zeros(T, B, 2).uniform_(-1, 1)
    x[..., 1] = 0
    x[torch.randint(10, (B,)), torch.arange(B), 1] = 1
    return x, (x[..., :1] * x[..., 1:]).sum(0)


def main(steps=600):
    torch.manual_seed(0)
    print(elman.check(Gated(2, 24)))
    layer, output = elman.Recurrent(Gated(2, 24), strict=True), nn.Linear(24, 1)
    print(elman.explain(layer, batch()[0]))
    optimizer = torch.optim.Adam([*layer.parameters(), *output.parameters()], 5e-3)
    for step in range(steps + 1):
        x, y = batch()
        h, _ = layer(x)
        loss = (output(h[-1]) - y).square().mean()
        if step % 100 == 0:
            print(f"step {step}: squared error {loss.item():.4f} (to guess 0: 0.333)")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    main()
