"""A sequence autoencoder: an encoder writes a sequence of digits into one vector, a decoder reads it out again.

python examples/autoencoder.py
"""

import torch
from torch import nn

import elman
from elman.cell import GRU, Conditioned

DIGITS, LONGEST, E, H = 10, 5, 16, 96


def batch(count):
    """Sequences (T, B) of 1 to LONGEST digits, and their lengths."""
    return torch.randint(DIGITS, (LONGEST, count)), torch.randint(1, LONGEST + 1, (count,))


def main(steps=1500):
    torch.manual_seed(0)
    decoder = Conditioned(GRU(E + H, H), H, "both")  # the vector begins the state, and is read at every step
    net = elman.EncoderDecoder(
        elman.Recurrent(GRU(E, H)),
        elman.SequenceModel(decoder, symbols=DIGITS, embedding_size=E, longest=LONGEST),
        nn.Embedding(DIGITS, E),
    )
    optimizer = torch.optim.Adam(net.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        y, lengths = batch(128)
        optimizer.zero_grad()
        loss = net.loss(y, lengths, y, lengths)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 300 == 0:
            print(f"step {step}: {loss.item():.3f} nats a sequence")
    y, lengths = batch(1000)
    found, ends, _ = net.sample(y, lengths, greedy=True)
    inside = torch.arange(LONGEST)[:, None] < lengths
    found = nn.functional.pad(found, (0, 0, 0, LONGEST - len(found)))
    right = ((ends == lengths) & ((found == y) | ~inside).all(0)).float().mean().item()
    for b in range(3):
        print(y[: lengths[b], b].tolist(), "->", found[: ends[b], b].tolist())
    print(f"{right:.1%} of 1,000 sequences come out as they went in")
    return right


if __name__ == "__main__":
    main()
