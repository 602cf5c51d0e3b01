"""A call of a kernel, and of the products beside it, worked out once for tensors of one size and layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from elman.compiler.emit.beside import Beside
from elman.compiler.emit.jobs import Jobs, Number, Spot, Turn
from elman.compiler.emit.joined import chain, onto
from elman.compiler.emit.linear import Linear, Term
from elman.compiler.emit.outer import Outers, Side, better_turned, numbers
from elman.compiler.emit.part import Layout, Part, as_tensor
from elman.compiler.emit.places import KEPT, WORK, Own, Places, Rows
from elman.compiler.emit.pool import Lease, lease, room
from elman.compiler.emit.reference import Given, Result
from elman.compiler.graph import TOTALS, Node, Op

if TYPE_CHECKING:
    from elman.compiler.emit.cpu import Compiled


class Call(Places):
    """All but the addresses. Whatever is given to a call must have the sample's sizes, strides and outputs."""

    def __init__(self, kernel: Compiled, given: Given, some: Tensor, count: int) -> None:
        super().__init__(kernel.plan, kernel.states, kernel.lone, kernel.over, given, some.dtype)
        self.kernel, self.count = kernel, count
        self.per_part = -(-self.B // count) if self.plan.wide else self.B
        self.parts = -(-self.B // self.per_part) if self.plan.wide else count
        last = self.B - (self.parts - 1) * self.per_part if self.plan.wide else self.B
        self.counts = {self.per_part, last}  # rows of products
        if kernel.linear is not None:
            self.counts |= {self.B, self.T * self.B}
        self.partial = {onto(node) for node in kernel.plan.loop.nodes()}  # done with what is added to them
        self.steps: list[Jobs | tuple[int, Callable[[Beside], Tensor]]] = []
        self.evened: dict[Node, Rows] = {}
        for node in self.plan.ahead:
            self.compute(node)
        self.launch()
        self.settle()
        summed = {node for group, _ in kernel.outers for node in group}
        late = [n for n in self.plan.behind if n not in summed and any(s.op in TOTALS for s in n.src)]
        for node in self.plan.behind:
            if node not in summed and node not in late:
                self.compute(node)
        for group, made in kernel.outers:
            self.outer(group, made)
        for node in late:
            self.compute(node)
        for node, (rows, base, strides) in self.copied.items():
            source = self.spot(rows), self.B * rows.stride, rows.stride
            self.copy(source, (Spot(base), strides[0], strides[1]), (rows.number // self.B, self.B, node.width))
        self.finish()
        del self.given  # no tensor is held

    # ---- what is run

    def jobs(self) -> Jobs:
        """The launch that further functions join."""
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, Jobs):
            last = Jobs(self.count)
            self.steps.append(last)
        return last

    def compute(self, node: Node) -> None:
        """One value beside the kernel: products by functions of our own, all else by torch."""
        if node.op not in TOTALS and all(s in self.short or s in self.lone for s in node.src) and node not in self.lone:
            self.short.add(node)
        if node.op is Op.MATMUL:
            if node not in self.partial:
                self.linear(node)
        else:
            self.steps.append((self.base(node), partial(Beside.compute, node=node)))

    def side(self, node: Node) -> Rows:
        """The same as of all places; uneven rows are copied first, and only those who ask here may read the copy."""
        if node in self.evened:
            return self.evened[node]
        if node.op is Op.STEP and self.close(node) and not self.evenly(node):
            strides, spot = self.given.per_step[node.arg].stride(), self.take(self.T * self.B * node.width)
            source = Spot(self.input("per_step", node.arg)), strides[0], strides[1]
            self.copy(source, (spot, self.B * node.width, node.width), (self.T, self.B, node.width))
            self.evened[node] = Rows(WORK, spot.offset // self.dtype.itemsize, self.T * self.B, node.width)
            return self.evened[node]
        return super().side(node)

    def copy(self, source: tuple[Spot, int, int], target: tuple[Spot, int, int], sizes: tuple[int, int, int]) -> None:
        """Bring a sequence elsewhere; each: where it begins, elements from step to step and from row to row."""
        self.jobs().add(self.kernel.copying(), [*source, *target, *sizes])

    def linear(self, node: Node) -> None:
        """The product of all rows with one matrix, or the sum of several such products."""
        made, N, rows = self.kernel.linear, node.width, self.side(node.src[0]).number
        assert made is not None
        stride = made.sizes.columns(N)
        if node in self.plan.loop.per_step.values():
            whole = stride == N and node not in self.short
            shape = (self.T, self.B, N) if whole else (rows, stride)
            name = self.leaving.get(node) if whole else None
            self.own.append(Own(self.base(node), shape, name))
            self.rows[node] = self.landing(node, Rows(self.numbers[node], 0, rows, stride), name)
        elif node in self.under:
            self.rows[node] = self.under[node]
        else:
            spot = self.take(rows * stride)
            self.rows[node] = Rows(WORK, spot.offset // self.dtype.itemsize, rows, stride)
        terms = [self.term(made, n, rows) for n in chain(node)]
        jobs = self.jobs()
        jobs.add(made.address, made.numbers(rows, N, terms, self.spot(self.rows[node]), jobs.flags(), self.counts))

    def term(self, made: Linear, node: Node, rows: int) -> Term:
        """One product of these."""
        side, (weight, down, across), K = self.side(node.src[0]), self.weight(node.src[1]), node.src[0].width
        packed, rounded = map(self.take, made.scratch(rows, K, node.width))
        matrix = (weight, across, down) if node.arg else (weight, down, across)
        return Term(self.spot(side), side.stride, matrix, K, packed, rounded)

    def outer(self, group: tuple[Node, ...], made: Outers) -> None:
        """The sums over all rows of matrices' gradients, which have the factor on the left in common."""
        turned = better_turned(made.sizes, group[0].rows, group[0].width)
        sides = [tuple(map(self.factor, node.src[::-1] if turned else node.src)) for node in group]
        adding = self.given.adding
        for node in group:
            self.new.append((self.base(node), (node.rows, node.width), adding))
        factors = [(b, Spot(self.numbers[node])) for (_, b), node in zip(sides, group)]
        a, K = sides[0][0], self.T * self.B
        each = made.scratch(a.columns, K)
        self.jobs().add(made.outer, numbers(K, a, factors, (self.take(each * self.count), each), turned, adding))

    def factor(self, node: Node) -> Side:
        rows = self.moving(node)
        return Side(self.spot(rows), rows.stride, node.width)

    def moving(self, node: Node) -> Rows:
        """A side with rows of its own for every step."""
        if node not in self.short:
            return self.side(node)
        if (key := ("repeated", node)) not in self.numbers:  # once, however many matrices it meets
            self.steps.append((self.base(key), partial(Beside.repeated, node=node)))
        base = self.numbers[key]
        return Rows(base, 0, self.T * self.B, node.width)

    def launch(self) -> None:
        """The kernel itself, its numbers in the order of its layout."""
        kernel, made, T, B, jobs = self.kernel, self.plan, self.T, self.B, self.jobs()
        scratch = self.take(self.parts * self.per_part * kernel.layout.per_row)
        shared = self.take(0 if made.wide else 2 * B * kernel.layout.shared_per_row)
        block: list[Number] = [T, B, self.parts, self.per_part, scratch, shared, jobs.flags()]
        shared_code = kernel.products(self.counts)
        block += shared_code.product, shared_code.pack, shared_code.round, Turn()
        for node in made.streams:
            block += self.stream(node)
        block += map(self.vector, made.vectors)
        for (node, _), (K, N) in zip(made.weights, made.matrices):
            block += *self.weight(node), self.take(kernel.sizes.elements(K) * kernel.sizes.columns(N))
        for name, node in made.loop.carried.items():
            per_row, column = self.given.state[name].stride()
            close, last = column == 1 or node.width == 1, self.base(("last", name))
            first = self.input("state", name, None if close else Tensor.contiguous)
            self.new.append((last, (B, node.width), False))
            path = self.spot(self.stored[name]) if name in self.stored else 0
            block += Spot(first), per_row if close else node.width, Spot(last), path
        for node in made.stored:
            block += self.spot(self.stored[node]), self.stored[node].stride
        for node in made.totals:
            self.new.append((self.base(("total", node)), (self.count, node.width), True))
            block.append(Spot(self.numbers["total", node]))
        jobs.add(kernel.address, block)

    def finish(self) -> None:
        """The blocks are complete, and where each part of the result will lie."""
        for step in self.steps:
            if isinstance(step, Jobs):
                step.finish()
        loop, T = self.plan.loop, self.T
        plain = {own.base for own in self.own if own.shape[0] == T and len(own.shape) == 3}
        self.views = [(name, self.view(node, plain), name in self.given.out) for name, node in loop.per_step.items()]
        nodes: list[str | Node] = [*loop.per_step.values()]
        own = {node: rows.offset for node, rows in self.stored.items() if rows.base == KEPT and nodes.count(node) == 1}
        self.spare = tuple((name, own[node]) for name, node in loop.per_step.items() if node in own)
        self.last = {name: self.numbers["last", name] for name in loop.carried}
        self.summed = {name: self.numbers.get(node) for name, node in loop.summed.items()}

    def view(self, node: Node, plain: set[int]) -> tuple[int, Layout | None] | None:
        """An output's memory and how it lies there, if it is not all of it; None where torch has a part in it."""
        T, B, rows = self.T, self.B, self.rows.get(node)
        if node in self.copied:
            return self.copied[node].base, None
        if rows is None or node in self.short or (node in self.leaving and rows.stride != node.width):
            return None
        if rows.base in plain:
            return rows.base, None
        return rows.base, Layout((T, B, node.width), (B * rows.stride, rows.stride, 1), rows.offset)

    # ---- at each call

    def __call__(self, given: Given, some: Tensor) -> Result:
        tensors, (_work, kept) = self.memories(given, some)
        beside = self.beside(given, some, tensors)
        for step in self.steps:
            if isinstance(step, Jobs):
                step.run(addresses(tensors))
            else:
                base, compute = step
                tensors[base] = compute(beside)
        return self.result(tensors, beside, kept)

    def beside(self, given: Given, some: Tensor, tensors: list[Any]) -> Beside:
        return Beside(given, some, self.short, partial(self.written, tensors))

    def result(self, tensors: list[Any], beside: Beside, kept: Lease) -> Result:
        summed = self.plan.loop.summed
        return Result(
            {name: self.output(name, view, tensors, beside, leaving) for name, view, leaving in self.views},
            {name: tensors[base] for name, base in self.last.items()},
            {name: beside.get(summed[name]) if base is None else tensors[base] for name, base in self.summed.items()},
            kept,
            self.spare,
        )

    def memories(self, given: Given, some: Tensor) -> tuple[list[Any], tuple[Lease, Lease]]:
        """All that there is before the first function runs, by its number; None for what is still to come.

        And what to hold: of the work until it is done, of what is kept for backward.
        """
        work, kept = lease(self.work, self.dtype), lease(self.kept, self.dtype)
        tensors: list[Any] = [None] * len(self.numbers)
        tensors[WORK], tensors[KEPT] = work.memory, kept.memory
        groups = given.per_step, given.state, given.fixed, given.shared
        for base, group, name, adapt in self.inputs:
            value = groups[group][name]
            tensors[base] = value if adapt is None else adapt(as_tensor(value))
        for own in self.own:
            there = given.out.get(own.name) if own.name else None
            tensors[own.base] = room(own.shape, self.dtype) if there is None else self.placed(own, there)
        for base, shape, zeros in self.new:
            tensors[base] = some.new_zeros(shape) if zeros else some.new_empty(shape)
        for name, value in given.last.items():
            tensors[self.last[name]] = value
        return tensors, (work, kept)

    def placed(self, own: Own, room: Tensor) -> Tensor:
        """The memory for an output as the kernel fills it: a path of states begins a step before their outputs."""
        if not own.path:
            return room
        earlier = room.stride(0) if own.shape[0] > room.shape[0] and not self.plan.loop.reverse else 0
        return room.as_strided(own.shape, room.stride(), room.storage_offset() - earlier)

    def output(
        self, name: str, view: tuple[int, Layout | None] | None, tensors: list[Any], beside: Beside, leaving: bool
    ) -> Tensor | Part:
        if view is None:
            return beside.output(self.plan.loop.per_step[name], leaving)
        base, layout = view
        if layout is None:
            return tensors[base]
        return layout.of(tensors[base]) if leaving else Part(tensors[base], layout)

    def written(self, tensors: list[Any], node: Node) -> Tensor | None:
        """What functions of our own have given, with its rows one after another."""
        if node in self.rows:
            base, offset, count, stride = self.rows[node]
            return Layout((count, node.width), (stride, 1), offset).of(tensors[base])
        if node in self.plan.totals:  # of each thread, or of the first one, which has them all
            sums: Tensor = tensors[self.numbers["total", node]]
            return sums.sum(0) if self.plan.wide else sums[0]
        return tensors[self.numbers[node]] if node in self.numbers else None


def addresses(tensors: list[Any]) -> list[int]:
    """Where they begin."""
    return [0 if t is None else t.data_ptr() for t in tensors]
