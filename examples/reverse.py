"""Reverse strings of 5 to 20 letters: an encoder, a decoder with attention, and strings that it has never seen.

python examples/reverse.py [240]      (seconds to train)
"""

import sys
import time

import torch
from torch import nn

import elman
from elman.cell import GRU, Attend, Conditioned

LETTERS, E, H, SHORTEST, LONGEST = 26, 32, 128, 5, 20


def batch(count, draw):
    """Sources (S, B), their lengths, and the same strings backwards."""
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=draw)
    source = torch.randint(LETTERS, (LONGEST, count), generator=draw)
    return source, lengths, source.gather(0, (lengths - 1 - torch.arange(LONGEST)[:, None]).clamp(min=0))


def model():
    cell = Conditioned(Attend(GRU(E + H, H), memory_size=2 * H), 2 * H, "state")
    decoder = elman.SequenceModel(cell, symbols=LETTERS, embedding_size=E, longest=LONGEST)
    return elman.EncoderDecoder(elman.Bidirectional(GRU(E, H), GRU(E, H)), decoder, nn.Embedding(LETTERS, E))


def exact(net, count, draw):
    """The share of new strings that come out right to the last letter."""
    source, lengths, target = batch(count, draw)
    found, ends, _ = net.sample(source, lengths, greedy=True)
    steps = torch.arange(len(found))[:, None]
    right = (found == target[: len(found)]) | (steps >= lengths)
    return ((ends == lengths) & right.all(0)).float().mean().item()


def main(seconds):
    begun = time.perf_counter()
    torch.manual_seed(0)
    draw, unseen, net, step = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2), model(), 0
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    while (spent := time.perf_counter() - begun) < seconds:
        source, lengths, target = batch(64, draw)
        optimizer.param_groups[0]["lr"] = 2e-3 * max(1 - spent / seconds, 0.02)
        optimizer.zero_grad()
        loss = net.loss(target, lengths, source, lengths)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if (step := step + 1) % 200 == 0:
            right = exact(net, 100, unseen)
            print(f"{spent:4.0f} s, step {step}: loss {loss.item():.3f} nats a string, {right:.0%} right", flush=True)
    print(f"{exact(net, 1000, unseen):.1%} of 1,000 new strings are right to the last letter, after {step} steps")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 240)
