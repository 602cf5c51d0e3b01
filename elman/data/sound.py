"""Sound as tensors: wav and flac files, other sampling rates, log-mel features, and masks over them."""

from __future__ import annotations

import math
import wave
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elman.data.files import read_bytes
from elman.errors import DataError

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
WINDOW, HOP = 0.025, 0.010  # seconds that a frame hears, and between frames
CEPSTRA = 13  # of each frame of an .mfc file
FLOOR = 1e-6  # added to power before the logarithm


class Sound(NamedTuple):
    """Samples (N,) from -1 to 1, channels averaged, and how many of them a second has."""

    samples: Tensor
    hertz: int


def read_sound(path: Path) -> Sound:
    """A sound file. Wav of 16-bit integers is read by the standard library, all else by soundfile.

    Errors: DataError for a file that is missing, damaged, cut short or empty, or where soundfile is needed and absent.
    """
    sound = (read_wave(path) if path.suffix.lower() == ".wav" else None) or read_by_soundfile(path)
    if sound.hertz <= 0:
        raise DataError(f"{path} says that it has {sound.hertz} samples a second; mend it or leave it out")
    if not len(sound.samples):
        raise DataError(f"{path} holds no samples; record it again or leave it out")
    if not sound.samples.isfinite().all():
        raise DataError(f"{path} holds samples that are not finite numbers; mend it or leave it out")
    return sound


def read_wave(path: Path) -> Sound | None:
    """A wav file of 16-bit integers; None for one of another kind."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, hertz, count = file.getparams()[:4]
            data = file.readframes(count)
    except FileNotFoundError:
        raise DataError(f"{path}: no such recording; name an existing one") from None
    except (wave.Error, EOFError, OSError) as error:
        if "unknown format" in str(error):
            return None
        said = str(error) or "it ends in its head"
        raise DataError(f"{path} is not a readable recording ({said}); mend it or leave it out") from None
    if width != 2:
        return None
    if len(data) != count * channels * width:
        raise DataError(
            f"{path} is cut short: its head says {count:,} samples, {len(data) // (channels * width):,} are there; "
            "fetch it again or leave it out"
        )
    samples = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)
    return Sound(samples.view(-1, channels).mean(1), hertz)


def read_by_soundfile(path: Path) -> Sound:
    """Any file that libsndfile knows."""
    try:
        import soundfile
    except ImportError:
        raise DataError(
            f"{path} is not a wav file of 16-bit integers; reading it needs soundfile: pip install elman[audio]"
        ) from None
    try:
        samples, hertz = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path} is not a readable recording ({error}); mend it or leave it out") from None
    return Sound(torch.from_numpy(samples).mean(1), int(hertz))


def read_cepstra(path: Path) -> Tensor:
    """The frames (T, 13) of an .mfc file: a count of values, then so many floats, big end first. Errors: DataError."""
    data = read_bytes(path)
    count = int.from_bytes(data[:4], "big")
    if not count or len(data) != 4 + 4 * count or count % CEPSTRA:
        raise DataError(
            f"{path} is not a whole feature file: its head says {count:,} values of {CEPSTRA} a frame, "
            f"{max(len(data) - 4, 0) // 4:,} are there; fetch it again or leave it out"
        )
    frames = torch.from_numpy(np.frombuffer(data, ">f4", offset=4).astype(np.float32).reshape(-1, CEPSTRA))
    if not frames.isfinite().all():
        raise DataError(f"{path} holds values that are not finite numbers; mend it or leave it out")
    return frames


# features


def resampled(samples: Tensor, hertz: int, wanted: int) -> Tensor:
    """The same sound (N,) with `wanted` samples a second, by a windowed sinc that takes out what they cannot hold.

    Source: Smith, "Digital Audio Resampling" (ccrma.stanford.edu/~jos/resample).
    """
    if hertz == wanted:
        return samples
    kernel, old, new, width = sinc_kernel(hertz, wanted)
    padded = F.pad(samples, (width, width + old))
    found = F.conv1d(padded[None, None], kernel, stride=old)  # (1, new, N / old): each phase of the new samples
    return found[0].T.flatten()[: math.ceil(len(samples) * new / old)]


@lru_cache(maxsize=8)
def sinc_kernel(hertz: int, wanted: int, zeros: int = 8) -> tuple[Tensor, int, int, int]:
    """Weights (new, 1, W) of old samples in each of `new` samples; old and new: the two rates without what they share.

    The sinc is cut after so many zero crossings, under a Hann window.
    """
    shared = math.gcd(hertz, wanted)
    old, new = hertz // shared, wanted // shared
    cut = min(old, new) * 0.97  # a little below the highest frequency that both can hold
    width = math.ceil(zeros * old / cut)
    at = torch.arange(-width, width + old, dtype=torch.float64)[None] / old
    t = (at - torch.arange(new, dtype=torch.float64)[:, None] / new) * cut
    weights = torch.sinc(t) * torch.cos(t.clamp(-zeros, zeros) * math.pi / (2 * zeros)) ** 2 * cut / old
    return weights.float()[:, None], old, new, width


def log_mel(samples: Tensor, hertz: int, mels: int) -> Tensor:
    """Logarithms of the power in `mels` bands, (T, mels), of windows of 25 ms every 10 ms.

    A recording shorter than one window is one frame. Source: Davis, Mermelstein (1980); the mel scale as in HTK.
    """
    window, hop = round(WINDOW * hertz), round(HOP * hertz)
    size = 2 ** (math.ceil(math.log2(window)) + 1)
    whole = F.pad(samples, (0, max(0, window - len(samples))))
    side = (size - window) // 2
    padded = F.pad(whole, (side, size - window - side))  # frame t hears samples t * hop to t * hop + window
    spectrum = torch.stft(padded, size, hop, window, torch.hann_window(window), center=False, return_complex=True)
    power = spectrum.real**2 + spectrum.imag**2  # (size / 2 + 1, T)
    return (mel_bank(hertz, size, mels) @ power + FLOOR).log().T.contiguous()


@lru_cache(maxsize=8)
def mel_bank(hertz: int, size: int, mels: int) -> Tensor:
    """Triangles over frequency, (mels, size / 2 + 1), evenly spaced on the mel scale, each reaching to its neighbours'
    middles."""
    highest = 2595 * math.log10(1 + hertz / 2 / 700)
    middles = 700 * (10 ** (torch.linspace(0, highest, mels + 2, dtype=torch.float64) / 2595) - 1)
    at = torch.linspace(0, hertz / 2, size // 2 + 1, dtype=torch.float64)
    low, middle, high = middles[:-2, None], middles[1:-1, None], middles[2:, None]
    return torch.minimum((at - low) / (middle - low), (high - at) / (high - middle)).clamp(min=0).float()


def masked(frames: Tensor, strength: float) -> Tensor:
    """Frames (T, D), two bands of their columns and two spans of time set to zero at random.

    strength 1: bands of up to a quarter of the columns, spans of up to a tenth of the time.
    Source: Park et al., "SpecAugment" (2019).
    """
    frames = frames.clone()
    for dim, share in ((0, 0.1), (0, 0.1), (1, 0.25), (1, 0.25)):
        size = frames.shape[dim]
        wide = int(torch.rand(()) * min(1.0, share * strength) * (size + 1))
        at = int(torch.rand(()) * (size - wide + 1))
        frames.narrow(dim, at, wide).zero_()
    return frames
