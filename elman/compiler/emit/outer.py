"""The sum of outer products over all rows, which is what a weight's gradient is: a^T b, for a (K, M) and b (K, N).

Weights with the same gradients on one side, as those of an input and of a state have, are done together: a is then read
and copied once for several b.

A register tile holds 6 rows of M by one panel of columns of N and goes through a block of K once. Both factors are
copied so that the tile reads them in order: a into strips of columns, b into one panel at a time, which then stays in
the second cache while all strips go past it. No transposition is needed: the tile reads both by rows of K. In bfloat16
the copies are rounded, two rows of K in one; wherever steps are counted after that, pairs of rows are.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elman.compiler.emit import native, tile_products, tiles
from elman.compiler.emit.jobs import Spot
from elman.compiler.emit.llvm import Build, Value, i64, pointer
from elman.compiler.emit.pack import spread
from elman.compiler.emit.pairs import element, multiply_add
from elman.compiler.emit.target import Target, host
from elman.compiler.graph import Node

FEW = 2  # rows for which there is a smaller tile
UNROLL = 2  # steps of K in one turn of the loop
DEPTH = 384  # the most steps of K between two visits to out; fewer, so that all visits are as long
CHUNK = 1 << 19  # bytes of a that are copied at once: with a panel of b they fit into the second cache
LARGE = 1 << 20  # the same where there are tiles: such processors have 2 MB of it, and copies cost them more
SLOTS = ("a", "lda", "K", "M", "scratch", "scratch elements per thread", "added", "factors")
FACTOR = ("b", "ldb", "N", "out", "down", "across")  # further slots for each factor on the right


@dataclass(frozen=True)
class Outers:
    """The address of `outer(block, thread, threads)` for one target and element type, and the sizes it works in."""

    outer: int
    sizes: Build

    @property
    def strip(self) -> int:
        """Columns of a that are copied side by side."""
        return _strip(self.sizes)

    @property
    def strips(self) -> int:
        """The most strips of a that a thread holds a copy of."""
        return max(_chunk(self.sizes) // (DEPTH * self.strip * self.sizes.bits // 8), 1)

    def scratch(self, M: int, K: int) -> int:
        """Elements of scratch that each thread needs: a panel and the strips. Whole cache lines."""
        strips = min(self.strips, -(-M // self.strip))
        depth = min(self.sizes.elements(K), DEPTH)
        return -(-depth * (self.sizes.panel + strips * self.strip) // 16) * 16


@functools.cache
def outers(dtype: str = "f32", target: Target | None = None, whole: bool = False) -> Outers:
    """Return `outer` for "f32", "f64" or "bf16", compiled once per machine.

    whole: M and N must be whole panels. Most are, and the code for the rest, three times as much, is then not compiled.
    """
    target = target or host()

    def build() -> object:
        made = Build(target, dtype, "outer")
        emit_outer(made, whole)
        return made.module

    sizes = Build(target, dtype)
    if whole and sizes.tiled:
        return outers(dtype, target)
    address = native.load("outer", f"{dtype} {'whole' if whole else 'any'}", build, target).address("outer")
    return Outers(address, sizes)


def outers_for(sizes: Iterable[tuple[int, int]], dtype: str, target: Target | None = None) -> Outers:
    """The smallest that serves these sizes, M and N."""
    target = target or host()
    panel = Build(target, dtype).panel
    return outers(dtype, target, whole=all(M % panel == 0 and N % panel == 0 for M, N in sizes))


class Side(NamedTuple):
    """A factor (K, columns): neighbours in a row lie side by side, rows so many elements apart."""

    start: Spot
    stride: int
    columns: int


def numbers(
    K: int, a: Side, factors: Sequence[tuple[Side, Spot]], scratch: tuple[Spot, int], turned: bool, added: bool
) -> list[int | Spot]:
    """The block for out (M, N) = a (K, M)^T b (K, N) for each (b, out) of the factors.

    scratch: where, and elements for each thread. turned: out is (N, M). added: to what is in out. The bits of `out` do
    not depend on the number of threads. `out` must not overlap a or b.
    """
    block: list[int | Spot] = [a.start, a.stride, K, a.columns, *scratch, int(added), len(factors)]
    for b, out in factors:
        down, across = (1, a.columns) if turned else (b.columns, 1)
        block += b.start, b.stride, b.columns, out, down, across
    return block


def together(nodes: Iterable[Node], sizes: Build) -> list[tuple[Node, ...]]:
    """OUTER nodes in groups that share the factor on the left."""
    groups: dict[object, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node if better_turned(sizes, node.rows, node.width) else node.src[0], []).append(node)
    return [*map(tuple, groups.values())]


def better_turned(sizes: Build, M: int, N: int) -> bool:
    """Whether b should go into strips and a into panels, so that less of the tiles is empty: N = 1, 17 or 33, say."""
    if sizes.tiled:  # by squares, both ways alike
        return False
    rows, lanes = sizes.target.tile_rows, sizes.lanes
    plain, other = (-(-tall // rows) * -(-wide // lanes) for tall, wide in ((M, N), (N, M)))
    return other * 9 < plain * 8  # out is then written by elements


# ---- the kernel


def emit_outer(build: Build, whole: bool = False) -> None:
    """Write `outer(block, thread, threads)` into the module: this thread's part of every out. `block`: SLOTS, FACTORs.

    out[m*down + n*across] = sum over k of a[k*lda + m] * b[k*ldb + n], for k < K, m < M, n < N. Nothing else is read or
    written but the thread's own part of the scratch, and no thread waits for another. whole: M and N are whole panels.
    """
    if build.tiled:
        strips = tile_products.emit_strips(build)
        panels = [tile_products.emit_panel(build)] * build.target.tile_vectors
    else:
        most = build.target.tile_vectors
        panels = [_emit_panel(build, vectors) for vectors in range(most if whole else 1, most + 1)]
        strips = _emit_strips(build)
    chunk = Outers(0, build).strips * _strip(build)
    with build.function("outer", [pointer, i64, i64]) as (block, thread, count):
        a, scratch = build.read_pointer(block, 0), build.read_pointer(block, 4)
        lda, K, M, each, added, factors = (build.read_int(block, slot) for slot in (1, 2, 3, 5, 6, 7))
        restore = build.flush_denormals()
        if build.tiled:
            tiles.configure(build, [tiles.SIDE] * 8)

        count_of = lambda i, sums: [build.add_int(sums[0], Factor(build, block, i).panels)]  # noqa: E731
        (total,) = build.loop(factors, count_of, [build.c(0)])
        (top, bottom), (left, right) = _part(build, M, total, thread, count)
        panel_copy = build.at(scratch, build.mul_int(each, thread))
        elements = build.elements_int(K)
        visits = build.max_int(build.ceil_int(elements, DEPTH), 1)  # one at least: no rows give zeros
        depth = build.mul_int(build.ceil_int(build.ceil_int(elements, visits), build.whole), build.whole)
        strip_copies = build.at(panel_copy, build.mul_int(depth, build.panel))

        def visit(v: Value, _: list[Value]) -> None:
            done = build.mul_int(v, depth)
            steps = build.max_int(build.min_int(build.sub_int(elements, done), depth), 0)
            k = build.mul_int(done, 2 if build.paired else 1)
            rows = build.sub_int(K, k)  # and beyond this visit
            source = build.at(a, build.mul_int(k, lda))
            again = build.b.select(build.compare(">", v, 0), build.c(1), added)

            def part(m: Value, _: list[Value]) -> None:
                tall = build.min_int(build.sub_int(bottom, m), chunk)
                build.b.call(strips, [build.at(source, m), lda, strip_copies, steps, rows, tall])

                def some(number: Value, before: list[Value]) -> list[Value]:
                    one = Factor(build, block, number)
                    b, out = build.at(one.b, build.mul_int(k, one.ldb)), build.at(one.out, build.mul_int(m, one.down))

                    sizes = [one.down, one.across, steps, rows, tall, again]
                    span = [build.sub_int(edge, before[0]) for edge in (left, right)]
                    _pass(build, panels, one, [strip_copies, b, panel_copy, out], sizes, span)
                    return [build.add_int(before[0], one.panels)]

                build.loop(factors, some, [build.c(0)])

            build.loop(bottom, part, start=top, step=chunk)

        build.loop(visits, visit)
        if build.tiled:
            tiles.release(build)
        restore()


def _pass(
    build: Build, panels: list[Value], one: "Factor", places: list[Value], sizes: list[Value], span: list[Value]
) -> None:
    """All strips by the panels of one factor that lie in a span of panels."""
    strips, b, copy, out = places

    def panel(p: Value, _: list[Value]) -> None:
        n = build.mul_int(p, build.panel)
        wide = build.min_int(build.sub_int(one.N, n), build.panel)
        sources = [strips, build.at(b, n), one.ldb, copy, build.at(out, build.mul_int(n, one.across))]
        arguments = [*sources, *sizes[:-1], wide, sizes[-1]]
        _choose(build, panels, wide, arguments) if len(panels) > 1 else build.b.call(panels[0], arguments)

    first = build.max_int(span[0], 0)
    build.loop(build.min_int(span[1], one.panels), panel, start=first)


class Factor:
    """One factor on the right, as its slots say."""

    def __init__(self, build: Build, block: Value, number: Value) -> None:
        slots = build.at(block, build.add_int(build.mul_int(number, len(FACTOR)), len(SLOTS)), 8)
        self.b, self.out = build.read_pointer(slots, 0), build.read_pointer(slots, 3)
        self.ldb, self.N, self.down, self.across = (build.read_int(slots, i) for i in (1, 2, 4, 5))
        self.panels = build.ceil_int(self.N, build.panel)


def _part(build: Build, M: Value, panels: Value, thread: Value, count: Value) -> list[tuple[Value, Value]]:
    """The rows of out and the panels, from and to, that are this thread's: the threads form the cheapest grid."""
    size, vectors = tiles.HALF if build.tiled else build.target.tile_rows, build.target.tile_vectors
    units = build.ceil_int(M, size), panels

    def grid(tall: Value, best: list[Value]) -> list[Value]:
        """Keep what costs least: so many vector operations per step of K, of which the copies are the smaller part."""
        strips, wide = (build.ceil_int(n, by) for n, by in zip(units, (tall, build.div_int(count, tall))))
        products = build.mul_int(build.mul_int(strips, wide), build.target.tile_rows * vectors)
        copies = build.add_int(build.mul_int(strips, 3), build.mul_int(wide, 3 * vectors))
        cost = build.add_int(products, copies)
        fits = build.compare("==", build.b.urem(count, tall), 0)
        better = build.b.and_(fits, build.compare("<", cost, best[0]))
        return [build.b.select(better, new, old) for new, old in zip((cost, tall), best)]

    _, tall = build.loop(build.add_int(count, 1), grid, [build.c(1 << 62), build.c(1)], start=1)
    grids = (tall, build.div_int(count, tall))
    places = (build.b.urem(thread, tall), build.div_int(thread, tall))
    (top, bottom), mine = map(build.share, units, places, grids)
    return [(build.mul_int(top, size), build.min_int(build.mul_int(bottom, size), M)), mine]


def _choose(build: Build, panels: list[Value], wide: Value, arguments: list[Value]) -> None:
    """Call the panel function with as many vectors as `wide` columns take, 1 or more."""
    after = build.b.append_basic_block("panelled")
    switch = build.b.switch(build.ceil_int(wide, build.lanes), after)
    for count, panel in enumerate(panels, 1):
        block = build.b.append_basic_block(f"vectors{count}")
        switch.add_case(build.c(count), block)
        build.b.position_at_end(block)
        build.b.call(panel, arguments)
        build.b.branch(after)
    build.b.position_at_end(after)


def _emit_strips(build: Build) -> Value:
    """Write `strips(a, lda, out, steps, K, columns)`: out[s, k, c] = a[k*lda + s*S + c], 0 where there is no column.

    K: rows of a, of which as many are read as `steps` elements hold.
    """
    lanes, width = build.lanes, _strip(build)
    types = [pointer, i64, pointer, i64, i64, i64]
    with build.function("strips", types, internal=True) as (a, lda, out, steps, K, columns):

        def row(k: Value, _: list[Value]) -> None:
            target = build.at(out, build.mul_int(k, width))

            def strip(s: Value, masked: bool) -> None:
                column = build.mul_int(s, width)
                there = build.at(target, build.mul_int(column, steps))
                for c in range(0, width, lanes):
                    left = build.sub_int(columns, build.add_int(column, c)) if masked else None
                    read = _reader(build, build.at(build.at(a, column), c), lda, left)
                    build.store(element(build, read, k, K), build.at(there, c))

            whole = build.div_int(columns, width)
            build.loop(whole, lambda s, _: strip(s, masked=False))
            build.loop(build.ceil_int(columns, width), lambda s, _: strip(s, masked=True), start=whole)

        build.loop(steps, row)
    return build.module.functions["strips"]


def _reader(build: Build, start: Value, stride: Value, left: Value | None) -> Callable[[Value], Value]:
    """Row k of a vector of columns; with `left`, of so many of them."""

    def read(k: Value) -> Value:
        place = build.at(start, build.mul_int(k, stride))
        return build.load(place) if left is None else build.load_first(place, left)

    return read


def _chunk(build: Build) -> int:
    """Bytes of a that are copied at once."""
    return LARGE if build.tiled else CHUNK


def _strip(build: Build) -> int:
    """Columns of a strip of a, S: whole vectors, so that the copy is quick, and whole tiles."""
    return tiles.HALF if build.tiled else math.lcm(build.target.tile_rows, build.lanes)


def _emit_panel(build: Build, vectors: int) -> Value:
    """Write `panel<vectors>(strips, b, ldb, copy, out, down, across, steps, K, rows, columns, again)`: one panel.

    Copies the panel of b (K, columns), then passes the strips by it, which gives all rows. The results of a row lie
    `across` elements from each other, those of a column `down`. Adds to out if `again`.
    """
    name, tall = f"panel{vectors}", build.target.tile_rows
    types = [pointer, pointer, i64, pointer, pointer, *[i64] * 7]
    with build.function(name, types, internal=True) as arguments:
        strips, b, ldb, copy, out, down, across, steps, K, rows, columns, again = arguments
        last = build.sub_int(columns, (vectors - 1) * build.lanes)  # columns of the last vector
        held = build.local(tall * vectors)

        def row(k: Value, _: list[Value]) -> None:
            there = build.at(copy, build.mul_int(k, vectors * build.lanes))
            for v in range(vectors):
                read = _reader(build, build.at(b, v * build.lanes), ldb, None if v < vectors - 1 else last)
                build.store(element(build, read, k, K), build.at(there, v * build.lanes))

        def tile(s: Value, _: list[Value]) -> None:
            first = build.mul_int(s, tall)
            left = build.sub_int(rows, first)
            inside = build.b.urem(first, build.c(_strip(build)))
            strip = build.at(strips, build.add_int(build.mul_int(build.sub_int(first, inside), steps), inside))
            target = build.at(out, build.mul_int(first, down))

            def some(high: int) -> None:
                places = [build.at(target, build.mul_int(down, r)) for r in range(high)]
                for place in places:
                    for v in range(vectors):
                        build.prefetch(build.at(place, v * build.lanes), level=3)
                sums = _sums(build, strip, copy, steps, high, vectors)

                def turned() -> None:
                    sizes = (build.min_int(left, high), columns)
                    _scatter(build, sums, (held, high), target, (down, across), sizes, again)

                whole = build.b.and_(build.compare(">=", left, high), build.compare("==", last, build.lanes))
                plain = build.b.and_(whole, build.compare("==", across, 1))
                build.choose(plain, lambda: _finish(build, sums, places, again), turned)

            build.choose(build.compare(">", left, FEW), lambda: some(tall), lambda: some(FEW))

        build.loop(steps, row)
        build.loop(build.ceil_int(rows, tall), tile)
    return build.module.functions[name]


def _sums(build: Build, strip: Value, panel: Value, K: Value, rows: int, vectors: int) -> list[Value]:
    """The tile's sums over K, row by row, in registers."""
    lanes = build.lanes

    def step(k: Value, sums: list[Value], unroll: int) -> list[Value]:
        a, b = build.at(strip, build.mul_int(k, _strip(build))), build.at(panel, build.mul_int(k, vectors * lanes))
        for u in range(unroll):
            columns = [build.load(build.at(b, (u * vectors + v) * lanes)) for v in range(vectors)]
            values = [build.splat(build.load_scalar(build.at(a, u * _strip(build) + r))) for r in range(rows)]
            pairs = [(value, column) for value in values for column in columns]
            sums = [multiply_add(build, value, column, total) for (value, column), total in zip(pairs, sums)]
        return sums

    whole = build.sub_int(K, build.b.urem(K, build.c(UNROLL)))
    sums = [build.k(0.0)] * (rows * vectors)
    sums = build.loop(whole, lambda k, some: step(k, some, UNROLL), sums, step=UNROLL)
    return build.loop(K, lambda k, some: step(k, some, 1), sums, start=whole)


def _finish(build: Build, sums: list[Value], places: list[Value], again: Value) -> None:
    """Write a whole tile's sums to its rows, or add them."""
    vectors = len(sums) // len(places)
    targets = [build.at(place, v * build.lanes) for place in places for v in range(vectors)]

    def add() -> None:
        for value, target in zip(sums, targets):
            build.store(build.add(value, build.load(target)), target)

    def write() -> None:
        for value, target in zip(sums, targets):
            build.store(value, target)

    build.choose(build.compare("!=", again, 0), add, write)


def _scatter(
    build: Build,
    sums: list[Value],
    held: tuple[Value, int],
    out: Value,
    strides: tuple[Value, Value],
    sizes: tuple[Value, Value],
    again: Value,
) -> None:
    """Write the sums to places of any strides, or add them, element by element: `held` has space for its rows."""
    for n, total in enumerate(sums):
        build.store(total, build.at(held[0], n * build.lanes))
    spread(build, held[0], len(sums) // held[1] * build.lanes, out, strides, sizes, again)
