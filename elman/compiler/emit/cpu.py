"""A loop as one kernel on a CPU, with torch's matrix products ahead of it and behind it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from elman.compiler.emit import native, threads
from elman.compiler.emit.kernel import FIXED_SLOTS, Kernel, Layout
from elman.compiler.emit.llvm import FLAG_BYTES, Build
from elman.compiler.emit.plan import Plan, plan
from elman.compiler.emit.product import products
from elman.compiler.emit.reference import MEANING, Given, Result, constant
from elman.compiler.emit.target import Target, host
from elman.compiler.graph import LEAVES, Loop, Node, Op, show

TYPES = {torch.float32: "f32", torch.float64: "f64"}
BY_PANEL_ROWS = 8  # up to so many rows a thread, threads share the columns of a product rather than the rows


def emit(loop: Loop, target: Target | None = None) -> Callable[[Given], Result]:
    """The loop as a function of tensors on the CPU, float32 or float64; compiled when first called."""
    return Emitted(loop, target or host())


class Emitted:
    """A planned loop; one compiled kernel for each element type."""

    def __init__(self, loop: Loop, target: Target) -> None:
        self.loop, self.target = loop, target
        self.kernels: dict[torch.dtype, Compiled] = {}

    @cached_property
    def plan(self) -> Plan:
        return plan(self.loop)

    def __call__(self, given: Given) -> Result:
        some = next(iter([*given.per_step.values(), *given.state.values()]))
        if some.dtype not in self.kernels:
            self.kernels[some.dtype] = Compiled(self.plan, TYPES[some.dtype], self.target)
        return run(self.plan, self.kernels[some.dtype], given, some)


class Compiled:
    """The kernel of a plan for one element type."""

    def __init__(self, made: Plan, dtype: str, target: Target) -> None:
        self.shared = products(dtype, target)
        self.panel = self.shared.panel
        self.layout = Layout(made, self.panel)

        def build() -> object:
            module = Build(target, dtype, "unfolded")
            Kernel(made, module).write()
            return module.module

        code = native.load("unfolded", f"{dtype}\n{show(made.loop)}\n{made.loop.reverse}", build, target)
        self.address = code.address("kernel")
        self.kept = code.kept


def run(made: Plan, kernel: Compiled, given: Given, some: Tensor) -> Result:
    """Products ahead, the kernel, products behind."""
    whole = Whole(made, given, some)
    for node in made.ahead:
        whole.compute(node)
    carried, stored, paths, totals = launch(made, kernel, given, whole, some)
    reverse = made.loop.reverse
    before, after = (slice(1, None), slice(None, -1)) if reverse else (slice(None, -1), slice(1, None))
    for name, path in paths.items():
        node = made.loop.carried[name]
        whole.put(node, path[after])
        for leaf in whole.leaves:
            if leaf.op is Op.STATE and leaf.arg == name:
                whole.put(leaf, path[before])
    for node, value in stored.items():
        whole.put(node, value)
    for node, value in totals.items():
        whole.values[node] = value
    for node in made.behind:
        whole.compute(node)
    return Result(
        {name: whole.sequence(node) for name, node in made.loop.per_step.items()},
        carried,
        {name: whole.values[node] for name, node in made.loop.summed.items()},
    )


class Whole:
    """Values of all steps at once, as torch sees them: (T * B, width), or (B, width) where steps do not differ."""

    def __init__(self, made: Plan, given: Given, some: Tensor) -> None:
        self.given, self.some = given, some
        self.T, self.B = given.size
        self.leaves = [n for n in made.loop.nodes() if n.op in LEAVES]
        self.values: dict[Node, Tensor] = {}
        self.still: set[Node] = set()  # the same at every step

    def put(self, node: Node, value: Tensor) -> None:
        """Enter a sequence (T, B, width)."""
        self.values[node] = value.reshape(self.T * self.B, -1)

    def get(self, node: Node) -> Tensor:
        if node not in self.values:
            if node.op is Op.STEP:
                self.put(node, self.given.per_step[node.arg])
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
        self.values[node] = MEANING[node.op](node, *sources)

    def sequence(self, node: Node) -> Tensor:
        """A value as (T, B, width)."""
        value = self.get(node)
        moving = node not in self.still and value.dim() == 2 and node.op not in (Op.SHARED, Op.CONST)
        return value.view(self.T, self.B, -1) if moving else value.expand(self.T, self.B, node.width)


Launched = tuple[dict[str, Tensor], dict[Node, Tensor], dict[str, Tensor], dict[Node, Tensor]]


def launch(made: Plan, kernel: Compiled, given: Given, whole: Whole, some: Tensor) -> Launched:
    """Fill the block, run the kernel; returns last states, stored sequences, paths of states, totals."""
    (T, B), layout, panel = given.size, kernel.layout, kernel.panel
    count = torch.get_num_threads()
    by_panel = count > 1 and BY_PANEL_ROWS * count >= B
    parts = min(count, B)
    per_part = B if by_panel else -(-B // parts)
    parts = count if by_panel else -(-B // per_part)
    slots: dict[str, int] = {"T": T, "B": B, "parts": parts, "per_part": per_part, "by_panel": int(by_panel)}
    keep: list[Tensor] = []  # what the kernel reads must live until it ends

    def new(*shape: int) -> Tensor:
        keep.append(some.new_empty(shape))
        return keep[-1]

    slots["scratch"] = new(parts * per_part * layout.per_row).data_ptr()
    slots["shared"] = new(2 * B * layout.shared_per_row if by_panel else 0).data_ptr()
    keep.append(torch.zeros(count * FLAG_BYTES, dtype=torch.uint8))
    slots["flags"] = keep[-1].data_ptr()
    slots["product"], slots["pack"] = kernel.shared.product, kernel.shared.pack
    for i, node in enumerate(made.streams):
        value = stream(whole, node)
        keep.append(value)
        slots[f"stream{i}"] = value.data_ptr()
        slots[f"stream{i}.t"], slots[f"stream{i}.r"] = value.stride(0), value.stride(1)
    for i, node in enumerate(made.vectors):
        keep.append(whole.get(node).contiguous())
        slots[f"vector{i}"] = keep[-1].data_ptr()
    for i, (node, transposed) in enumerate(made.weights):
        weight = whole.get(node)
        K, N = (node.width, node.rows) if transposed else (node.rows, node.width)
        slots[f"weight{i}"] = weight.data_ptr()
        slots[f"weight{i}.k"], slots[f"weight{i}.n"] = weight.stride()
        slots[f"packed{i}"] = new(K * -(-N // panel) * panel).data_ptr()
    carried, paths = {}, {}
    for name, node in made.loop.carried.items():
        first = given.state[name]
        first = first if first.stride(-1) == 1 or node.width == 1 else first.contiguous()
        carried[name] = some.new_empty(B, node.width)
        keep.append(first)
        slots[f"first:{name}"], slots[f"first:{name}.r"] = first.data_ptr(), first.stride(0)
        slots[f"last:{name}"], slots[f"path:{name}"] = carried[name].data_ptr(), 0
        if name in made.paths:
            paths[name] = some.new_empty(T + 1, B, node.width)
            slots[f"path:{name}"] = paths[name].data_ptr()
    stored = {node: some.new_empty(T, B, node.width) for node in made.stored}
    slots.update({f"stored{i}": value.data_ptr() for i, value in enumerate(stored.values())})
    sums = [some.new_zeros(count, node.width) for node in made.totals]
    slots.update({f"total{i}": value.data_ptr() for i, value in enumerate(sums)})
    block = (ctypes.c_int64 * len(layout.slots))(*(slots[name] for name in layout.slots))
    threads.parallel(kernel.address, ctypes.addressof(block), count if by_panel else parts)
    totals = {node: value[0] if by_panel else value.sum(0) for node, value in zip(made.totals, sums)}
    return carried, stored, paths, totals


def stream(whole: Whole, node: Node) -> Tensor:
    """A sequence as the kernel reads it: (T, B, width) with columns side by side, any strides of time and rows."""
    if node.op is Op.STEP:
        value = whole.given.per_step[node.arg]
    else:
        value = whole.sequence(node)
    if value.stride(-1) == 1 or node.width == 1:
        return value
    if not any(value.stride()):
        return value[:1, :1].contiguous().expand(whole.T, whole.B, -1)
    return value.contiguous()


assert len(set(FIXED_SLOTS)) == len(FIXED_SLOTS)
