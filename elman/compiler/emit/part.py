"""A sequence within some memory, as a forward loop's emitter hands it to the backward loop.

A tensor for each would take longer than a small kernel does; where they lie is known from earlier calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """What `as_strided` takes; strides and offset in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """Elements of the memory up to the last one of these."""
        return self.offset + 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))

    def of(self, memory: Tensor | Part) -> Tensor:
        """As a tensor; of a part's memory these are elements from where that begins."""
        if isinstance(memory, Part):
            return self._replace(offset=memory.layout.offset + self.offset).of(memory.memory)
        return memory.as_strided(self.shape, self.strides, memory.storage_offset() + self.offset)


class Part(NamedTuple):
    """A sequence that is no tensor yet; `stride` and `data_ptr` are those of the tensor."""

    memory: Tensor
    layout: Layout

    def stride(self) -> tuple[int, ...]:
        return self.layout.strides

    def data_ptr(self) -> int:
        return self.memory.data_ptr() + self.layout.offset * self.memory.element_size()

    def tensor(self) -> Tensor:
        return self.layout.of(self.memory)


Sequences = Mapping[str, "Tensor | Part"]
Packing = dict[str, "tuple[int, Layout | None]"]  # the number of a memory, and which part of it


def packed(sequences: Sequences) -> tuple[Packing, list[Tensor]]:
    """The memories of these sequences, each once, and how to find the sequences in them."""
    memories: list[Tensor] = []
    numbers: dict[int, int] = {}
    packing: Packing = {}
    for name, value in sequences.items():
        memory, layout = value if isinstance(value, Part) else (value, None)
        if id(memory) not in numbers:
            numbers[id(memory)] = len(memories)
            memories.append(memory)
        packing[name] = numbers[id(memory)], layout
    return packing, memories


def unpacked(packing: Packing, memories: Sequence[Tensor]) -> dict[str, Tensor | Part]:
    """The sequences in these memories, or in copies of them."""
    return {
        name: memories[number] if layout is None else Part(memories[number], layout)
        for name, (number, layout) in packing.items()
    }


def trimmed(packing: Packing, memories: Sequence[Tensor]) -> list[Tensor]:
    """The memories as tensors of their own, no larger than the sequences need, which is always the same."""
    ends: dict[int, int] = {}
    for number, layout in packing.values():
        if layout is not None:
            ends[number] = max(ends.get(number, 0), layout.end)
    return [
        memory.as_strided((ends[i],), (1,), memory.storage_offset()).detach() if i in ends else memory.detach()
        for i, memory in enumerate(memories)
    ]


def as_tensor(value: Tensor | Part) -> Tensor:
    return value.tensor() if isinstance(value, Part) else value
