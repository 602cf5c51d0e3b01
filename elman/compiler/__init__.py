"""From a step to a fast function.

    loop          = simplify(trace(step, ...))          # one step, and which output feeds which state
    forward, back = map(simplify, derive(loop, ...))    # BPTT: a Loop that saves, and a Loop in reverse
    run, run_back = emit(forward), emit(back)           # each unfolded into before, during, after

`trace` also returns the short program for values of parameters alone; `Program` holds what has been compiled of one
loop and hands it to torch's autograd. Nothing in here knows a cell by its name, a module or a file.
"""

from __future__ import annotations

from torch import Tensor

from elman.compiler.aten_ops import UntraceableError
from elman.compiler.collection import collection_paused
from elman.compiler.emit import reference
from elman.compiler.emit.reference import Given, Result
from elman.compiler.emit.target import NoTarget, host, lacks_pairs, pairs_by
from elman.compiler.graph import Costs, Loop, costs, show
from elman.compiler.run import Emit, Program
from elman.compiler.segments import Runner, segment_length
from elman.compiler.simplify import simplify
from elman.compiler.trace import Traced, trace
from elman.compiler.unfold import unfold
from elman.compiler.verify import verify

__all__ = [
    "Costs",
    "Given",
    "Loop",
    "Program",
    "Result",
    "Runner",
    "Traced",
    "UntraceableError",
    "collection_paused",
    "costs",
    "emitter",
    "lacks_pairs",
    "pairs_by",
    "reference",
    "segment_length",
    "show",
    "simplify",
    "trace",
    "unfold",
    "verify",
]


@collection_paused()
def emitter(loop: Loop, x: Tensor, forced: str | None) -> tuple[str, Emit, str]:
    """The name of the backend for this loop and input, how it emits, and why it is not a faster one."""
    if forced == "reference":
        return "reference", reference.emit, "asked for"
    if x.device.type != "cpu":
        return "reference", reference.emit, f"there are no kernels for {x.device.type} yet"
    try:
        from elman.compiler.emit import cpu  # llvmlite is imported only where it is used
    except ImportError as error:
        return "reference", reference.emit, f"kernels need llvmlite ({error}); pip install llvmlite"
    try:
        host()
    except NoTarget as error:
        return "reference", reference.emit, str(error)
    return "fused", cpu.emit, ""
