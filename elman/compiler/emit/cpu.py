"""A loop as one kernel on a CPU, with torch's matrix products ahead of it and behind it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from elman.compiler.collection import collection_paused
from elman.compiler.emit import native, threads
from elman.compiler.emit.kernel import Kernel
from elman.compiler.emit.layout import Layout
from elman.compiler.emit.linear import linear
from elman.compiler.emit.llvm import FLAG_BYTES, Build
from elman.compiler.emit.outer import outer, outers_for
from elman.compiler.emit.plan import Plan, plan, stateless
from elman.compiler.emit.pool import Pieces, fresh, lease
from elman.compiler.emit.product import products
from elman.compiler.emit.reference import MEANING, Given, Result, constant
from elman.compiler.emit.target import Target, host
from elman.compiler.graph import Loop, Node, Op, show

TYPES = {torch.float32: "f32", torch.float64: "f64"}
ROUNDED = {torch.bfloat16: "bf16"}  # operands of products, where all else is float32
WIDE_ROWS = 3  # rows a thread from which each thread runs its own rows; below, threads share each product
FULL_ROWS = 13  # rows a thread from which reading a large matrix at every step costs nothing beside its product
LARGE = 1 << 20  # bytes of matrices that leave too little of a second cache to those which every step needs


def emit(loop: Loop, operands: torch.dtype | None = None, target: Target | None = None) -> Callable[[Given], Result]:
    """The loop as a function of tensors on the CPU, float32 or float64; compiled when first called.

    operands: what the two sides of products are rounded to, bfloat16, where the tensors are float32; None: to nothing.
    """
    return Emitted(loop, operands, target or host())


class Emitted:
    """A loop; one compiled kernel for each element type and way of splitting the work."""

    def __init__(self, loop: Loop, operands: torch.dtype | None, target: Target) -> None:
        self.loop, self.operands, self.target = loop, operands, target
        self.kernels: dict[tuple[torch.dtype, bool, bool], Compiled] = {}
        self.elements = stateless(loop)

    def compiled(self, dtype: torch.dtype, rows: float) -> Compiled:
        """The kernel for so many rows a thread, from memory, from the disk, or new."""
        wide = rows >= WIDE_ROWS
        hoisted = not wide or (rows < FULL_ROWS and self.elements * (self.operands or dtype).itemsize >= LARGE)
        if (dtype, wide, hoisted) not in self.kernels:
            with collection_paused():
                name = TYPES[dtype] if self.operands is None else ROUNDED[self.operands]
                self.kernels[dtype, wide, hoisted] = Compiled(self.loop, wide, hoisted, name, self.target)
        return self.kernels[dtype, wide, hoisted]

    def __call__(self, given: Given) -> Result:
        some = next(iter([*given.per_step.values(), *given.state.values()]))
        kernel = self.compiled(some.dtype, given.size[1] / torch.get_num_threads())
        return run(kernel.plan, kernel, given, some)


class Compiled:
    """A planned loop and its kernel, for one element type: "f32", "f64" or "bf16"."""

    def __init__(self, loop: Loop, wide: bool, hoisted: bool, dtype: str, target: Target) -> None:
        self.sizes = Build(target, dtype)
        self.plan = plan(loop, wide, hoisted, self.sizes.panel)
        self.layout = Layout(self.plan, self.sizes)
        self.shared = products(dtype, target, [N for _, N in self.plan.matrices])
        around = [*self.plan.ahead, *self.plan.behind]
        self.linear = linear(dtype, target) if any(n.op is Op.MATMUL for n in around) else None
        self.outer = {n: outers_for(n.rows, n.width, dtype, target) for n in around if n.op is Op.OUTER}
        self.states = loop.leaves(Op.STATE)

        def build() -> object:
            module = Build(target, dtype, "unfolded")
            Kernel(self.plan, module).write()
            return module.module

        way = [
            "wide" if wide else "narrow",
            "hoisted" if hoisted else "in step",
            "reverse" if loop.reverse else "forward",
        ]
        code = native.load("unfolded", "\n".join([dtype, *way, show(loop), *described(loop)]), build, target)
        self.address = code.address("kernel")
        self.kept = code.kept
        self.memory = lru_cache(maxsize=16)(partial(Memory, self))


def described(loop: Loop) -> list[str]:
    """Every node with all that it is, sources by their numbers: what `show` leaves to the eye is said, too."""
    numbers = {node: i for i, node in enumerate(loop.nodes())}
    return [f"{n.op.name} {n.arg!r} {n.rows} x {n.width} {[numbers[s] for s in n.src]}" for n in numbers]


def run(made: Plan, kernel: Compiled, given: Given, some: Tensor) -> Result:
    """Products ahead, the kernel, products behind."""
    whole = Whole(kernel, given, some)
    for node in made.ahead:
        whole.compute(node)
    carried, stored, paths, totals, kept = launch(kernel, given, whole, some)
    reverse = made.loop.reverse
    before, after = (slice(1, None), slice(None, -1)) if reverse else (slice(None, -1), slice(1, None))
    for name, path in paths.items():
        node = made.loop.carried[name]
        whole.sequences[node] = path[after]
        if name in kernel.states:
            whole.sequences[kernel.states[name]] = path[before]
    whole.sequences.update(stored)
    for node, value in totals.items():
        whole.values[node] = value
    for node in made.behind:
        whole.compute(node)
    return Result(
        {name: whole.output(node, name in given.out) for name, node in made.loop.per_step.items()},
        carried,
        {name: whole.values[node] for name, node in made.loop.summed.items()},
        kept,
    )


class Whole:
    """Values of all steps at once, as torch sees them: (T * B, width), or (B, width) where steps do not differ."""

    def __init__(self, kernel: Compiled, given: Given, some: Tensor) -> None:
        self.given, self.some, self.kernel = given, some, kernel
        self.T, self.B = given.size
        self.values: dict[Node, Tensor] = {}
        self.sequences: dict[Node, Tensor] = {}  # those that are there as (T, B, width)
        self.still: set[Node] = set()  # the same at every step

    def get(self, node: Node) -> Tensor:
        if node not in self.values:
            if node.op is Op.STEP:
                self.sequences[node] = self.given.per_step[node.arg]
            if node in self.sequences:
                self.values[node] = self.sequences[node].reshape(self.T * self.B, -1)
            elif node.op is Op.FIXED:
                self.values[node] = self.given.fixed[node.arg]
                self.still.add(node)
            elif node.op is Op.SHARED:
                self.values[node] = self.given.shared[node.arg]
            else:
                self.values[node] = constant(node, self.some)
        return self.values[node]

    def compute(self, node: Node) -> None:
        """One node in torch; values that steps share stay one step long if nothing else enters."""
        sources = [self.get(s) for s in node.src]
        moving = [s for s in node.src if s.op not in (Op.SHARED, Op.CONST) and s not in self.still]
        fixed = [s for s in node.src if s in self.still]
        if fixed and (moving or node.op in (Op.OUTER, Op.ROWSUM)):
            sources = [v.repeat(self.T, 1) if s in self.still else v for s, v in zip(node.src, sources)]
        elif fixed:
            self.still.add(node)
        if node.op is Op.MATMUL:
            a, weight = sources
            assert self.kernel.linear is not None
            self.values[node] = self.kernel.linear(a, weight.t() if node.arg else weight)
        elif node.op is Op.OUTER:
            a, b = sources
            self.values[node] = self.outer(a, b, node)
        else:
            self.values[node] = MEANING[node.op](node, *sources)

    def outer(self, a: Tensor, b: Tensor, node: Node) -> Tensor:
        """The transpose of a, times b."""
        out = a.new_empty(a.shape[1], b.shape[1])
        a, b = (v if v.stride(1) == 1 or v.shape[1] == 1 else v.contiguous() for v in (a, b))
        outer(a, b, out, self.kernel.outer[node])
        return out

    def output(self, node: Node, leaving: bool) -> Tensor:
        """A value as (T, B, width); what leaves for good has its columns and rows side by side."""
        value = self.sequence(node)
        return value.contiguous() if leaving else value

    def sequence(self, node: Node) -> Tensor:
        """A value as (T, B, width)."""
        if node in self.sequences:
            return self.sequences[node]
        value = self.get(node)
        moving = node not in self.still and value.dim() == 2 and node.op not in (Op.SHARED, Op.CONST)
        return value.view(self.T, self.B, -1) if moving else value.expand(self.T, self.B, node.width)


Launched = tuple[dict[str, Tensor], dict[Node, Tensor], dict[str, Tensor], dict[Node, Tensor], object]


class Memory:
    """What one kernel needs for one size of call: rows a part, parts, and where everything lies."""

    def __init__(self, kernel: Compiled, T: int, B: int, count: int, leaving: frozenset[str]) -> None:
        made, layout = kernel.plan, kernel.layout
        self.per_part = -(-B // count) if made.wide else B
        self.parts = -(-B // self.per_part) if made.wide else count
        work = [self.parts * self.per_part * layout.per_row, 0 if made.wide else 2 * B * layout.shared_per_row]
        panel = kernel.sizes.panel
        work += [kernel.sizes.elements(K) * -(-N // panel) * panel for K, N in made.matrices]
        self.work = Pieces([(size,) for size in work])
        away = {made.loop.per_step[name] for name in leaving}
        shapes: dict[str | Node, tuple[int, ...]] = {}  # paths by the state's name, stored values by their node
        for name, node in made.loop.carried.items():
            if name in made.paths:
                shapes[name] = (T + 1, B, node.width)
        shapes.update({node: (T, B, node.width) for node in made.stored})
        self.names = list(shapes)
        self.own = {k: v for k, v in shapes.items() if leaves(made, k, away)}
        self.output = {node: name for name, node in made.loop.per_step.items() if name in leaving}
        self.kept_names = [k for k in shapes if k not in self.own]
        self.kept = Pieces([shapes[k] for k in self.kept_names])


def leaves(made: Plan, key: str | Node, away: set[Node]) -> bool:
    """The caller is given this stored value, or this path: its states after each step, or before."""
    if isinstance(key, str):
        return made.loop.carried[key] in away or any(n.op is Op.STATE and n.arg == key for n in away)
    return key in away


def launch(kernel: Compiled, given: Given, whole: Whole, some: Tensor) -> Launched:
    """Fill the block in the order of its layout and run the kernel: last states, stored sequences, paths, totals."""
    (T, B), made, count = given.size, kernel.plan, torch.get_num_threads()
    memory = kernel.memory(T, B, count, frozenset(given.out))
    work, kept = lease(memory.work.size, some.dtype), lease(memory.kept.size, some.dtype)
    scratch, shared, *packed = memory.work.addresses(work)
    flags = (ctypes.c_char * (memory.parts * FLAG_BYTES))()  # zeros
    found = dict(zip(memory.kept_names, memory.kept.tensors(kept)))
    for key, shape in memory.own.items():
        name = memory.output.get(made.loop.carried[key] if isinstance(key, str) else key)
        room = given.out.get(name) if name else None
        found[key] = fresh(shape, some.dtype) if room is None else placed(room, shape, made.loop.reverse)
    keep: list[Tensor] = []  # what the kernel reads must live until it ends
    block = [T, B, memory.parts, memory.per_part, scratch, shared, ctypes.addressof(flags)]
    block += kernel.shared.product, kernel.shared.pack, kernel.shared.round
    for node in made.streams:
        keep.append(value := stream(whole, node))
        block += value.data_ptr(), *value.stride()[:2]
    for node in made.vectors:
        keep.append(value := whole.get(node).contiguous())
        block.append(value.data_ptr())
    for (node, _), panels in zip(made.weights, packed):
        weight = whole.get(node)
        block += weight.data_ptr(), *weight.stride(), panels
    carried = {}
    for name, node in made.loop.carried.items():
        first = given.state[name]
        keep.append(first := first if first.stride(-1) == 1 or node.width == 1 else first.contiguous())
        carried[name] = some.new_empty(B, node.width)
        path = found[name].data_ptr() if name in found else 0
        block += first.data_ptr(), first.stride(0), carried[name].data_ptr(), path
    sums = [some.new_zeros(count, node.width) for node in made.totals]
    block += [found[node].data_ptr() for node in made.stored]
    block += [value.data_ptr() for value in sums]
    array = (ctypes.c_int64 * len(block))(*block)
    threads.parallel(kernel.address, ctypes.addressof(array), memory.parts)
    totals = {node: value.sum(0) if made.wide else value[0] for node, value in zip(made.totals, sums)}
    paths = {key: value for key, value in found.items() if isinstance(key, str)}
    return carried, {node: found[node] for node in made.stored}, paths, totals, kept


def placed(room: Tensor, shape: tuple[int, ...], reverse: bool) -> Tensor:
    """The memory for an output as the kernel fills it: a path of states begins a step earlier than their outputs."""
    earlier = room.stride(0) if shape[0] > room.shape[0] and not reverse else 0
    return room.as_strided(shape, room.stride(), room.storage_offset() - earlier)


def stream(whole: Whole, node: Node) -> Tensor:
    """A sequence as the kernel reads it: (T, B, width) with columns side by side, any strides of time and rows."""
    if node.op is Op.STEP:
        value = whole.given.per_step[node.arg]
    else:
        value = whole.sequence(node)
    strides = value.stride()
    if strides[-1] == 1 or node.width == 1:
        return value
    if not any(strides):
        return value[:1, :1].contiguous().expand(whole.T, whole.B, -1)
    return value.contiguous()
