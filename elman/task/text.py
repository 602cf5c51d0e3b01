"""Language models: learn to write what a text is made of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from elman.data.corpus import Corpus, Encoded
from elman.data.download import located
from elman.data.stdlib import standard_library
from elman.data.streams import Streams, beginnings, begun, marked, shuffled
from elman.data.text import Vocabulary, vocabulary_from_json
from elman.errors import DataError
from elman.module import ways
from elman.task.base import Loss, Score, Scores, Task
from elman.task.dynamics import effect, space
from elman.task.ensemble import Ensemble
from elman.task.inside import Reach, Read, lags, read
from elman.task.language import LanguageModel, Predictor, stateful_loss, window_loss, write
from elman.task.options import Recipe, SampleOptions, check_ranges
from elman.task.text_model import build_model, network, vanilla
from elman.task.text_options import RECIPES, Options

LOOKED_AT = 30_000  # symbols that views read
REACHES, LONGEST = 8, 257  # streams and steps over which gradients are followed back
STREAMS = 32  # while training, the validation part is read in so many streams side by side


class Text(Task):
    """Language models: learn to write what a text is made of, by bytes, characters or words."""

    name: ClassVar[str] = "text"
    file_names: ClassVar[tuple[str, ...]] = ("vocabulary.json",)
    writes: ClassVar[bool] = True
    model: Predictor
    options_type: ClassVar[type[Options]] = Options
    losses: ClassVar[tuple[str, ...]] = ("stateful", "windows of 256")
    scoring: ClassVar[str] = f", as one stream in place of {STREAMS}"
    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    examples: ClassVar[tuple[str, ...]] = (
        "elman train text                                  learn Python from its standard library",
        "elman train text shakespeare.txt --seconds 600    your own text, ten minutes",
        "elman train text shakespeare.txt --recipe good    a wider network with dropout, twenty minutes",
        "elman train text shakespeare.txt --recipe best    two networks of two such layers, an hour",
        "elman train text book.txt --recipe min-char-rnn   the vanilla RNN of 2015",
        "elman train text notes.txt --cell gru --layers 2 --hidden 256 --dropout 0.2",
        "elman train text --run runs/text --resume         go on where it stopped",
    )

    def __init__(self, options: Options, files: dict[str, Any] | None = None) -> None:
        """A new task, or one from a run folder's own `files`. Errors: DataError, OptionError where memory is short."""
        self.options = options
        if files is None:
            self.vocabulary: Vocabulary = self._corpus.vocabulary(options.words)
            self._streams = self._cut()  # refuses too short a text first
        else:
            self.vocabulary = vocabulary_from_json(files["vocabulary.json"])
        self.unit = self.vocabulary.unit
        self.model = build_model(options, len(self.vocabulary))

    # the data

    @cached_property
    def _corpus(self) -> Corpus:
        return self._text_of([*map(located, self.options.files)] or standard_library())

    def _text_of(self, paths: Sequence[Path]) -> Corpus:
        return Corpus(paths, self.options.level, apart=self.options.document is not None)

    @cached_property
    def _encoded(self) -> Encoded:
        ids, ends = self._corpus.encode(self.vocabulary)
        if not self.options.shuffle:
            return Encoded(ids, ends)
        if self.vocabulary.symbols[self._line_end] != self._line_end_name:
            raise DataError(f"--shuffle mixes lines, and {', '.join(self.options.files)} has no line end: leave it out")
        return Encoded(shuffled(ids, self._line_end, self.options.seed), [])

    @property
    def _ids(self) -> Tensor:
        return self._encoded.ids

    @cached_property
    def _mark(self) -> list[int]:
        """The symbols behind which a document begins; none where that is each file's end, or nowhere."""
        mark = (self.options.document or "").replace("\\n", "\n")
        ids = self.vocabulary.encode(mark).tolist()
        if mark and (not ids or "<unk>" in [self.vocabulary.symbols[i] for i in ids]):
            raise DataError(f"--document {mark!r} is no word of the text: give the one between its documents")
        return ids

    @cached_property
    def _begins(self) -> Tensor | None:
        """Where documents begin; None where all is one. Errors: DataError where the text has no such place."""
        if self.options.document is None:
            return None
        marks = marked(self._ids, self._mark)
        found = beginnings(marks, self._encoded.ends)
        if not len(marks if self._mark else found):
            why = "the text never says that" if self._mark else "one file is one document"
            raise DataError(
                f"--document {self.options.document!r}: {why}; give what stands between documents, or leave it out"
            )
        return found

    @property
    def training(self) -> Tensor:
        return self._ids[: len(self._ids) - self._held_back]

    @property
    def validation(self) -> Tensor:
        return self._ids[len(self._ids) - self._held_back :]

    @property
    def has_validation(self) -> bool:
        return len(self.validation) >= 2

    @property
    def _held_begins(self) -> Tensor | None:
        """Where documents begin in the validation part."""
        first = len(self.training)
        return None if self._begins is None else self._begins[self._begins >= first] - first

    @property
    def _held_back(self) -> int:
        return len(self._ids) - int(len(self._ids) * (1 - self.options.validation))

    @cached_property
    def _streams(self) -> Streams:
        return self._cut()

    def _cut(self) -> Streams:
        o = self.options
        return Streams(self.training, o.batch, o.window, self._begins, o.seed if o.vary else None)

    @property
    def files(self) -> dict[str, Any]:
        return {"vocabulary.json": self.vocabulary.to_json()}

    @cached_property
    def data(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._ids.numpy().data)
        if self._begins is None:
            return {"symbols": len(self._ids), "sha256": digest.hexdigest()}
        digest.update(self._begins.numpy().data)
        return {"symbols": len(self._ids), "documents": len(self._begins) + 1, "sha256": digest.hexdigest()}

    # training

    @property
    def guess(self) -> float:
        return math.log(len(self.vocabulary))

    def in_units(self, value: float) -> str:
        """Nats and bits per symbol, and for words their perplexity."""
        text = f"{value:.4f} nats/{self.unit} ({value / math.log(2):.4f} bits)"
        return text + f", perplexity {math.exp(min(value, 700.0)):.1f}" if self.unit == "word" else text

    @property
    def batches(self) -> int:
        return self._streams.windows

    def about(self) -> dict[str, str]:
        o, V, unit = self.options, len(self.vocabulary), self.unit
        named = (
            ", ".join(Path(name).name for name in o.files)
            or f"Python's standard library, {len(standard_library())} files"
        )
        data = f"{named}: {len(self._ids):,} {unit}s, {V} distinct"
        parts = f"first {len(self.training):,} to train, last {len(self.validation):,} to validate"
        window = f"about {o.window}" if o.vary else o.window
        reading = f"{o.batch} streams in windows of {window}, state carried, {self.batches:,} windows an epoch"
        if self._begins is not None:
            data += f", {len(self._begins) + 1:,} documents"
        wide = f"{o.layers} x {o.hidden}, {f'embedding {o.embedding}' if o.embedding else 'one-hot input'}"
        many = f"{o.members} networks, each " if o.members > 1 else ""
        model = f"{many}{o.cell} {wide}, dropout {o.dropout:g}"
        rows = {"data": data, "split": parts, "reading": reading, "model": model}
        if o.loss == "window":
            rows["loss"] = f"summed over a window; smoothed from -{o.window} ln(1/{V}) = {o.window * self.guess:.2f}"
        x, resets = self._streams[0][0], self._resets(0)
        rows["backend"] = ways(self.model, x[:, self.share.rows], None, resets)
        return rows

    def initial(self) -> Any:
        return self.model.initial(self.share.size(self.options.batch))

    def loss(self, k: int, state: Any) -> Loss:
        """The k-th window, from the state carried so far, or a fresh one where an epoch begins."""
        x, y = (ids[:, self.share.rows] for ids in self._streams[k])
        if self._streams.fresh(k):
            state = self.initial()
        elif self.options.reset:
            state = reset(state, self.initial(), self.options.reset)
        losses, state = self.model.losses(x, y, state, self._resets(k))
        mean = losses.mean()
        objective = mean * len(x) if self.options.loss == "window" else mean
        return Loss(objective, mean.item(), tuple(layer._make(v.detach() for v in layer) for layer in state))

    def _resets(self, k: int) -> Tensor | None:
        """Where documents begin in the k-th window, (T, B), rows of the share."""
        resets = self._streams.resets(*self._streams.span(k))
        return None if resets is None else resets[:, self.share.rows]

    def pace(self, k: int) -> float:
        """The length of the k-th window over that of --window."""
        start, end = self._streams.span(k)
        return (end - start) / self.options.window

    def validate(self) -> Scores:
        """The validation part, the state carried, in 32 streams; and by windows, where it is as long as one."""
        if not self.has_validation:
            return {}
        streams = min(STREAMS, len(self.validation) - 1)
        nats = stateful_loss(self.model, self.validation, streams, begins=self._held_begins)
        by_windows = window_loss(self.model, self.validation, begins=self._held_begins)
        found = {"stateful": nats, **({} if by_windows is None else {"windows of 256": by_windows})}
        return {name: Score(value, self.in_units(value)) for name, value in found.items()}

    def gradient_by_lag(self) -> dict[int, float]:
        """Over the first window of the training part, from an empty context."""
        return lags(self.network, *self._streams[0])

    # use

    @property
    def network(self) -> LanguageModel:
        """The network to look into: the first of several."""
        model = self.model.members[0] if isinstance(self.model, Ensemble) else self.model
        assert isinstance(model, LanguageModel)
        return model

    def score(self, paths: Sequence[str] = (), tick: Callable[[int], None] = lambda n: None) -> Scores:
        """Nats per symbol by both protocols, of files one after another or of the validation part."""
        ids, begins = self._named(paths)
        if len(ids) < 2:
            left_out = "the validation part (--validation 0 leaves none: name a file to score)"
            raise DataError(f"{', '.join(paths) or left_out} has {len(ids)} {self.unit}s: scoring needs at least 2")
        nats = stateful_loss(self.model, ids, tick=tick, begins=begins)
        by_windows = window_loss(self.model, ids, tick, begins)
        short = "not measured: the text is shorter than one window"
        return {
            "stateful": Score(nats, self.in_units(nats)),
            "windows of 256": Score(by_windows, short if by_windows is None else self.in_units(by_windows)),
        }

    def _named(self, paths: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """The symbols of files, or of the validation part, and where documents begin in them."""
        if not paths:
            return self.validation, self._held_begins
        ids, ends = self._text_of([*map(located, paths)]).encode(self.vocabulary)
        return ids, None if self.options.document is None else beginnings(marked(ids, self._mark), ends)

    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """The first symbols of a text as the model reads them, and how its state remembers and moves."""
        ids, begins = self._named(paths)
        ids, decode = ids[:LOOKED_AT].long(), self.vocabulary.decode
        if not len(ids):
            return []
        found = read(self.network, ids, None if begins is None else begun(begins, torch.zeros(1).long(), len(ids)))
        pieces = [*map(self.vocabulary.decoder(), ids.tolist())]
        text = Read(pieces, [[decode([i]) for i in row] for row in found.expected.tolist()], found)
        left = effect(self.network, ids)
        gates = [found] if any(name.endswith("_gate") for name in found.gates) else []
        moves = [*([left] if left else []), space(self.network, found.states, pieces, ids)]
        return [text, *gates, *self._reach(ids), *moves]

    def _reach(self, ids: Tensor) -> list[Reach]:
        """How far back gradients reach, in this network and in two that have not learned; none in too short a text."""
        o, V = self.options, len(self.vocabulary)
        if len(ids) < 4:
            return []
        streams = min(REACHES, (len(ids) - 1) // 3)
        window = Streams(ids, streams, min(LONGEST, (len(ids) - 1) // streams))[0]
        torch.manual_seed(o.seed)
        others = {"the same, untrained": network(o, V), "a vanilla RNN, untrained": network(vanilla(o), V)}
        networks = {"this network": self.network, **others}
        return [Reach(o.window, {name: lags(model, *window) for name, model in networks.items()})]

    def sample(self, k: int) -> str:
        """What the model writes after k steps, from an empty context."""
        o = self.options
        opening, mark = self._opening(torch.empty(0)), self._mark
        ids = write(self.model, opening, o.sample_length, o.sample_temperature, None, o.seed + k, mark)
        return self.vocabulary.decode(ids)

    def write(self, options: SampleOptions) -> Iterator[str]:
        """The prompt, then pieces of text as they are written. Errors: OptionError, DataError."""
        check_ranges(options, {"length": 1, "temperature": 0, "top_k": 1, "seed": 0})
        o, prompt = options, self.vocabulary.encode(options.prompt)
        ids = write(self.model, self._opening(prompt), o.length, o.temperature, o.top_k, o.seed, self._mark)
        return chain([self.vocabulary.decode(prompt)], map(self.vocabulary.decoder(), ids))

    def _opening(self, prompt: Tensor) -> Tensor:
        """The prompt's symbols; for an empty one that before a document: the mark's last, or else a line end."""
        if len(prompt):
            return prompt
        return torch.tensor([self._mark[-1] if self._mark else self._line_end])

    @property
    def _line_end(self) -> int:
        """The symbol that ends a line, or the first where there is none."""
        symbols = self.vocabulary.symbols
        return symbols.index(self._line_end_name) if self._line_end_name in symbols else 0

    @property
    def _line_end_name(self) -> str:
        return {"byte": "0a", "char": "\n", "word": "<eos>"}[self.vocabulary.level]


def reset(state: Any, first: Any, probability: float) -> Any:
    """The state (B, H) of each layer, with rows, drawn at random, set back to the first."""
    rows = torch.rand(len(first[0][0]), 1) < probability
    return tuple(old._make(map(partial(torch.where, rows), new, old)) for old, new in zip(state, first))
