"""The cook: sun, and the dish is yesterday's; rain, and it is the next of three. Seven days of weather, seven dishes.

python examples/cook.py
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

import elman

DISHES, DAYS = ("pie", "burger", "chicken"), 7


class Memoryless(elman.Cell):
    """No state of its own: a hidden layer over the weather and what is fed back."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)

    def step(self, x):
        return torch.tanh(self.U(x)), ()


def weeks():
    """All weeks: x (7, N, 5) of sun, rain, and on the first day the dish of the day before; dishes (7, N)."""
    rain = torch.tensor([w for w in itertools.product((0, 1), repeat=DAYS) for _ in DISHES]).t()
    before = torch.arange(len(DISHES)).repeat(rain.shape[1] // len(DISHES))
    first = torch.zeros(DAYS, rain.shape[1], len(DISHES))
    first[0] = F.one_hot(before, len(DISHES))
    return torch.cat([F.one_hot(rain, 2), first], -1).float(), (before + rain.cumsum(0)) % len(DISHES)


def main():
    torch.manual_seed(0)
    x, dishes = weeks()
    order = torch.randperm(x.shape[1])
    seen, unseen = order[:100], order[100:]
    cook = elman.SequenceModel(Memoryless(5 + 3, 10), symbols=3, embedding_size=3, stop="given")
    alone = nn.Sequential(nn.Linear(5, 13), nn.Tanh(), nn.Linear(13, 3))  # as many weights, no way back
    optimizer = torch.optim.Adam([*cook.parameters(), *alone.parameters()], 0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = cook.loss(dishes[:, seen], x=x[:, seen])
        (loss + F.cross_entropy(alone(x[:, seen]).flatten(0, 1), dishes[:, seen].flatten())).backward()
        optimizer.step()
    right = cook.sample(x=x[:, unseen], greedy=True).symbols == dishes[:, unseen]
    guess = alone(x[:, unseen]).argmax(-1) == dishes[:, unseen]
    for name, hits in (("fed back", right), ("feed-forward", guess)):
        print(
            f"{name}: {hits.all(0).float().mean():.0%} of {len(unseen)} unseen weeks, {hits.float().mean():.0%} of days"
        )
    return right.all().item(), guess.all().item()


if __name__ == "__main__":
    main()
