"""Three hidden units learn to read "hell" and write "ello", a letter at a time.

    python examples/hello.py

The letter l is followed once by l and once by o: what comes next depends on what came before.
"""

import torch
import torch.nn.functional as F
from torch import nn

import elman

LETTERS = "helo"


def main():
    torch.manual_seed(0)
    ids = torch.tensor([LETTERS.index(letter) for letter in "hello"])
    x = F.one_hot(ids[:-1], len(LETTERS)).float()[:, None]  # (T, 1, 4)
    layer, output = elman.Recurrent(elman.cell.Elman(len(LETTERS), 3)), nn.Linear(3, len(LETTERS))
    optimizer = torch.optim.Adam([*layer.parameters(), *output.parameters()], 0.1)
    for step in range(101):
        h, _ = layer(x)
        logits = output(h[:, 0])  # (T, 4)
        loss = F.cross_entropy(logits, ids[1:])
        written = "".join(LETTERS[i] for i in logits.argmax(-1).tolist())
        if step % 20 == 0:
            print(f"step {step:3}: {loss.item():.3f} nats a letter, hell -> {written}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return written


if __name__ == "__main__":
    main()
