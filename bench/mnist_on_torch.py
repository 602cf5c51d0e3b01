"""The recipe mnist-rows on elman and on torch.nn.LSTM in one process, in turns: time to train, and test accuracy.

python bench/mnist_on_torch.py MNISTFOLDER [--rounds 10]

Both learn the same 782 batches of 128 by Adam 1e-3 from the same weights. They take turns of about 78 steps, so that
whatever else the machine does meets both. Times are of training steps alone, the reading of batches included.
"""

import argparse
import itertools
import statistics
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from elman.task.classify import Classify

STEPS = 782


class OnTorch(nn.Module):
    """torch.nn.LSTM in place of elman's layer, with the same weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        cell = model.recurrent.parts[0].cell
        self.lstm = nn.LSTM(cell.U.in_features, cell.hidden_size)
        self.output = nn.Linear(cell.hidden_size, model.output.out_features)
        with torch.no_grad():
            self.lstm.weight_ih_l0.copy_(cell.U.weight)
            self.lstm.weight_hh_l0.copy_(cell.W.weight)
            self.lstm.bias_ih_l0.copy_(cell.U.bias)
            self.lstm.bias_hh_l0.zero_().requires_grad_(False)  # elman's cell has one bias
        self.output.load_state_dict(model.output.state_dict())

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.output(self.lstm(x)[0][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    task = Classify(replace(Classify.recipes["mnist-rows"].options, files=(asked.folder,)))
    test = task.read([asked.folder], training=False)
    rivals = {"torch.nn.LSTM": OnTorch(task.model), "elman": task.model}
    optimizers = {
        name: torch.optim.Adam([p for p in m.parameters() if p.requires_grad], 1e-3) for name, m in rivals.items()
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    edges = [round(i * STEPS / asked.rounds) for i in range(asked.rounds + 1)]
    for first, last in itertools.pairwise(edges):
        for name, model in rivals.items():
            began = time.perf_counter()
            for k in range(first, last):
                train_step(task, model, optimizers[name], k)
            times[name].append(time.perf_counter() - began)
    for name, model in rivals.items():
        print(f"{name:>14}: {sum(times[name]):.1f} s, test accuracy {accuracy(task, model, test):.2%}")
    ratios = [theirs / ours for theirs, ours in zip(times["torch.nn.LSTM"], times["elman"])]
    whole = sum(times["torch.nn.LSTM"]) / sum(times["elman"])
    print(f"torch.nn's time over elman's: {whole:.2f}; by turns {', '.join(f'{r:.2f}' for r in ratios)}; "
          f"median {statistics.median(ratios):.2f}")  # fmt: skip


def train_step(task: Classify, model: nn.Module, optimizer: torch.optim.Optimizer, k: int) -> None:
    examples = [task.training[i] for i in task._batches[k]]
    loss = F.cross_entropy(model(*task.reading.batch(examples, training=True)), task.targets(examples))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def accuracy(task: Classify, model: nn.Module, examples: list) -> float:
    right = 0
    for at in range(0, len(examples), 1000):
        some = examples[at : at + 1000]
        right += int((model(*task.reading.batch(some, training=False)).argmax(-1) == task.targets(some)).sum())
    return right / len(examples)


if __name__ == "__main__":
    main()
