"""What regress reads: tables, and their rows to train, to validate and to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from elman.data.table import Table, read_columns, read_head
from elman.data.waves import hours, sine_cosine
from elman.errors import DataError, OptionError
from elman.task.regress_options import Options, names
from elman.task.supervised import Supervised
from elman.task.windows import Chosen, Columns, Part, Run, Window, Windows, ahead, parse_split, part_of, side_by_side


class Rows(Supervised[Window]):
    """Windows over the rows of tables, which are split in the order of time."""

    options: Options
    chosen: Chosen | None = None
    columns: Columns | None = None
    parts: list[Part]

    # the data

    def read(self, paths: Sequence[str], training: bool) -> Sequence[Window]:
        tables = self.tables(paths)
        if training:
            return self.take(tables)
        return Windows([self.to_score(table, *self.known.unread(table)) for table in tables])

    def made(self) -> Sequence[Window]:
        o = self.options
        table = hours(24 * 7 * 20, o.kinds, seed=1) if o.horizon else sine_cosine(240_000)
        asked = o if o.horizon or o.inputs or o.targets else replace(o, targets="cosine")
        self.chosen = choose(asked, table.names, table.time)
        if missing := [name for name in self.chosen.names if name not in table.names]:
            raise DataError(f"{table.name} have no column {missing[0]!r}, only {', '.join(table.names)}; name a file")
        return self.take([table])

    def tables(self, paths: Sequence[str], answers: bool = True) -> list[Table]:
        """The columns of files that are read, and, with `answers`, the targets. Errors: DataError, OptionError."""
        o = self.options
        if self.chosen is None:
            head = read_head(Path(paths[0]), o.time)
            self.chosen = choose(o, head.numeric, head.time)
        columns, _, time = self.chosen
        names, kinds = self.chosen.names if answers or o.horizon else columns, o.kinds if time else ()
        return [read_columns(Path(path), names, time, kinds, o.missing == "fill") for path in paths]

    def take(self, tables: Sequence[Table]) -> Windows:
        """Keep tables as the training data; the windows of their rows to train. Errors: DataError."""
        o, share = self.options, self.options.share or 0.0
        split = parse_split(o.split) if o.split else (1 - share, share)
        self.parts = [part_of(table, split) for table in tables]
        found = Windows(
            [
                ahead(table, 0, end, o.context, o.horizon) if o.horizon else side_by_side(table, end, o.context)
                for table, end, *_ in self.parts
            ]
        )
        if not found:
            raise DataError(
                f"{tables[0].name} has {self.parts[0].train:,} rows to train, too few for one window of {self.window}: "
                "lower --context or --horizon, or bring more rows"
            )
        if o.carry and len(found) < o.batch:
            raise DataError(f"{len(found)} windows are too few for {o.batch} streams: lower --batch or --context")
        return found

    def to_score(self, table: Table, start: int, end: int) -> Run:
        """What is scored of rows `start` to `end`. Errors: DataError where that is nothing."""
        o = self.options
        if o.horizon:
            found = ahead(table, start, end, o.context, o.horizon)
        else:
            found = Run(table, range(start, end)[:1], start, end - start)
        if not found.places:
            rows = (
                f"{table.name}, rows {start + 1:,} to {end:,}" if start < end else f"{table.name} after row {start:,}"
            )
            known = "; the rows before were trained or validated on" if start else ""
            raise DataError(f"{rows}: too few for one window of {self.window}{known}; more rows are needed")
        return found

    @property
    def window(self) -> str:
        o = self.options
        return f"{o.context} steps and {o.horizon} ahead" if o.horizon else f"{o.context} steps"

    @cached_property
    def _split(self) -> tuple[Sequence[Window], Sequence[Window]]:
        """The windows to train on, and those to validate on: the rows after, in the order of time."""
        o = self.options
        training = self.read(o.files, training=True) if o.files else self.made()
        if not self.has_validation:
            return training, []
        if o.split is None and o.share is None:
            return training, Windows([self.to_score(t, 0, len(t)) for t in self.tables([o.validation])])
        return training, Windows([self.to_score(p.table, p.train, p.validate) for p in self.parts])

    @property
    def has_validation(self) -> bool:
        o = self.options
        return parse_split(o.split)[1] > 0 if o.split else o.share != 0

    def fit(self, examples: Sequence[Window]) -> dict[str, Any]:
        assert self.chosen is not None, "reading comes first"
        return {"regress.json": Columns.of(self.chosen, self.parts, self.options.season).saved}

    def prepare(self, files: dict[str, Any]) -> None:
        self.columns = Columns(files["regress.json"])
        self.chosen = self.columns.chosen

    def about_rows(self) -> dict[str, str]:
        """What is read, for people."""
        o, columns = self.options, self.known
        rows, train, validate, test = (
            sum(ends) for ends in zip(*((len(p.table), p.train, p.validate, p.test) for p in self.parts))
        )
        held = f"{validate - train:,} to validate" if o.split or o.share is not None else f"validated on {o.validation}"
        left = f", {test - validate:,} left to score" if test > validate else ""
        clock = f" and {', '.join(o.kinds)}" if columns.time and o.kinds else ""
        return {
            "data": f"{', '.join(o.files) or self.parts[0].table.name}: {rows:,} rows",
            "split": f"{train:,} rows to train, {held}{left}",
            "columns": f"{', '.join(columns.columns)}{clock} -> {', '.join(columns.targets)}",
        }

    @property
    def known(self) -> Columns:
        assert self.columns is not None, "prepare comes first"
        return self.columns


def choose(o: Options, numeric: Sequence[str], time: str | None) -> Chosen:
    """The columns that are read and those that are answered with. Errors: OptionError."""
    inputs, targets = names(o.inputs or ""), names(o.targets or "")
    if not numeric and not (inputs and targets):
        raise OptionError("the first row below the names holds no number: name columns with --inputs and --targets")
    if o.horizon:
        targets = targets or tuple(numeric)
        if o.apart and inputs and set(inputs) != set(targets):
            raise OptionError("--apart reads each target alone: leave --inputs out")
        inputs = targets if o.apart else inputs or tuple(numeric)
        return Chosen(tuple(dict.fromkeys((*inputs, *targets))), targets, time)  # targets are read too: their past
    if not inputs and not targets:
        raise OptionError(
            "in step, the targets must be other columns than the inputs: name them with --inputs and --targets, "
            "or forecast with --horizon N"
        )
    inputs = inputs or tuple(name for name in numeric if name not in targets)
    targets = targets or tuple(name for name in numeric if name not in inputs)
    both = [name for name in inputs if name in targets]
    if both or not inputs or not targets:
        what = f"{both[0]} is an input and a target" if both else "no column is left for the other side"
        raise OptionError(f"{what}: name other columns with --inputs and --targets; there are {', '.join(numeric)}")
    return Chosen(inputs, targets, time)
