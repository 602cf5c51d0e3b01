"""Sounds made here: words of letters that are tones, what a task is shown with where no recordings are named."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TONES = {
    "b": (300, 600), "d": (900, 450), "a": (700, 700), "e": (1100, 1100), "i": (1600, 1600), "o": (2200, 2200),
    "u": (2900, 2900),
}  # fmt: skip
"""What a letter sounds like: the frequency at which it begins and at which it ends."""
WORDS = [consonant + vowel for consonant in "bd" for vowel in "aeiou"]


def spoken_tones(count: int, hertz: int, seed: int) -> list[tuple[Tensor, str]]:
    """Samples (N,) and their text: two to five words each, faster or slower, higher or lower, with noise."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        words = [WORDS[i] for i in torch.randint(10, (int(torch.randint(2, 6, (), generator=draw)),), generator=draw)]
        pitch, speed, loud = (1 + 0.08 * (2 * torch.rand(3, generator=draw) - 1)).tolist()
        parts = [silence(0.04, hertz, draw)]
        for word in words:
            parts += [tone(TONES[letter], pitch, speed, hertz) for letter in word] + [silence(0.03, hertz, draw)]
        clean = torch.cat(parts)
        noisy = 0.3 * loud * clean + 0.05 * torch.randn(len(clean), generator=draw)
        found.append((noisy, " ".join(words)))
    return found


def tone(ends: tuple[int, int], pitch: float, speed: float, hertz: int) -> Tensor:
    """About 70 ms from one frequency to another, rising and falling in loudness."""
    count = round(0.07 / speed * hertz)
    frequency = torch.linspace(ends[0] * pitch, ends[1] * pitch, count)
    return (2 * math.pi * frequency.cumsum(0) / hertz).sin() * torch.hann_window(count, periodic=False).sqrt()


def silence(seconds: float, hertz: int, draw: torch.Generator) -> Tensor:
    """As long as this, or up to twice as long."""
    return torch.zeros(round(seconds * hertz * (1 + float(torch.rand((), generator=draw)))))
