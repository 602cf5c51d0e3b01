"""LLVM's language, as text: types, constants, functions and the instructions that kernels need.

Each instruction is put into words once, when it is written; llvmlite's own classes take five times as long to do that,
a seventh of the time of a first use. Pointers are opaque. Reference: LLVM Language Reference Manual.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache

SIGNS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


class Type:
    """A type; each there is once, so that `is` compares."""

    def __init__(self, text: str, element: Type | None = None, count: int = 0) -> None:
        self.text, self.element, self.count = text, element, count

    def __repr__(self) -> str:
        return self.text


@cache
def integer(bits: int) -> Type:
    """A whole number of so many bits."""
    return Type(f"i{bits}")


@cache
def vector(element: Type, count: int) -> Type:
    """So many elements side by side."""
    return Type(f"<{count} x {element.text}>", element, count)


f32, f64, bf16, pointer, void = (Type(text) for text in ("float", "double", "bfloat", "ptr", "void"))
i1, i8, i16, i32, i64 = (integer(bits) for bits in (1, 8, 16, 32, 64))


class Value:
    """What an instruction gives, an argument, a constant or a function: its type and what it is called."""

    def __init__(self, type: Type, name: str, constant: bool = False) -> None:
        self.type, self.name, self.constant = type, name, constant
        self.text = f"{type.text} {name}"


def constant(type: Type, value: float | Sequence[float] | None) -> Value:
    """A number, or one for each lane of a vector; None: what is in it does not matter."""
    return Value(type, "undef" if value is None else words(type, value), constant=True)


def words(type: Type, value: float | Sequence[float]) -> str:
    if type.element is not None:
        lanes = value if isinstance(value, Sequence) else [value] * type.count
        return "<" + ", ".join(f"{type.element.text} {words(type.element, lane)}" for lane in lanes) + ">"
    assert not isinstance(value, Sequence)
    if type in (f32, f64):
        value = struct.unpack("f", struct.pack("f", value))[0] if type is f32 else value
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}"
    return str(int(value))


class Block:
    """Instructions in a row."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str | Callable[[], str]] = []
        self.ended = False


class Function(Value):
    """A function: declared, or with blocks."""

    def __init__(self, name: str, result: Type, types: Sequence[Type], internal: bool = False) -> None:
        super().__init__(pointer, f"@{name}")
        self.result, self.types, self.internal = result, types, internal
        self.arguments = [Value(type, f"%a{i}") for i, type in enumerate(types)]
        self.locals: list[str] = []
        self.blocks: list[Block] = []
        self.named = 0

    def __str__(self) -> str:
        if not self.blocks:
            return f"declare {self.result.text} {self.name}({', '.join(type.text for type in self.types)})"
        given = ", ".join(argument.text for argument in self.arguments)
        found = [f"define {'internal ' * self.internal}{self.result.text} {self.name}({given}) nounwind {{"]
        for i, block in enumerate(self.blocks):
            found += [f"{block.name}:", *(self.locals if i == 0 else ())]
            found += [line if isinstance(line, str) else line() for line in block.lines]
        return "\n".join([*found, "}"])


class Module:
    """Functions and places for addresses, by name."""

    def __init__(self, name: str, triple: str) -> None:
        self.name, self.triple = name, triple
        self.functions: dict[str, Function] = {}
        self.places: dict[str, Value] = {}

    def place(self, name: str) -> Value:
        """A pointer's worth of memory, 0 at first."""
        return self.places.setdefault(name, Value(pointer, f"@{name}"))

    def __str__(self) -> str:
        places = [f"{value.name} = global ptr null" for value in self.places.values()]
        return "\n".join([f'target triple = "{self.triple}"', *places, *map(str, self.functions.values()), ""])


class Phi(Value):
    """A value that depends on where its block was come from."""

    def __init__(self, type: Type, name: str) -> None:
        super().__init__(type, name)
        self.incoming: list[str] = []

    def add_incoming(self, value: Value, block: Block) -> None:
        self.incoming.append(f"[{value.name}, %{block.name}]")

    def line(self) -> str:
        return f"{self.name} = phi {self.type.text} {', '.join(self.incoming)}"


class Switch:
    """A choice among blocks."""

    def __init__(self, value: Value, default: Block) -> None:
        self.value, self.default = value, default
        self.cases: list[str] = []

    def add_case(self, value: Value, block: Block) -> None:
        self.cases.append(f"{value.text}, label %{block.name}")

    def line(self) -> str:
        return f"switch {self.value.text}, label %{self.default.name} [{' '.join(self.cases)}]"


class Builder:
    """Writes the instructions of one function, at the end of a block."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.block = self.append_basic_block("entry")

    # ---- blocks

    def append_basic_block(self, name: str) -> Block:
        block = Block(f"{name}.{len(self.function.blocks)}")
        self.function.blocks.append(block)
        return block

    def position_at_end(self, block: Block) -> None:
        self.block = block

    def branch(self, block: Block) -> None:
        self._end(f"br label %{block.name}")

    def cbranch(self, condition: Value, yes: Block, no: Block) -> None:
        self._end(f"br i1 {condition.name}, label %{yes.name}, label %{no.name}")

    def switch(self, value: Value, default: Block) -> Switch:
        made = Switch(value, default)
        self._end(made.line)
        return made

    def ret_void(self) -> None:
        self._end("ret void")

    @contextmanager
    def if_then(self, condition: Value) -> Iterator[None]:
        yes, after = self.append_basic_block("if"), self.append_basic_block("endif")
        self.cbranch(condition, yes, after)
        with self._inside(yes, after):
            yield
        self.position_at_end(after)

    @contextmanager
    def if_else(self, condition: Value) -> Iterator[tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
        yes, no, after = (self.append_basic_block(name) for name in ("if", "else", "endif"))
        self.cbranch(condition, yes, no)
        yield self._inside(yes, after), self._inside(no, after)
        self.position_at_end(after)

    @contextmanager
    def _inside(self, block: Block, after: Block) -> Iterator[None]:
        self.position_at_end(block)
        yield
        if not self.block.ended:
            self.branch(after)

    def _end(self, line: str | Callable[[], str]) -> None:
        self.block.lines.append(line)
        self.block.ended = True

    # ---- values

    def new(self, type: Type, text: str) -> Value:
        """The value of the instruction that these words are."""
        value = Value(type, self._name())
        self.block.lines.append(f"{value.name} = {text}")
        return value

    def _name(self) -> str:
        self.function.named += 1
        return f"%v{self.function.named}"

    def phi(self, type: Type) -> Phi:
        value = Phi(type, self._name())
        self.block.lines.append(value.line)
        return value

    def call(self, function: Value, arguments: Sequence[Value], result: Type | None = None) -> Value:
        """Call a function, or a pointer to one with this result."""
        kind = function.result if isinstance(function, Function) else result or void
        text = f"call {kind.text} {function.name}({', '.join([a.text for a in arguments])})"
        if kind is not void:
            return self.new(kind, text)
        self.block.lines.append(text)
        return Value(void, "")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.new(a.type, f"select {condition.text}, {a.text}, {b.text}")

    def icmp_signed(self, sign: str, a: Value, b: Value) -> Value:
        code = SIGNS[sign] if sign in ("==", "!=") else f"s{SIGNS[sign]}"
        return self._compare(f"icmp {code}", a, b)

    def fcmp_ordered(self, sign: str, a: Value, b: Value) -> Value:
        return self._compare(f"fcmp o{SIGNS[sign]}", a, b)

    def fcmp_unordered(self, sign: str, a: Value, b: Value) -> Value:
        return self._compare("fcmp uno" if sign == "uno" else f"fcmp u{SIGNS[sign]}", a, b)

    def _compare(self, how: str, a: Value, b: Value) -> Value:
        kind = i1 if a.type.element is None else vector(i1, a.type.count)
        return self.new(kind, f"{how} {a.text}, {b.name}")

    # ---- memory

    def local(self, type: Type, count: int, align: int) -> Value:
        """Memory for this call of the function."""
        value = Value(pointer, self._name())
        self.function.locals.append(f"{value.name} = alloca [{count} x {type.text}], align {align}")
        return value

    def load(self, p: Value, typ: Type, align: int = 0) -> Value:
        return self.new(typ, f"load {typ.text}, {p.text}" + (f", align {align}" if align else ""))

    def store(self, value: Value, p: Value, align: int = 0) -> None:
        self.block.lines.append(f"store {value.text}, {p.text}" + (f", align {align}" if align else ""))

    def load_atomic(self, p: Value, ordering: str, align: int, typ: Type) -> Value:
        return self.new(typ, f"load atomic {typ.text}, {p.text} {ordering}, align {align}")

    def store_atomic(self, value: Value, p: Value, ordering: str, align: int) -> None:
        self.block.lines.append(f"store atomic {value.text}, {p.text} {ordering}, align {align}")

    def gep(self, p: Value, index: Value, typ: Type) -> Value:
        """The pointer so many elements of this type behind p."""
        return self.new(pointer, f"getelementptr {typ.text}, {p.text}, {index.text}")

    # ---- lanes

    def insert_element(self, values: Value, value: Value, lane: Value) -> Value:
        return self.new(values.type, f"insertelement {values.text}, {value.text}, {lane.text}")

    def extract_element(self, values: Value, lane: Value) -> Value:
        assert values.type.element is not None
        return self.new(values.type.element, f"extractelement {values.text}, {lane.text}")

    def shuffle_vector(self, a: Value, b: Value, order: Value) -> Value:
        assert a.type.element is not None
        return self.new(vector(a.type.element, order.type.count), f"shufflevector {a.text}, {b.text}, {order.text}")

    def fneg(self, a: Value) -> Value:
        return self.new(a.type, f"fneg {a.text}")


def _binary(name: str) -> Callable[[Builder, Value, Value], Value]:
    return lambda self, a, b: self.new(a.type, f"{name} {a.text}, {b.name}")


def _cast(name: str) -> Callable[[Builder, Value, Type], Value]:
    return lambda self, a, type: self.new(type, f"{name} {a.text} to {type.text}")


for _word in ("add", "sub", "mul", "udiv", "urem", "shl", "lshr", "ashr", "fadd", "fsub", "fmul", "fdiv"):
    setattr(Builder, _word, _binary(_word))
for _word in ("and", "or"):
    setattr(Builder, f"{_word}_", _binary(_word))
for _word in ("bitcast", "trunc", "zext", "sitofp", "fptrunc", "fpext"):
    setattr(Builder, _word, _cast(_word))
