"""`elman train text` with torch.nn.LSTM in the place of elman's layers: same data, loop, options and first weights.

python bench/text_on_torch.py input.txt --hidden 512 --dropout 0.3 --rate 5e-3 --seconds 780 --run runs/torch
"""

import sys

import torch
from torch import nn

import elman.task.text as text
from elman.cell import LSTM
from elman.cell.base import state_type
from elman.cli import run

State = state_type(("h", "c"))


class OnTorch(nn.Module):
    """A stack's LSTM layers and dropouts on torch.nn; the state is a tuple of (h, c), (B, H) each."""

    batch_first = False

    def __init__(self, stack: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(on_torch(part.cell) if hasattr(part, "cell") else part for part in stack.parts)

    def forward(self, x, state=None, reset=None, watch=()):
        if reset is not None:
            raise SystemExit("torch.nn resets no state inside a window: leave --document out")
        assert not watch, "torch.nn shows nothing of what is inside"
        state = iter(state or self.initial(x.shape[1]))
        last = []
        for part in self.parts:
            if isinstance(part, nn.LSTM):
                x, (h, c) = part(x, tuple(s[None] for s in next(state)))
                last.append(State(h[0], c[0]))
            else:
                x = part(x)
        return x, tuple(last)

    def initial(self, batch_size):
        sizes = [(batch_size, part.hidden_size) for part in self.parts if isinstance(part, nn.LSTM)]
        return tuple(State(torch.zeros(size), torch.zeros(size)) for size in sizes)


def on_torch(cell: LSTM) -> nn.LSTM:
    """nn.LSTM with the cell's weights; its second bias starts at zero."""
    if type(cell) is not LSTM:
        raise SystemExit(f"torch.nn has no {type(cell).__name__}: take --cell lstm without --weight-dropout")
    made = nn.LSTM(cell.input_size, cell.hidden_size)
    with torch.no_grad():
        made.weight_ih_l0.copy_(cell.U.weight)
        made.weight_hh_l0.copy_(cell.W.weight)
        made.bias_ih_l0.copy_(cell.U.bias)
        made.bias_hh_l0.zero_()
    return made


def main() -> None:
    build = text.build_model

    def build_model(*arguments):
        model = build(*arguments)
        model.recurrent = OnTorch(model.recurrent)
        return model

    text.build_model = build_model
    text.ways = lambda *_: "torch.nn.LSTM"
    sys.argv[1:1] = ["train", "text"]
    run()


if __name__ == "__main__":
    main()
