"""elman.Dropout beside torch.nn.Dropout, forward and backward, alternating in one process.

    python bench/dropout.py                shapes T,B,H
    python bench/dropout.py --threads 1

A ratio is torch's time over elman's of the same round; medians.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from against_torch import header, say, seconds_of
from torch import nn

import elman

SHAPES = [(64, 32, 512), (28, 128, 128), (64, 32, 64)]
ROUNDS, RATE = 31, 0.5


def compare(shape: tuple[int, ...]) -> str:
    """Milliseconds of both and the ratio, as a line."""
    x = torch.randn(shape, requires_grad=True)
    cotangent = torch.randn(shape)
    drops = {"elman": elman.Dropout(RATE), "torch.nn": nn.Dropout(RATE)}
    taken: dict[str, list[float]] = {name: [] for name in drops}
    for turn in range(ROUNDS):
        for name in [*drops][:: 1 if turn % 2 else -1]:
            drop = drops[name]
            taken[name].append(seconds_of(lambda: drop(x).backward(cotangent)))  # noqa: B023
    ratio = median(b / a for a, b in zip(taken["elman"], taken["torch.nn"]))
    own, other = (median(found) * 1e3 for found in taken.values())
    return f"{','.join(map(str, shape)):>14}  elman {own:7.3f} ms  torch.nn {other:7.3f} ms  ratio {ratio:5.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    say(header())
    for shape in SHAPES:
        say(compare(shape))


if __name__ == "__main__":
    main()
