"""Classification: a label for a whole picture, text or time series."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elman.cell import LSTM2D
from elman.data.files import input_lines
from elman.data.labelled import Labelled
from elman.data.lexicon import Lexicon
from elman.errors import DataError, OptionError
from elman.module import Dropout, Grid, ways
from elman.task.base import Loss, Score, Scores
from elman.task.classify_options import RECIPES, Options, refuse_unread
from elman.task.networks import Words, pooled, stack
from elman.task.options import Recipe
from elman.task.readings import READINGS, Example, Reading, kind_of
from elman.task.supervised import Supervised, find
from elman.task.views import Mistake, Mistakes, confusion, surest


class Classifier(nn.Module):
    """p(label | sequence or picture): embedding or values, recurrent layers or a grid, pooling, softmax.

    Shapes: x (T, B, I), or (T, B) of symbols, or (B, R, C, I) for a grid; lengths (B,) -> logits (B, K).
    """

    def __init__(self, options: Options, reading: Reading, labels: int) -> None:
        super().__init__()
        o, sides = options, 2 if options.both else 1
        self.pool, self.both, self.grid = o.pool, o.both, o.grid
        self.into: nn.Module = nn.Identity()
        if reading.symbols:
            words = Words(reading.symbols, o.embedding, o.word_dropout, o.grams)
            self.into = nn.Sequential(words, Dropout(o.dropout))
        width = o.embedding if reading.symbols else reading.width
        self.recurrent: nn.Module
        if o.grid:
            self.recurrent = Grid(*(LSTM2D(width, o.hidden) for _ in range(4)))
            self.output = nn.Linear(4 * o.hidden, labels)
        else:
            self.recurrent = stack(o.cell, width, o.hidden, o.layers, o.both, o.dropout)
            self.output = nn.Linear(sides * o.hidden, labels)
        self.dropout = Dropout(o.dropout if o.grid else 0.0)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.grid:
            y, _ = self.recurrent(x)  # (B, R, C, 4 H)
            return self.output(self.dropout(y.mean((1, 2))))
        y, _ = self.recurrent(self.into(x), lengths=lengths)
        return self.output(pooled(y, lengths, self.pool, self.both))


class Classify(Supervised[Example]):
    """A label for each picture, text or time series.

    Pictures: a folder with MNIST's idx files (train-* to train on, t10k-* to score), or with a folder for each label.
    Texts: CSV or TSV with columns label and text, or lines that begin with the label. Series: .ts files of the UCR and
    UEA archives, or with --kind series CSV with a label and values on each line. No files: digits drawn here.
    """

    name: ClassVar[str] = "classify"
    file_names: ClassVar[tuple[str, ...]] = ("classify.json",)
    options_type: ClassVar[type[Options]] = Options
    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    higher: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "elman train classify                                       digits drawn here, a minute",
        "elman train classify mnist --recipe mnist-rows             then: elman score runs/classify mnist",
        "elman train classify pictures/ --grid                      pictures/cat/1.png, pictures/dog/1.png, ...",
        "elman train classify train.tsv --validation dev.tsv --recipe sentences",
        "elman train classify GunPoint_TRAIN.ts --recipe series     then: elman score runs/classify GunPoint_TEST.ts",
    )
    model: Classifier

    # the data

    def __init__(self, options: Any, files: dict[str, Any] | None = None) -> None:
        self.kind: str = asked_kind(options) if files is None else files["classify.json"]["kind"]
        if files is None:
            refuse_unread(options, self.kind)
        self.reading = READINGS[self.kind](options)
        super().__init__(options, files)

    def read(self, paths: Sequence[str], training: bool) -> list[Example]:
        found = self.reading.read(paths, training)
        for e in found:
            if e.label is None:
                raise DataError(f"{e.name} has no label; each example needs one")
        return found

    def made(self) -> list[Example]:
        if self.kind != "pictures":
            raise OptionError(f"--kind {self.kind} needs a file; without one, classify draws pictures of digits")
        return [*READINGS["pictures"].made(self.reading)]  # type: ignore[attr-defined]

    def fit(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Labels of what is held back of the same files are known too, however rare; those of another file must be."""
        own = examples if self.options.share is None else [*examples, *self.held_back]
        self.labels = Lexicon.of(str(e.label) for e in own)
        labels = sorted(self.labels.words)
        if len(labels) < 2:
            raise DataError(f"all {len(own)} examples have the label {labels[0]!r}; a classifier needs two at least")
        self.targets(self.held_back)
        return {"classify.json": {"labels": labels, "kind": self.kind, "reading": self.reading.fit(examples)}}

    def prepare(self, files: dict[str, Any]) -> None:
        saved = files["classify.json"]
        self.labels = Lexicon.from_json(saved["labels"])
        self.reading.prepare(saved["reading"])

    def build(self) -> Classifier:
        return Classifier(self.options, self.reading, len(self.labels))

    def length(self, example: Example) -> int:
        return self.reading.length(example)

    # training

    @property
    def guess(self) -> float:
        return math.log(len(self.labels))

    def in_units(self, value: float) -> str:
        return f"{value:.4f} nats/example"

    def about(self) -> dict[str, str]:
        o, K = self.options, len(self.labels)
        named = ", ".join(o.files) or "digits drawn here"
        read = f"in blocks of {o.block} x {o.block} from four corners" if o.grid else f"by {o.by}"
        how = {
            "pictures": read,
            "texts": f"by {o.level}s, {self.reading.symbols:,} known",
            "series": f"by {o.block} values",
        }
        wide = f"{o.layers} x {o.hidden}{' in both directions' if o.both else ''}, pool {o.pool}"
        model = f"lstm2d 4 x {o.hidden}, pool mean" if o.grid else f"{o.cell} {wide}"
        x, lengths = self.reading.batch(self.training[:2], training=False)
        return {
            "data": f"{named}: {len(self.training):,} {self.kind} of {K} labels{self.left_out}",
            "split": f"{len(self.training):,} to train, {len(self.held_back):,} to validate",
            "reading": f"{how[self.kind]}, {o.batch} at a time, {self.batches:,} batches an epoch",
            "model": f"{model}, dropout {o.dropout:g}",
            "backend": ways(self.model, x, lengths),
        }

    @property
    def left_out(self) -> str:
        """What could not be read, for people; nothing where all could."""
        left = self.reading.left_out
        return f", {len(left):,} left out as unreadable: {left[0]}{', ...' * (len(left) > 1)}" if left else ""

    def objective(self, examples: Sequence[Example]) -> Loss:
        logits = self.model(*self.reading.batch(examples, training=True))
        loss = F.cross_entropy(logits, self.targets(examples), label_smoothing=self.options.smooth)
        return Loss(loss, loss.item(), weight=len(examples))

    def targets(self, examples: Sequence[Example]) -> Tensor:
        """Numbers of labels (B,). Errors: DataError naming the example whose label training did not have."""
        for e in examples:
            if str(e.label) not in self.labels:
                known = ", ".join(self.labels.words[:8])
                raise DataError(f"{e.name}: the label {e.label!r} was never seen in training, which had {known}")
        return self.labels.ids(str(e.label) for e in examples)

    # use

    def log_p(self, examples: Sequence[Example], tick: Callable[[int], None] = lambda n: None) -> Tensor:
        """log p of each label for each example, (N, K)."""
        found = torch.empty(len(examples), len(self.labels))
        with torch.no_grad():
            for numbers in self.in_batches(examples, tick):
                logits = self.model(*self.reading.batch([examples[i] for i in numbers], training=False))
                found[numbers] = F.log_softmax(logits, -1)
        return found

    def measure(self, examples: Sequence[Example], tick: Callable[[int], None]) -> Scores:
        targets = self.targets(examples)
        log_p = self.log_p(examples, tick)
        right = int((log_p.argmax(-1) == targets).sum())
        nats = F.nll_loss(log_p, targets).item()
        f1 = macro_f1(log_p.argmax(-1), targets, len(self.labels))
        return {
            "accuracy": Score.share(right, len(examples)),
            "F1": Score(f1, f"{f1:.4f}, mean over labels"),
            "loss": Score(nats, self.in_units(nats)),
        }

    def score(self, paths: Sequence[str] = (), tick: Callable[[int], None] = lambda n: None) -> Scores:
        scores, left = super().score(paths, tick), len(self.reading.left_out)
        return {**scores, "left out": Score(left, f"{left:,} unreadable")} if left else scores

    def predict(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        self.model.eval()
        for examples in self.asked(paths):
            for e, log_p in zip(examples, self.log_p(examples)):
                best = int(log_p.argmax())
                label, p = self.labels.words[best], log_p.exp()
                every = {word: round(float(p[i]), 6) for i, word in enumerate(self.labels.words)}
                yield {"input": e.name, "label": label, "p": every, "text": f"{label}\t{float(p[best]):.3f}\t{e.name}"}
        for message in self.reading.left_out:
            yield {"error": message, "text": f"left out: {message}"}

    def unlabelled(self, examples: list[Example]) -> list[Example]:
        """Errors: DataError where a series has no label, and its first value is taken for one."""
        for e in examples:
            if self.kind == "series" and e.label not in (None, "", "?", *self.labels.words):
                raise DataError(
                    f"{e.name}: the label {e.label!r} was never seen in training; where it is not known, write ?"
                )
        return examples

    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """Which labels are taken for which, and the worst mistakes."""
        examples = self.read(find(paths), training=False) if paths else self.held_back
        if not examples:
            return []
        self.model.eval()
        best, targets = self.log_p(examples).exp().max(-1), self.targets(examples)
        wrong = best.indices != targets
        numbers, p = best.indices.tolist(), best.values.tolist()
        worst = [self.mistake(examples[i], numbers[i], p[i]) for i in surest(best.values, wrong)]
        matrix = confusion(self.labels.words, best.indices, targets)
        return [matrix, Mistakes(worst, int(wrong.sum()), len(examples))]

    def mistake(self, e: Example, found: int, p: float) -> Mistake:
        return Mistake(
            e.name, str(e.label), self.labels.words[found], p, getattr(e, "text", ""), getattr(e, "pixels", None)
        )

    def asked(self, paths: Sequence[str]) -> Iterator[list[Example]]:
        """What is to be classified: files, or a text on each line of standard input."""
        if paths:
            yield self.unlabelled(self.reading.read(find(paths), training=False, labelled=False))
        elif self.kind != "texts":
            raise OptionError(f"name the files of {self.kind} to classify: elman predict RUN FILE ...")
        else:
            for number, line in input_lines():
                if line.strip():
                    yield [Labelled(line.strip(), None, f"line {number}")]


def asked_kind(options: Options) -> str:
    """What kind of examples there are to be."""
    return options.kind if options.kind != "auto" else kind_of(find(options.files))


def macro_f1(found: Tensor, targets: Tensor, labels: int) -> float:
    """The mean over labels of 2 * right / (found + there); labels that neither are found nor there are left out."""
    right = torch.bincount(targets[found == targets], minlength=labels).double()
    both = torch.bincount(found, minlength=labels) + torch.bincount(targets, minlength=labels)
    return float((2 * right / both)[both > 0].mean())
