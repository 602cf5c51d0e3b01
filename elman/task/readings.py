"""The kinds of things that classify reads, and how a network reads each: pictures, texts, series."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elman.data.grams import grams
from elman.data.images import (
    PICTURES,
    Picture,
    distort,
    drawn_digits,
    is_idx_folder,
    mean_and_deviation,
    read_idx_folder,
    read_picture,
    read_picture_folder,
)
from elman.data.labelled import Labelled, read_labelled, read_unlabelled
from elman.data.lexicon import Lexicon
from elman.data.series import Series, read_series
from elman.errors import DataError

Example = Picture | Labelled | Series


class Reading(ABC):
    """How examples become x (T, B, I), or (T, B) of symbols, or (B, R, C, I) for a grid; lengths (B,)."""

    name: ClassVar[str]
    width: int  # I
    symbols: int = 0  # how many, where x holds symbols

    def __init__(self, options: Any) -> None:
        self.options = options
        self.left_out: list[str] = []  # what could not be read, and why, where that is allowed

    @abstractmethod
    def read(self, paths: Sequence[str], training: bool, labelled: bool = True) -> list[Any]: ...

    @abstractmethod
    def fit(self, examples: Sequence[Any]) -> Any:
        """JSON with what is needed of the training examples."""

    @abstractmethod
    def prepare(self, saved: Any) -> None: ...

    @abstractmethod
    def length(self, example: Any) -> int: ...

    @abstractmethod
    def batch(self, examples: Sequence[Any], training: bool) -> tuple[Tensor, Tensor]: ...


class Pictures(Reading):
    """Pictures by rows, columns or pixels, or in two dimensions by blocks of pixels; standardised."""

    name = "pictures"
    size: tuple[int, ...]  # R, C, channels
    shape: tuple[int, int] | None = None  # R, C of what was read first, to which all is resized

    def read(self, paths: Sequence[str], training: bool, labelled: bool = True) -> list[Picture]:
        size = getattr(self, "size", None)
        grey = size[2] == 1 if size else not self.options.colour
        found: list[Picture] = []
        for path in map(Path, paths):
            shape = (size[0], size[1]) if size else self.shape
            if is_idx_folder(path):
                found += read_idx_folder(path, training)
            elif path.is_dir():
                found += read_picture_folder(path, shape, grey, self.refuse)
            elif labelled:
                raise DataError(f"{path} is no folder: pictures lie in folders named by label, or in MNIST's idx files")
            else:
                try:
                    found.append(Picture(read_picture(path, shape, grey), None, str(path)))
                except DataError as error:
                    self.refuse(error)
            if found:
                self.shape = shape or (found[0].pixels.shape[0], found[0].pixels.shape[1])
        return found

    def refuse(self, error: DataError) -> None:
        """Errors: DataError, unless pictures that cannot be read are left out."""
        if not self.options.skip_unreadable:
            raise DataError(f"{error}, or train with --skip-unreadable to leave out all such") from None
        self.left_out.append(str(error))

    def made(self) -> list[Picture]:
        return drawn_digits(2000, seed=1)

    def fit(self, examples: Sequence[Picture]) -> Any:
        mean, deviation = mean_and_deviation([e.pixels for e in examples])
        return {"size": list(examples[0].pixels.shape), "mean": mean, "deviation": deviation}

    def prepare(self, saved: Any) -> None:
        self.size = tuple(int(n) for n in saved["size"])
        self.mean, self.deviation = float(saved["mean"]), float(saved["deviation"])
        (R, C, channels), block = self.size, self.options.block
        self.width = {"rows": C * channels, "columns": R * channels, "pixels": channels}[self.options.by]
        if self.options.grid:
            self.width = block * block * channels

    def length(self, example: Picture) -> int:
        R, C, _ = example.pixels.shape
        return {"rows": R, "columns": C, "pixels": R * C}[self.options.by]

    def batch(self, examples: Sequence[Picture], training: bool) -> tuple[Tensor, Tensor]:
        o = self.options
        for example in examples:
            if tuple(example.pixels.shape) != self.size:
                raise DataError(
                    f"{example.name} is a picture of {tuple(example.pixels.shape)}; training had {self.size}, "
                    "rows, columns, channels"
                )
        x = torch.stack([e.pixels for e in examples]).float() / 255  # (B, R, C, channels)
        if training and o.augment:
            x = distort(x.permute(0, 3, 1, 2), o.augment).permute(0, 2, 3, 1)
        x = (x - self.mean) / self.deviation
        B, R, C, _ = x.shape
        if o.grid:
            x = x[:, : R // o.block * o.block, : C // o.block * o.block]
            x = x.unflatten(2, (-1, o.block)).unflatten(1, (-1, o.block))  # (B, R', block, C', block, channels)
            return x.transpose(2, 3).flatten(3), torch.full((B,), R // o.block)
        if o.by == "columns":
            x = x.transpose(1, 2)
        x = x.flatten(1, 2) if o.by == "pixels" else x.flatten(2)
        return x.transpose(0, 1).contiguous(), torch.full((B,), x.shape[1])


class Texts(Reading):
    """Texts by words or characters; those that training had seldom are one symbol."""

    name = "texts"
    width = 0

    def read(self, paths: Sequence[str], training: bool, labelled: bool = True) -> list[Labelled]:
        return [e for path in paths for e in (read_labelled if labelled else read_unlabelled)(Path(path))]

    def split(self, text: str) -> list[str]:
        text = text.lower() if self.options.lower else text
        return list(text) if self.options.level == "char" else text.split()

    def fit(self, examples: Sequence[Labelled]) -> Any:
        return Lexicon.of((w for e in examples for w in self.split(e.text)), "<unk>", self.options.least).to_json()

    def prepare(self, saved: Any) -> None:
        self.lexicon = Lexicon.from_json(saved, "<unk>")
        self.symbols = len(self.lexicon)

    def length(self, example: Labelled) -> int:
        return len(self.split(example.text))

    def batch(self, examples: Sequence[Labelled], training: bool) -> tuple[Tensor, Tensor]:
        texts = [self.split(e.text) for e in examples]
        x, lengths = pad_sequence([self.lexicon.ids(words) for words in texts]), torch.tensor([len(w) for w in texts])
        if self.options.grams:
            x = torch.cat([x[..., None], self.grams(texts)], -1)
        return x, lengths

    def grams(self, texts: list[list[str]]) -> Tensor:
        """The numbers of the n-grams of each word, (T, B, G), 0 where there is none."""
        found = [[torch.tensor(grams(w, self.options.grams)) for w in words] for words in texts]
        every = pad_sequence([g for words in found for g in words], batch_first=True)  # (all words, G)
        return pad_sequence(list(every.split([len(words) for words in texts])))


class TimeSeries(Reading):
    """Series of one or several variables, standardised."""

    name = "series"
    variables: int = 0  # of what was read first

    def read(self, paths: Sequence[str], training: bool, labelled: bool = True) -> list[Series]:
        found = [e for path in paths for e in read_series(Path(path))]
        self.variables = self.variables or found[0].values.shape[1]
        for e in found:
            if e.values.shape[1] != self.variables:
                raise DataError(f"{e.name} has {e.values.shape[1]} variables; training had {self.variables}")
        return found

    def fit(self, examples: Sequence[Series]) -> Any:
        whole = torch.cat([e.values for e in examples]).double()
        return {"mean": whole.mean(0).tolist(), "deviation": whole.std(0).clamp(min=1e-6).tolist()}

    def prepare(self, saved: Any) -> None:
        self.mean, self.deviation = torch.tensor(saved["mean"]), torch.tensor(saved["deviation"])
        self.variables = len(self.mean)
        self.width = self.variables * self.options.block

    def length(self, example: Series) -> int:
        return -(-len(example.values) // self.options.block)

    def batch(self, examples: Sequence[Series], training: bool) -> tuple[Tensor, Tensor]:
        values = [(e.values - self.mean) / self.deviation for e in examples]
        if training and self.options.augment:
            values = [jitter(v, self.options.augment) for v in values]
        blocks = [F.pad(v, (0, 0, 0, -len(v) % self.options.block)).view(-1, self.width) for v in values]
        return pad_sequence(blocks), torch.tensor([len(b) for b in blocks])


def jitter(values: Tensor, strength: float) -> Tensor:
    """A series (T, D) louder or softer, with noise, and read a little faster or slower, at random."""
    T = len(values)
    speed = float(1 + 0.2 * strength * (2 * torch.rand(()) - 1))
    steps = torch.linspace(0, T - 1, max(2, round(T * speed)))
    low = steps.long().clamp(max=max(T - 2, 0))
    part = (steps - low)[:, None]
    bent = values[low] * (1 - part) + values[(low + 1).clamp(max=T - 1)] * part
    return bent * (1 + 0.1 * strength * torch.randn(())) + 0.05 * strength * torch.randn(bent.shape)


READINGS: dict[str, type[Reading]] = {kind.name: kind for kind in (Pictures, Texts, TimeSeries)}


def kind_of(paths: Sequence[str]) -> str:
    """What kind of examples files hold, by their names."""
    if not paths or Path(paths[0]).is_dir() or Path(paths[0]).suffix.lower() in PICTURES:
        return "pictures"
    return "series" if ".ts" in Path(paths[0]).suffixes else "texts"
