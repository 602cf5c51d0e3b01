"""A product of many rows with one matrix, on all threads: what a narrow plan does ahead of its kernel and behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from elman.compiler.emit import native
from elman.compiler.emit.jobs import Spot
from elman.compiler.emit.llvm import Build, Value, i64, pointer
from elman.compiler.emit.product import Products, products
from elman.compiler.emit.target import Target

SLOTS = """a lda w stride_k stride_n out ldo rows K N packed flags product pack rounded round""".split()
FEW_ROWS = 24  # rows a thread below which the threads share the columns
NEAR = 1 << 16  # elements of rows that every panel finds in a second cache: then panels need not change threads either


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
        self,
        sizes: tuple[int, int, int, int],
        a: Spot,
        matrix: tuple[Spot, int, int],
        out: Spot,
        scratch: Sequence[Spot],
        flags: Spot,
        counts: Iterable[int],
    ) -> list[int | Spot]:
        """The block for a @ matrix, whose rows are whole panels wide; what lies beyond N holds nothing of use.

        sizes: elements from row to row of a, rows, K, N. matrix: where it lies, elements from row to row and from
        column to column. counts: numbers of rows, that one among them, for which one product is compiled.
        """
        (lda, rows, K, N), (packed, rounded) = sizes, scratch
        shared = self.products([N], counts)
        block: list[int | Spot] = [a, lda, *matrix, out, self.sizes.columns(N), rows, K, N, packed, flags]
        return [*block, shared.product, shared.pack, rounded, shared.round]


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
    with build.function("linear", [pointer, i64, i64]) as (block, thread, count):
        whole = {name: build.read_int(block, i) for i, name in enumerate(SLOTS)}
        at = {name: build.read_pointer(block, i) for i, name in enumerate(SLOTS)}
        restore = build.flush_denormals()
        panels = build.div_int(build.add_int(whole["N"], build.panel - 1), build.panel)

        def share(total: Value, more: int) -> Value:
            return build.div_int(build.mul_int(build.add_int(thread, more), total), count)

        strides = whole["stride_k"], whole["stride_n"], whole["K"], whole["N"]
        build.call_pointer(at["pack"], at["w"], *strides, at["packed"], share(panels, 0), share(panels, 1))
        left, lda = at["a"], whole["lda"]
        if build.paired:
            width, first = build.paired_width_int(whole["K"]), share(whole["rows"], 0)
            mine = build.sub_int(share(whole["rows"], 1), first)
            source, pairs = build.mul_int(first, lda), build.at(at["rounded"], build.mul_int(first, width))
            build.call_pointer(at["round"], build.at(left, source), lda, pairs, width, mine, whole["K"])
            left, lda = at["rounded"], width
            build.barrier(at["flags"], thread, count, 1)

        def product(row: Value, rows: Value, low: Value, high: Value) -> None:
            a = build.at(left, build.mul_int(row, lda))
            out = build.at(at["out"], build.mul_int(row, whole["ldo"]))
            sizes = rows, build.elements_int(whole["K"]), whole["N"], low, high, build.c(0)
            build.call_pointer(at["product"], a, lda, at["packed"], out, whole["ldo"], *sizes)

        def by_rows() -> None:
            build.barrier(at["flags"], thread, count, 2)
            first = share(whole["rows"], 0)
            product(first, build.sub_int(share(whole["rows"], 1), first), build.c(0), panels)

        def by_panels() -> None:
            product(build.c(0), whole["rows"], share(panels, 0), share(panels, 1))

        few = build.compare("<", whole["rows"], build.mul_int(count, FEW_ROWS))
        even = build.compare("==", build.b.urem(panels, count), 0)
        near = build.compare("<=", build.mul_int(whole["rows"], whole["K"]), NEAR)
        build.choose(build.b.or_(few, build.b.and_(even, near)), by_panels, by_rows)
        restore()
