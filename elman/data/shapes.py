"""Pictures of two coloured shapes with a caption each, drawn here; some pairs of objects are held back.

python -m elman.data.shapes FOLDER      # writes the test part: FOLDER/captions.csv and FOLDER/images
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from elman.data.captions import Captioned

COLOURS = {
    "blue": (60, 90, 255), "green": (40, 190, 60), "purple": (180, 60, 210), "red": (230, 40, 40),
    "white": (240, 240, 240), "yellow": (240, 220, 50),
}  # fmt: skip
SHAPES = ("circle", "cross", "ring", "square", "triangle")
KINDS = sorted(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
RELATIONS = ("above", "below", "left of", "right of")
PAIRS = [(a, b) for a in range(len(KINDS)) for b in range(a + 1, len(KINDS))]  # in the order in which they are named
TESTED = len(PAIRS) // 10
EACH = {"train": 12, "validation": 3, "test": 3}  # pictures of a pair in a relation
Part = Literal["train", "validation", "test"]


def drawn_shapes(part: Part, share: float, side: int) -> list[Captioned]:
    """Pictures (side, side, 3) of two objects, the same ones each time.

    A picture is captioned in one way: of its two objects that is named first whose colour, then shape, comes first in
    the alphabet. The parts have no pair of objects in common, in whatever relation: a tenth of all pairs are the test
    part, and the given share to validate.
    """
    order = torch.randperm(len(PAIRS), generator=torch.Generator().manual_seed(1)).tolist()
    until = TESTED + round(share * (len(PAIRS) - TESTED))
    pairs = {"test": order[:TESTED], "validation": order[TESTED:until], "train": order[until:]}[part]
    wanted = [(*PAIRS[p], relation) for p in sorted(pairs) for relation in range(4) for _ in range(EACH[part])]
    if not wanted:
        return []
    chance = torch.Generator().manual_seed(list(EACH).index(part))
    pixels = torch.cat([draw(some, side, chance) for some in torch.tensor(wanted).split(500)])
    found = []
    for i, (first, second, relation) in enumerate(wanted):
        caption = f"a {KINDS[first]} {RELATIONS[relation]} a {KINDS[second]}"
        found.append(Captioned(f"{part}-{i:05}.png", (caption,), f"drawn {part} {i}", pixels[i]))
    return found


def draw(wanted: Tensor, side: int, chance: torch.Generator) -> Tensor:
    """Pictures (N, side, side, 3) of uint8, of first object, second object and relation (N, 3)."""
    N, unit = len(wanted), side / 32

    def between(low: Tensor | float, high: Tensor | float) -> Tensor:
        return low + (torch.as_tensor(high) - low) * torch.rand(N, generator=chance)

    radius = torch.stack([between(4, 6.5), between(4, 6.5)])  # in 32nds of the side, of the upper or left one first
    apart = radius.sum(0) + 1
    along = between(radius[0], 31 - radius[1] - apart)
    far = between(along + apart, 31 - radius[1])
    across = between(radius[0], 31 - radius[0])
    beside = (across + between(-3.5, 3.5)).maximum(radius[1]).minimum(31 - radius[1])
    relation = wanted[:, 2]
    kinds = torch.where(
        (relation % 2 == 0)[:, None], wanted[:, :2], wanted[:, :2].flip(1)
    )  # below: the second is above
    upright = relation < 2
    pictures = between(0, 50)[:, None, None, None].expand(N, side, side, 3)
    for i, (one, other) in enumerate(((along, across), (far, beside))):
        row, column = torch.where(upright, one, other), torch.where(upright, other, one)
        pictures = painted(pictures, kinds[:, i], row * unit, column * unit, radius[i] * unit, chance)
    return (pictures + 8 * torch.randn(pictures.shape, generator=chance)).clamp(0, 255).to(torch.uint8)


def painted(
    pictures: Tensor, kinds: Tensor, row: Tensor, column: Tensor, radius: Tensor, chance: torch.Generator
) -> Tensor:
    """Pictures (N, R, C, 3) with one more object of a kind, place and size (N,) in each."""
    N, side = len(pictures), pictures.shape[1]
    at = torch.arange(side) + 0.5
    y, x = at[:, None] - row[:, None, None], at - column[:, None, None]  # (N, R, 1), (N, 1, C)
    r, away = radius[:, None, None], (x**2 + y**2).sqrt()
    bar = 0.35 * r
    inside = torch.stack(  # how far within the edge, in pixels, in the order of SHAPES
        [
            r - away,
            torch.maximum(torch.minimum(bar - x.abs(), r - y.abs()), torch.minimum(r - x.abs(), bar - y.abs())),
            torch.minimum(r - away, away - 0.5 * r),
            0.9 * r - torch.maximum(x.abs(), y.abs()),
            torch.minimum(0.8 * r - y, (y + r - 1.8 * x.abs()) / 2.06),
        ]
    )
    shapes = torch.tensor([SHAPES.index(kind.split()[1]) for kind in KINDS])[kinds]
    colours = torch.tensor([COLOURS[kind.split()[0]] for kind in KINDS])[kinds]  # (N, 3)
    shade = (colours + 15 * torch.randn(N, 3, generator=chance))[:, None, None]
    cover = (0.5 + inside[shapes, torch.arange(N)]).clamp(0, 1)[..., None]
    return cover * shade + (1 - cover) * pictures


def write_shapes(folder: Path, part: Part = "test") -> int:
    """A part as picture files beside captions.csv; how many there are. Needs Pillow."""
    from PIL import Image

    (folder / "images").mkdir(parents=True, exist_ok=True)
    examples = drawn_shapes(part, share=0.1, side=32)
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for e in examples:
            assert isinstance(e.picture, Tensor)
            Image.fromarray(e.picture.numpy()).save(folder / "images" / e.name)
            rows.writerow([e.name, *e.captions])
    return len(examples)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m elman.data.shapes FOLDER")
    print(f"{write_shapes(Path(sys.argv[1])):,} pictures")
