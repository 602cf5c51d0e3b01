"""What each of torch's core operations is in the graph: one rule an operation, in one table."""

from elman.compiler.aten_ops import across, activations, columns, numbers, refused
from elman.compiler.aten_ops.value import RULES, Site, UntraceableError, Value

__all__ = ["RULES", "Site", "UntraceableError", "Value", "across", "activations", "columns", "numbers", "refused"]
