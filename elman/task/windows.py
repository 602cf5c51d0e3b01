"""Windows over tables: which rows train, validate and test, and what a network of regress reads and answers there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from elman.data.table import Table
from elman.errors import DataError, OptionError
from elman.task.regressors import Inputs

WHOLE = 1 + 1e-9  # what shares may add up to, as floats


class Window(NamedTuple):
    """Rows of a table: those before `at` are known, those from `at` on are asked for."""

    table: Table
    begin: int
    at: int
    end: int


class Part(NamedTuple):
    """A table whose rows before `train` train, the next before `validate` validate, the next before `test` test."""

    table: Table
    train: int
    validate: int
    test: int


def parse_split(text: str) -> tuple[float, ...]:
    """Two or three parts, as shares or as numbers of rows. Errors: OptionError."""
    try:
        parts = tuple(float(word) for word in text.split(","))
    except ValueError:
        parts = ()
    shares = all(0 <= part <= 1 for part in parts) and sum(parts) <= WHOLE
    rows = all(0 <= part < 2**62 and part == int(part) for part in parts)
    if len(parts) not in (2, 3) or not (shares or rows) or not parts[0] > 0:
        raise OptionError(
            f"--split {text}: give the rows to train, to validate and, if not all others, to test, "
            "as shares like 0.6,0.2,0.2 or as numbers like 8640,2880,2880"
        )
    return parts


def part_of(table: Table, split: Sequence[float]) -> Part:
    """The parts of a table, in the order of time. Errors: DataError where it has too few rows for them."""
    T = len(table)
    ends = [round(end * T) if sum(split) <= WHOLE else int(end) for end in accumulate(split)]
    if ends[1] > T:
        raise DataError(f"{table.name} has {T:,} rows; --split asks for {ends[1]:,} to train and to validate")
    return Part(table, ends[0], ends[1], min(ends[2], T) if len(ends) == 3 else T)


class Windows(Sequence[Window]):
    """Windows of tables, made when they are asked for: a long series has millions of them."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = [run for run in runs if len(run.places)]
        self.ends = list(accumulate(len(run.places) for run in self.runs))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, i: int) -> Window: ...
    @overload
    def __getitem__(self, i: slice) -> list[Window]: ...
    def __getitem__(self, i: int | slice) -> Window | list[Window]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        number = bisect_right(self.ends, i)
        run = self.runs[number]
        at = run.places[i - self.ends[number]]  # counted from the end of the run
        return Window(run.table, at - run.before, at, at + run.after)


class Run(NamedTuple):
    """Windows of one table: their places `at`, and how many rows lie before and from there on."""

    table: Table
    places: range
    before: int
    after: int


def ahead(table: Table, start: int, end: int, context: int, horizon: int) -> Run:
    """All windows whose `horizon` steps lie in rows `start` to `end`; the steps before them may lie before `start`."""
    return Run(table, range(max(start, context), end - horizon + 1), context, horizon)


def side_by_side(table: Table, end: int, steps: int) -> Run:
    """Windows of so many steps, one after another, of the first rows."""
    return Run(table, range(0, end - steps + 1, steps), 0, steps)


class Carried:
    """Batches of windows one after another, read in so many streams side by side, so that state can be carried."""

    def __init__(self, examples: int, streams: int) -> None:
        self.streams, self.windows = streams, examples // streams

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, k: int) -> list[int]:
        """The numbers of the windows of batch k, counted over all epochs, one for each stream."""
        return [stream * self.windows + k % self.windows for stream in range(self.streams)]


class Chosen(NamedTuple):
    """The names of columns: those that the network reads, C, those it answers with, D, and that of the times."""

    columns: tuple[str, ...]
    targets: tuple[str, ...]
    time: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of tables."""
        return tuple(dict.fromkeys((*self.columns, *self.targets)))


class Columns:
    """Which columns a run reads and answers with, their units, and which rows it has read; kept as JSON."""

    def __init__(self, saved: Any) -> None:
        """Errors: DataError where it is not what was saved."""
        try:
            self.saved, self.time = saved, saved["time"]
            self.columns, self.targets = tuple(saved["columns"]), tuple(saved["targets"])
            self.chosen = Chosen(self.columns, self.targets, self.time)
            names = self.chosen.names
            units = torch.tensor([saved["units"][name] for name in names], dtype=torch.float64)
            self.mean, self.deviation = units.unbind(-1)
            self.naive = torch.tensor([float(saved["naive"][name]) for name in self.targets], dtype=torch.float64)
            self.read = [(str(digest), int(rows), int(test)) for digest, rows, test in saved["read"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"not the columns of a run: {error!r:.80}") from None
        self.at = torch.tensor([names.index(name) for name in self.targets])

    @classmethod
    def of(cls, chosen: Chosen, parts: Sequence[Part], season: int) -> Columns:
        """Units, and the error of the naive forecast one season ahead, from the training rows."""
        units, naive = {}, {}
        for i, name in enumerate(chosen.names):
            whole = [(p.table.values[: p.train, i], p.table.seen[: p.train, i]) for p in parts]
            values = torch.cat([v[s] for v, s in whole])
            if not len(values):
                raise DataError(f"{parts[0].table.name}: {name} has no value in the rows to train; leave it out")
            deviation = float(values.std(unbiased=False))
            units[name] = [float(values.mean()), deviation if deviation > 1e-12 else 1.0]
            errors = torch.cat([(v[season:] - v[:-season])[s[season:] & s[:-season]].abs() for v, s in whole])
            naive[name] = float(errors.mean()) / units[name][1] if len(errors) else 0.0
        read = [[p.table.digest(p.validate), p.validate, p.test if p.test < len(p.table) else 0] for p in parts]
        return cls({**chosen._asdict(), "units": units, "naive": naive, "read": read})

    def unread(self, table: Table) -> tuple[int, int]:
        """The rows of a table to score: those after the rows that the run trained and validated on, or all."""
        for digest, read, test in self.read:
            if len(table) >= read and table.digest(read) == digest:
                return read, test or len(table)
        return 0, len(table)

    def inputs(self, spans: Sequence[tuple[Table, int, int]], masked: bool) -> Inputs:
        """What the network reads of rows of tables, all as many."""
        C = len(self.columns)
        values = torch.stack([table.values[a:b, :C] for table, a, b in spans], 1)  # (T, B, C)
        missing = torch.stack([~table.seen[a:b, :C] for table, a, b in spans], 1)
        clock = torch.stack([table.clock[a:b] for table, a, b in spans], 1)
        values = ((values - self.mean[:C]) / self.deviation[:C]).nan_to_num(0.0)  # nothing known yet: the mean
        return Inputs(values.float(), missing.float() if masked else missing[..., :0].float(), clock)

    def outputs(self, spans: Sequence[tuple[Table, int, int]]) -> tuple[Tensor, Tensor]:
        """The targets there, standardised, and where they are known: (T, B, D) each."""
        values = torch.stack([table.values[a:b, self.at] for table, a, b in spans], 1)
        seen = torch.stack([table.seen[a:b, self.at] for table, a, b in spans], 1)
        return ((values - self.mean[self.at]) / self.deviation[self.at]).nan_to_num(0.0).float(), seen

    def in_units(self, values: Tensor) -> Tensor:
        """Standardised values of the targets (..., D, Q) in their own units, of float64."""
        return values.double() * self.deviation[self.at, None] + self.mean[self.at, None]
