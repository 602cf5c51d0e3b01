"""Flow: functions, loops, whole numbers and pointers of one LLVM module; `llvm.Build` adds the floating point.

Whole numbers are i64, and a Python int stands for a constant. Pointers are untyped and are moved
in elements of the module's type.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from elman.compiler.emit import ir
from elman.compiler.emit.ir import Value, i8, i32, i64, pointer, void
from elman.compiler.emit.target import Target

Body = Callable[[Value, list[Value]], Sequence[Value] | None]

C_FUNCTIONS = ("sched_yield", "log1p", "expm1", "sin", "cos", "erf")  # that kernels may call; native.py finds them
C_PREFIX = "elman_c_"
FLAG_BYTES = 64  # each thread's barrier flag has a cache line to itself
SPINS = 2048  # polls of a flag before the processor is offered to another thread


class Flow:
    """One module under construction, for one target and one element type: "f32", "f64", or "bf16".

    "bf16" is float32 in all but the operands of products, of which an element holds two (see pairs.py).
    """

    def __init__(self, target: Target, dtype: str = "f32", name: str = "elman") -> None:
        self.target = target
        self.paired = dtype == "bf16"
        self.tiled = self.paired and target.multiplies_tiles
        self.whole = 16 if self.tiled else 1  # elements of K are counted in so many
        self.dtype = "f32" if self.paired else dtype
        self.bits = {"f32": 32, "f64": 64}[self.dtype]
        self.lanes = target.lanes(self.bits)
        self.panel = target.panel(self.bits)
        self.element = ir.f32 if self.dtype == "f32" else ir.f64
        self.module = ir.Module(name, target.triple)
        self.b: Any = None  # the ir.Builder of the function being written

    def elements(self, K: int) -> int:
        """So many elements hold K operands of a product."""
        return -(-K // (2 * self.whole)) * self.whole if self.paired else K

    def elements_int(self, K: Value) -> Value:
        """The same of an i64."""
        steps = 2 * self.whole
        whole = self.div_int(self.add_int(K, steps - 1), steps)
        return self.mul_int(whole, self.whole) if self.paired else K

    def columns(self, N: int) -> int:
        """N rounded up to whole panels."""
        return -(-N // self.panel) * self.panel

    def paired_width(self, K: int) -> int:
        """Elements of a row of K rounded numbers, in whole vectors; none where nothing is rounded."""
        return -(-K // (2 * self.lanes)) * self.lanes if self.paired else 0

    def paired_width_int(self, K: Value) -> Value:
        """The same of an i64."""
        return self.mul_int(self.div_int(self.add_int(K, 2 * self.lanes - 1), 2 * self.lanes), self.lanes)

    # ---- functions and control flow

    @contextmanager
    def function(self, name: str, types: Sequence[Any], internal: bool = False) -> Iterator[tuple[Value, ...]]:
        """Write `void name(types...)` inside the with block; yields its arguments. May be nested."""
        function = self.module.functions[name] = ir.Function(name, void, types, internal)
        outer, self.b = self.b, ir.Builder(function)
        yield tuple(function.arguments)
        self.b.ret_void()
        self.b = outer

    def declare(self, name: str, result: Any, types: Sequence[Any]) -> Value:
        """Return the function of this name: an intrinsic or one of the module."""
        known = self.module.functions.get(name)
        return known or self.module.functions.setdefault(name, ir.Function(name, result, types))

    def call(self, name: str, result: Any, *arguments: Value) -> Value:
        """Call an intrinsic or a function of the module by name."""
        return self.b.call(self.declare(name, result, [a.type for a in arguments]), arguments)

    def call_c(self, name: str, result: Any, *arguments: Value) -> Value:
        """Call one of C_FUNCTIONS through a pointer in the module, which native.py sets when it loads the code.

        The library may be too far away for a direct call, and stubs do not fit into llvmlite's own memory.
        """
        if name not in C_FUNCTIONS:
            raise ValueError(f"{name} is not among the C functions that kernels may call: {', '.join(C_FUNCTIONS)}")
        place = self.module.place(C_PREFIX + name)
        return self.call_pointer(self.b.load(place, typ=pointer), *arguments, result=result)

    def call_pointer(self, address: Value, *arguments: Value, result: Any = void) -> Value:
        """Call the function at a pointer."""
        return self.b.call(address, arguments, result)

    def share(self, total: Value | int, thread: Value, count: Value) -> tuple[Value, Value]:
        """Which of so many, from and to, are a thread's."""
        ends = [self.div_int(self.mul_int(self.add_int(thread, more), total), count) for more in (0, 1)]
        return ends[0], ends[1]

    def loop(
        self, n: Value | int, body: Body, init: Sequence[Value] = (), start: Value | int = 0, step: Value | int = 1
    ) -> list[Value]:
        """`for i in range(start, n, step): carried = body(i, carried)`; returns what is carried at the end."""
        n, first = self.c(n), self.c(start)
        before = self.b.block
        inside, after = self.b.append_basic_block("loop"), self.b.append_basic_block("done")
        self.b.cbranch(self.b.icmp_signed("<", first, n), inside, after)
        self.b.position_at_end(inside)
        i = self.b.phi(i64)
        carried = [self.b.phi(value.type) for value in init]
        new = list(body(i, carried) or ())
        if len(new) != len(carried):
            raise ValueError(f"a loop's body returned {len(new)} values, but carries {len(carried)}")
        following = self.b.add(i, self.c(step))
        last = self.b.block
        self.b.cbranch(self.b.icmp_signed("<", following, n), inside, after)
        self.b.position_at_end(after)
        for phi, old, value in zip([i, *carried], [first, *init], [following, *new]):
            phi.add_incoming(old, before)
            phi.add_incoming(value, last)
        results = [self.b.phi(value.type) for value in init]
        for phi, old, value in zip(results, init, new):
            phi.add_incoming(old, before)
            phi.add_incoming(value, last)
        return results

    def when(self, condition: Value, body: Callable[[], None]) -> None:
        """Run `body` if the i1 `condition` holds."""
        with self.b.if_then(condition):
            body()

    def choose(self, condition: Value, body: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Run `body` if the i1 `condition` holds, else `otherwise`."""
        with self.b.if_else(condition) as (yes, no):
            with yes:
                body()
            with no:
                otherwise()

    # ---- integers and pointers

    def c(self, value: Value | int) -> Value:
        """An i64: a constant from a Python int; a value is returned as it is."""
        return ir.constant(i64, value) if isinstance(value, int) else value

    def add_int(self, a: Value | int, b: Value | int) -> Value:
        """i64 a + b."""
        return self.b.add(self.c(a), self.c(b))

    def sub_int(self, a: Value | int, b: Value | int) -> Value:
        """i64 a - b."""
        return self.b.sub(self.c(a), self.c(b))

    def mul_int(self, a: Value | int, b: Value | int) -> Value:
        """i64 a * b."""
        if 1 in (a, b):
            return self.c(b if a == 1 else a)
        return self.c(0) if 0 in (a, b) else self.b.mul(self.c(a), self.c(b))

    def div_int(self, a: Value | int, b: Value | int) -> Value:
        """i64 a // b, for values that are not negative."""
        return self.b.udiv(self.c(a), self.c(b))

    def ceil_int(self, a: Value | int, b: Value | int) -> Value:
        """i64 a / b, rounded up."""
        return self.div_int(self.sub_int(self.add_int(a, b), 1), b)

    def min_int(self, a: Value | int, b: Value | int) -> Value:
        """The smaller i64."""
        a, b = self.c(a), self.c(b)
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def max_int(self, a: Value | int, b: Value | int) -> Value:
        """The larger i64."""
        a, b = self.c(a), self.c(b)
        return self.b.select(self.b.icmp_signed(">", a, b), a, b)

    def compare(self, sign: str, a: Value | int, b: Value | int) -> Value:
        """An i1 from two i64; `sign` is one of < <= > >= == !=."""
        return self.b.icmp_signed(sign, self.c(a), self.c(b))

    def at(self, base: Value, index: Value | int, size: int | None = None) -> Value:
        """The pointer `index` elements (or units of `size` bytes) behind `base`."""
        if isinstance(index, int) and index == 0:
            return base
        if size is None:
            return self.b.gep(base, self.c(index), self.element)
        return self.b.gep(base, self.mul_int(index, size), i8)

    def read_int(self, base: Value, slot: int) -> Value:
        """The i64 in the given 8-byte slot of an argument block."""
        return self.b.load(self.at(base, slot, 8), typ=i64)

    def read_pointer(self, base: Value, slot: int) -> Value:
        """The pointer in the given 8-byte slot of an argument block."""
        return self.b.load(self.at(base, slot, 8), typ=pointer)

    # ---- threads

    def barrier(self, flags: Value, thread: Value, threads: Value, value: Value | int) -> None:
        """Wait until every thread has come here with at least this `value`, which must grow from barrier to barrier.

        `flags` points to threads * FLAG_BYTES bytes, zero at first. What a thread wrote before, all can read after.
        """
        name = "elman_barrier"
        if name not in self.module.functions:
            with self.function(name, [pointer, i64, i64, i64], internal=True) as arguments:
                self._barrier(*arguments)
        self.b.call(self.module.functions[name], [flags, thread, threads, self.c(value)])

    def _barrier(self, flags: Value, thread: Value, threads: Value, value: Value) -> None:
        mine = self.at(flags, thread, FLAG_BYTES)
        self.b.store_atomic(value, mine, "release", 8)

        def wait(other: Value, _: list[Value]) -> None:
            flag = self.at(flags, other, FLAG_BYTES)
            before = self.b.block
            poll, spin, rest, ready = (self.b.append_basic_block(name) for name in ("poll", "spin", "rest", "ready"))
            self.b.branch(poll)
            self.b.position_at_end(poll)
            spins = self.b.phi(i64)
            seen = self.b.load_atomic(flag, "acquire", 8, typ=i64)
            self.b.cbranch(self.compare("<", seen, value), spin, ready)
            self.b.position_at_end(spin)
            self._pause()
            more = self.add_int(spins, 1)
            self.b.cbranch(self.compare("<", more, SPINS), poll, rest)
            self.b.position_at_end(rest)
            self.call_c("sched_yield", i32)  # more threads than processors: let the one we wait for run
            self.b.branch(poll)
            for count, block in ((self.c(0), before), (more, spin), (self.c(0), rest)):
                spins.add_incoming(count, block)
            self.b.position_at_end(ready)

        self.loop(threads, wait)

    def _pause(self) -> None:
        if self.target.kind == "x86":
            self.call("llvm.x86.sse2.pause", void)
        else:
            self.call("llvm.aarch64.hint", void, ir.constant(i32, 1))
