"""Dropout of what layers read and give."""

from __future__ import annotations

from torch import Tensor, nn

from elman.cell.drawn import dropout_mask


class Dropout(nn.Dropout):
    """In training each entry is zero with probability p, else divided by 1 - p; in evaluation nothing is changed.

        net = elman.Stacked(elman.cell.LSTM(64, 256), elman.Dropout(0.2), elman.cell.LSTM(256, 256))

    As torch.nn.Dropout, in a quarter of its time on a CPU, and so with other random numbers. locked: one mask for all
    steps, one a row, in place of others at each step. Shapes: any; locked: steps first, (T, B, H).
    Sources: Srivastava et al. (2014); locked: Gal, Ghahramani (2016), arXiv:1512.05287.
    """

    def __init__(self, p: float = 0.5, *, locked: bool = False) -> None:
        super().__init__(p)
        self.locked = locked

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * dropout_mask((x[:1] if self.locked else x).shape, self.p, x)

    def extra_repr(self) -> str:
        return f"p={self.p}, locked={self.locked}"
