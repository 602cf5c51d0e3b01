"""What torch computes beside a kernel: values of all steps at once that no function of our own gives."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from elman.compiler.emit.part import as_tensor
from elman.compiler.emit.reference import MEANING, Given, constant
from elman.compiler.graph import Node, Op


class Beside:
    """Values as torch sees them: (T * B, width), or (B, width) for `short` ones, which are the same at every step.

    written: gives a value that functions of our own have written, or None.
    """

    def __init__(self, given: Given, some: Tensor, short: set[Node], written: Callable[[Node], Tensor | None]) -> None:
        self.given, self.some, self.short, self.written = given, some, short, written
        self.T, self.B = given.size
        self.values: dict[Node, Tensor] = {}

    def get(self, node: Node) -> Tensor:
        """A value that is given, or has been computed."""
        if node not in self.values:
            value = self.written(node)
            self.values[node] = self.leaf(node) if value is None else value
        return self.values[node]

    def leaf(self, node: Node) -> Tensor:
        if node.op is Op.STEP:
            return as_tensor(self.given.per_step[node.arg]).reshape(self.T * self.B, -1)
        if node.op is Op.FIXED:
            return self.given.fixed[node.arg]
        return self.given.shared[node.arg] if node.op is Op.SHARED else constant(node, self.some)

    def compute(self, node: Node) -> Tensor:
        """One node, its columns and rows side by side."""
        short = node in self.short
        sources = [self.get(s) if short or s not in self.short else self.repeated(s) for s in node.src]
        value = MEANING[node.op](node, *sources)
        self.values[node] = (value.expand(node.width) if value.dim() < 2 else value).contiguous()
        return self.values[node]

    def repeated(self, node: Node) -> Tensor:
        """A short value with the rows of all steps."""
        return self.get(node).repeat(self.T, 1)

    def output(self, node: Node, leaving: bool) -> Tensor:
        """A value as (T, B, width); what leaves for good has its columns and rows side by side."""
        if node.op is Op.STEP:
            value = as_tensor(self.given.per_step[node.arg])
        elif (value := self.get(node)).dim() < 2 or node in self.short:
            value = value.expand(self.T, self.B, node.width)
        else:
            value = value.unflatten(0, (self.T, self.B))
        return value.contiguous() if leaving else value
