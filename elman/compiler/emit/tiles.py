"""Tiles of bfloat16 for AMX: a register holds 16 rows of 64 bytes, and one instruction multiplies two of them.

A tile of a left side is 16 rows of 16 pairs of steps of K; one of a right side is 16 pairs of steps by 16 columns; 16
rows of 16 sums come out. So K is counted in whole tiles, of which what is beyond K is 0. A panel of weights lies as its
tiles are read: (half, K / 32, 2, 16, 16), which is two tiles of columns side by side for each half of its columns.
Here: the instructions and the packing; tile_products.py multiplies. Source of the instructions: Intel's Architecture
Instruction Set Extensions, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable

from elman.compiler.emit import ir
from elman.compiler.emit.llvm import Build, Value, i8, i64, pointer, void
from elman.compiler.emit.pack import transposed
from elman.compiler.emit.pairs import neighbours, pair

SIDE = 16  # rows of a tile, and elements in each
SQUARE = SIDE * SIDE
STEPS = 2 * SIDE  # steps of K in a tile
HALF = 2 * SIDE  # columns of half a panel
BYTES = 64  # of a row


def tile(build: Build, name: str, *operands: Value | int) -> None:
    """One AMX instruction: registers are whole numbers, all else values."""
    values = [ir.constant(i8, o) if isinstance(o, int) else o for o in operands]
    build.call(f"llvm.x86.{name}", void, *values)


def configure(build: Build, rows: list[Value | int]) -> None:
    """Set the rows of all eight registers, 1 to 16 each; their rows are whole. What they held is gone."""
    space = build.local(1)
    build.store(build.k(0.0), space)
    for place, value in [(0, 1), *((16 + 2 * n, BYTES) for n in range(8))]:
        build.b.store(ir.constant(i8, value), build.at(space, place, 1))
    for n, height in enumerate(rows):
        byte = ir.constant(i8, height) if isinstance(height, int) else build.b.trunc(height, i8)
        build.b.store(byte, build.at(space, 48 + n, 1))
    tile(build, "ldtilecfg", space)


def release(build: Build) -> None:
    """Done with tiles: from here on the system need not keep them when threads change."""
    tile(build, "tilerelease")


# ---- packing: squares of 32 steps by 16 columns


def emit_squares(build: Build, *names: str) -> None:
    """Write those named of `weave`, `mirror` and `turn`(source, stride, out): 512 numbers into a tile of pairs.

    weave: out[p, c] = source[2p, c], source[2p + 1, c] -- rows of the source are steps, `stride` elements apart.
    mirror: out[c, p] = the same -- the tile of the transpose, as a left side.
    turn: out[p, c] = source[c, 2p], source[c, 2p + 1] -- rows of the source are columns.
    """

    def write(name: str, rows: Callable[[Callable[[int, int], Value]], list[Value]]) -> None:
        with build.function(name, [pointer, i64, pointer], internal=True) as (source, stride, out):

            def read(row: int, column: int) -> Value:
                return build.load(build.at(build.at(source, build.mul_int(stride, row)), column))

            for n, row in enumerate(rows(read)):
                build.store(row, build.at(out, n * SIDE))

    def woven(read: Callable[[int, int], Value]) -> list[Value]:
        return [pair(build, read(2 * p, 0), read(2 * p + 1, 0)) for p in range(SIDE)]

    def turned(read: Callable[[int, int], Value]) -> list[Value]:
        return transposed(build, [neighbours(build, read(c, 0), read(c, SIDE)) for c in range(SIDE)])

    ways = {"weave": woven, "mirror": lambda read: transposed(build, woven(read)), "turn": turned}
    for name in names:
        write(name, ways[name])


def square(build: Build, name: str, source: Value, strides: tuple[Value, Value], out: Value, left: list[Value]) -> None:
    """Call weave or mirror on a square of which left = (steps, columns) exist, the others 0; strides of both."""
    function = build.module.functions[name]
    straight = build.compare("==", strides[1], 1)
    whole = build.b.and_(build.compare(">=", left[0], STEPS), build.compare(">=", left[1], SIDE))

    def by_numbers() -> None:
        space = build.local(STEPS)
        for row in range(STEPS):
            build.store(build.k(0.0), build.at(space, row * SIDE))

        def step(k: Value, _: list[Value]) -> None:
            here, there = build.at(source, build.mul_int(k, strides[0])), build.at(space, build.mul_int(k, SIDE))

            def column(c: Value, _: list[Value]) -> None:
                value = build.load_scalar(build.at(here, build.mul_int(c, strides[1])))
                build.store_scalar(value, build.at(there, c))

            build.loop(build.min_int(left[1], SIDE), column)

        build.loop(build.min_int(left[0], STEPS), step)
        build.b.call(function, [space, build.c(SIDE), out])

    build.choose(build.b.and_(straight, whole), lambda: build.b.call(function, [source, strides[0], out]), by_numbers)


def squares(
    build: Build,
    name: str,
    source: Value,
    stride: Value,
    sizes: tuple[Value, Value, Value],
    there: Callable[[Value, Value], Value],
) -> None:
    """Call weave or mirror on all squares of rows that are steps, `stride` apart, into there(element, column).

    sizes: elements of K to be written, rows that exist, and columns that do, which are written by 32.
    """
    elements, K, columns = sizes
    wide = build.mul_int(build.div_int(build.add_int(columns, HALF - 1), HALF), HALF)

    def some(k: Value, _: list[Value]) -> None:
        row = build.mul_int(k, 2)
        here, steps = build.at(source, build.mul_int(row, stride)), build.sub_int(K, row)

        def column(c: Value, _: list[Value]) -> None:
            left = [steps, build.sub_int(columns, c)]
            square(build, name, build.at(here, c), (stride, build.c(1)), there(k, c), left)

        build.loop(wide, column, step=SIDE)

    build.loop(elements, some, step=SIDE)


def place(build: Build, k: Value, group: Value, K: Value) -> Value:
    """Where in a panel of K elements a tile lies: of element k, a multiple of 16, and of a group of 16 columns."""
    half, side = build.div_int(group, 2), build.b.urem(group, build.c(2))
    return build.add_int(build.mul_int(build.add_int(build.mul_int(half, K), k), HALF), build.mul_int(side, SQUARE))


def emit_pack(build: Build) -> None:
    """Write `pack`, as pack.py says, with a panel's tiles in their order and zeros beyond K."""
    emit_squares(build, "weave", "turn")
    with build.function("pack", [pointer, *[i64] * 4, pointer, i64, i64]) as arguments:
        w, stride_k, stride_n, K, N, out, first, last = arguments
        elements, groups = build.elements_int(K), build.panel // SIDE

        def group(g: Value, _: list[Value]) -> None:
            column = build.mul_int(g, SIDE)
            panel = build.at(out, build.mul_int(build.div_int(g, groups), build.mul_int(elements, build.panel)))

            def some(k: Value, _: list[Value]) -> None:
                steps, columns = build.sub_int(K, build.mul_int(k, 2)), build.sub_int(N, column)
                source = build.mul_int(build.mul_int(k, 2), stride_k), build.mul_int(column, stride_n)
                here = build.at(w, build.add_int(*source))
                there = build.at(panel, place(build, k, build.b.urem(g, build.c(groups)), elements))
                whole = build.b.and_(build.compare(">=", steps, STEPS), build.compare(">=", columns, SIDE))
                turned = build.b.and_(whole, build.compare("==", stride_k, 1))
                build.choose(
                    turned,
                    lambda: build.b.call(build.module.functions["turn"], [here, stride_n, there]),
                    lambda: square(build, "weave", here, (stride_k, stride_n), there, [steps, columns]),
                )

            build.loop(elements, some, step=SIDE)

        build.loop(build.mul_int(last, groups), group, start=build.mul_int(first, groups))
