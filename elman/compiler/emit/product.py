"""The matrix product that every kernel shares, and the packing of weights that it reads.

Weights lie in panels: (panels, K, P) with P columns side by side, as many as one row of a register tile holds. A tile
keeps up to 6 rows of a panel's results in registers and goes through K once; nothing is specialised on a size, so one
object serves every cell. Where operands are in bfloat16, K counts pairs of steps here, and `a` is rounded by `round`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from elman.compiler.emit import native, tile_products, tiles
from elman.compiler.emit.llvm import Build, Value, i64, pointer
from elman.compiler.emit.pack import emit_pack
from elman.compiler.emit.pairs import emit_round, multiply_add
from elman.compiler.emit.target import Target, host

UNROLL = 2  # steps of K in one turn of a tile's loop, at least: with one, 2 % of the speed are lost
SETS = 4  # the most steps that have sums of their own
SUMS = 12  # vectors of sums that keep a processor busy: additions take four cycles, and two begin in each
BLOCK = 1024  # steps of K after which the next rows take their turn, so that this part of a panel stays in the cache
LINE = 64  # bytes of a cache line
ALONE = 3  # rows of a tile that mostly has no other beside it: processors read ahead by themselves; asking costs 10 %
SHARES = 4  # tiles that together ask for the weights that come next, which matters beyond the second cache


@dataclass(frozen=True)
class Products:
    """Addresses of the compiled functions, for one target and element type, and the columns of a panel."""

    product: int
    pack: int
    round: int  # 0 where operands are taken as they are
    panel: int


def products(
    dtype: str = "f32", target: Target | None = None, widths: Sequence[int] = (), rows: Iterable[int] = ()
) -> Products:
    """Return `product`, `pack` and `round` for "f32", "f64" or "bf16", compiled once per machine.

    widths: the columns of matrices for which it should be quick; where some end in half a panel or less, it is compiled
    with tiles of half a panel, too. rows: numbers of rows that it is called with, and no others; none: any.
    """
    target = target or host()
    sizes = Build(target, dtype)
    span = heights(target.tile_rows, () if sizes.tiled else rows)
    halved = not sizes.tiled and any(0 < N % sizes.panel <= sizes.panel // 2 for N in widths)
    known = _spans.setdefault((dtype, target, halved), [])  # a list: other threads may add to it meanwhile
    span = next((s for s in known if s[0] <= span[0] and span[1] <= s[1]), span)  # what is there already will do
    if span not in known:
        known.append(span)

    def build() -> object:
        made = Build(target, dtype, "product")
        if made.tiled:
            tile_products.emit_product(made)
            tiles.emit_pack(made)
        else:
            emit_product(made, span, halved)
            emit_pack(made)
        if made.paired:
            emit_round(made)
        return made.module

    code = native.load("product", f"{dtype} {'halved' if halved else 'whole'} {span}", build, target)
    rounding = code.address("round") if sizes.paired else 0
    return Products(code.address("product"), code.address("pack"), rounding, sizes.panel)


_spans: dict[tuple[str, Target, bool], list[tuple[int, int]]] = {}  # heights that this process has code for


def heights(most: int, rows: Iterable[int]) -> tuple[int, int]:
    """The heights of tiles to compile for so many rows, from and to: small ones, large ones or all; none given: all."""
    found = set()
    for count in rows:
        least, rest = divmod(count, -(-count // most))  # as `product` divides them
        found |= {least, least + 1} if rest else {least}
    middle, found = most // 2, found or {1, most}
    return 1 if min(found) <= middle else middle + 1, most if max(found) > middle else middle


def emit_product(build: Build, span: tuple[int, int], halved: bool = False) -> None:
    """Write `product(a, lda, w, out, ldo, rows, K, N, panel_from, panel_to, accumulate)` into the module.

    out[r, p*P:(p+1)*P] = (accumulate ? the same : 0) + sum over k of a[r*lda + k] * w[(p*K + k)*P:][:P]
    for the panels panel_from <= p < panel_to. a is (rows, K) with row stride lda, and is not read elsewhere; out has
    the row stride ldo and whole panels of columns, of which those beyond N hold nothing of use. halved: a last panel of
    which N needs half at most is computed by half. span: heights of tiles that rows are divided into, from and to.
    """
    rows = build.target.tile_rows
    vectors = build.target.tile_vectors
    sizes = (vectors, vectors // 2) if halved else (vectors,)
    tall = range(span[0], span[1] + 1)
    tiles = {n * rows + count: _emit_tile(build, count, width) for n, width in enumerate(sizes) for count in tall}
    with build.function("product", [pointer, i64, pointer, pointer, *[i64] * 7]) as arguments:
        a, lda, w, out, ldo, count, K, N, first, last, accumulate = arguments
        turns = build.div_int(build.add_int(count, rows - 1), rows)
        small = build.div_int(count, build.max_int(turns, 1))  # 7 rows are 4 and 3, not 6 and 1
        large = build.sub_int(count, build.mul_int(small, turns))  # so many tiles have a row more

        def panel(p: Value, _: list[Value]) -> None:
            weights = build.at(w, build.mul_int(build.mul_int(p, K), build.panel))
            columns = build.at(out, build.mul_int(p, build.panel))
            rest = build.sub_int(N, build.mul_int(p, build.panel))
            fits = build.compare("<=", rest, build.panel // 2)
            half = build.b.select(fits, build.c(rows), build.c(0)) if halved else build.c(0)

            def block(k: Value, _: list[Value]) -> None:
                depth = build.min_int(build.sub_int(K, k), BLOCK)
                part = build.at(weights, build.mul_int(k, build.panel))
                # the same rows will need what follows in w: the rest of this panel, then the next one
                ahead = build.at(part, build.mul_int(depth, build.panel))
                added = build.b.select(build.compare(">", k, 0), build.c(1), accumulate)

                def tile(j: Value, _: list[Value]) -> None:
                    row = build.add_int(build.mul_int(small, j), build.min_int(j, large))
                    height = build.add_int(small, build.b.zext(build.compare("<", j, large), i64))
                    source = build.at(build.at(a, build.mul_int(row, lda)), k)
                    target = build.at(columns, build.mul_int(row, ldo))
                    soon = build.at(ahead, build.mul_int(j, build.mul_int(depth, _share(build))), 1)
                    soon = build.b.select(build.compare("<", j, SHARES), soon, part)  # what is here costs nothing
                    _choose(
                        build, tiles, build.add_int(height, half), [source, lda, part, target, ldo, depth, added, soon]
                    )

                build.loop(turns, tile)

            build.loop(K, block, step=BLOCK)

        build.loop(last, panel, start=first)


def _share(build: Build) -> int:
    """Bytes of what comes next that a tile asks for, per step of K: SHARES tiles ask for all of it."""
    return build.panel * build.bits // 8 // SHARES


def _choose(build: Build, tiles: Mapping[int, Value], height: Value, arguments: list[Value]) -> None:
    """Call the tile of this number: those of whole panels have their height, those of half ones the tallest's more."""
    after = build.b.append_basic_block("tiled")
    switch = build.b.switch(height, after)
    for count, tile in tiles.items():
        block = build.b.append_basic_block(f"rows{count}")
        switch.add_case(build.c(count), block)
        build.b.position_at_end(block)
        build.b.call(tile, arguments)
        build.b.branch(after)
    build.b.position_at_end(after)


def _emit_tile(build: Build, rows: int, vectors: int) -> Value:
    """Write `tile<rows>x<vectors>(a, lda, w, out, ldo, K, accumulate, ahead)`: all of K, sums in registers."""
    lanes = build.lanes
    # few rows: the registers hold separate sums for k, k+1, ..., which hide the latency of an addition
    sets = min(SETS, build.target.tile_rows // rows, -(-SUMS // (rows * vectors)))
    unroll = max(UNROLL, sets)
    name = f"tile{rows}x{vectors}"
    with build.function(name, [pointer, i64, pointer, pointer, i64, i64, i64, pointer], internal=True) as arguments:
        a, lda, w, out, ldo, K, accumulate, ahead = arguments
        starts = [build.at(a, build.mul_int(lda, row)) for row in range(rows)]

        def step(k: Value, sums: list[Value], steps: int) -> list[Value]:
            sums = list(sums)
            weights = build.at(w, build.mul_int(k, build.panel))
            sources = [build.at(start, k) for start in starts]
            for u in range(steps):
                columns = [build.load(build.at(weights, u * build.panel + v * lanes)) for v in range(vectors)]
                for row in range(rows):
                    value = build.splat(build.load_scalar(build.at(sources[row], u)))
                    for v in range(vectors):
                        place = (u % sets * rows + row) * vectors + v
                        sums[place] = multiply_add(build, value, columns[v], sums[place])
            return sums

        def turn(k: Value, sums: list[Value]) -> list[Value]:
            if rows > ALONE:
                soon = build.at(ahead, build.mul_int(k, _share(build)), 1)
                for line in range(-(-_share(build) * unroll // LINE)):
                    build.prefetch(build.at(soon, line, LINE))
            return step(k, sums, unroll)

        size = rows * vectors
        start = [build.k(0.0)] * (sets * size)
        whole = build.sub_int(K, build.b.urem(K, build.c(unroll)))
        sums = build.loop(whole, turn, start, step=unroll)
        sums = build.loop(K, lambda k, some: step(k, some, 1), sums, start=whole)
        while len(sums) > size:
            half = len(sums) // 2 // size * size
            sums = [build.add(x, y) for x, y in zip(sums[:half], sums[half:])] + sums[2 * half :]
        _finish(build, sums, vectors, out, ldo, accumulate)
    return build.module.functions[name]


def _finish(build: Build, sums: list[Value], vectors: int, out: Value, ldo: Value, accumulate: Value) -> None:
    """Write the sums, row by row, or add them to what is there."""
    firsts = [build.at(out, build.mul_int(ldo, row)) for row in range(len(sums) // vectors)]
    places = [build.at(first, v * build.lanes) for first in firsts for v in range(vectors)]

    def add() -> None:
        for value, place in zip(sums, places):
            build.store(build.add(build.load(place), value), place)

    def write() -> None:
        for value, place in zip(sums, places):
            build.store(value, place)

    build.choose(build.compare("!=", accumulate, 0), add, write)
