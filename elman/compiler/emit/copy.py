"""A sequence copied from rows that lie anyhow to rows that lie anyhow, all columns of a row side by side.

Products of all rows want them evenly apart, which rows of a part of the batch are not.
"""

from __future__ import annotations

from elman.compiler.emit import native
from elman.compiler.emit.llvm import Build, Value, i64, pointer
from elman.compiler.emit.target import Target

SLOTS = "source step row target step row T B width".split()  # elements from step to step, and from row to row


def copy(dtype: str, target: Target) -> int:
    """The address of `copy(block, thread, threads)` for "f32" or "f64", compiled once per machine."""

    def build() -> object:
        made = Build(target, dtype, "copy")
        emit_copy(made)
        return made.module

    return native.load("copy", dtype, build, target).address("copy")


def emit_copy(build: Build) -> None:
    """Write `copy(block, thread, threads)`; `block`: SLOTS. Each thread has a share of the steps."""
    with build.function("copy", [pointer, i64, i64]) as (block, thread, count):
        numbers = [build.read_int(block, slot) for slot in range(len(SLOTS))]
        T, B, width = numbers[6:]
        ends = [build.read_pointer(block, slot) for slot in (0, 3)]
        low, high = build.share(T, thread, count)
        whole = build.sub_int(width, build.b.urem(width, build.c(build.lanes)))

        def moved(starts: list[Value], number: Value, strides: list[Value]) -> list[Value]:
            return [build.at(start, build.mul_int(number, stride)) for start, stride in zip(starts, strides)]

        def step(t: Value, _: list[Value]) -> None:
            rows = moved(ends, t, [numbers[1], numbers[4]])
            build.loop(B, lambda r, _: row(*moved(rows, r, [numbers[2], numbers[5]])))

        def row(source: Value, target: Value) -> None:
            def some(j: Value, _: list[Value]) -> None:
                build.store(build.load(build.at(source, j)), build.at(target, j))

            def one(j: Value, _: list[Value]) -> None:
                build.store_scalar(build.load_scalar(build.at(source, j)), build.at(target, j))

            build.loop(whole, some, step=build.lanes)
            build.loop(width, one, start=whole)

        build.loop(high, step, start=low)
