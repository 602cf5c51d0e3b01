"""Build: one LLVM module, written in the words of a kernel: vectors, masks, arithmetic, comparisons.

A *vector* holds `lanes` elements, which are floats ("f32") or doubles ("f64"); a *scalar* is one element. Arithmetic
takes either, as long as both sides agree.
"""

import math
from collections.abc import Callable
from typing import Any

from elman.compiler.emit import ir
from elman.compiler.emit.flow import FLAG_BYTES, Flow
from elman.compiler.emit.ir import Value, i1, i8, i32, i64, pointer, void
from elman.compiler.emit.target import Target

__all__ = ["FLAG_BYTES", "Build", "Value", "i8", "i32", "i64", "pointer", "void"]


class Build(Flow):
    """One module under construction, for one target and one element type.

    Example:
        build = Build(host(), "f32")
        with build.function("double_it", [pointer, i64]) as (data, n):  # n vectors
            def body(i, _):
                p = build.at(data, build.mul_int(i, build.lanes))
                build.store(build.add(build.load(p), build.load(p)), p)
            build.loop(n, body)
    """

    def __init__(self, target: Target, dtype: str = "f32", name: str = "elman") -> None:
        super().__init__(target, dtype, name)
        self.integer = ir.integer(self.bits)
        self.vector = ir.vector(self.element, self.lanes)
        self.integers = ir.vector(self.integer, self.lanes)
        self.constants: dict[Any, Value] = {}
        self.truths: dict[Value, Value] = {}  # a 1.0/0.0 value and the i1 it was made of

    # ---- memory

    def local(self, vectors: int) -> Value:
        """The pointer to scratch of so many vectors, aligned, for this call of the function."""
        return self.b.local(self.vector, vectors, 64)

    def load(self, p: Value, mask: int | None = None) -> Value:
        """A vector from anywhere; with `mask`, its first `mask` lanes, the others 0 and not read."""
        if mask is None or mask == self.lanes:
            return self.b.load(p, self.vector, self.bits // 8)
        name = f"llvm.masked.load.{self._suffix}.p0"
        return self._masked(name, self.vector, p, self._first(mask), self.k(0.0))

    def store(self, value: Value, p: Value, mask: int | None = None) -> None:
        """Write a vector anywhere; with `mask`, only its first `mask` lanes."""
        if mask is None or mask == self.lanes:
            self.b.store(value, p, self.bits // 8)
            return
        self._masked(f"llvm.masked.store.{self._suffix}.p0", void, value, p, self._first(mask))

    def load_first(self, p: Value, left: Value) -> Value:
        """The first `left` lanes of a vector, as many as there are; the others 0 and not read."""
        none = ir.constant(self.integers, None)
        count = self.b.trunc(left, self.integer) if self.bits < 64 else left
        first = self.b.insert_element(none, count, ir.constant(i32, 0))
        splat = self.b.shuffle_vector(first, none, self._each(ir.vector(i32, self.lanes), 0))
        mask = self.b.icmp_signed("<", ir.constant(self.integers, list(range(self.lanes))), splat)
        return self._masked(f"llvm.masked.load.{self._suffix}.p0", self.vector, p, mask, self.k(0.0))

    def load_scalar(self, p: Value) -> Value:
        """One element."""
        return self.b.load(p, typ=self.element)

    def store_scalar(self, value: Value, p: Value) -> None:
        """Write one element."""
        self.b.store(value, p)

    def prefetch(self, p: Value, level: int = 2) -> None:
        """Ask for the cache line at `p`; level 3 is the nearest cache, 2 the second."""
        self.call("llvm.prefetch.p0", void, p, ir.constant(i32, 0), ir.constant(i32, level), ir.constant(i32, 1))

    def first_lanes(self, value: Value, n: int, other: float) -> Value:
        """The first n lanes of a vector, the rest one constant."""
        return self.b.select(self._first(n), value, self.k(other))

    @property
    def _suffix(self) -> str:
        return f"v{self.lanes}{self.dtype}"

    def _first(self, n: int) -> Value:
        return ir.constant(ir.vector(i1, self.lanes), [lane < n for lane in range(self.lanes)])

    def _masked(self, name: str, result: Any, *arguments: Value) -> Value:
        # the intrinsics take the alignment behind the pointer; LLVM 22 upgrades that form to its own
        where = next(n for n, a in enumerate(arguments) if a.type == pointer)
        alignment = ir.constant(i32, self.bits // 8)
        return self.call(name, result, *arguments[: where + 1], alignment, *arguments[where + 1 :])

    def _each(self, kind: Any, value: float) -> Value:
        """The constant vector of `kind` with this number in each lane: one object, put into words once."""
        key = kind.element, kind.count, value, math.copysign(1, value)
        if key not in self.constants:
            self.constants[key] = ir.constant(kind, value)
        return self.constants[key]

    # ---- vectors and scalars

    def k(self, value: float) -> Value:
        """A vector with the same constant in each lane."""
        return self._each(self.vector, float(value))

    def scalar(self, value: float) -> Value:
        """A constant element."""
        return ir.constant(self.element, float(value))

    def ints(self, value: int) -> Value:
        """A vector of whole numbers, as wide as the elements, with the same constant in each lane."""
        return self._each(self.integers, value)

    def splat(self, scalar: Value) -> Value:
        """A vector with the scalar in each lane."""
        undefined = ir.constant(self.vector, None)
        first = self.b.insert_element(undefined, scalar, ir.constant(i32, 0))
        return self.b.shuffle_vector(first, undefined, self._each(ir.vector(i32, self.lanes), 0))

    def lane(self, vector: Value, index: int) -> Value:
        """The scalar in one lane."""
        return self.b.extract_element(vector, ir.constant(i32, index))

    def as_ints(self, vector: Value) -> Value:
        """The bits of a vector of elements."""
        return self.b.bitcast(vector, self.integers)

    def as_floats(self, bits: Value) -> Value:
        """The elements that have these bits."""
        return self.b.bitcast(bits, self.vector)

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.b.fadd(a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self.b.fsub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self.b.fmul(a, b)

    def div(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self.b.fdiv(a, b)

    def neg(self, a: Value) -> Value:
        """-a."""
        return self.b.fneg(a)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return self._math("fma", a, b, c)

    def abs(self, a: Value) -> Value:
        """|a|."""
        return self._math("fabs", a)

    def sqrt(self, a: Value) -> Value:
        """The square root, correctly rounded."""
        return self._math("sqrt", a)

    def copysign(self, a: Value, b: Value) -> Value:
        """|a| with the sign of b."""
        return self._math("copysign", a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger; NaN if either is NaN, as torch.maximum."""
        return self._extreme(">", a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        """The smaller; NaN if either is NaN, as torch.minimum."""
        return self._extreme("<", a, b)

    def _extreme(self, sign: str, a: Value, b: Value) -> Value:
        if b.constant:
            a, b = b, a
        value = self.b.select(self.b.fcmp_ordered(sign, a, b), a, b)  # one instruction; b if either is NaN
        return value if a.constant else self.b.select(self.b.fcmp_unordered("uno", a, a), a, value)

    def _math(self, name: str, *arguments: Value) -> Value:
        kind = arguments[0].type
        suffix = self._suffix if kind == self.vector else self.dtype
        return self.call(f"llvm.{name}.{suffix}", kind, *arguments)

    # ---- comparisons: 1.0 and 0.0, and the choice between two values

    def lt(self, a: Value, b: Value) -> Value:
        """1.0 where a < b, else 0.0."""
        return self._truth(self.b.fcmp_ordered("<", a, b), a)

    def le(self, a: Value, b: Value) -> Value:
        """1.0 where a <= b, else 0.0."""
        return self._truth(self.b.fcmp_ordered("<=", a, b), a)

    def gt(self, a: Value, b: Value) -> Value:
        """1.0 where a > b, else 0.0."""
        return self._truth(self.b.fcmp_ordered(">", a, b), a)

    def ge(self, a: Value, b: Value) -> Value:
        """1.0 where a >= b, else 0.0."""
        return self._truth(self.b.fcmp_ordered(">=", a, b), a)

    def eq(self, a: Value, b: Value) -> Value:
        """1.0 where a == b, else 0.0."""
        return self._truth(self.b.fcmp_ordered("==", a, b), a)

    def ne(self, a: Value, b: Value) -> Value:
        """1.0 where a != b (a NaN differs from all), else 0.0."""
        return self._truth(self.b.fcmp_unordered("!=", a, b), a)

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        """A where the condition is not 0, else b."""
        truth = self.truths.get(condition)
        if truth is None:
            truth = self.b.fcmp_unordered("!=", condition, self._like(condition, 0.0))
        return self.b.select(truth, a, b)

    def _truth(self, truth: Value, like: Value) -> Value:
        value = self.b.select(truth, self._like(like, 1.0), self._like(like, 0.0))
        self.truths[value] = truth
        return value

    def _like(self, value: Value, constant: float) -> Value:
        return self.k(constant) if value.type == self.vector else self.scalar(constant)

    # ---- across the lanes

    def sum_lanes(self, vector: Value) -> Value:
        """The scalar sum of the lanes, added in pairs."""
        return self._fold(vector, self.add)

    def max_lanes(self, vector: Value) -> Value:
        """The scalar maximum of the lanes; NaN if one is NaN."""
        return self._fold(vector, self.maximum)

    def _fold(self, vector: Value, combine: Callable[[Value, Value], Value]) -> Value:
        half = self.lanes // 2
        while half:
            order = [lane + half if lane < half else lane for lane in range(self.lanes)]
            vector = combine(vector, self.shuffle(vector, vector, order))
            half //= 2
        return self.lane(vector, 0)

    def shuffle(self, a: Value, b: Value, order: list[int]) -> Value:
        """A vector of lanes taken from a (0 .. lanes-1) and b (lanes .. 2*lanes-1)."""
        return self.b.shuffle_vector(a, b, ir.constant(ir.vector(i32, self.lanes), order))

    # ---- the processor's state

    def flush_denormals(self) -> Callable[[], object]:
        """Treat denormal numbers as 0 from here on (they cost 20 times as much); returns what emits the way back."""
        if self.target.kind == "x86":
            old, new = self.local(1), self.local(1)
            self.call("llvm.x86.sse.stmxcsr", void, old)
            self.b.store(self.b.or_(self.b.load(old, typ=i32), ir.constant(i32, 0x8040)), new)
            self.call("llvm.x86.sse.ldmxcsr", void, new)
            return lambda: self.call("llvm.x86.sse.ldmxcsr", void, old)
        state = self.call("llvm.aarch64.get.fpcr", i64)
        self.call("llvm.aarch64.set.fpcr", void, self.b.or_(state, self.c(1 << 24)))
        return lambda: self.call("llvm.aarch64.set.fpcr", void, state)
