"""Translation: one sequence of text from another, through an encoder and a decoder with attention."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elman.data.files import input_lines
from elman.data.pairs import Pair, made_dates, read_either, read_pairs, read_sources
from elman.data.pieces import Pieces, found, joined, restored
from elman.errors import DataError, OptionError
from elman.module import ways
from elman.task.alignment import SHOWN, Alignments, Translation, answer, drawn, shown
from elman.task.base import Loss, Score, Scores
from elman.task.bleu import bleu, require_bleu
from elman.task.examples import spread
from elman.task.options import Recipe, check_below_one, check_ranges
from elman.task.supervised import Supervised, SupervisedOptions, find
from elman.task.translator import Translator, smoothed

SEEN = 500  # pairs that are measured while training goes on
ALPHA = 1.0  # of beam search: long translations are forgiven their length; with 0.6 a young network stops too early


@dataclass(frozen=True, kw_only=True)
class Options(SupervisedOptions):
    """What is read, and by what network."""

    validation_target: str | None = None
    """Where --validation is a file of sources: the file with the target of each."""
    level: Literal["auto", "subword", "word", "char"] = "auto"
    """What is read and written at each step. auto: subwords of files, characters of what is made here."""
    vocabulary: int = 8000
    """Pieces that are known, at most, on each side or shared."""
    shared: bool = False
    """One vocabulary for both sides, in place of one each."""
    lower: Literal["none", "source", "both"] = "none"
    """What is read in lower case. With both, the right answers are too when translations are scored."""
    least: int = 2
    """Words and characters that training has less often than this are one unknown piece."""

    cell: Literal["lstm", "gru"] = "lstm"
    """The recurrent cell."""
    hidden: int = 128
    """Width of each recurrent layer, in each direction."""
    layers: int = 1
    """Layers of the encoder, each in both directions."""
    decoder_layers: int = 1
    """Layers of the decoder."""
    embedding: int = 64
    """Width of a piece's embedding."""
    tied: bool = False
    """Output layer and embedding of the target are one table; with --shared that of the source, too."""
    dropout: float = 0.1
    """Probability of dropping an entry of embeddings and of layers' outputs."""
    smooth: float = 0.0
    """Label smoothing: how much of the target is spread over all pieces."""
    beam: int = 5
    """Beginnings that are followed when translations are searched for; 1: the likeliest piece at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"vocabulary": 2, "least": 1, "hidden": 1, "layers": 1, "decoder_layers": 1, "embedding": 1, "beam": 1}
        check_ranges(self, {**least, "dropout": 0, "smooth": 0})
        check_below_one(self, "dropout", "smooth")
        if self.tied and self.hidden != self.embedding:
            raise OptionError(f"--tied needs --hidden and --embedding alike; they are {self.hidden}, {self.embedding}")
        if self.level == "auto":
            object.__setattr__(self, "level", "subword" if self.files else "char")
        if self.validation_target is not None:
            if self.share is not None:
                raise OptionError("--validation-target goes with a file of sources: name that with --validation")
            object.__setattr__(self, "validation_target", str(Path(self.validation_target).absolute()))

    @property
    def validation_files(self) -> tuple[str, ...]:
        return (*super().validation_files, *([self.validation_target] if self.validation_target else []))


RECIPES: dict[str, Recipe] = {
    "default": Recipe(
        Options(cell="gru", batch=32, rate=4e-3),
        "one layer each; without files, dates from as people write them to ISO",
        epochs=8,
    ),
    "multi30k": Recipe(
        Options(
            level="subword", vocabulary=6000, shared=True, tied=True, hidden=320, embedding=320, dropout=0.3,
            smooth=0.1, batch=64, rate=2e-3, warmup=200, average=0.998,
        ),
        "some ten thousand sentences: shared subwords, one table for all embeddings, strongly regularised; an hour",
        seconds=3540,
    ),
}  # fmt: skip


class Translate(Supervised[Pair]):
    """One text from another: from language to language, or any rewriting that has examples.

    Two files, a line of the second for each of the first, or one file with two columns and a tab between them. No
    files: dates as people write them, "March 3, 1987", to ISO, "1987-03-03", made here. Subwords need the package
    tokenizers, BLEU needs sacrebleu: pip install elman[translate].
    """

    name: ClassVar[str] = "translate"
    file_names: ClassVar[tuple[str, ...]] = ("translate.json",)
    options_type: ClassVar[type[Options]] = Options
    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    higher: ClassVar[bool] = True
    scoring: ClassVar[str] = f", all of it and searched by --beam in place of {SEEN} pairs step by step"
    examples: ClassVar[tuple[str, ...]] = (
        "elman train translate                               dates made here; then: elman predict runs/translate",
        "elman train translate train.en train.de             then: elman score runs/translate test.en test.de",
        "elman train translate pairs.tsv --level word",
        "elman train translate train.en train.de --validation val.en --validation-target val.de --recipe multi30k",
    )
    model: Translator

    # the data

    def read(self, paths: Sequence[str], training: bool) -> list[Pair]:
        return read_pairs(paths)

    def made(self) -> list[Pair]:
        return made_dates(4000, seed=1)

    def normal(self, text: str, side: Literal["source", "target"]) -> str:
        """A text as it is read: characters composed, single spaces, in lower case if so wanted."""
        text = " ".join(unicodedata.normalize("NFC", text).split())
        return text.lower() if self.options.lower in (side, "both") else text

    def sides(self, examples: Sequence[Pair]) -> tuple[list[str], list[str]]:
        """The sources and the targets."""
        right = [self.normal(e.target, "target") for e in examples if e.target is not None]
        return [self.normal(e.source, "source") for e in examples], right

    def fit(self, examples: Sequence[Pair]) -> dict[str, Any]:
        if self.options.files:
            require_bleu()  # if it is missing, better said now than after the first epoch
        o, (source, target) = self.options, self.sides(examples)
        texts = {"shared": [*source, *target]} if o.shared else {"source": source, "target": target}
        pieces = {side: found(o.level, part, o.vocabulary, o.least) for side, part in texts.items()}
        longest = max(len(pieces["shared" if o.shared else "target"].read(text)[0]) for text in target)
        return {"translate.json": {"longest": longest, **{side: kept.to_json() for side, kept in pieces.items()}}}

    def prepare(self, files: dict[str, Any]) -> None:
        saved = files["translate.json"]
        self.longest = saved["longest"]
        if not isinstance(self.longest, int) or not 1 <= self.longest < 2**20:
            raise DataError(f"longest is {self.longest!r}, not a number of pieces")
        o = self.options
        self.source = restored(o.level, saved["shared" if o.shared else "source"])
        self.target = self.source if o.shared else restored(o.level, saved["target"])

    def build(self) -> Translator:
        return Translator(self.options, len(self.source), len(self.target), self.longest)

    def length(self, example: Pair) -> int:
        source = self.source.read(self.normal(example.source, "source"))[0]
        target = [] if example.target is None else self.target.read(self.normal(example.target, "target"))[0]
        return len(source) + len(target)

    def batch(self, texts: list[str], pieces: Pieces) -> tuple[Tensor, Tensor]:
        """Numbers (T, B) and lengths (B,). A text without a piece is read as one unknown."""
        ids = [torch.tensor(pieces.read(text)[0] or [0]) for text in texts]
        return pad_sequence(ids), torch.tensor([len(i) for i in ids])

    def batches_of(self, examples: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the network reads to be taught: targets and their lengths, sources and theirs."""
        source, target = self.sides(examples)
        return (*self.batch(target, self.target), *self.batch(source, self.source))

    # training

    @property
    def guess(self) -> float:
        return math.log(len(self.target) + 1)

    def in_units(self, value: float) -> str:
        return f"{value:.4f} nats/piece"

    def about(self) -> dict[str, str]:
        o = self.options
        known = f"{len(self.source):,} shared" if o.shared else f"{len(self.source):,} and {len(self.target):,}"
        return {
            "data": f"{', '.join(o.files) or 'dates made here'}: {len(self.training) + len(self.held_back):,} pairs",
            "split": f"{len(self.training):,} to train, {len(self.held_back):,} to validate",
            "reading": f"by {o.level}s, {known}; {o.batch} pairs at a time, {self.batches:,} batches an epoch",
            "model": f"{o.cell} {o.layers} x {o.hidden} in both directions, {o.decoder_layers} x {o.hidden} attending, "
            f"embedding {o.embedding}{' tied' if o.tied else ''}, dropout {o.dropout:g}",
            "backend": ways(self.model, *self.batches_of(self.training[:2])),
        }

    def objective(self, examples: Sequence[Pair]) -> Loss:
        taught = self.model(*self.batches_of(examples))
        objective, value = smoothed(taught, self.options.smooth)
        return Loss(objective, value, weight=len(taught.target))

    def validate(self) -> Scores:
        """By the likeliest piece at each step and of 500 pairs at most, for speed; `score` searches in all."""
        self.model.eval()  # a training step turns it back
        return self.measured(self.held_back[:SEEN], 1) if self.has_validation else {}

    def sample(self, k: int) -> str:
        if k == 0 or not self.has_validation:
            return ""
        made = self.translated([e.source for e in self.held_back[:3]], 1)
        return "\n".join([*map(shown, made), *drawn(made[0])])

    # use

    @torch.no_grad()
    def translated(self, texts: list[str], beam: int) -> list[Translation]:
        """What the model makes of sources."""
        self.model.eval()
        texts = [self.normal(text, "source") for text in texts]
        source, lengths = self.batch(texts, self.source)
        if beam == 1:
            y, ends, log_p = self.model.both.sample(source, lengths, greedy=True)
        else:
            best = self.model.both.beam_search(source, lengths, width=beam, alpha=ALPHA)
            y, ends, log_p = best.symbols[..., 0], best.lengths[:, 0], best.log_prob[:, 0]
        attention = self.model(y, ends, source, lengths, watch=True).attention  # (T + 1, B, S)
        return [
            self.translation(text, y[: ends[b], b].tolist(), attention[: ends[b], b], float(log_p[b]))
            for b, text in enumerate(texts)
        ]

    def translation(self, text: str, ids: list[int], attention: Tensor, log_p: float) -> Translation:
        """One of them, from attention (T, S). An unknown piece becomes what it looks at."""
        pieces = self.source.read(text)[1]
        made = Translation("", pieces, [self.target.piece(i) for i in ids], attention[:, : len(pieces)], log_p)
        target = [pieces[at] if i == 0 else piece for i, piece, at in zip(ids, made.target, made.attended)]
        return made._replace(target=target, text=joined(target))

    def measure(self, examples: Sequence[Pair], tick: Callable[[int], None]) -> Scores:
        return self.measured(examples, self.options.beam, tick)

    @torch.no_grad()
    def measured(self, examples: Sequence[Pair], beam: int, tick: Callable[[int], None] = lambda n: None) -> Scores:
        """BLEU where the model was trained on files, the share of translations that are right, nats a piece."""
        texts, nats, places = [""] * len(examples), 0.0, 0
        for numbers in self.in_batches(examples, tick):
            part = [examples[i] for i in numbers]
            for i, translation in zip(numbers, self.translated([e.source for e in part], beam)):
                texts[i] = translation.text
            taught = self.model(*self.batches_of(part))
            nats += float(F.nll_loss(taught.log_p, taught.target, reduction="sum"))
            places += len(taught.target)
        right = self.sides(examples)[1]
        same = sum(a == b for a, b in zip(texts, right))
        scores = {
            "exact": Score.share(same, len(right)),
            "loss": Score(nats / places, self.in_units(nats / places)),
        }
        if not self.options.files:
            return scores
        value = bleu(texts, [[text] for text in right])
        case = "lower" if self.options.lower == "both" else "mixed"
        return {"BLEU": Score(value, f"{value:.2f} (13a tokens, {case} case)"), **scores}

    def predict(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not paths:
            texts = (line.strip() for _, line in input_lines())
            return (answer(text, *self.translated([text], self.options.beam)) for text in texts)
        return self.answers([pair.source for path in paths for pair in read_sources(Path(path))])

    def answers(self, texts: list[str]) -> Iterator[dict[str, Any]]:
        """In order, as many at a time as a batch has."""
        for at in range(0, len(texts), self.options.batch):
            part = texts[at : at + self.options.batch]
            yield from map(answer, part, self.translated(part, self.options.beam))

    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """What translations look at, piece by piece."""
        examples = read_either(find(paths)) if paths else self.held_back
        some = spread(examples, SHOWN)
        if not some:
            return []
        sources = [e.source for e in some]
        made = self.translated(sources, self.options.beam)
        right = [None if e.target is None else self.normal(e.target, "target") for e in some]
        return [Alignments(sources, made, right, len(examples))]
