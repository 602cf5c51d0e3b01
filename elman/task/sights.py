"""What a caption is written from: the pixels of pictures, or features that a file gives; and the encoder of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elman.data.captions import Captioned, pictures_of, with_pictures
from elman.data.features import Features
from elman.data.images import read_picture
from elman.errors import DataError
from elman.module import Dropout
from elman.module.encoder_decoder import ROUND

ROOM = 256 << 20  # bytes of pixels that are kept in memory
GRID = 4  # an encoder halves pictures until they are no larger than this


class Sight(ABC):
    """How examples become what an encoder reads. `left_out` names those that could not be read, where that is allowed.

    An encoder gives the rows of a memory (B, S, M), which of them are there (B, S), and one vector for all, (B, N).
    """

    def __init__(self, options: Any) -> None:
        self.options = options
        self.left_out: list[str] = []

    @abstractmethod
    def attach(self, examples: Sequence[Captioned], path: Path) -> list[Captioned]:
        """Those of a file of captions that can be read, with where they are. Errors: DataError naming file and line."""

    @abstractmethod
    def unlabelled(self, paths: Sequence[str]) -> list[Captioned]:
        """What is to be captioned."""

    @abstractmethod
    def fit(self, examples: Sequence[Captioned]) -> int:
        """The size that all examples have, kept as JSON."""

    @abstractmethod
    def encoder(self, size: int) -> nn.Module: ...

    @abstractmethod
    def batch(self, examples: Sequence[Captioned]) -> tuple[Tensor, Tensor | None]:
        """What an encoder reads, and which rows are there where not all are."""

    def pixels(self, example: Captioned) -> Tensor | None:
        """(R, C, 3) of uint8; none where features stand for pictures."""
        return None

    @abstractmethod
    def place(self, row: int, rows: int) -> dict[str, Any]:
        """Where a row of the memory lies."""

    def open(self, path: Path) -> None:
        """Read from another file than the run's own."""
        raise DataError(f"{path}: this run reads pictures, not features")

    def refuse(self, message: str) -> None:
        """Errors: DataError, unless what cannot be read is left out."""
        if not self.options.skip_unreadable:
            raise DataError(f"{message}; mend or remove it, or train with --skip-unreadable to leave out all such")
        self.left_out.append(message)


class Pixels(Sight):
    """Pictures of one size, read from their files when a batch needs them; some stay in memory."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.kept: dict[Path, Tensor] = {}

    def attach(self, examples: Sequence[Captioned], path: Path) -> list[Captioned]:
        found = with_pictures(examples, path)
        for e in found:
            if e.picture is None:
                folder = path if path.is_dir() else path.parent
                self.refuse(f"{e.where}: no picture {e.name} in {folder} or the folders in it")
        return [e for e in found if e.picture is not None and self.readable(e)]

    def unlabelled(self, paths: Sequence[str]) -> list[Captioned]:
        if not paths:
            raise DataError("caption reads pictures: name files or a folder, as in: elman predict RUN picture.png")
        return [e for e in pictures_of(map(Path, paths)) if self.readable(e)]

    def readable(self, example: Captioned) -> bool:
        try:
            self.pixels(example)
        except DataError as error:
            self.refuse(str(error) if example.where == example.name else f"{example.where}: {error}")
            return False
        return True

    def pixels(self, example: Captioned) -> Tensor:
        """(R, C, 3) of uint8."""
        if isinstance(example.picture, Tensor):
            return example.picture
        assert example.picture is not None
        found = self.kept.get(example.picture)
        if found is None:
            side = self.options.side
            found = read_picture(example.picture, (side, side), grey=False)
            if len(self.kept) * found.numel() < ROOM:
                self.kept[example.picture] = found
        return found

    def fit(self, examples: Sequence[Captioned]) -> int:
        return int(self.options.side)

    def encoder(self, size: int) -> nn.Module:
        return PictureEncoder(size, self.options.width, self.options.dropout)

    def batch(self, examples: Sequence[Captioned]) -> tuple[Tensor, None]:
        pixels = torch.stack([self.pixels(e) for e in examples])  # (B, R, C, 3)
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, None

    def place(self, row: int, rows: int) -> dict[str, Any]:
        across = round(rows**0.5)
        return {"row": (row // across + 0.5) / across, "column": (row % across + 0.5) / across}


class Given(Sight):
    """Features of pictures by name, (S, M) or (M,) each, from a safetensors file."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.source: Features | None = None

    @property
    def features(self) -> Features:
        """The run's own file, where no other was opened."""
        self.source = self.source or Features(Path(self.options.features))
        return self.source

    def open(self, path: Path) -> None:
        if self.source is not None:
            raise DataError(f"{path}: {self.source.path} is read already; name one file of features")
        self.source = Features(path)

    def attach(self, examples: Sequence[Captioned], path: Path) -> list[Captioned]:
        for e in examples:
            if e.name not in self.features:
                self.refuse(f"{e.where}: no features of {e.name} in {self.features.path}")
        return [e for e in examples if e.name in self.features]

    def unlabelled(self, paths: Sequence[str]) -> list[Captioned]:
        """All of a features file, or those of the run's own file that are named."""
        found = []
        for path in paths or [self.options.features]:
            if Path(path).suffix == ".safetensors":
                self.open(Path(path))
                found += [Captioned(name, (), f"{path}, {name}") for name in self.features.names]
            else:
                found += self.attach([Captioned(Path(path).name, (), path)], Path(path))
        return found

    def fit(self, examples: Sequence[Captioned]) -> int:
        return self.features.width

    def encoder(self, size: int) -> nn.Module:
        self.size = size
        return FeatureEncoder(size, self.options.width, self.options.dropout)

    def batch(self, examples: Sequence[Captioned]) -> tuple[Tensor, Tensor]:
        rows = [self.features.rows(e.name, self.size) for e in examples]
        S = -(-max(len(r) for r in rows) // ROUND) * ROUND
        memory = torch.zeros(len(rows), S, self.size)
        there = torch.zeros(len(rows), S, dtype=torch.bool)
        for i, r in enumerate(rows):
            memory[i, : len(r)], there[i, : len(r)] = r, True
        return memory, there

    def place(self, row: int, rows: int) -> dict[str, Any]:
        return {"place": row}


class PictureEncoder(nn.Module):
    """Four convolutions with batch normalisation; each halves the picture while more than 4 x 4 places are left.

    Shapes: pictures (B, 3, R, R) -> memory (B, S, M) of places, row by row, and a vector (B, M).
    """

    def __init__(self, side: int, width: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 3
        for out in (width // 4, width // 2, width, width):
            blocks += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            if side > GRID:
                blocks.append(nn.MaxPool2d(2, ceil_mode=True))
                side = -(-side // 2)
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.places = nn.Parameter(0.1 * torch.randn(side * side, width))
        self.whole = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.dropout = Dropout(dropout)

    def forward(self, pictures: Tensor, there: None = None) -> tuple[Tensor, None, Tensor]:
        memory = self.blocks(pictures).flatten(2).transpose(1, 2) + self.places  # (B, S, M)
        memory = self.dropout(memory)
        return memory, None, self.whole(memory).mean(1)


class FeatureEncoder(nn.Module):
    """One layer on each row of given features.

    Shapes: features (B, S, I), there (B, S) -> memory (B, S, M), there, and a vector (B, M).
    """

    def __init__(self, size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.Linear(size, width), nn.ReLU(), Dropout(dropout))

    def forward(self, features: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory = self.into(features)
        share = there.to(memory.dtype) / there.sum(1, keepdim=True)  # (B, S)
        return memory, there, torch.bmm(share[:, None], memory)[:, 0]
