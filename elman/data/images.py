"""Pictures as tensors: MNIST's idx files, folders of picture files, and digits drawn here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elman.data.files import read_bytes
from elman.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
IDX = {True: "train", False: "t10k"}  # the prefix of MNIST's files to train on, and to test on


class Picture(NamedTuple):
    """Pixels (R, C, channels) of uint8, and what is in it, where that is known."""

    pixels: Tensor
    label: str | None
    name: str


def read_idx(path: Path) -> Tensor:
    """A tensor of uint8 from an idx file: zeros, a type, the number of dimensions, their sizes, the values.

    Errors: DataError. Source: LeCun, Cortes, Burges, the MNIST database.
    """
    data = read_bytes(path)
    dims = data[3] if len(data) >= 4 and data[:3] == b"\0\0\x08" else 0
    sizes = np.frombuffer(data[4 : 4 + 4 * dims], ">u4").tolist() if len(data) >= 4 + 4 * dims else []
    if not sizes or len(data) != 4 + 4 * dims + math.prod(sizes):
        raise DataError(f"{path} is not a whole idx file of bytes; fetch it again")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(sizes).copy())


def is_idx_folder(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*-idx?-ubyte*"))


def read_idx_folder(path: Path, training: bool) -> list[Picture]:
    """The pictures and labels of train-* or t10k-* in a folder. Errors: DataError."""
    part = IDX[training]
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        files = sorted(path.glob(f"{part}-{kind}-ubyte*"))
        if not files:
            raise DataError(f"{path} has no {part}-{kind}-ubyte, with .gz or without; fetch it")
        found.append(read_idx(files[0]))
    images, labels = found
    if len(images) != len(labels):
        raise DataError(f"{path}: {len(images)} images of {part} and {len(labels)} labels; fetch them again")
    names = [str(label) for label in labels.tolist()]
    return [Picture(image[..., None], names[i], f"{part} {i}") for i, image in enumerate(images)]


def read_picture(path: Path, size: tuple[int, int] | None, grey: bool) -> Tensor:
    """Pixels (R, C, 1 or 3) of a picture file, resized to (R, C) where a size is given. Errors: DataError."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError("reading pictures needs Pillow: pip install elman[image]") from None
    try:
        with Image.open(path) as opened:
            if size is not None:
                opened.draft("L" if grey else "RGB", size[::-1])  # JPEG is decoded no larger than it has to be
            image = opened.convert("L" if grey else "RGB")
            if size is not None and image.size != size[::-1]:
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture; name an existing one") from None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable picture ({error}); mend it or leave it out") from None
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy())


def raised(error: DataError) -> None:
    raise error


def read_picture_folder(
    path: Path, size: tuple[int, int] | None, grey: bool, refuse: Callable[[DataError], None] = raised
) -> list[Picture]:
    """The pictures of a folder whose subfolders are the labels. Errors: DataError.

    `refuse` is told of each picture that cannot be read, and raises, or has it left out.
    """
    found = []
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        for file in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
            try:
                pixels = read_picture(file, size, grey)
            except DataError as error:
                refuse(error)
                continue
            size = size or (pixels.shape[0], pixels.shape[1])  # that of the first is the size of all
            found.append(Picture(pixels, folder.name, str(file)))
    if not found:
        raise DataError(f"{path} has no pictures: they lie in subfolders named by label, as in {path}/cat/1.png")
    return found


# digits drawn here: what a task is shown with where no data is named

FONT = """
111 001 111 111 101 111 111 111 111 111
101 001 001 001 101 100 100 001 101 101
101 001 111 111 111 111 111 001 111 111
101 001 100 001 001 001 101 001 101 001
111 001 111 111 001 111 111 001 111 111
"""


def drawn_digits(count: int, seed: int) -> list[Picture]:
    """Digits of 3 x 5 blocks on 20 x 20 pixels, leaning, shifted, stretched and noisy; the same ones for a seed."""
    draw = torch.Generator().manual_seed(seed)
    rows = FONT.split()
    glyphs = torch.tensor([[[float(bit) for bit in rows[10 * r + d]] for r in range(5)] for d in range(10)])
    labels = torch.randint(10, (count,), generator=draw)
    big = F.interpolate(F.pad(glyphs, (2, 2, 2, 2))[:, None], size=(20, 20), mode="nearest")[labels]
    moved = distort(big, 1.0, draw)
    noisy = (200 * moved + 30 * torch.randn(moved.shape, generator=draw).abs()).clamp(0, 255).to(torch.uint8)
    return [Picture(noisy[i, 0, ..., None], str(int(labels[i])), f"drawn {i}") for i in range(count)]


def distort(images: Tensor, strength: float, draw: torch.Generator | None = None) -> Tensor:
    """Images (B, channels, R, C), each turned, leaned, stretched and shifted at random.

    strength 1: up to 10 degrees, a slant of 0.2, a tenth larger or smaller, and a fourteenth of the side.
    """
    B = len(images)
    turn, slant, wide, high, right, down = (2 * torch.rand(6, B, generator=draw) - 1) * strength
    cos, sin = (turn * math.radians(10)).cos(), (turn * math.radians(10)).sin()
    x_scale, y_scale = 1 + 0.1 * wide, 1 + 0.1 * high
    matrix = torch.stack(
        [
            torch.stack([cos * x_scale, (0.2 * slant - sin) * x_scale, right / 7], -1),
            torch.stack([sin * y_scale, cos * y_scale, down / 7], -1),
        ],
        1,
    )
    where = F.affine_grid(matrix.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, where, align_corners=False)


def mean_and_deviation(pixels: Sequence[Tensor]) -> tuple[float, float]:
    """Of pixels, from 0 to 1, of at most 2,000 pictures, evenly spaced: a folder has them in the order of labels."""
    some = torch.cat([p.flatten() for p in pixels[:: -(-len(pixels) // 2000)]]).double() / 255
    return float(some.mean()), max(float(some.std()), 1e-3)
