"""Products and outer products of bfloat16 by AMX: 32 rows by 32 columns at a time, in four tiles of sums.

All eight registers are in use: four tiles of sums, two of a left side, two of a right side, so that each load serves
two products. Loads stand between products, and what comes next is asked for early: a third faster where weights come
from the second cache.
"""

from __future__ import annotations

from collections.abc import Callable

from elman.compiler.emit.llvm import Build, Value, i64, pointer
from elman.compiler.emit.pack import spread
from elman.compiler.emit.tiles import BYTES, HALF, SIDE, SQUARE, configure, emit_squares, place, release, squares, tile

LEFT, RIGHT = (4, 5), (6, 7)  # registers of sides; 0 to 3 are sums
AHEAD = 2  # tiles of K ahead that are asked for


def emit_product(build: Build) -> None:
    """Write `product`, as product.py says: 32 rows by half a panel at a time, then what rows are left."""
    both, one = _emit_both(build), _emit_one(build)
    with build.function("product", [pointer, i64, pointer, pointer, *[i64] * 7]) as arguments:
        a, lda, w, out, ldo, count, K, N, first, last, accumulate = arguments
        whole = build.mul_int(build.div_int(count, HALF), HALF)
        rest = build.sub_int(count, whole)

        def panels(rows: Callable[[Value, Value, Value], None]) -> None:
            def panel(p: Value, _: list[Value]) -> None:
                column = build.mul_int(p, build.panel)
                rows(build.at(w, build.mul_int(column, K)), build.at(out, column), build.sub_int(N, column))

            build.loop(last, panel, start=first)

        def halves(low: Value, high: Value, weights: Value, columns: Value, left: Value) -> None:
            def half(h: Value, _: list[Value]) -> None:
                part = build.at(weights, build.mul_int(h, build.mul_int(K, HALF)))
                target = build.at(columns, build.mul_int(h, HALF))

                def some(row: Value, _: list[Value]) -> None:
                    source = build.at(a, build.mul_int(row, lda))
                    there = build.at(target, build.mul_int(row, ldo))
                    build.b.call(both, [source, lda, part, there, ldo, K, accumulate])

                build.loop(high, some, start=low, step=HALF)

            build.loop(build.b.select(build.compare(">", left, HALF), build.c(2), build.c(1)), half)

        def all_whole() -> None:
            configure(build, [SIDE] * 8)
            panels(lambda *panel: halves(build.c(0), whole, *panel))

        def two() -> None:
            more = build.sub_int(rest, SIDE)
            configure(build, [SIDE, SIDE, more, more, SIDE, more, SIDE, SIDE])
            panels(lambda *panel: halves(whole, count, *panel))

        def few() -> None:
            configure(build, [rest] * 5 + [SIDE] * 3)
            source, there = build.at(a, build.mul_int(whole, lda)), build.mul_int(whole, ldo)
            panels(lambda w, out, _: build.b.call(one, [source, lda, w, build.at(out, there), ldo, K, accumulate]))

        build.when(build.compare(">", whole, 0), all_whole)
        build.when(build.compare(">", rest, SIDE), two)
        build.when(build.b.and_(build.compare(">", rest, 0), build.compare("<=", rest, SIDE)), few)
        release(build)


def _sums(build: Build, places: list[Value], stride: Value, accumulate: Value, multiply: Callable[[], None]) -> None:
    """Four tiles of sums, from 0 or from what is at their places, which take what `multiply` makes of them."""

    def begin() -> None:
        for n, there in enumerate(places):
            tile(build, "tileloadd64", n, there, stride)

    def zero() -> None:
        for n in range(len(places)):
            tile(build, "tilezero", n)

    build.choose(build.compare("!=", accumulate, 0), begin, zero)
    multiply()
    for n, there in enumerate(places):
        tile(build, "tilestored64", n, there, stride)


def corners(build: Build, lefts: list[Value], stride: Value, apart: int, right: Value, K: Value) -> None:
    """Add two tiles of rows by two of columns to sums 0 to 3, over K.

    lefts: the first tile of each left side, `stride` bytes a row, those of later k `apart` times k elements further.
    Loads stand between products, and what will be read next is asked for: a left side where its tiles lie in a row,
    else the right one.
    """

    def step(k: Value, _: list[Value]) -> None:
        here, place = build.at(right, build.mul_int(k, HALF)), build.mul_int(k, apart)
        soon = [build.at(left, build.add_int(place, AHEAD * SQUARE)) for left in lefts]
        if apart == 1:
            soon = [build.at(here, AHEAD * HALF * SIDE + n * SQUARE) for n in range(2)]
        lines = [build.at(start, n * SIDE) for start in soon for n in range(SIDE)]
        for r, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
            if c == 0:
                tile(build, "tileloadd64", LEFT[r], build.at(lefts[r], place), stride)
            if r == 0:
                tile(build, "tileloadd64", RIGHT[c], build.at(here, c * SQUARE), build.c(BYTES))
            tile(build, "tdpbf16ps", 2 * r + c, LEFT[r], RIGHT[c])
            for line in lines[(2 * r + c) * 8 :][:8]:
                build.prefetch(line, level=3)

    build.loop(K, step, step=SIDE)


def _emit_both(build: Build) -> Value:
    """Write `both(a, lda, w, out, ldo, K, accumulate)`: two tiles of rows by half a panel."""
    with build.function("both", [pointer, i64, pointer, pointer, i64, i64, i64], internal=True) as arguments:
        a, lda, w, out, ldo, K, accumulate = arguments
        below = build.at(a, build.mul_int(lda, SIDE)), build.at(out, build.mul_int(ldo, SIDE))
        stride, across = build.mul_int(lda, 4), build.mul_int(ldo, 4)
        places = [build.at(start, n * SIDE) for start in (out, below[1]) for n in range(2)]
        _sums(build, places, across, accumulate, lambda: corners(build, [a, below[0]], stride, 1, w, K))
    return build.module.functions["both"]


def _emit_one(build: Build) -> Value:
    """Write `one(a, lda, w, out, ldo, K, accumulate)`: one tile of rows by a whole panel."""
    with build.function("one", [pointer, i64, pointer, pointer, i64, i64, i64], internal=True) as arguments:
        a, lda, w, out, ldo, K, accumulate = arguments

        def multiply() -> None:
            def step(k: Value, _: list[Value]) -> None:
                tile(build, "tileloadd64", LEFT[0], build.at(a, k), build.mul_int(lda, 4))
                for n in range(4):
                    half = build.add_int(build.mul_int(k, HALF), build.mul_int(K, n // 2 * HALF))
                    here = build.at(build.at(w, half), n % 2 * SQUARE)
                    tile(build, "tileloadd64", RIGHT[n % 2], here, build.c(BYTES))
                    tile(build, "tdpbf16ps", n, LEFT[0], RIGHT[n % 2])
                    for line in range(SIDE):
                        build.prefetch(build.at(here, HALF * SIDE + line * SIDE), level=3)

            build.loop(K, step, step=SIDE)

        places = [build.at(out, n * SIDE) for n in range(4)]
        _sums(build, places, build.mul_int(ldo, 4), accumulate, multiply)
    return build.module.functions["one"]


# ---- sums of outer products


def emit_strips(build: Build) -> Value:
    """Write `strips(a, lda, out, steps, K, columns)`: a's columns as left sides, 32 by 32, over so many elements of K.

    The tile of element k and columns m to m + 15 begins at out[m * steps + k * 16].
    """
    emit_squares(build, "weave", "mirror")
    with build.function("strips", [pointer, i64, pointer, i64, i64, i64], internal=True) as arguments:
        a, lda, out, steps, K, columns = arguments

        def there(k: Value, m: Value) -> Value:
            return build.at(out, build.add_int(build.mul_int(m, steps), build.mul_int(k, SIDE)))

        squares(build, "mirror", a, lda, (steps, K, columns), there)
    return build.module.functions["strips"]


def emit_panel(build: Build) -> Value:
    """Write `panel`, as outer.py says, of up to a panel of columns. After `emit_strips`; tiles configured whole."""
    types = [pointer, pointer, i64, pointer, pointer, *[i64] * 7]
    with build.function("panel", types, internal=True) as arguments:
        strips, b, ldb, copy, out, down, across, steps, K, rows, columns, again = arguments
        held = build.local(HALF * HALF // build.lanes)

        def there(k: Value, n: Value) -> Value:
            return build.at(copy, place(build, k, build.div_int(n, SIDE), steps))

        squares(build, "weave", b, ldb, (steps, K, columns), there)

        def half(n: Value, _: list[Value]) -> None:
            right, left_over = build.at(copy, build.mul_int(n, steps)), build.sub_int(columns, n)

            def corner(m: Value, _: list[Value]) -> None:
                left = build.at(strips, build.mul_int(m, steps))
                lefts = [left, build.at(left, build.mul_int(steps, SIDE))]
                target = build.at(out, build.add_int(build.mul_int(m, down), build.mul_int(n, across)))
                sizes = build.min_int(build.sub_int(rows, m), HALF), build.min_int(left_over, HALF)

                def multiply() -> None:
                    corners(build, lefts, build.c(BYTES), SIDE, right, steps)

                def sums(start: Value, stride: Value, accumulate: Value) -> None:
                    below = build.at(start, build.mul_int(stride, SIDE))
                    places = [build.at(line, c * SIDE) for line in (start, below) for c in range(2)]
                    _sums(build, places, build.mul_int(stride, 4), accumulate, multiply)

                def apart() -> None:
                    sums(held, build.c(HALF), build.c(0))
                    spread(build, held, HALF, target, (down, across), sizes, again)

                whole = build.compare("==", build.mul_int(*sizes), HALF * HALF)
                plain = build.b.and_(whole, build.compare("==", across, 1))
                build.choose(plain, lambda: sums(target, down, again), apart)

            build.loop(rows, corner, step=HALF)

        build.loop(columns, half, step=HALF)
    return build.module.functions["panel"]
