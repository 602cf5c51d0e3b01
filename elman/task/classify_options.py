"""The options and recipes of classify."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from elman.errors import OptionError
from elman.task.networks import CellName, Pool
from elman.task.options import Recipe, check_below_one, check_ranges
from elman.task.supervised import SupervisedOptions


@dataclass(frozen=True, kw_only=True)
class Options(SupervisedOptions):
    """What is read, and by what network."""

    kind: Literal["auto", "pictures", "texts", "series"] = "auto"
    """What the files hold. auto: folders hold pictures, .ts files series, all others texts."""
    by: Literal["rows", "columns", "pixels"] = "rows"
    """What of a picture is read at each step."""
    grid: bool = False
    """Read pictures in two dimensions, from all four corners, in place of one after another."""
    block: int = 1
    """Read this many values of a series at each step; with --grid, blocks of pixels with this side at each place."""
    colour: bool = False
    """Read picture files in colour."""
    skip_unreadable: bool = False
    """Leave out pictures of folders that cannot be read, and say how many, in place of refusing the data."""
    augment: float = 0.0
    """Distort training pictures and series at random, this strongly: 1 turns pictures by up to 10 degrees."""
    level: Literal["word", "char"] = "word"
    """What of a text is read at each step."""
    lower: bool = False
    """Read texts in lower case."""
    least: int = 2
    """Words that training has less often than this are one unknown word."""

    grams: int = 0
    """Read a word's letters too: its n-grams of 3 to 5 characters, hashed into so many embeddings; 0: words alone."""

    cell: CellName = "lstm"
    """The recurrent cell."""
    hidden: int = 128
    """Width of each recurrent layer, in each direction."""
    layers: int = 1
    """Recurrent layers, one above the other."""
    both: bool = False
    """Read in both directions."""
    embedding: int = 100
    """Width of a word's embedding."""
    dropout: float = 0.0
    """Probability of dropping an entry of the embedding and of each layer's output."""
    word_dropout: float = 0.0
    """Probability of reading a word as unknown, in training."""
    pool: Pool = "last"
    """What is classified: the last output (of each direction), their mean, or the greatest value of each unit."""
    smooth: float = 0.0
    """Label smoothing: how much of the target is spread over all labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"block": 1, "augment": 0, "least": 1, "grams": 0, "hidden": 1, "layers": 1, "embedding": 1}
        check_ranges(self, {**least, "dropout": 0, "word_dropout": 0, "smooth": 0})
        check_below_one(self, "dropout", "word_dropout", "smooth")


def refuse_unread(o: Options, kind: str) -> None:
    """Errors: OptionError naming an option that has no meaning for what is read."""
    rows = o.cell != "lstm" or o.layers > 1 or o.both or o.by != "rows" or o.pool == "max"
    texts = f"texts by --level {o.level}" if kind == "texts" else kind
    for asked, fits, flag, what in (
        (o.grid, kind == "pictures", "--grid", "reads pictures"),
        (o.grams, kind == "texts" and o.level == "word", "--grams", "reads the letters of words"),
        (o.augment, kind != "texts", "--augment", "distorts pictures and series"),
        (o.block > 1, kind == "series" or o.grid, "--block", "is of series, or of pictures with --grid"),
    ):
        if asked and not fits:
            raise OptionError(f"{flag} {what}; these are {texts}")
    if o.grid and rows:
        raise OptionError(
            "--grid reads by one 2-D LSTM from each corner: leave out --cell, --layers, --both, --by, --pool"
        )


SERIES = Options(
    block=8, both=True, hidden=128, batch=16, rate=3e-3, augment=2.0, dropout=0.3, pool="mean", average=0.98,
    validation="0",
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "default": Recipe(Options(batch=64, rate=4e-3, clip_norm=1.0), "an LSTM over rows, words or values", epochs=8),
    "mnist-rows": Recipe(
        Options(
            batch=128, optimizer="adam", rate=1e-3, schedule="constant", decay=0.0, clip_norm=None, validation="0"
        ),
        "pictures by rows: LSTM 128, Adam 1e-3, batch 128, 100,000 samples",
        steps=782,
    ),
    "mnist-best": Recipe(
        Options(
            both=True, layers=2, batch=128, rate=3e-3, augment=1.0, dropout=0.2, pool="mean", average=0.998,
            warmup=100, validation="0.05",
        ),
        "pictures by rows in both directions, distorted at random, ten minutes",
        seconds=560,
    ),
    "mnist-grid": Recipe(
        Options(
            grid=True, block=4, hidden=48, batch=128, rate=4e-3, augment=0.7, pool="mean", average=0.998, warmup=100,
            validation="0.05",
        ),
        "pictures in two dimensions from four corners, ten minutes",
        seconds=560,
    ),
    "sentences": Recipe(
        Options(
            both=True, hidden=100, embedding=200, dropout=0.5, word_dropout=0.1, pool="max", batch=50, rate=3e-3,
            lower=True, grams=20_000, average=0.99, smooth=0.1,
        ),
        "texts by words in both directions, strongly regularised",
        epochs=4,
    ),
    "series": Recipe(SERIES, "short time series, few of them, by eight values; all are trained on", steps=1500),
    "outlines": Recipe(
        replace(SERIES, block=32, augment=0.5),
        "the same for series of hundreds of values that begin alike, as outlines do: by 32, less distorted",
        steps=1500,
    ),
}  # fmt: skip
