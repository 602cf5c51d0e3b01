"""A fixed vector conditions a sequence in three ways: as an input at each step, as the first state, or as both.

    python examples/context.py

The vector is a digit, the sequence its name, letter by letter; how it ends belongs to what is learned.
"""

import torch
import torch.nn.functional as F

import elman
from elman.cell import GRU, Conditioned

NAMES = "zero one two three four five six seven eight nine".split()
LETTERS = sorted(set("".join(NAMES)))
LONGEST = max(map(len, NAMES))


def spelled():
    """The names as y (T, 10), and their lengths."""
    rows = [[LETTERS.index(c) for c in name] + [0] * (LONGEST - len(name)) for name in NAMES]
    return torch.tensor(rows).t(), torch.tensor(list(map(len, NAMES)))


def main(steps=150):
    y, lengths = spelled()
    digits, right = F.one_hot(torch.arange(10)).float(), {}
    for into in ("input", "state", "both"):
        torch.manual_seed(0)
        cell = Conditioned(GRU(8 if into == "state" else 8 + 10, 24), 10, into)
        model = elman.SequenceModel(cell, symbols=len(LETTERS), embedding_size=8, longest=LONGEST)
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model.loss(y, lengths, context=digits)
            loss.backward()
            optimizer.step()
        found, ends, _ = model.sample(10, greedy=True, context=digits)
        words = ["".join(LETTERS[i] for i in found[: ends[b], b].tolist()) for b in range(10)]
        right[into] = words == NAMES
        print(f"{into:>5}: {loss.item():.3f} nats a name; {' '.join(words)}")
    return right


if __name__ == "__main__":
    main()
