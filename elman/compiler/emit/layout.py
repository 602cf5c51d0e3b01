"""Where a kernel finds its arguments, and how temporary rows share the scratch of a part."""

from __future__ import annotations

from elman.compiler.emit.llvm import Build
from elman.compiler.emit.plan import Plan
from elman.compiler.graph import Node, Op

FIXED_SLOTS = ("T", "B", "parts", "per_part", "scratch", "shared", "flags", "product", "pack", "round", "turn")


class Layout:
    """Names of the 8-byte slots of the block, and how temporary rows share the scratch of a part."""

    def __init__(self, plan: Plan, build: Build) -> None:
        self.slots = {name: i for i, name in enumerate(FIXED_SLOTS)}
        for i in range(len(plan.streams)):
            self._add(f"stream{i}", f"stream{i}.t", f"stream{i}.r")
        for i in range(len(plan.vectors)):
            self._add(f"vector{i}")
        for i in range(len(plan.weights)):
            self._add(f"weight{i}", f"weight{i}.k", f"weight{i}.n", f"packed{i}")
        for name in plan.loop.carried:
            self._add(f"first:{name}", f"first:{name}.r", f"last:{name}", f"path:{name}")
        for i in range(len(plan.stored)):
            self._add(f"stored{i}", f"stored{i}.r")
        for i in range(len(plan.totals)):
            self._add(f"total{i}")
        # a state before and after a step; where columns are apart, also the one that a thread which is late still reads
        self.ring = 4 if plan.period else 2
        self.rows: dict[object, tuple[int, int]] = {}  # key -> (elements before it per row, elements of its own row)
        self.per_row = 0
        shared = [n for n in plan.temps if not plan.wide and (plan.period or n.op is Op.MATMUL)]
        for node in plan.temps:
            if node not in shared:
                self._row(node, build.columns(node.width))
        for name, node in plan.loop.carried.items():
            self._row(f"ring:{name}", self.ring * node.width)
        for node in plan.stored:
            self._row(("own", node), node.width)
        for node in plan.sides if build.paired else ():
            self._row(("rounded", node), build.paired_width(node.width))
        self.shared: dict[Node, int] = {}  # value -> elements before it per row, in each half of the shared scratch
        self.shared_per_row = 0
        for node in shared:
            self.shared[node] = self.shared_per_row
            self.shared_per_row += build.columns(node.width)

    def _add(self, *names: str) -> None:
        for name in names:
            self.slots[name] = len(self.slots)

    def _row(self, key: object, width: int) -> None:
        self.rows[key] = (self.per_row, width)
        self.per_row += width
