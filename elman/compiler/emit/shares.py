"""Which panels and columns of a step are a thread's, and where threads wait for each other, as LLVM code."""

from __future__ import annotations

from collections.abc import Callable

from elman.compiler.emit.layout import Layout
from elman.compiler.emit.llvm import Build, Value
from elman.compiler.emit.plan import Plan
from elman.compiler.graph import Node


class Shares:
    """What a kernel knows of its threads; `block`, `thread`, `threads` and the step `n` are set while it is written."""

    block: Value
    thread: Value
    threads: Value
    n: Value

    def __init__(self, plan: Plan, build: Build) -> None:
        self.plan, self.build = plan, build
        self.layout = Layout(plan, build)
        self.barriers = max(sum(len(phase.products) for phase in plan.phases), 1)
        self.alike = not plan.wide and not plan.period  # threads compute the same, but for products

    def integer(self, name: str) -> Value:
        return self.build.read_int(self.block, self.layout.slots[name])

    def address(self, name: str) -> Value:
        return self.build.read_pointer(self.block, self.layout.slots[name])

    def divide(self) -> None:
        """Which panels of each period are this thread's, from and to."""
        if self.plan.period:
            self.own = self.share(self.plan.period // self.build.panel)

    def share(self, panels: int) -> tuple[Value, Value]:
        """This thread's panels, from and to."""
        return self.build.share(panels, self.thread, self.threads)

    def panels(self, N: int, body: Callable[[Value, Value], object], back: Value | None = None) -> None:
        """body(first, last) over the panels of N columns that are this thread's; from the last on where `back` is."""
        build, per = self.build, self.plan.period // self.build.panel
        if not per:
            body(*self.share(-(-N // build.panel)))
            return
        count = N // self.plan.period

        def group(g: Value, _: object) -> None:
            if back is not None:
                g = build.b.select(back, build.sub_int(count - 1, g), g)
            start = build.mul_int(g, per)
            body(*(build.add_int(start, end) for end in self.own))

        build.loop(count, group)

    def columns(
        self, width: int, body: Callable[[Value, int | None, list[Value]], object], init: list[Value] = []
    ) -> list[Value]:
        """body(column, mask, carried) over vectors of columns, the last one masked where the width asks for it."""
        build = self.build
        if self.plan.period:

            def each(j: Value) -> None:
                body(j, None, [])

            self.own_columns(width, each)
            return []
        whole, rest = divmod(width, build.lanes)
        carried = list(init)
        if whole:
            carried = build.loop(whole * build.lanes, lambda j, c: body(j, None, c), carried, step=build.lanes)  # type: ignore[arg-type,return-value]
        if rest:
            carried = body(build.c(whole * build.lanes), rest, carried) or carried  # type: ignore[assignment]
        return carried

    def own_columns(self, width: int, body: Callable[[Value], None]) -> None:
        """body(column) over vectors of those columns that are this thread's."""
        build, period = self.build, self.plan.period
        low, high = (build.mul_int(panel, build.panel) for panel in self.own)

        def group(g: Value, _: object) -> None:
            first, last = (build.add_int(build.mul_int(g, period), end) for end in (low, high))
            build.loop(last, lambda j, _: body(j), start=first, step=build.lanes)

        build.loop(width // period, group)

    def meet(self, node: Node) -> None:
        """Wait for all threads, before this product or after it."""
        build = self.build
        done = build.add_int(build.mul_int(self.n, self.barriers), 2 + self.product_number(node))
        build.barrier(self.address("flags"), self.thread, self.threads, done)

    def product_number(self, node: Node) -> int:
        return [p for phase in self.plan.phases for p in phase.products].index(node)
