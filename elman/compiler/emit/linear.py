"""A product of many rows with one matrix, on all threads: what a narrow plan does ahead of its kernel and behind it.

Or the sum of several such products, some rows at a time, so that they are in the cache when the next product is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from elman.compiler.emit import native
from elman.compiler.emit.jobs import Number, Spot, Turn
from elman.compiler.emit.llvm import Build, Value, i64, pointer
from elman.compiler.emit.product import Products, products
from elman.compiler.emit.target import Target

SLOTS = "out ldo rows N flags product pack round turn terms".split()
TERM = "a lda w stride_k stride_n K packed rounded".split()  # further slots for each product
FEW_ROWS = 24  # rows a thread below which the threads share the columns
NEAR = 1 << 16  # elements of rows that every panel finds in a second cache: then panels need not change threads either
TOGETHER = 96  # rows at most that go through all products before the next ones, where there are several


class Term(NamedTuple):
    """One product: a and its elements from row to row, the matrix with those from row to row and column to column."""

    a: Spot
    lda: int
    matrix: tuple[Spot, int, int]
    K: int
    packed: Spot
    rounded: Spot


@dataclass(frozen=True)
class Linear:
    """The compiled function, for one target and element type."""

    address: int
    products: Callable[..., Products]
    sizes: Build

    def scratch(self, rows: int, K: int, N: int) -> tuple[int, int]:
        """Elements for the packed matrix and for rounded rows."""
        return self.sizes.elements(K) * self.sizes.columns(N), rows * self.sizes.paired_width(K)

    def numbers(
        self, rows: int, N: int, terms: Sequence[Term], out: Spot, flags: Spot, counts: Iterable[int]
    ) -> list[Number]:
        """The block for the sum of a @ matrix, its rows whole panels wide; what lies beyond N holds nothing of use.

        counts: numbers of rows, that one among them, for which one product is compiled.
        """
        shared = self.products([N], counts)
        sizes = out, self.sizes.columns(N), rows, N
        block: list[Number] = [*sizes, flags, shared.product, shared.pack, shared.round, Turn(), len(terms)]
        for term in terms:
            block += term.a, term.lda, *term.matrix, term.K, term.packed, term.rounded
        return block


def linear(dtype: str, target: Target) -> Linear:
    """The function for "f32", "f64" or "bf16", compiled once per machine."""

    def build() -> object:
        made = Build(target, dtype, "linear")
        emit_linear(made)
        return made.module

    address = native.load("linear", dtype, build, target).address("linear")
    return Linear(address, partial(products, dtype, target), Build(target, dtype))


def emit_linear(build: Build) -> None:
    """Write `linear(block, thread, threads)`: pack a share of the panels, meet, then a share of rows or of panels.

    In bfloat16 each thread rounds a share of the rows, too, before they meet.
    """
    with build.function("linear", [pointer, i64, i64]) as arguments:
        made = Writer(build, *arguments)
        restore = build.flush_denormals()
        made.panels = build.ceil_int(made.sizes["N"], build.panel)
        build.loop(made.sizes["terms"], made.prepare)
        if build.paired:
            made.meet(1)
        build.choose(made.in_panels(), made.by_panels, made.by_rows)
        restore()


class Writer:
    """What one thread does."""

    panels: Value  # of the whole result

    def __init__(self, build: Build, block: Value, thread: Value, count: Value) -> None:
        self.build, self.block, self.thread, self.count = build, block, thread, count
        self.sizes = {name: build.read_int(block, i) for i, name in enumerate(SLOTS)}
        self.at = {name: build.read_pointer(block, i) for i, name in enumerate(SLOTS)}

    def share(self, total: Value) -> tuple[Value, Value]:
        """Which of so many, from and to, are this thread's."""
        return self.build.share(total, self.thread, self.count)

    def meet(self, value: int) -> None:
        self.build.barrier(self.at["flags"], self.thread, self.count, value)

    def term(self, number: Value) -> tuple[dict[str, Value], dict[str, Value]]:
        """The slots of one product as numbers and as pointers."""
        build = self.build
        start = build.at(self.block, build.add_int(build.mul_int(number, len(TERM)), len(SLOTS)), 8)
        return tuple(  # type: ignore[return-value]
            {name: read(start, i) for i, name in enumerate(TERM)} for read in (build.read_int, build.read_pointer)
        )

    def prepare(self, number: Value, _: list[Value]) -> None:
        """Pack a share of a product's matrix, and round a share of its rows."""
        build = self.build
        sizes, here = self.term(number)
        strides = sizes["stride_k"], sizes["stride_n"], sizes["K"], self.sizes["N"]
        mine = self.share(self.panels)

        def pack() -> None:
            build.call_pointer(self.at["pack"], here["w"], *strides, here["packed"], *mine)

        build.when(build.compare("==", self.sizes["turn"], 0), pack)
        if build.paired:
            width, (first, end) = build.paired_width_int(sizes["K"]), self.share(self.sizes["rows"])
            source = build.at(here["a"], build.mul_int(first, sizes["lda"]))
            pairs, count = build.at(here["rounded"], build.mul_int(first, width)), build.sub_int(end, first)
            build.call_pointer(self.at["round"], source, sizes["lda"], pairs, width, count, sizes["K"])

    def in_panels(self) -> Value:
        """Whether threads take panels rather than rows: where rows are few, or all are near."""
        build, terms, rows = self.build, self.sizes["terms"], self.sizes["rows"]
        (total,) = build.loop(terms, lambda i, sums: [build.add_int(sums[0], self.term(i)[0]["K"])], [build.c(0)])
        few = build.compare("<", rows, build.mul_int(self.count, FEW_ROWS))
        even = build.compare("==", build.b.urem(self.panels, self.count), 0)
        near = build.compare("<=", build.mul_int(rows, total), NEAR)
        return build.b.or_(few, build.b.and_(even, near))

    def product(self, row: Value, height: Value, low: Value, high: Value) -> None:
        """So many rows of the panels low to high, product after product."""
        build, whole = self.build, self.sizes
        out = build.at(self.at["out"], build.mul_int(row, whole["ldo"]))

        def one(number: Value, _: list[Value]) -> None:
            sizes, here = self.term(number)
            left, lda = here["a"], sizes["lda"]
            if build.paired:
                left, lda = here["rounded"], build.paired_width_int(sizes["K"])
            a, added = build.at(left, build.mul_int(row, lda)), build.b.zext(build.compare(">", number, 0), i64)
            shape = height, build.elements_int(sizes["K"]), whole["N"], low, high, added
            build.call_pointer(self.at["product"], a, lda, here["packed"], out, whole["ldo"], *shape)

        build.loop(whole["terms"], one)

    def by_rows(self) -> None:
        build = self.build
        self.meet(2)
        first, last = self.share(self.sizes["rows"])
        mine = build.sub_int(last, first)
        blocks = build.ceil_int(mine, TOGETHER)
        alone = build.compare("==", self.sizes["terms"], 1)
        blocks = build.b.select(alone, build.min_int(blocks, 1), blocks)

        def block(i: Value, _: list[Value]) -> None:
            start, end = build.share(mine, i, blocks)
            self.product(build.add_int(first, start), build.sub_int(end, start), build.c(0), self.panels)

        build.loop(blocks, block)

    def by_panels(self) -> None:
        self.product(self.build.c(0), self.sizes["rows"], *self.share(self.panels))
