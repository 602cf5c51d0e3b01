"""A loop as one kernel on a CPU, with the products ahead of it and behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from elman.compiler.collection import collection_paused
from elman.compiler.emit import native
from elman.compiler.emit.call import Call
from elman.compiler.emit.copy import copy
from elman.compiler.emit.kernel import Kernel
from elman.compiler.emit.layout import Layout
from elman.compiler.emit.linear import linear
from elman.compiler.emit.llvm import Build
from elman.compiler.emit.outer import outers_for, together
from elman.compiler.emit.over import over
from elman.compiler.emit.plan import matrices, plan, without_rows
from elman.compiler.emit.product import products
from elman.compiler.emit.reference import Given, Result
from elman.compiler.emit.repeat import Segment, Two, both_in_turn, in_turn
from elman.compiler.emit.target import Target, host
from elman.compiler.graph import Loop, Op, show

TYPES = {torch.float32: "f32", torch.float64: "f64"}
ROUNDED = {torch.bfloat16: "bf16"}  # operands of products, where all else is float32
WIDE_ROWS = 3  # rows a thread from which each thread runs its own rows; below, threads share each product
FULL_ROWS = 13  # rows a thread from which reading a large matrix at every step costs nothing beside its product
MANY = 256  # sizes and layouts of calls of which each kernel keeps what was worked out
LARGE = 1 << 20  # bytes of matrices that leave too little of a second cache to those which every step must have


def emit(loop: Loop, operands: torch.dtype | None = None, target: Target | None = None) -> Callable[[Given], Result]:
    """The loop as a function of tensors on the CPU, float32 or float64; compiled when first called.

    operands: what the two sides of products are rounded to, bfloat16, where the tensors are float32; None: to nothing.
    """
    return Emitted(loop, operands, target or host())


class Emitted:
    """A loop; one compiled kernel for each element type and way of splitting the work."""

    def __init__(self, loop: Loop, operands: torch.dtype | None, target: Target) -> None:
        self.loop, self.operands, self.target = loop, operands, target
        self.kernels: dict[tuple[torch.dtype, bool, int], Compiled] = {}
        self.elements, waiting = matrices(loop)
        self.matrices = self.elements + waiting
        self.follower: Emitted | None = None  # what will be called next, and is compiled beside this
        self.beside: Thread | None = None

    def compiled(self, dtype: torch.dtype, B: int, count: int) -> Compiled:
        """The kernel for B rows on so many threads, from memory, from the disk, or new."""
        rows = B / count
        narrow = 0 if rows >= WIDE_ROWS else count
        large = self.elements * (self.operands or dtype).itemsize >= LARGE
        hoisted = bool(narrow) or (rows < FULL_ROWS and large)
        key = dtype, hoisted, narrow
        if key not in self.kernels:
            with collection_paused():
                name = TYPES[dtype] if self.operands is None else ROUNDED[self.operands]
                self.kernels[key] = Compiled(self.loop, narrow, hoisted, name, self.target)
            if self.follower is not None and not self.kernels[key].kept:  # reading from the disk is quicker alone
                beside = Thread(target=self.follower.prepare, args=(dtype, B, count))
                with suppress(RuntimeError):  # where there can be no more threads, it is compiled when it is called
                    beside.start()
                    self.beside = beside  # which other threads may wait for as soon as it is there
        return self.kernels[key]

    def __call__(self, given: Given) -> Result:
        call, some = self.call(given)
        return call(given, some)

    def call(self, given: Given, part: bool = False) -> tuple[Call, Tensor]:
        """A call of the kernel for these sizes, and any tensor of it; of a part of the batch, on one thread."""
        some = next(iter([*given.per_step.values(), *given.state.values()]))
        count = 1 if part else torch.get_num_threads()
        try:
            return self.compiled(some.dtype, given.size[1], count).call(given, some, count), some
        finally:
            beside, self.beside = self.beside, None
            if beside is not None:
                beside.join()

    def prepare(self, dtype: torch.dtype, B: int, count: int) -> None:
        """Compile what a later call needs; an error is that call's, which will meet it again."""
        with suppress(Exception):
            self.compiled(dtype, B, count)

    def in_turn(self, segment: Segment, count: int) -> Result | None:
        return in_turn(self, segment, count)

    def both_in_turn(self, again: Emitted, parts: Sequence[Two], count: int) -> list[Result] | None:
        return both_in_turn(again, self, parts, count)

    def shares(self, B: int, dtype: torch.dtype) -> list[tuple[int, int]]:
        """Rows from and to, a part of the batch for each thread, where it does best to run all of a launch alone.

        Then no thread reads what another one has written; but each has all matrices and sums for itself.
        """
        count = torch.get_num_threads()
        if count * WIDE_ROWS > B or self.matrices * dtype.itemsize > LARGE:
            return [(0, B)]
        return [(B * i // count, B * (i + 1) // count) for i in range(count)]


class Compiled:
    """A planned loop and its kernel, for one element type: "f32", "f64" or "bf16".

    narrow: threads that share columns; 0 where each has rows of its own.
    """

    def __init__(self, loop: Loop, narrow: int, hoisted: bool, dtype: str, target: Target) -> None:
        self.sizes = Build(target, dtype)
        self.plan = plan(loop, narrow, hoisted, self.sizes.panel)
        self.layout, self.over = Layout(self.plan, self.sizes), over(self.plan)
        self.products = partial(products, dtype, target, [N for _, N in self.plan.matrices])
        self.copying = partial(copy, "f64" if dtype == "f64" else "f32", target)
        beside = any(n.op is Op.MATMUL for n in [*self.plan.ahead, *self.plan.behind])
        self.linear = linear(dtype, target) if beside else None
        groups = together((n for n in self.plan.behind if n.op is Op.OUTER), self.sizes)
        self.outers = [(group, outers_for([(n.rows, n.width) for n in group], dtype, target)) for group in groups]
        self.states, self.lone = loop.leaves(Op.STATE), without_rows(self.plan.loop)
        given = loop.leaves(Op.STEP), loop.carried, loop.leaves(Op.FIXED), loop.leaves(Op.SHARED)
        self.names = [[*group] for group in given]  # in one order, whatever that of a call is

        def build() -> object:
            module = Build(target, dtype, "unfolded")
            Kernel(self.plan, module).write(self.over)
            return module.module

        way = [
            f"narrow {self.plan.period}" if narrow else "wide",
            "hoisted" if hoisted else "in step",
            "reverse" if loop.reverse else "forward",
        ]
        code = native.load("unfolded", "\n".join([dtype, *way, show(loop), *described(loop)]), build, target)
        self.address = code.address("kernel")
        self.kept = code.kept
        self.calls: dict[Any, Call] = {}

    def call(self, given: Given, some: Tensor, count: int) -> Call:
        """Products ahead, the kernel, products behind, on so many threads."""
        layout = [group[name].stride() for group, names in zip(given[:4], self.names) for name in names]
        layout += [None if room is None else room.stride() for room in given.out.values()]
        key = (given.size, count, given.adding, given.spare, *given.out, *layout)
        call = self.calls.get(key)
        if call is None:
            if len(self.calls) >= MANY:  # sizes that change at every call
                self.calls.clear()
            call = self.calls[key] = Call(self, given, some, count)
        return call


def described(loop: Loop) -> list[str]:
    """Every node with all that it is, sources by their numbers: what `show` leaves to the eye is said, too."""
    numbers = {node: i for i, node in enumerate(loop.nodes())}
    return [f"{n.op.name} {n.arg!r} {n.rows} x {n.width} {[numbers[s] for s in n.src]}" for n in numbers]
