"""Two marks in an image span a rectangle; each pixel says whether it lies inside. Four directions can know.

    python examples/grid.py

A recurrence over each row alone knows nothing of other rows; one over both dimensions that starts in a single corner
has seen only what lies above and to the left. From four corners together every pixel has heard of all the others.
"""

import torch
import torch.nn.functional as F
from torch import nn

import elman
from elman.cell import GRU, LSTM2D

SIZE, H = 10, 16


def images(count):
    """Images (B, R, C, 1) with two marks, and 1 inside the rectangle that they span, (B, R, C)."""
    rows, columns = (torch.randint(SIZE, (count, 2)).sort(-1).values for _ in range(2))
    swap = torch.rand(count) < 0.5  # the marks lie in either pair of opposite corners
    x, b = torch.zeros(count, SIZE, SIZE, 1), torch.arange(count)
    for i in range(2):
        x[b, rows[:, i], torch.where(swap, columns[:, 1 - i], columns[:, i])] = 1
    r, c = torch.arange(SIZE)[:, None], torch.arange(SIZE)
    down = (r >= rows[:, :1, None]) & (r <= rows[:, 1:, None])
    return x, (down & (c >= columns[:, :1, None]) & (c <= columns[:, 1:, None])).float()


class ByRows(elman.Bidirectional):
    """Each row read in both directions, for itself."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1))[0].unflatten(0, x.shape[:2]), None


def main(steps=1000):
    four, right = (lambda: elman.Grid(*(LSTM2D(1, H) for _ in range(4)))), {}
    one, rows = (lambda: elman.Grid(LSTM2D(1, 4 * H))), (lambda: ByRows(GRU(1, 2 * H), GRU(1, 2 * H), batch_first=True))
    for name, make in (("rows", rows), ("one corner", one), ("four corners", four)):
        torch.manual_seed(0)
        net, output = make(), nn.Sequential(nn.Linear(4 * H, 32), nn.Tanh(), nn.Linear(32, 1))
        optimizer = torch.optim.Adam([*net.parameters(), *output.parameters()], 5e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            x, y = images(64)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(output(net(x)[0])[..., 0], y).backward()
            optimizer.step()
            schedule.step()
        x, y = images(1000)
        hits = (output(net(x)[0])[..., 0] > 0) == (y > 0)
        right[name] = hits.flatten(1).all(1).float().mean().item()
        print(f"{name:>12}: {hits.float().mean():.1%} of pixels, {right[name]:.1%} of images without a mistake")
    return right


if __name__ == "__main__":
    main()
