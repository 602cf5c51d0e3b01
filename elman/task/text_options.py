"""The options and recipes of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from elman.data.download import kept
from elman.errors import OptionError
from elman.task.networks import CellName
from elman.task.options import AT_LEAST, Recipe, TrainOptions, check_below_one, check_ranges, check_training


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """What a language model is made of, and what it reads."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """UTF-8 text, one file after another. None: source files of Python's standard library."""
    level: Literal["byte", "char", "word"] = "char"
    """What a symbol is."""
    words: int = 20_000
    """At word level: how many of the most frequent words have a symbol of their own."""
    shuffle: bool = False
    """Put the lines in a random order first: for lists, whose last part is not like the rest."""
    document: str | None = None
    """A text that stands between documents, as '<|endoftext|>', or '\\n\\n' for an empty line: behind it, and at the
    beginning of each file, the state begins anew. '': at the beginning of each file. None: all is one document."""
    validation: float = 0.1
    """The last part of the text, held back to validate."""

    cell: CellName = "lstm"
    """The recurrent cell."""
    hidden: int = 320
    """Width of each recurrent layer."""
    layers: int = 1
    """Recurrent layers, one above the other."""
    embedding: int = 64
    """Width of a symbol's embedding; 0: one-hot input."""
    dropout: float = 0.0
    """Probability of dropping an entry of the embedding and of each layer's output."""
    locked: bool = False
    """Drop the same entries at all steps of a window, in place of others at each."""
    weight_dropout: float = 0.0
    """Probability of dropping a recurrent weight, one mask a window."""
    tied: bool = False
    """The embedding is the output layer too; the last layer then has the embedding's width."""
    members: int = 1
    """Networks side by side, each with weights of its own; their probabilities are averaged."""
    start: float | None = None
    """Standard deviation of normal initial weights, with zero biases; None: each cell's own."""

    batch: int = 32
    """Streams of the text read side by side."""
    window: int = 64
    """Steps through which gradients flow back; the state is carried further."""
    vary: bool = False
    """Windows of random length around --window, other ones in each epoch; the rate of a step goes with its length."""
    reset: float = 0.0
    """Probability that a stream begins a window from an empty context, in place of the state carried so far."""
    loss: Literal["symbol", "window"] = "symbol"
    """Differentiate the mean over symbols, or the sum over a window."""
    sample_length: int = 200
    """Symbols in each sample shown while training."""
    sample_temperature: float = 0.8
    """Temperature of the samples shown while training."""

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "files", tuple(map(kept, self.files)))


SHORTEST = 10  # window that may vary
LEAST = {**AT_LEAST, "words": 3, "validation": 0, "hidden": 1, "layers": 1, "embedding": 0, "dropout": 0,
         "weight_dropout": 0, "members": 1, "start": 0, "reset": 0,
         "batch": 1, "window": 1, "sample_length": 1, "sample_temperature": 0}  # fmt: skip


def check(options: Options) -> None:
    """Errors: OptionError naming the option that cannot be."""
    check_ranges(options, LEAST)
    check_training(options)
    check_below_one(options, "validation", "dropout", "weight_dropout", "reset")
    if options.tied and not options.embedding:
        raise OptionError("--tied ties the output to the embedding, and --embedding 0 makes none; give it a width")
    if options.shuffle and options.document == "":
        raise OptionError(
            "--shuffle mixes the lines of all files, and --document '' makes each a document: leave one out"
        )
    if options.vary and options.window < SHORTEST:
        raise OptionError(f"--window {options.window} is too short for --vary: give at least {SHORTEST}")


RECIPES: dict[str, Recipe] = {
    "default": Recipe(Options(), "a small LSTM, two minutes on two cores", steps=2000),
    "good": Recipe(
        Options(
            cell="layer-norm-lstm", hidden=512, dropout=0.4, reset=0.1, rate=5e-3, average=0.999,
            validate_every=1000, sample_every=1000,
        ),
        "a wider LSTM with layer norm and dropout, twenty minutes",
        seconds=1180,
    ),
    "best": Recipe(
        Options(
            cell="layer-norm-lstm", hidden=512, layers=2, dropout=0.5, members=2, reset=0.05, rate=4e-3, average=0.999,
            validate_every=1000, sample_every=1000,
        ),
        "two networks of two such layers, more dropout, an hour",
        seconds=3480,
    ),
    "names": Recipe(
        Options(
            shuffle=True, validation=0.0312, hidden=256, embedding=32, dropout=0.3, batch=64, window=32, rate=4e-3,
            average=0.998, sample_temperature=1.0,
        ),
        "a list of names, of which one in 32 is held back, some minutes",
        steps=4000,
    ),
    "min-char-rnn": Recipe(
        Options(
            validation=0.0, cell="elman", hidden=100, embedding=0, start=0.01, batch=1, window=25, loss="window",
            optimizer="adagrad", rate=0.1, schedule="constant", warmup=0, decay=0.0, clip_norm=None, clip_value=5.0,
            report_every=100, validate_every=1000, sample_every=100, sample_temperature=1.0, smoothing=0.999,
        ),
        "vanilla RNN, 100 units, 25 steps, batch 1, Adagrad: Karpathy's 112 lines of 2015",
        steps=20_000,
    ),
}  # fmt: skip
