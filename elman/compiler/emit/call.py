"""A call of a kernel, and of the products around it, worked out once for tensors of one size and layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from elman.compiler.emit.around import Around
from elman.compiler.emit.jobs import Jobs, Spot
from elman.compiler.emit.outer import numbers
from elman.compiler.emit.plan import Plan, without_rows
from elman.compiler.emit.pool import Pieces, fresh, lease
from elman.compiler.emit.reference import Given, Result
from elman.compiler.graph import TOTALS, Node, Op

if TYPE_CHECKING:
    from elman.compiler.emit.cpu import Compiled

WORK, KEPT = 1, 2  # memories beside the block: of this call alone; held by the result as long as backward may read it
Adapt = Callable[[Tensor], Tensor]


class Rows(NamedTuple):
    """Where a value lies, with T * B rows, or B where steps do not differ: elements from a memory's beginning."""

    base: int
    offset: int
    count: int
    stride: int


class Own(NamedTuple):
    """Memory that leaves with the result: new, or the caller's for the output of this name."""

    base: int
    shape: tuple[int, ...]
    name: str | None
    path: bool = False


class Call:
    """All but the addresses. `given` is a sample: whatever else is given must have its sizes, strides and outputs."""

    def __init__(self, kernel: Compiled, given: Given, some: Tensor, count: int) -> None:
        self.kernel, self.plan, self.given = kernel, kernel.plan, given
        self.dtype, self.bytes, self.count = some.dtype, some.element_size(), count
        self.T, self.B = given.size
        loop = self.plan.loop
        self.lone = without_rows(loop)
        self.short: set[Node] = set(loop.leaves(Op.FIXED).values())  # values with B rows
        self.leaving = {node: name for name, node in loop.per_step.items() if name in given.out}
        self.bases: dict[Any, int] = {"block": 0, "work": WORK, "kept": KEPT}
        self.inputs: list[tuple[int, str, str, Adapt | None]] = []  # memory, group, name, what to do with it first
        self.own: list[Own] = []
        self.new: list[tuple[int, tuple[int, ...], bool]] = []  # memory, shape, whether it begins as zeros
        self.rows: dict[Node, Rows] = {}  # of values that functions of our own give
        self.steps: list[Jobs | tuple[int, Callable[[Around], Tensor]]] = []
        self.work = 0  # elements
        self.store()
        for node in self.plan.ahead:
            self.compute(node)
        self.launch()
        self.settle()
        for node in self.plan.behind:
            self.compute(node)
        self.finish()
        del self.given  # no tensor is held

    # ---- memory

    def base(self, key: Any) -> int:
        """The number of a memory, the next one for a new key."""
        return self.bases.setdefault(key, len(self.bases))

    def take(self, elements: int) -> Spot:
        """Memory of this call alone."""
        start = self.work
        self.work += Pieces([(elements,)]).size
        return Spot(WORK, start * self.bytes)

    def spot(self, rows: Rows) -> Spot:
        return Spot(rows.base, rows.offset * self.bytes)

    def input(self, group: str, name: str, adapt: Adapt | None = None) -> int:
        """The memory of a given tensor."""
        key = group, name, adapt
        if key not in self.bases:
            self.inputs.append((self.base(key), *key))
        return self.bases[key]

    def store(self) -> None:
        """Memory for what the kernel writes at each step: paths by the state's name, stored values by their node."""
        made, away = self.plan, set(self.leaving)
        shapes: dict[str | Node, tuple[int, ...]] = {}
        for name, node in made.loop.carried.items():
            if name in made.paths:
                shapes[name] = (self.T + 1, self.B, node.width)
        shapes.update({node: (self.T, self.B, node.width) for node in made.stored})
        self.stored: dict[str | Node, tuple[int, int]] = {}  # memory, elements from its beginning
        kept = [key for key in shapes if not leaves(made, key, away)]
        pieces = Pieces([shapes[key] for key in kept])
        self.kept = pieces.size
        for key, offset in zip(kept, pieces.offsets):
            self.stored[key] = KEPT, offset
        for key, shape in shapes.items():
            if key not in self.stored:
                node = made.loop.carried[key] if isinstance(key, str) else key
                self.own.append(Own(self.base(("own", key)), shape, self.leaving.get(node), isinstance(key, str)))
                self.stored[key] = self.bases["own", key], 0

    def settle(self) -> None:
        """What the kernel has written can be read from now on."""
        after, before = (0, 1) if self.plan.loop.reverse else (1, 0)
        for key, (base, offset) in self.stored.items():
            node = self.plan.loop.carried[key] if isinstance(key, str) else key
            step, count = self.B * node.width, self.T * self.B
            at = offset + after * step if isinstance(key, str) else offset
            if node not in self.rows and node not in self.bases and node.op not in (Op.STEP, Op.FIXED):
                self.rows[node] = Rows(base, at, count, node.width)
            if isinstance(key, str) and key in self.kernel.states:
                self.rows[self.kernel.states[key]] = Rows(base, offset + before * step, count, node.width)

    # ---- what functions of our own read

    def side(self, node: Node) -> Rows:
        """The rows of one side of a product, columns side by side."""
        B, all_rows = self.B, self.T * self.B
        if node in self.rows:
            return self.rows[node]
        if node.op is Op.STEP:
            value = self.given.per_step[node.arg]
            (per_step, per_row, column), T = value.stride(), self.T
            close, even = column == 1 or node.width == 1, T == 1 or B == 1 or per_step == B * per_row
            if close and even:
                return Rows(self.input("per_step", node.arg), 0, all_rows, per_row if B > 1 else per_step)
            return Rows(self.input("per_step", node.arg, Tensor.contiguous), 0, all_rows, node.width)
        if node.op is Op.FIXED:
            per_row, column = self.given.fixed[node.arg].stride()
            close = column == 1 or node.width == 1
            base = self.input("fixed", node.arg, None if close else Tensor.contiguous)
            return Rows(base, 0, B, per_row if close else node.width)
        return Rows(self.bases[node], 0, B if node in self.short else all_rows, node.width)  # by torch

    def stream(self, node: Node) -> tuple[Spot, int, int]:
        """A sequence as the kernel reads it, and elements from step to step and from row to row: any."""
        if node.op is Op.STEP:
            strides = self.given.per_step[node.arg].stride()
            if strides[-1] == 1 or node.width == 1:
                return Spot(self.input("per_step", node.arg)), *strides[:2]
            if not any(strides):
                return Spot(self.input("per_step", node.arg, one_row)), 0, 0
            return Spot(self.input("per_step", node.arg, Tensor.contiguous)), self.B * node.width, node.width
        if node in self.lone:
            return Spot(self.bases[node]), 0, 0
        rows = self.side(node)
        return self.spot(rows), 0 if node in self.short else self.B * rows.stride, rows.stride

    def weight(self, node: Node) -> tuple[Spot, int, int]:
        """A matrix, and elements from row to row and from column to column."""
        return Spot(self.input("shared", node.arg)), *self.given.shared[node.arg].stride()

    def vector(self, node: Node) -> Spot:
        close = self.given.shared[node.arg].is_contiguous()
        return Spot(self.input("shared", node.arg, None if close else Tensor.contiguous))

    # ---- what is run

    def jobs(self) -> Jobs:
        """The launch that further functions join."""
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, Jobs):
            last = Jobs(self.count, self.kernel.target)
            self.steps.append(last)
        return last

    def compute(self, node: Node) -> None:
        """One value around the kernel: products by functions of our own, all else by torch."""
        if node.op not in TOTALS and all(s in self.short or s in self.lone for s in node.src) and node not in self.lone:
            self.short.add(node)
        if node.op is Op.MATMUL:
            self.linear(node)
        elif node.op is Op.OUTER:
            self.outer(node)
        else:
            self.steps.append((self.base(node), partial(Around.compute, node=node)))

    def linear(self, node: Node) -> None:
        """The product of all rows with one matrix."""
        made, side, (weight, *strides) = self.kernel.linear, self.side(node.src[0]), self.weight(node.src[1])
        K, N, stride = node.src[0].width, node.width, made.columns(node.width)
        if node in self.plan.loop.per_step.values():
            whole = stride == N and node not in self.short
            shape = (self.T, self.B, N) if whole else (side.count, stride)
            self.own.append(Own(self.base(node), shape, self.leaving.get(node) if whole else None))
            self.rows[node] = Rows(self.bases[node], 0, side.count, stride)
        else:
            spot = self.take(side.count * stride)
            self.rows[node] = Rows(WORK, spot.offset // self.bytes, side.count, stride)
        scratch = [self.take(size) for size in made.scratch(side.count, K, N)]
        jobs, sizes = self.jobs(), (side.stride, side.count, K, N)
        matrix = weight, *(strides[::-1] if node.arg else strides)
        block = made.numbers(sizes, self.spot(side), matrix, self.spot(self.rows[node]), scratch, jobs.flags())
        jobs.add(made.address, block)

    def outer(self, node: Node) -> None:
        """The sum over all rows of a matrix's gradient."""
        made, (a, b) = self.kernel.outer[node], map(self.moving, node.src)
        self.new.append((self.base(node), (node.rows, node.width), False))
        sizes = a.stride, b.stride, a.count, node.rows, node.width
        each = made.scratch(node.rows, node.width, a.count)
        spots = self.spot(a), self.spot(b), Spot(self.bases[node]), self.take(each * self.count)
        self.jobs().add(made.outer, numbers(sizes, *spots, each))

    def moving(self, node: Node) -> Rows:
        """A side with rows of its own for every step."""
        if node not in self.short:
            return self.side(node)
        base = self.base(("repeated", node))
        self.steps.append((base, partial(Around.repeated, node=node)))
        return Rows(base, 0, self.T * self.B, node.width)

    def launch(self) -> None:
        """The kernel itself, its numbers in the order of its layout."""
        kernel, made, T, B, jobs = self.kernel, self.plan, self.T, self.B, self.jobs()
        per_part = -(-B // self.count) if made.wide else B
        parts = -(-B // per_part) if made.wide else self.count
        scratch = self.take(parts * per_part * kernel.layout.per_row)
        shared = self.take(0 if made.wide else 2 * B * kernel.layout.shared_per_row)
        block: list[int | Spot] = [T, B, parts, per_part, scratch, shared, jobs.flags()]
        block += kernel.shared.product, kernel.shared.pack, kernel.shared.round
        for node in made.streams:
            block += self.stream(node)
        block += map(self.vector, made.vectors)
        for (node, _), (K, N) in zip(made.weights, made.matrices):
            block += *self.weight(node), self.take(kernel.sizes.elements(K) * kernel.shared.columns(N))
        for name, node in made.loop.carried.items():
            per_row, column = self.given.state[name].stride()
            close, last = column == 1 or node.width == 1, self.base(("last", name))
            first = self.input("state", name, None if close else Tensor.contiguous)
            self.new.append((last, (B, node.width), False))
            path = self.spot(Rows(*self.stored[name], 0, 0)) if name in self.stored else 0
            block += Spot(first), per_row if close else node.width, Spot(last), path
        block += [self.spot(Rows(*self.stored[node], 0, 0)) for node in made.stored]
        for node in made.totals:
            self.new.append((self.base(("total", node)), (self.count, node.width), True))
            self.base(node)
            block.append(Spot(self.bases["total", node]))
        jobs.add(kernel.address, block)

    def finish(self) -> None:
        """The blocks are complete, and where each part of the result will lie."""
        for step in self.steps:
            if isinstance(step, Jobs):
                step.finish()
        loop, plain = self.plan.loop, {own.base for own in self.own if own.shape[:2] == (self.T, self.B)}
        self.views = {name: self.view(node, plain) for name, node in loop.per_step.items()}
        self.last = {name: self.bases["last", name] for name in loop.carried}
        self.summed = {name: self.bases.get(node) for name, node in loop.summed.items()}
        by_torch = [step for step in self.steps if not isinstance(step, Jobs)]
        self.alone = not by_torch and None not in [*self.views.values(), *self.summed.values()]

    def view(self, node: Node, plain: set[int]) -> tuple[int, Any] | None:
        """An output's memory and how it lies there, () where it is all of it; None where torch has a part in it."""
        T, B, rows = self.T, self.B, self.rows.get(node)
        if rows is None or node in self.short or (node in self.leaving and rows.stride != node.width):
            return None
        if rows.base in plain:
            return rows.base, ()
        return rows.base, ((T, B, node.width), (B * rows.stride, rows.stride, 1), rows.offset)

    # ---- at each call

    def __call__(self, given: Given, some: Tensor) -> Result:
        work, kept = lease(self.work, self.dtype), lease(self.kept, self.dtype)
        tensors = self.memories(given, some)
        tensors[WORK], tensors[KEPT] = work.memory, kept.memory
        around = None if self.alone else Around(given, some, self.short, partial(self.written, tensors))
        for step in self.steps:
            if isinstance(step, Jobs):
                step.run([0 if t is None else t.data_ptr() for t in tensors])
            else:
                base, compute = step
                tensors[base] = compute(around)
        for node in self.plan.totals:
            sums = tensors[self.bases["total", node]]
            tensors[self.bases[node]] = sums.sum(0) if self.plan.wide else sums[0]
        return Result(
            {name: self.output(name, tensors, around, name in given.out) for name in self.views},
            {name: tensors[base] for name, base in self.last.items()},
            {
                name: around.get(self.plan.loop.summed[name]) if base is None else tensors[base]
                for name, base in self.summed.items()
            },
            kept,
        )

    def memories(self, given: Given, some: Tensor) -> list[Any]:
        """All that there is before the first function runs, by its number; None for what is still to come."""
        tensors: list[Any] = [None] * len(self.bases)
        for base, group, name, adapt in self.inputs:
            value = getattr(given, group)[name]
            tensors[base] = value if adapt is None else adapt(value)
        for own in self.own:
            room = given.out.get(own.name) if own.name else None
            if room is None:
                tensors[own.base] = fresh(own.shape, self.dtype)
            else:
                tensors[own.base] = placed(room, own.shape, self.plan.loop.reverse) if own.path else room
        for base, shape, zeros in self.new:
            tensors[base] = some.new_zeros(shape) if zeros else some.new_empty(shape)
        return tensors

    def output(self, name: str, tensors: list[Any], around: Any, leaving: bool) -> Tensor:
        view = self.views[name]
        if view is None:
            return around.output(self.plan.loop.per_step[name], leaving)
        base, layout = view
        return seen(tensors[base], *layout) if layout else tensors[base]

    def written(self, tensors: list[Any], node: Node) -> Tensor | None:
        """What functions of our own have given, with its rows one after another."""
        if node in self.rows:
            base, offset, count, stride = self.rows[node]
            return seen(tensors[base], (count, node.width), (stride, 1), offset)
        return tensors[self.bases[node]] if node in self.bases else None


def seen(memory: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Tensor:
    """A part of a memory, so many elements behind its beginning."""
    return memory.as_strided(shape, strides, memory.storage_offset() + offset)


def placed(room: Tensor, shape: tuple[int, ...], reverse: bool) -> Tensor:
    """The memory for an output as the kernel fills it: a path of states begins a step earlier than their outputs."""
    earlier = room.stride(0) if shape[0] > room.shape[0] and not reverse else 0
    return room.as_strided(shape, room.stride(), room.storage_offset() - earlier)


def one_row(value: Tensor) -> Tensor:
    """Of a sequence whose numbers are all in the same place."""
    return value[:1, :1].contiguous()


def leaves(made: Plan, key: str | Node, away: set[Node]) -> bool:
    """The caller is given this stored value, or this path: its states after each step, or before."""
    if isinstance(key, str):
        return made.loop.carried[key] in away or any(n.op is Op.STATE and n.arg == key for n in away)
    return key in away
