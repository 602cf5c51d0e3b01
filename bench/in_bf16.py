"""elman with products in bf16 beside its own float32 and torch.nn's modules in bfloat16, alternating in one process.

    python bench/in_bf16.py                                        LSTM and GRU on two shapes, both modes
    python bench/in_bf16.py --cells LSTM --shapes 32,100,256,256   a shape is B,T,I,H

torch.nn's module is wholly in bfloat16 (`.bfloat16()`): weights, states and output, too. A ratio is the other's time
over that of elman in bf16, in the same round; medians. The last columns: the largest relative distance of y and all
gradients from float32, each as the norm of the difference over the norm.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from against_torch import MODES, Runner, header, measure, names, say, shape_of, torch_layer
from cells import CELLS
from torch import Tensor

import elman

SHAPES = [(64, 128, 512, 512), (32, 100, 256, 256)]
RIVALS = ("float32", "nn bf16")


class Rounded(Runner):
    """elman's layer with products in bf16."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        inner = self.call

        def call(x: Tensor) -> Tensor:
            with elman.precision("bf16"):
                return inner(x)

        self.call = call


def contenders(name: str, shape: tuple[int, ...]) -> dict[str, Runner]:
    """elman in bf16, the same in float32, and torch.nn in bfloat16, each with its own copy of the same weights."""
    B, T, I, H = shape  # noqa: E741
    torch.manual_seed(0)
    cell = CELLS[name].make(I, H)
    x, cotangent = torch.randn(T, B, I), torch.randn(T, B, H)
    one, two = (elman.Recurrent(copy.deepcopy(cell), strict=True) for _ in range(2))
    theirs, parameters = torch_layer(CELLS[name].rival, cell)
    theirs.bfloat16()  # in place: the parameters stay the same objects
    return {
        "elman": Rounded(lambda x: one(x)[0], dict(one.cell.named_parameters()), x, cotangent),
        "float32": Runner(lambda x: two(x)[0], dict(two.cell.named_parameters()), x, cotangent),
        "nn bf16": Runner(lambda x: theirs(x)[0], parameters, x.bfloat16(), cotangent.bfloat16()),
    }


def distances(runs: dict[str, Runner]) -> dict[str, float]:
    """The largest relative distance from float32, of y and of every gradient that both have."""
    exact = runs["float32"].values()
    found = {}
    for name in ("elman", "nn bf16"):
        mine = runs[name].values()
        found[name] = max(float((mine[k].float() - exact[k]).norm() / exact[k].norm()) for k in mine.keys() & exact)
    return found


def compare(options: argparse.Namespace) -> None:
    heads = "GFLOP/s: bf16  float32  nn bf16   ratio: float32  nn bf16   off by, nn's"
    say(f"{'cell':>6} {'B,T,I,H':>16} {'mode':>10}   {heads}")
    for name in options.cells:
        for shape in options.shapes:
            runs = contenders(name, shape)
            off = distances(runs)
            for mode in MODES:
                row = measure(name, shape, mode, runs, options)
                speeds = "  ".join(f"{row.speed(run):7.1f}" for run in ("elman", *RIVALS))
                ratios = "  ".join(f"{row.ratio[run]:7.2f}" for run in RIVALS)
                where = f"{name:>6} {','.join(map(str, shape)):>16} {mode:>10}"
                say(f"{where}   {speeds:>28}   {ratios:>22}   {off['elman']:.1e} {off['nn bf16']:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=names(("LSTM", "GRU")), default=["LSTM", "GRU"], help="with commas: LSTM,GRU")
    parser.add_argument("--shapes", type=shape_of, nargs="+", default=SHAPES, help="B,T,I,H ...")
    parser.add_argument("--repeats", type=int, default=9, help="rounds, at most (default 9)")
    parser.add_argument("--seconds", type=float, default=10.0, help="budget of a cell, shape and mode (default 10)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    say(header())
    compare(options)


if __name__ == "__main__":
    main()
