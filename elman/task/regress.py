"""Regression over time: columns of numbers from columns of numbers, in step or ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from elman.data.batches import Batches
from elman.data.table import Table, times_after
from elman.errors import DataError
from elman.module import ways
from elman.task import regress_views
from elman.task.base import Loss, Score, Scores
from elman.task.fits import restored, saved
from elman.task.options import Recipe
from elman.task.regress_options import RECIPES, Options
from elman.task.regressors import Follower, Forecaster, Sizes
from elman.task.rows import Rows
from elman.task.supervised import find
from elman.task.tally import Tally, middle, pinball
from elman.task.windows import Carried, Window

CHUNK = 1000  # steps read at once in step, the state carried
SHOWN = ("pinball", "MSE", "MAE", "MASE", "memoryless MSE")  # while training


class Regress(Rows):
    """Columns of numbers to columns of numbers: forecast, or answered in step.

    Files are CSV, a row for each step, with the names of the columns in the first line. With --horizon N the next N
    values of the targets are forecast; with --horizon 0 the targets of a row are answered from the inputs of the rows
    up to it. Rows are split in the order of time; elman score RUN FILE measures on the rows of a file that training and
    validation did not read, and elman predict RUN FILE forecasts what comes after its end. No files: hours made here,
    or sine and cosine.
    """

    name: ClassVar[str] = "regress"
    file_names: ClassVar[tuple[str, ...]] = ("regress.json",)
    options_type: ClassVar[type[Options]] = Options
    losses: ClassVar[tuple[str, ...]] = ("pinball", "MSE", "memoryless MSE")
    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    examples: ClassVar[tuple[str, ...]] = (
        "elman train regress                                         forecast days made here, half a minute",
        "elman train regress load.csv --horizon 24 --quantiles 0.1,0.5,0.9",
        "elman train regress ETTh1.csv --recipe ett                  then: elman score runs/regress ETTh1.csv",
        "elman train regress plant.csv --horizon 0 --inputs valve,heat --targets pressure",
        "elman train regress --recipe sine-cosine                    with memory, and without",
    )

    def build(self) -> nn.Module:
        o, columns = self.options, self.known
        clock = 2 * len(o.kinds) if columns.time else 0
        sizes = Sizes(len(columns.columns), tuple(columns.at.tolist()), o.missing == "fill", clock, len(o.levels) or 1)
        return Forecaster(o, sizes) if o.horizon else Follower(o, sizes)

    @property
    def follower(self) -> Follower:
        assert isinstance(self.model, Follower), "this run forecasts"
        return self.model

    def length(self, example: Window) -> int:
        return example.end - example.begin

    @cached_property
    def _batches(self) -> Any:
        o, count = self.options, len(self.training)
        return Carried(count, o.batch) if o.carry else Batches([1] * count, o.batch, o.seed)  # all of one length

    # training

    @property
    def guess(self) -> float:
        return 1.0

    def in_units(self, value: float) -> str:
        return f"{value:.4g} {'pinball' if self.options.levels else 'MSE'}"

    def about(self) -> dict[str, str]:
        o = self.options
        carried = ", state carried" if o.carry else ""
        how = f"{o.context} steps, then {o.horizon} ahead" if o.horizon else f"in step, windows of {o.context}{carried}"
        model = f"{o.cell} {o.layers} x {o.hidden}, dropout {o.dropout:g}"
        if o.horizon:
            segments = f", segments of {o.segment}" if o.segment > 1 else ""
            model += f", centre {o.centre}{segments}{', each column apart' if o.apart else ''}"
        return {
            **self.about_rows(),
            "reading": f"{how}, {o.batch} at a time, {self.batches:,} batches an epoch",
            "model": model,
            "backend": ways(self.model, self.batch(self.training[:2])),
        }

    def batch(self, examples: Sequence[Window]) -> Any:
        """What the network reads of windows."""
        ends = [(w.table, w.begin, w.at if self.options.horizon else w.end) for w in examples]
        return self.known.inputs(ends, self.options.missing == "fill")

    def asked(self, examples: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """The targets of windows, standardised, and where they are known: (B, N, D) ahead, (T, B, D) in step."""
        y, seen = self.known.outputs([(w.table, w.at, w.end) for w in examples])
        return (y.transpose(0, 1), seen.transpose(0, 1)) if self.options.horizon else (y, seen)

    def error(self, out: Tensor, y: Tensor, seen: Tensor) -> Tensor:
        """The loss of outputs (..., Q) for targets (...)."""
        levels = self.options.levels
        losses = pinball(out, y, torch.tensor(levels)) if levels else (out.squeeze(-1) - y) ** 2
        return (losses * seen).sum() / seen.sum().clamp(min=1)

    def objective(self, examples: Sequence[Window]) -> Loss:
        return self.step(examples, None)._replace(state=())

    def step(self, examples: Sequence[Window], state: Any, reset: Tensor | None = None) -> Loss:
        """The loss of a batch, what is shown of it, and the state after it."""
        inputs, (y, seen) = self.batch(examples), self.asked(examples)
        if self.options.horizon:
            loss = self.error(self.model(inputs), y, seen)
            return Loss(loss, loss.item(), weight=seen.sum().item())
        out, state = self.model(inputs, state, reset)
        loss, alone = self.error(out, y, seen), self.follower.without_memory(inputs)
        both = loss if alone is None else loss + self.error(alone, y, seen)
        return Loss(both, loss.item(), state, weight=seen.sum().item())

    def initial(self) -> Any:
        return self.follower.initial(self.share.size(self.options.batch)) if self.options.carry else ()

    def loss(self, k: int, state: Any) -> Loss:
        """The k-th batch; with --carry from the state carried so far, or a fresh one where rows do not go on."""
        if not self.options.carry:
            return super().loss(k, state)
        self.model.train()
        numbers = self._batches[k][self.share.rows]
        examples = [self.training[i] for i in numbers]
        fresh = [k % self.batches == 0 or not follows(w, self.training[i - 1]) for i, w in zip(numbers, examples)]
        reset = torch.zeros(self.options.context, len(examples), dtype=torch.bool)
        reset[0] = torch.tensor(fresh)
        loss = self.step(examples, state, reset)
        return loss._replace(state=tuple(layer._make(v.detach() for v in layer) for layer in loss.state))

    # use

    def validate(self) -> Scores:
        found = super().validate()
        return {
            name: Score(score.value, f"{score.value:.4g}")
            for name in SHOWN
            if (score := found.get(name)) and score.value is not None
        }

    def measure(self, examples: Sequence[Window], tick: Callable[[int], None]) -> Scores:
        o, columns = self.options, self.known
        tally = Tally(o.levels, len(columns.targets))
        if o.horizon:
            for numbers in self.in_batches(examples, tick):
                windows = [examples[i] for i in numbers]
                tally.add(self.model(self.batch(windows)), *self.asked(windows), self.naive(windows))
        else:
            for w in examples:
                self.follow(w, tally)
                tick(1)
        count = len(examples) if o.horizon else sum(w.end - w.at for w in examples)
        first, last = examples[0], examples[-1]
        where = f"rows {first.at + 1:,} to {last.end:,}" if first.table is last.table else "of several files"
        scores = tally.scores(columns.targets, columns.deviation[columns.at], columns.naive, o.season)
        return {**scores, "scored": Score(count, f"{count:,} {'forecasts' if o.horizon else 'rows'}, {where}")}

    def naive(self, windows: Sequence[Window]) -> Tensor:
        """The value a season before each step asked for, or the newest known in its place of the season, (B, N, D)."""
        season, N = self.options.season, self.options.horizon
        past, _ = self.known.outputs([(w.table, w.at - season, w.at) for w in windows])  # (season, B, D)
        return past[torch.arange(N) % season].transpose(0, 1)

    def follow(self, w: Window, tally: Tally) -> None:
        """Read a table from its first row, the state carried, and count what is said of the rows asked for."""
        y, seen = self.known.outputs([(w.table, 0, w.end)])
        before = (torch.arange(w.end) - self.options.season).clamp(min=0)
        for a, out, alone, _ in self.answers(w.table, w.end, None):
            rows = slice(max(a, w.at), a + len(out))
            if rows.start < rows.stop:
                own = slice(rows.start - a, None)
                tally.add(out[own], y[rows], seen[rows], y[before[rows]], None if alone is None else alone[own])

    def answers(self, table: Table, end: int, state: Any) -> Iterator[tuple[int, Tensor, Tensor | None, Any]]:
        """In step, rows up to `end` in pieces: the first row of each, outputs (T, 1, D, Q), those of the network
        without memory, and the state after it."""
        for a in range(0, end, CHUNK):
            inputs = self.known.inputs([(table, a, min(a + CHUNK, end))], self.options.missing == "fill")
            out, state = self.model(inputs, state)
            yield a, out, self.follower.without_memory(inputs), state

    def first_state(self) -> Any:
        return super().first_state() if self.options.horizon else self.follower.initial(1)

    @torch.no_grad()
    def predict(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What follows the end of each file, a step each; in step, what is answered in each row.

        In step each file is read from a fresh state, or, where `state` is given, one goes on where the other ended.
        """
        self.model.eval()
        for table in self.tables(paths or ["/dev/stdin"], answers=False):
            yield from self.forecast(table) if self.options.horizon else self.answered(table)

    @torch.no_grad()
    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """Forecasts beside what came, and how far ahead they see; in step, answers beside what is right."""
        examples = self.read(find(paths), training=False) if paths else self.held_back
        self.model.eval()
        return regress_views.views(self, examples) if examples else []

    @torch.no_grad()
    def snapshot(self, k: int) -> dict[str, Any]:
        """In step, what is answered in the first rows held back."""
        if self.options.horizon or not self.has_validation:
            return {}
        self.model.eval()
        w = self.held_back[0]
        return saved(regress_views.stretch(self, w, w.at), whole=k == 0)

    def evolved(self, snapshots: Sequence[dict[str, Any]]) -> list[Any]:
        return [restored(snapshots)] if snapshots and snapshots[0]["step"] == 0 else []

    def forecast(self, table: Table) -> Iterator[dict[str, Any]]:
        o, T = self.options, len(table)
        if o.context > T:
            raise DataError(f"{table.name} has {T} rows; a forecast reads the last {o.context}: bring more")
        values = self.known.in_units(self.model(self.batch([Window(table, T - o.context, T, T)])))[0]  # (N, D, Q)
        times = times_after(table.times, o.horizon)
        for step, value in enumerate(values, 1):
            yield self.told(table, {"step": step, **({"time": str(times[step - 1])} if times else {})}, value)

    def answered(self, table: Table) -> Iterator[dict[str, Any]]:
        for a, out, _, state in self.answers(table, len(table), self.state):
            self.state = None if self.state is None else state
            for row, value in enumerate(self.known.in_units(out)[:, 0], a):
                yield self.told(
                    table, {"row": row + 1, **({"time": str(table.times[row])} if table.times else {})}, value
                )

    def told(self, table: Table, where: dict[str, Any], values: Tensor) -> dict[str, Any]:
        """A prediction for JSON and for people; values (D, Q)."""
        levels, found, said = self.options.levels, {}, []
        for name, value in zip(self.known.targets, values.tolist()):
            best = value[middle(levels)]
            found[name] = dict(zip(map(str, levels), value)) if levels else best
            spread = f" ({value[0]:.6g} to {value[-1]:.6g})" if len(levels) > 1 else ""
            said.append(f"{name} {best:.6g}{spread}")
        text = "\t".join([str(where.get("time", next(iter(where.values())))), *said])
        return {"input": table.name, **where, "values": found, "text": text}


def follows(w: Window, before: Window) -> bool:
    """Whether a window goes on where another ended."""
    return w.table is before.table and w.begin == before.end
