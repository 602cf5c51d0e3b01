"""Speech recognition: what is said in a recording, by connectionist temporal classification."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from elman.data.lexicon import Lexicon
from elman.errors import DataError, OptionError
from elman.module import ways
from elman.task.base import Loss, Score, Scores
from elman.task.ctc import frames_needed
from elman.task.examples import spread
from elman.task.fusion import read_text_model
from elman.task.hearing import Hearing, Recording
from elman.task.networks import CellName
from elman.task.options import Recipe, check_below_one, check_ranges
from elman.task.recogniser import Recogniser, error_rates
from elman.task.spikes import Heard, chosen, enough, spikes
from elman.task.supervised import Supervised, SupervisedOptions, find


@dataclass(frozen=True, kw_only=True)
class Options(SupervisedOptions):
    """What is heard, and by what network."""

    level: Literal["char", "word"] = "char"
    """What is recognised: characters, or whole words that training had."""
    hertz: int = 16000
    """Samples a second to which recordings are brought."""
    mels: int = 40
    """Bands of frequency in each frame of 25 ms."""
    normalise: Literal["training", "recording"] = "training"
    """Whose mean and deviation frames are measured by: the training part's, or the recording's own."""
    stack: int = 2
    """So many frames of 10 ms are joined to one that the network reads."""
    augment: float = 0.0
    """Distort training recordings at random, this strongly: bands and spans masked, faster or slower, noise."""
    skip_unreadable: bool = False
    """Leave out recordings that cannot be read, and say how many, in place of refusing."""

    cell: CellName = "lstm"
    """The recurrent cell."""
    hidden: int = 128
    """Width of each recurrent layer, in each direction."""
    layers: int = 2
    """Recurrent layers, one above the other."""
    both: bool = True
    """Read in both directions; without, a network that can listen as one speaks."""
    dropout: float = 0.1
    """Probability of dropping an entry of each layer's output."""
    beam: int = 8
    """How many prefixes the search keeps; 1: the most probable symbol of each frame."""
    lm: str | None = None
    """A run of elman train text on lines written as the transcripts are; the search weighs what it finds likely."""
    lm_weight: float = 0.8
    """How much the text model counts beside what is heard."""
    lm_bonus: float = 1.5
    """What each symbol adds to the score of a text, since a text model prefers short ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"hertz": 1000, "mels": 1, "stack": 1, "augment": 0, "hidden": 1, "layers": 1, "dropout": 0}
        check_ranges(self, {**least, "beam": 1, "lm_weight": 0, "lm_bonus": 0})
        check_below_one(self, "dropout")
        if self.lm is not None and (self.level == "word" or self.beam == 1):
            raise OptionError("--lm weighs the characters of a search: it needs --level char and a --beam of 2 or more")


RECIPES: dict[str, Recipe] = {
    "default": Recipe(
        Options(hertz=8000, hidden=64, batch=16, rate=6e-3, warmup=20, keep="last"),
        "two small layers; words of tones are learnt in seconds",
        epochs=10,
    ),
    "streaming": Recipe(
        Options(both=False, hidden=256, augment=0.5, batch=16, rate=3e-3, warmup=100, average=0.99, keep="last"),
        "in one direction, so that it can listen as one speaks",
        epochs=40,
    ),
    "fsdd": Recipe(
        Options(
            hertz=8000, augment=1.0, batch=32, rate=3e-3, warmup=100, dropout=0.2, average=0.99, keep="last",
        ),
        "the spoken digits of FSDD, by letters",
        epochs=40,
    ),
    "an4": Recipe(
        Options(
            stack=3, hidden=160, augment=1.0, batch=16, rate=3e-3, warmup=100, dropout=0.2, average=0.99, keep="last",
            normalise="recording", beam=16,
        ),
        "AN4's spelled names, dates and numbers, from its MFCC files",
        epochs=30,
    ),
}  # fmt: skip


class Transcribe(Supervised[Recording]):
    """What is said in a recording, in characters or words.

    Wav of any rate (flac and others by soundfile) with transcripts: a CSV or TSV of path and text, LibriSpeech's
    folders, FSDD's file names, AN4's lists with MFCC files. No files: words of tones made here.
    """

    name: ClassVar[str] = "transcribe"
    file_names: ClassVar[tuple[str, ...]] = ("transcribe.json",)
    options_type: ClassVar[type[Options]] = Options
    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    examples: ClassVar[tuple[str, ...]] = (
        "elman train transcribe                                     words of tones made here, a minute",
        "elman train transcribe recordings/ --recipe fsdd           then: elman score runs/transcribe recordings/",
        "elman train transcribe an4/ --recipe an4                   an4_train.fileids, .transcription, feat/*.mfc",
        "elman train transcribe an4/ --recipe an4 --lm runs/text    that run: elman train text transcripts.txt",
        "elman train transcribe train.csv --validation dev.csv --recipe streaming",
        "elman predict runs/transcribe hello.wav --json             with the time of each symbol",
    )
    model: Recogniser
    text_weights: dict[str, Tensor] | None = None

    # the data

    def __init__(self, options: Any, files: dict[str, Any] | None = None) -> None:
        self.hearing = Hearing(options)
        super().__init__(options, files)
        if files is None:
            self.targets([*self.training, *self.held_back])  # what does not fit shows before the first step

    def read(self, paths: Sequence[str], training: bool) -> list[Recording]:
        return self.hearing.read(paths, training)

    def made(self) -> list[Recording]:
        return self.hearing.made()

    def fit(self, examples: Sequence[Recording]) -> dict[str, Any]:
        own = examples if self.options.share is None or self.unknown else [*examples, *self.held_back]
        symbols = Lexicon.of((s for e in own for s in self.split(e.text)), self.unknown)
        text, self.text_weights = read_text_model(Path(self.options.lm)) if self.options.lm else (None, None)
        return {"transcribe.json": {"symbols": symbols.to_json(), "frames": self.hearing.fit(examples), "text": text}}

    def prepare(self, files: dict[str, Any]) -> None:
        saved = files["transcribe.json"]
        if not isinstance(saved, dict) or set(saved) != {"symbols", "frames", "text"}:
            raise DataError(f"transcribe.json does not hold symbols, frames and text: {saved!r:.60}")
        self.text = saved["text"]
        self.symbols = Lexicon.from_json(saved["symbols"], self.unknown)
        self.hearing.prepare(saved["frames"])

    @property
    def unknown(self) -> str | None:
        """The word that stands for those which training did not have; characters have none."""
        return "<unk>" if self.options.level == "word" else None

    @property
    def blank(self) -> int:
        return len(self.symbols)

    def split(self, text: str) -> list[str]:
        return text.split() if self.options.level == "word" else list(text)

    def joined(self, symbols: Sequence[str]) -> str:
        """The text of symbols."""
        return " ".join((" " if self.options.level == "word" else "").join(symbols).split())

    def build(self) -> Recogniser:
        model = Recogniser(self.options, self.hearing.width, self.symbols.words, self.text)
        if model.text and self.text_weights:  # a new run; one from a folder has them among its own
            model.text.load_state_dict(self.text_weights)
        return model

    def length(self, example: Recording) -> int:
        return self.hearing.length(example)

    def targets(self, examples: Sequence[Recording]) -> list[Tensor]:
        """Numbers of symbols, (U,) each. Errors: DataError for a character that training did not have, or where the
        frames are too few to say them."""
        found = []
        for e in examples:
            try:
                ids = self.symbols.ids(self.split(e.text))
            except DataError as error:
                raise DataError(f"{e.name}: {error}; mend the transcript or leave the recording out") from None
            need, there = frames_needed(ids.tolist()), self.length(e)
            if need > there:
                raise DataError(
                    f"{e.name}: {len(ids)} {self.options.level}s need {need} frames and the recording has {there} of "
                    f"{10 * self.options.stack} ms; train with a lower --stack, or leave it out"
                )
            found.append(ids)
        return found

    # training

    @property
    def guess(self) -> float:
        frames = sum(self.length(e) for e in self.training)
        return frames * math.log(self.blank + 1) / sum(len(self.split(e.text)) for e in self.training)

    def in_units(self, value: float) -> str:
        return f"{value:.4f} nats/{self.options.level}"

    def about(self) -> dict[str, str]:
        o = self.options
        named = ", ".join(o.files) or "words of tones made here"
        minutes = sum(len(e.frames) for e in (*self.training, *self.held_back)) / 6000
        rows = {
            "data": f"{named}: {minutes:.1f} minutes, {len(self.symbols)} {o.level}s",
            "split": f"{len(self.training):,} recordings to train, {len(self.held_back):,} to validate",
            "reading": f"{o.stack} frames of {self.hearing.columns} at a time, {o.batch} recordings in a batch, "
            f"{self.batches:,} batches an epoch",
            "model": f"{o.cell} {o.layers} x {o.hidden}{' in both directions' if o.both else ''}, "
            f"dropout {o.dropout:g}, CTC over {o.level}s",
            "backend": ways(self.model, *self.hearing.batch(self.training[:2], training=False)),
        }
        if o.lm:
            rows["text model"] = f"{o.lm}, weight {o.lm_weight:g}, {o.lm_bonus:g} for each symbol, {o.beam} prefixes"
        return rows | self.hearing.about()

    def ctc(self, log_p: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
        """-log p of each row's symbols, (B,), in nats; 0 for a row that was distorted to too few frames for them."""
        sizes = torch.tensor([len(t) for t in targets])
        return F.ctc_loss(log_p, torch.cat(targets), lengths, sizes, self.blank, "none", zero_infinity=True)

    def objective(self, examples: Sequence[Recording]) -> Loss:
        targets = self.targets(examples)
        x, lengths = self.hearing.batch(examples, training=True)
        symbols = sum(map(len, targets))
        loss = self.ctc(self.model(x, lengths), lengths, targets).sum() / symbols
        return Loss(loss, loss.item(), weight=symbols)

    # use

    def log_p(self, examples: Sequence[Recording], tick: Callable[[int], None] = lambda n: None) -> list[Tensor]:
        """log p of each symbol in each frame, (T, K) for each recording."""
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        with torch.no_grad():
            for numbers in self.in_batches(examples, tick):
                x, lengths = self.hearing.batch([examples[i] for i in numbers], training=False)
                log_p = self.model(x, lengths)
                for row, i in enumerate(numbers):
                    found[i] = log_p[: lengths[row], row]
        return found

    def text_of(self, ids: Sequence[int]) -> str:
        return self.joined([self.symbols.words[i] for i in ids])

    def measure(self, examples: Sequence[Recording], tick: Callable[[int], None]) -> Scores:
        targets = self.targets(examples)
        log_p = self.log_p(examples, tick)
        nats = sum(
            float(self.ctc(p[:, None], torch.tensor([len(p)]), [t]).double()) for p, t in zip(log_p, targets)
        ) / sum(map(len, targets))
        rates = error_rates([e.text for e in examples], [self.text_of(self.model.decoded(p)) for p in log_p])
        found = rates | {"loss": Score(nats, self.in_units(nats))} | self.hearing.left_out_score()
        return found if rates else found | {"WER, CER": Score(None, "not measured: pip install elman[score]")}

    def sample(self, k: int) -> str:
        """What is said in three recordings that are held back, and what is heard."""
        self.model.eval()
        some = (self.held_back or self.training)[:3]
        heard = [self.text_of(self.model.decoded(p)) for p in self.log_p(some)]
        return "\n".join(f"said   {e.text}\nheard  {text}" for e, text in zip(some, heard))

    def predict(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not paths:
            raise DataError("name recordings to transcribe, as in: elman predict RUN hello.wav")
        self.model.eval()
        for name, recording in self.hearing.listen(paths):
            if isinstance(recording, str):
                yield {"input": name, "error": recording, "text": f"left out: {recording}"}
                continue
            (log_p,) = self.log_p([recording])
            ids = self.model.decoded(log_p)
            times = [spike._asdict() for spike in spikes(log_p, ids, self.symbols.words, self.hearing.seconds)]
            said = self.text_of(ids)
            yield {"input": name, "transcript": said, "symbols": times, "text": f"{said}\t{name}"}

    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """Recordings with p of each symbol over time."""
        given = self.hearing.either(find(paths)) if paths else [(e, True) for e in self.held_back]
        some = spread(given, enough([e for e, _ in given]))
        self.model.eval()
        heard = [self.heard(*each, log_p) for each, log_p in zip(some, self.log_p([e for e, _ in some]))]
        left_out = self.hearing.said() if self.hearing.left_out else ""
        return [chosen(heard, len(given), left_out)] if heard else []

    def heard(self, e: Recording, known: bool, log_p: Tensor) -> Heard:
        """What is heard in a recording, from log_p (T, K)."""
        ids, words, hearing = self.model.decoded(log_p), self.symbols.words, self.hearing
        there, said, name = [*dict.fromkeys(ids)], e.text if known else None, Path(e.name).name
        p, times = log_p[:, [*there, self.blank]].exp(), spikes(log_p, ids, words, hearing.seconds)
        symbols, heard = [words[i] for i in there], self.text_of(ids)
        return Heard(name, e.frames, said, heard, symbols, p, hearing.seconds, hearing.row, times)
