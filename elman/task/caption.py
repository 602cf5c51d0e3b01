"""Captioning: a sentence for a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elman.data.captions import Captioned, has_captions, read_captions, words_of
from elman.data.lexicon import Lexicon
from elman.data.shapes import drawn_shapes
from elman.errors import DataError, OptionError
from elman.module import ways
from elman.task.base import Loss, Score, Scores
from elman.task.bleu import bleu, has_bleu
from elman.task.captioner import Captioner, Seen, Told
from elman.task.examples import spread
from elman.task.gazes import LOOKED, gaze, gazes
from elman.task.networks import CellName
from elman.task.options import Recipe, check_below_one, check_ranges
from elman.task.sights import Given, Pixels, Sight
from elman.task.supervised import Supervised, SupervisedOptions, find, fingerprint


@dataclass(frozen=True, kw_only=True)
class Options(SupervisedOptions):
    """What is read, and by what network."""

    features: str | None = None
    """A safetensors file with features (S, M) or (M,) by picture name, in place of pictures."""
    side: int = 32
    """Pictures are resized to this many pixels, in height and width."""
    skip_unreadable: bool = False
    """Leave out pictures that are missing or cannot be read, and say how many, in place of refusing the data."""
    least: int = 1
    """Words that training has less often than this are one unknown word."""

    context: Literal["input", "state", "both"] = "both"
    """How the picture as a whole enters the decoder: as input of each step, as its first state, or as both."""
    attention: bool = True
    """Before each word, look at the places of the picture."""
    width: int = 96
    """Numbers that the encoder gives for each place, and for the whole."""
    cell: CellName = "gru"
    """The recurrent cell of the decoder."""
    hidden: int = 128
    """Width of the decoder."""
    embedding: int = 48
    """Width of a word's embedding."""
    dropout: float = 0.0
    """Probability of dropping an entry of what the encoder gives, and of the decoder's input and output."""
    beam: int = 4
    """Beginnings that the search for a caption follows; 1: the likeliest word each time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"side": 8, "least": 1, "width": 4, "hidden": 1, "embedding": 1, "dropout": 0, "beam": 1}
        check_ranges(self, least)
        check_below_one(self, "dropout")
        if self.features is not None:
            if not self.files:
                raise OptionError("--features needs a file of captions beside it, as in: elman train caption FILE")
            object.__setattr__(self, "features", str(Path(self.features).absolute()))


RECIPES: dict[str, Recipe] = {
    "default": Recipe(
        Options(batch=64, rate=4e-3, warmup=50, dropout=0.1), "pictures of 32 x 32, attention to their places", epochs=5
    ),
}


class Caption(Supervised[Captioned]):
    """A sentence for each picture.

    Captions: CSV with columns image and caption, Flickr8k.token.txt, or COCO's JSON, one or several a picture, with
    the pictures beside them; or a folder with these. No files: pictures of two coloured shapes drawn here, measured on
    pairs of objects that training never has together. Captions are read and written in lower case.
    """

    name: ClassVar[str] = "caption"
    file_names: ClassVar[tuple[str, ...]] = ("caption.json",)
    options_type: ClassVar[type[Options]] = Options
    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    higher: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "elman train caption                                        coloured shapes drawn here",
        "elman train caption Flickr8k/ --side 128                   a folder with captions.txt and Images/",
        "elman train caption captions.csv --features features.safetensors",
        "elman train caption annotations/captions_train2017.json --validation annotations/captions_val2017.json",
    )
    options: Options
    model: Captioner

    # the data

    def __init__(self, options: Any, files: dict[str, Any] | None = None) -> None:
        self.sight: Sight = Given(options) if options.features else Pixels(options)
        super().__init__(options, files)

    @cached_property
    def _split(self) -> tuple[Sequence[Captioned], Sequence[Captioned]]:
        """Of files as everywhere; of the shapes drawn here, --validation is a share of the pairs of objects."""
        o = self.options
        if o.files or o.share is None:
            return super()._split
        training, held = self.made(), drawn_shapes("validation", o.share, o.side)
        if not training or (o.share and not held):
            raise DataError(
                f"--validation {o.share:g} leaves no pairs of objects to {'validate' if training else 'train'} on"
            )
        return training, held

    @cached_property
    def data(self) -> dict[str, Any]:
        found = super().data
        return {**found, "features": fingerprint([self.options.features])} if self.options.features else found

    def read(self, paths: Sequence[str], training: bool) -> list[Captioned]:
        found = []
        for path in sorted(map(Path, paths), key=lambda path: path.suffix != ".safetensors"):  # features first
            if path.suffix == ".safetensors" and training:
                raise DataError(f"{path}: name features by --features, beside a file of captions")
            if path.suffix == ".safetensors":
                self.sight.open(path)
            else:
                found += self.sight.attach(read_captions(path), path)
        if not found:
            raise DataError(f"{', '.join(paths)}: no picture with a caption that can be read")
        if any(len(e.captions) > 1 for e in found) and not has_bleu():
            raise DataError("several captions a picture are measured by BLEU, which needs: pip install elman[score]")
        return found

    def either(self, paths: Sequence[str]) -> list[Captioned]:
        """The examples of files, with captions where one of the files has them."""
        captioned = any(has_captions(Path(path)) for path in paths)
        return self.read(paths, training=False) if captioned else self.sight.unlabelled(paths)

    def made(self) -> list[Captioned]:
        return drawn_shapes("train", self.options.share or 0.0, self.options.side)

    def fit(self, examples: Sequence[Captioned]) -> dict[str, Any]:
        captions = [words_of(caption) for e in examples for caption in e.captions]
        words = Lexicon.of((word for caption in captions for word in caption), "<unk>", self.options.least)
        longest = 2 * max(map(len, captions))
        return {"caption.json": {"words": words.to_json(), "longest": longest, "size": self.sight.fit(examples)}}

    def prepare(self, files: dict[str, Any]) -> None:
        saved = files["caption.json"]
        if not isinstance(saved, dict) or any(
            type(saved.get(key)) is not int or not 1 <= saved[key] < 2**31 for key in ("longest", "size")
        ):
            raise DataError(f"caption.json needs words, longest and size; it has {saved!r:.60}")
        self.words = Lexicon.from_json(saved.get("words"), "<unk>")
        self.longest, self.size = saved["longest"], saved["size"]

    def build(self) -> Captioner:
        return Captioner(self.options, self.sight.encoder(self.size), len(self.words), self.longest)

    def length(self, example: Captioned) -> int:
        return max((len(words_of(caption)) for caption in example.captions), default=0)

    # training

    @property
    def guess(self) -> float:
        return math.log(len(self.words) + 1)

    def in_units(self, value: float) -> str:
        return f"{value:.4f} nats/word"

    def about(self) -> dict[str, str]:
        o = self.options
        captions = sum(len(e.captions) for e in self.training)
        named = ", ".join(o.files) or "coloured shapes drawn here"
        left = f", {len(self.sight.left_out):,} left out as unreadable" if self.sight.left_out else ""
        read = f"features of {self.size} numbers" if o.features else f"pictures of {o.side} x {o.side}"
        some = self.training[:2]
        self.model.eval()  # batch normalisation takes no note of what is only looked at
        return {
            "data": f"{named}: {len(self.training):,} pictures, {captions:,} captions, {len(self.words):,} words{left}",
            "split": f"{len(self.training):,} pictures to train, {len(self.held_back):,} to validate",
            "reading": f"{read}, {o.batch} at a time, {self.batches:,} batches an epoch",
            "model": f"{o.cell} {o.hidden}, context as {o.context}{', attention' if o.attention else ''}, "
            f"encoder {o.width}, dropout {o.dropout:g}",
            "backend": ways(self.model, *self.sight.batch(some), *self.captions(some)),
        }

    def captions(self, examples: Sequence[Captioned]) -> tuple[Tensor, Tensor, Tensor]:
        """All captions of examples: whose each is (N,), words (T, N) and lengths (N,)."""
        whose = [i for i, e in enumerate(examples) for _ in e.captions]
        ids = [self.words.ids(words_of(text)[: self.longest]) for e in examples for text in e.captions]
        return torch.tensor(whose), pad_sequence(ids), torch.tensor([len(i) for i in ids])

    def objective(self, examples: Sequence[Captioned]) -> Loss:
        whose, y, lengths = self.captions(examples)
        log_p = self.model(*self.sight.batch(examples), whose, y, lengths)
        words = (lengths + 1).sum()
        loss = -log_p.sum() / words
        return Loss(loss, loss.item(), weight=words.item())

    def sample(self, k: int) -> str:
        """Captions found for three pictures, each after its true one."""
        some = (self.held_back or self.training)[:: max(1, len(self.held_back or self.training) // 3)][:3]
        self.model.eval()
        found = self.tell(self.see(some))[1]
        return "\n".join(f"{e.captions[0]}\n  -> {text}" for e, text in zip(some, found))

    # use

    @torch.no_grad()
    def see(self, examples: Sequence[Captioned]) -> Seen:
        return self.model.see(*self.sight.batch(examples))

    @torch.no_grad()
    def tell(self, seen: Seen) -> tuple[Told, list[str]]:
        """Captions found, as symbols and as texts."""
        told = self.model.tell(seen, self.options.beam)
        columns = zip(told.symbols.T.tolist(), told.lengths.tolist())
        return told, [" ".join(self.words.words[i] for i in column[:n]) for column, n in columns]

    def measure(self, examples: Sequence[Captioned], tick: Callable[[int], None]) -> Scores:
        found, nats, words = [""] * len(examples), 0.0, 0
        for numbers in self.in_batches(examples, tick):
            batch = [examples[i] for i in numbers]
            seen, (whose, y, lengths) = self.see(batch), self.captions(batch)
            nats -= float(self.model.log_prob(seen, whose, y, lengths).sum())
            words += int((lengths + 1).sum())
            for i, text in zip(numbers, self.tell(seen)[1]):
                found[i] = text
        truth = [[" ".join(words_of(caption)) for caption in e.captions] for e in examples]
        right = sum(text in texts for text, texts in zip(found, truth))
        several = max(map(len, truth)) > 1
        scores = {"exact": Score.share(right, len(found))}
        if several or has_bleu():
            value = bleu(found, truth, lowercase=True)
            scores["BLEU"] = Score(value, f"{value:.2f}, all references of a picture" if several else f"{value:.2f}")
        if several:  # one of several captions is seldom met word by word
            scores = dict(reversed(scores.items()))
        return {**scores, "loss": Score(nats / words, self.in_units(nats / words))}

    def score(self, paths: Sequence[str] = (), tick: Callable[[int], None] = lambda n: None) -> Scores:
        scores, left = super().score(paths, tick), len(self.sight.left_out)
        return {**scores, "left out": Score(left, f"{left:,} unreadable")} if left else scores

    def predict(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        examples = self.sight.unlabelled(paths)
        for i, text, log_p, looked in self.told(examples):
            found = {"input": examples[i].name, "caption": text, "log_prob": round(log_p, 4)}
            if looked is not None:
                found["looked"] = self.places(text, looked)
            yield {**found, "text": f"{text}\t{examples[i].name}"}
        for message in self.sight.left_out:
            yield {"error": message, "text": f"left out: {message}"}

    def told(self, examples: Sequence[Captioned]) -> Iterator[tuple[int, str, float, Tensor | None]]:
        """Of each example, in batches: its number, its caption, log p of that, and, with attention, weights (T, S)."""
        self.model.eval()
        for numbers in self.in_batches(examples):
            seen = self.see([examples[i] for i in numbers])
            told, texts = self.tell(seen)
            looked = self.model.looked(seen, told).unbind(1) if self.options.attention else [None] * len(numbers)
            yield from zip(numbers, texts, told.log_prob.tolist(), looked)

    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """Pictures, their captions, and where the network looked for each word."""
        examples = self.either(find(paths)) if paths else self.held_back
        some = spread(examples, LOOKED)
        if not some:
            return []
        each = sorted(self.told(some), key=lambda told: told[0])
        found = [gaze(some[i], text, log_p, self.sight.pixels(some[i]), looked) for i, text, log_p, looked in each]
        return [gazes(found, len(examples), len(self.sight.left_out))]

    def places(self, text: str, weights: Tensor) -> list[dict[str, Any]]:
        """For each word the place most looked at before it, from weights (T, S)."""
        found = []
        for word, of in zip(text.split(), weights):
            best = int(of.argmax())
            found.append({"word": word, **self.sight.place(best, len(of)), "weight": round(float(of[best]), 4)})
        return found
