"""A product of many rows with one matrix, on all threads: what a narrow plan does ahead of its kernel and behind it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from elman.compiler.emit import native, threads
from elman.compiler.emit.llvm import FLAG_BYTES, Build, i64, pointer
from elman.compiler.emit.product import Products, products
from elman.compiler.emit.target import Target

SLOTS = """a lda w stride_k stride_n out ldo rows K N packed flags product pack rounded round""".split()
FEW_ROWS = 24  # rows a thread below which the threads share the columns


@dataclass(frozen=True)
class Linear:
    """The compiled function, for one target and element type."""

    address: int
    shared: Callable[[Sequence[int]], Products]
    sizes: Build

    def __call__(self, a: Tensor, weight: Tensor) -> Tensor:
        """a @ weight: a (rows, K) with columns side by side, weight (K, N) of any strides; the result may be a view."""
        (rows, K), N, panel = a.shape, weight.shape[1], self.sizes.panel
        shared = self.shared((N,))
        a = a if a.stride(1) == 1 or K == 1 else a.contiguous()
        panels = -(-N // panel)
        out = a.new_empty(rows, panels * panel)
        packed = a.new_empty(panels * self.sizes.elements(K) * panel)
        rounded = a.new_empty(rows * self.sizes.paired_width(K)) if self.sizes.paired else None
        count = torch.get_num_threads()
        flags = (ctypes.c_char * (count * FLAG_BYTES))()  # zeros
        block = (ctypes.c_int64 * len(SLOTS))(
            a.data_ptr(), a.stride(0), weight.data_ptr(), *weight.stride(), out.data_ptr(),
            panels * panel, rows, K, N, packed.data_ptr(), ctypes.addressof(flags), shared.product, shared.pack,
            0 if rounded is None else rounded.data_ptr(), shared.round,
        )  # fmt: skip
        threads.parallel(self.address, ctypes.addressof(block), count)
        return out if panels * panel == N else out[:, :N]


def linear(dtype: str, target: Target) -> Linear:
    """The function for "f32", "f64" or "bf16", compiled once per machine."""

    def build() -> object:
        made = Build(target, dtype, "linear")
        emit_linear(made)
        return made.module

    address = native.load("linear", dtype, build, target).address("linear")
    return Linear(address, cache(partial(products, dtype, target)), Build(target, dtype))


def emit_linear(build: Build) -> None:
    """Write `linear(block, thread, threads)`: pack a share of the panels, meet, then a share of rows or of panels.

    In bfloat16 each thread rounds a share of the rows, too, before they meet.
    """
    with build.function("linear", [pointer, i64, i64]) as (block, thread, count):
        whole = {name: build.read_int(block, i) for i, name in enumerate(SLOTS)}
        at = {name: build.read_pointer(block, i) for i, name in enumerate(SLOTS)}
        restore = build.flush_denormals()
        panels = build.div_int(build.add_int(whole["N"], build.panel - 1), build.panel)

        def share(total: object, more: int) -> object:
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

        def product(row: object, rows: object, low: object, high: object) -> None:
            a = build.at(left, build.mul_int(row, lda))
            out = build.at(at["out"], build.mul_int(row, whole["ldo"]))
            sizes = rows, build.elements_int(whole["K"]), whole["N"], low, high, build.c(0)
            build.call_pointer(at["product"], a, lda, at["packed"], out, whole["ldo"], *sizes)

        def by_rows() -> None:
            first = share(whole["rows"], 0)
            product(first, build.sub_int(share(whole["rows"], 1), first), build.c(0), panels)

        def by_panels() -> None:
            product(build.c(0), whole["rows"], share(panels, 0), share(panels, 1))

        build.choose(build.compare("<", whole["rows"], build.mul_int(count, FEW_ROWS)), by_panels, by_rows)
        restore()
