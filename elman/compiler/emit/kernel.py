"""One kernel for a whole sequence: the steps of a plan as LLVM code.

The kernel is called as kernel(block, thread, threads). With a wide plan each thread runs all steps for its own rows of
the batch, without waiting. With a narrow one every thread computes all rows, but only its share of the columns of a
product. Where the plan has a period, all else is computed in those columns only, too, and threads meet before a product
that reads columns of others. Else they meet after each product, compute the rest alike, and the first one writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from elman.compiler.emit.columns import base, exchanged
from elman.compiler.emit.joined import onto
from elman.compiler.emit.layout import FIXED_SLOTS
from elman.compiler.emit.llvm import Value, i64, pointer
from elman.compiler.emit.over import Over
from elman.compiler.emit.own import own_product
from elman.compiler.emit.plan import Phase, Place, Sweep, needs
from elman.compiler.emit.shares import Shares
from elman.compiler.emit.vectorops import apply
from elman.compiler.graph import Node, Op


@dataclass
class Rows:
    """Where a value's rows are at this step: a pointer to the first of this part, elements from row to row."""

    start: Value
    stride: Value | int


class Kernel(Shares):
    """Writes one kernel into a module."""

    def write(self, over: Over) -> None:
        """kernel(block, thread, threads); over: what of the plan may lie over what."""
        build = self.build
        self.early = over.early
        with build.function("kernel", [pointer, i64, i64]) as (block, thread, threads):
            self.block, self.thread, self.threads = block, thread, threads
            restore = build.flush_denormals()
            self.T, self.B, self.parts, self.per_part = map(self.integer, FIXED_SLOTS[:4])
            self.divide()
            build.when(build.compare("==", self.integer("turn"), 0), self.pack)
            if self.plan.wide:  # there may be fewer threads than parts
                rest = build.sub_int(build.add_int(self.parts, build.sub_int(threads, 1)), thread)
                mine = build.div_int(rest, threads)
                build.loop(mine, lambda i, _: self.part(build.add_int(thread, build.mul_int(i, threads))))
            else:
                self.part(thread)
            restore()

    def pack(self) -> None:
        """Lay the matrices out in panels, each thread its share."""
        build = self.build
        if not self.plan.weights:
            return
        for i, (node, transposed) in enumerate(self.plan.weights):
            K, N = (node.width, node.rows) if transposed else (node.rows, node.width)
            strides = [self.integer(f"weight{i}.{axis}") for axis in ("nk" if transposed else "kn")]
            matrix, packed = [self.address(f"weight{i}"), *strides, build.c(K), build.c(N)], self.address(f"packed{i}")
            self.panels(N, partial(build.call_pointer, self.address("pack"), *matrix, packed))
        build.barrier(self.address("flags"), self.thread, self.threads, build.c(1))

    # ---- one part of the batch

    def part(self, number: Value) -> None:
        build = self.build
        self.row0 = build.mul_int(number, self.per_part) if self.plan.wide else build.c(0)
        self.count = build.min_int(self.per_part, build.sub_int(self.B, self.row0))
        area = build.mul_int(build.mul_int(number, self.per_part), self.layout.per_row)
        self.mine = build.at(self.address("scratch"), area)
        self.scratch = self.address("scratch") if self.plan.period else self.mine
        self.first = build.compare("==", self.thread, 0)
        for name in self.plan.loop.carried:
            self.copy_state(name, "first")
        build.loop(self.T, lambda n, _: self.step(n))
        if self.alike:
            build.when(self.first, self.copy_last)
        else:
            self.copy_last()

    def output(self, pointer: Value, own: Value) -> Value:
        """Where an output goes: where threads compute alike, for all but the first to rows of their own."""
        return self.build.b.select(self.first, pointer, own) if self.alike else pointer

    def private(self, key: object) -> Value:
        """The temporary rows of this part, which threads with columns of their own share."""
        before, _ = self.layout.rows[key]
        return self.build.at(self.scratch, self.build.mul_int(self.per_part, before))

    def state_rows(self, name: str, n: Value) -> Value:
        """The first row of a state as it is before step n (in the order of running), of this part."""
        build, width = self.build, self.plan.loop.carried[name].width
        ring = self.private(f"ring:{name}")
        slot = build.b.and_(n, build.c(self.layout.ring - 1))
        own = build.at(ring, build.mul_int(slot, build.mul_int(self.per_part, width)))
        if name not in self.plan.paths or self.plan.period:
            return own
        return self.output(self.path_rows(name, n), own)

    def path_rows(self, name: str, n: Value) -> Value:
        """The same where every step of it is kept."""
        build, width = self.build, self.plan.loop.carried[name].width
        slot = build.sub_int(self.T, n) if self.plan.loop.reverse else n
        row = build.add_int(build.mul_int(slot, self.B), self.row0)
        return build.at(self.address(f"path:{name}"), build.mul_int(row, width))

    def copy_state(self, name: str, which: str) -> None:
        """Bring the given state in, or the last one out."""
        build, width = self.build, self.plan.loop.carried[name].width
        if which == "first":
            stride = self.integer(f"first:{name}.r")
            source = build.at(self.address(f"first:{name}"), build.mul_int(self.row0, stride))
            self.copy(Rows(source, stride), Rows(self.state_rows(name, build.c(0)), width), width)
            if self.beside(name):
                self.copy(Rows(source, stride), Rows(self.path_rows(name, build.c(0)), width), width)
        else:
            target = build.at(self.address(f"last:{name}"), build.mul_int(self.row0, width))
            self.copy(Rows(self.state_rows(name, self.T), width), Rows(target, width), width)

    def beside(self, name: str) -> bool:
        """The state goes to its path, too: other threads read it from a few rows in turn, which are in caches."""
        return bool(self.plan.period) and name in self.plan.paths

    def copy_last(self) -> None:
        for name in self.plan.loop.carried:
            self.copy_state(name, "last")

    def copy(self, source: Rows, target: Rows, width: int) -> None:
        build = self.build

        def row(r: Value, _: object) -> None:
            a, b = (build.at(x.start, build.mul_int(r, x.stride)) for x in (source, target))
            self.columns(width, lambda j, mask, _: build.store(build.load(build.at(a, j), mask), build.at(b, j), mask))

        build.loop(self.count, row)

    # ---- one step

    def step(self, n: Value) -> None:
        build, plan = self.build, self.plan
        self.n = n
        self.t = build.sub_int(build.sub_int(self.T, 1), n) if plan.loop.reverse else n
        self.at: dict[object, Rows] = {}
        self.rounded: dict[Node, Rows] = {}
        for i, node in enumerate(plan.streams):
            per_t, per_r = self.integer(f"stream{i}.t"), self.integer(f"stream{i}.r")
            offset = build.add_int(build.mul_int(self.t, per_t), build.mul_int(self.row0, per_r))
            self.at[node] = Rows(build.at(self.address(f"stream{i}"), offset), per_r)
        for name, node in plan.loop.carried.items():
            self.at["prev", name] = Rows(self.state_rows(name, n), node.width)
            after = build.add_int(n, 1)
            self.at[Place("state", name)] = Rows(self.state_rows(name, after), node.width)
            if self.beside(name):
                self.at[Place("path", name)] = Rows(self.path_rows(name, after), node.width)
        for i, node in enumerate(plan.stored):
            row, per_r = build.add_int(build.mul_int(self.t, self.B), self.row0), self.integer(f"stored{i}.r")
            out = build.at(self.address(f"stored{i}"), build.mul_int(row, per_r))
            self.at[Place("stored", node)] = Rows(self.output(out, self.private(("own", node))), per_r)
        for node in plan.temps:
            self.at[Place("temp", node)] = Rows(self.temp_rows(node), build.columns(node.width))
        self.met = (-1, 0)
        for phase in plan.phases:
            for product in phase.products:
                if plan.period and not self.visible(product):
                    self.met = self.position(product)
                    self.meet(product)
                    self.fetch(phase)
                self.product(product) if product.op is Op.MATMUL else own_product(self, product)
            if phase.sweeps:
                build.loop(self.count, lambda r, _, phase=phase: self.row(phase, r))  # type: ignore[misc]

    def temp_rows(self, node: Node) -> Value:
        if node not in self.layout.shared:
            return self.private(node)
        build = self.build
        half = build.mul_int(build.b.and_(self.n, build.c(1)), self.layout.shared_per_row)
        before = build.mul_int(build.add_int(half, self.layout.shared[node]), self.B)
        return build.at(self.address("shared"), before)

    def rows(self, node: Node) -> Rows:
        """Where a value in memory lies."""
        if node.op is Op.STATE:
            return self.at["prev", node.arg]
        return self.at[node] if node in self.at else self.at[self.plan.home[node]]

    def side(self, node: Node) -> Rows:
        """The rows of what a product reads, from memory."""
        low = 0
        while node.op is Op.SLICE and node not in self.at:
            low += node.arg[0]
            node = node.src[0]
        rows = self.rows(node)
        return Rows(self.build.at(rows.start, low), rows.stride)

    def operand(self, node: Node) -> Rows:
        """The same as operands: in bfloat16 rounded once a step, by each thread of a narrow plan for itself."""
        build = self.build
        if not build.paired:
            return self.side(node)
        if node not in self.rounded:
            before, width = self.layout.rows["rounded", node]
            side, out = self.side(node), Rows(build.at(self.mine, build.mul_int(self.per_part, before)), width)
            sizes = build.c(out.stride), self.count, build.c(node.width)
            build.call_pointer(self.address("round"), side.start, build.c(side.stride), out.start, *sizes)
            self.rounded[node] = out
        return self.rounded[node]

    def product(self, node: Node) -> None:
        build = self.build
        side, out = self.operand(node.src[0]), self.at[self.plan.home[node]]
        K, panels = build.elements(node.src[0].width), -(-node.width // build.panel)
        i = self.plan.weights.index((node.src[1], bool(node.arg)))
        added = build.c(0 if onto(node) is None else 1)

        def multiply(first: Value, last: Value) -> None:
            build.call_pointer(
                self.address("product"), side.start, build.c(side.stride), self.address(f"packed{i}"),
                out.start, build.c(out.stride), self.count, build.c(K), build.c(node.width), first, last, added,
            )  # fmt: skip

        if self.plan.wide:
            multiply(build.c(0), build.c(panels))
            return
        back = build.compare("!=", build.b.and_(self.n, build.c(1)), 0)

        def some(first: Value, last: Value) -> None:
            def panel(p: Value, _: object) -> None:
                """Every other step from the last panel to the first: what was read last is still in the cache."""
                turned = build.sub_int(build.add_int(first, build.sub_int(last, 1)), p)
                p = build.b.select(back, turned, p)
                multiply(p, build.add_int(p, 1))

            build.loop(last, panel, start=first)

        self.panels(node.width, some, back)
        if self.alike:
            self.meet(node)

    def visible(self, product: Node) -> bool:
        """Threads have met since other ones wrote columns of its left side."""
        side = base(product.src[0])
        return not exchanged(product, self.plan.inside) or self.position(side) < self.met

    def position(self, node: Node) -> tuple[int, int]:
        """When in a step a value is written: in which phase, and after how many of its products."""
        if node.op is Op.STATE:
            return 0, -1
        phase = self.plan.written[node][0]
        products = self.plan.phases[phase].products
        return phase, products.index(node) if node in products else len(products)

    def fetch(self, phase: Phase) -> None:
        """Ask for what other threads have written of the sides of its products, all of it at once."""
        build = self.build
        read = [n for n in phase.products if exchanged(n, self.plan.inside) and self.visible(n)]
        for node in dict.fromkeys(n.src[0] for n in read):
            side = self.side(node)

            def row(r: Value, _: object, side: Rows = side, width: int = node.width) -> None:
                start = build.at(side.start, build.mul_int(r, side.stride))
                build.loop(width, lambda j, _: build.prefetch(build.at(start, j), level=3), step=build.lanes)

            build.loop(self.count, row)

    # ---- one row

    def row(self, phase: Phase, r: Value) -> None:
        build = self.build
        self.pointers: dict[object, Value] = {}
        self.scalars: dict[Node, Value] = {}
        for sweep in phase.sweeps:
            loads, _ = needs(self.plan, sweep)
            for node in loads:
                if node.op is not Op.SHARED and node not in self.pointers:
                    where = self.rows(node)
                    self.pointers[node] = build.at(where.start, build.mul_int(r, where.stride))
            for _, place in sweep.writes:
                for whole in self.targets(place):
                    if whole not in self.pointers:
                        where = self.at[whole]
                        self.pointers[whole] = build.at(where.start, build.mul_int(r, where.stride))
        for sweep in phase.sweeps:
            self.sweep(sweep, r)

    def sweep(self, sweep: Sweep, r: Value) -> None:
        build, (_, _, width) = self.build, sweep.moment
        loads, computed = needs(self.plan, sweep)
        self.loads = set(loads)
        for node in [*loads, *computed]:
            if node.width == 1 and node not in self.scalars:
                self.scalars[node] = self.scalar(node)

        def body(j: Value, mask: int | None, sums: list[Value]) -> list[Value]:
            memo: dict[tuple[Node, int], Value] = {}
            for node, low in self.early.get(sweep.moment, []):
                self.pull(node, j, low, mask, memo)
            for node, place in sweep.writes:
                value = self.pull(node, j, 0, mask, memo)
                for whole in self.targets(place):
                    build.store(value, build.at(build.at(self.pointers[whole], j), place.offset), mask)
            for node in sweep.totals:
                p = build.at(self.total(node), j)
                build.store(build.add(build.load(p, mask), self.pull(node.src[0], j, 0, mask, memo)), p, mask)
            return [self.reduce(n, s, self.pull(n.src[0], j, 0, mask, memo), mask) for n, s in zip(sweep.sums, sums)]

        start = [build.k(0.0 if n.op is Op.SUM else float("-inf")) for n in sweep.sums]
        ends = self.columns(width, body, start)
        for node, value in zip(sweep.sums, ends):
            total = build.sum_lanes(value) if node.op is Op.SUM else build.max_lanes(value)
            self.scalars[node] = build.splat(total)
            if node in self.plan.home:
                where = self.at[self.plan.home[node]]
                build.store_scalar(total, build.at(where.start, build.mul_int(r, where.stride)))

    def targets(self, place: Place) -> list[Place]:
        """Where the rows begin that are written to."""
        both = place.kind == "state" and self.beside(str(place.key))
        return [Place(place.kind, place.key), *[Place("path", place.key)] * both]

    def reduce(self, node: Node, so_far: Value, value: Value, mask: int | None) -> Value:
        build = self.build
        if mask is not None:
            value = build.first_lanes(value, mask, 0.0 if node.op is Op.SUM else float("-inf"))
        return build.add(so_far, value) if node.op is Op.SUM else build.maximum(so_far, value)

    def total(self, node: Node) -> Value:
        """This thread's running sum over rows and steps; its columns of one, where it has columns of its own."""
        start = self.address(f"total{self.plan.totals.index(node)}")
        return start if self.plan.period else self.build.at(start, self.build.mul_int(self.thread, node.width))

    def scalar(self, node: Node) -> Value:
        """A value of width 1 as a vector with it in each lane."""
        build = self.build
        if node in self.loads:
            return build.splat(build.load_scalar(self.pointer(node)))
        if node.op is Op.SLICE:
            low = node.arg[0]
            return build.splat(build.lane(self.pull(node.src[0], build.c(0), low, 1, {}), 0))
        return apply(build, node, *(build.k(s.arg) if s.op is Op.CONST else self.scalars[s] for s in node.src))

    def pointer(self, node: Node) -> Value:
        if node.op is Op.SHARED:
            return self.address(f"vector{self.plan.vectors.index(node)}")
        return self.pointers[node]

    def pull(self, node: Node, j: Value, offset: int, mask: int | None, memo: dict[tuple[Node, int], Value]) -> Value:
        """The vector of columns j + offset of a value: read, or computed from what it is made of."""
        build = self.build

        def known(n: Node, at: int) -> Value | None:
            if n.op is Op.CONST:
                return build.k(n.arg)
            return self.scalars[n] if n.width == 1 else memo.get((n, at))

        stack = [(node, offset)]
        while stack:
            n, at = stack[-1]
            if known(n, at) is not None:
                stack.pop()
                continue
            if n in self.loads:
                memo[n, at] = build.load(build.at(build.at(self.pointer(n), j), at), mask)
                continue
            moved = at + n.arg[0] if n.op is Op.SLICE else at
            sources = [value for s in n.src if (value := known(s, moved)) is not None]
            if len(sources) == len(n.src):
                memo[n, at] = sources[0] if n.op is Op.SLICE else apply(build, n, *sources)
            else:
                stack.append(next((s, moved) for s in n.src if known(s, moved) is None))
        value = known(node, offset)
        assert value is not None
        return value
