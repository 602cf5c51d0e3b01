"""Weights of any strides into panels, fast enough to be done again after every step of an optimiser."""

from elman.compiler.emit.llvm import Build, Value, i64, pointer
from elman.compiler.emit.pairs import element, pair


def emit_pack(build: Build) -> None:
    """Write `pack(w, stride_k, stride_n, K, N, out, panel_from, panel_to)` into the module.

    out[p, k, c] = w[k*stride_k + (p*P + c)*stride_n], and 0 from column N on, for panel_from <= p < panel_to.
    w is (K, N) with strides in elements; out is (panels, K, P). In bfloat16, out[p, k, c] is the pair of rows 2k and
    2k+1 of w, with 0 for a row beyond K, and out is (panels, ceil(K / 2), P).
    """
    with build.function("pack", [pointer, *[i64] * 4, pointer, i64, i64]) as arguments:
        w, stride_k, stride_n, K, N, out, first, last = arguments
        straight, turned = build.compare("==", stride_n, 1), build.compare("==", stride_k, 1)

        def group(source: Value, target: Value, left: Value) -> None:
            """Pack as many columns as a vector has lanes; `left` of them exist."""
            whole = build.compare(">=", left, build.lanes)
            copy, turn = build.b.and_(straight, whole), build.b.and_(turned, whole)
            blocks = build.sub_int(K, build.b.urem(K, build.c(build.lanes)))
            build.when(copy, lambda: _copy(build, source, stride_k, target, K, 1))
            build.when(turn, lambda: _turn(build, source, stride_n, target, blocks))
            start = build.b.select(copy, K, build.b.select(turn, blocks, build.c(0)))
            _scalars(build, source, (stride_k, stride_n), target, (start, K), left)

        def panel(p: Value, _: list[Value]) -> None:
            column = build.mul_int(p, build.panel)
            source = build.at(w, build.mul_int(column, stride_n))
            target = build.at(out, build.mul_int(column, build.elements_int(K)))
            left = build.sub_int(N, column)

            def groups() -> None:
                def one(c: Value, _: list[Value]) -> None:
                    group(build.at(source, build.mul_int(c, stride_n)), build.at(target, c), build.sub_int(left, c))

                build.loop(build.panel, one, step=build.lanes)

            build.choose(
                build.b.and_(straight, build.compare(">=", left, build.panel)),
                lambda: _copy(build, source, stride_k, target, K, build.target.tile_vectors),
                groups,
            )

        build.loop(last, panel, start=first)


def _copy(build: Build, source: Value, stride: Value, target: Value, K: Value, vectors: int) -> None:
    """Columns side by side in the source, too: copy so many vectors of each row."""

    def row(k: Value, _: list[Value]) -> None:
        there = build.at(target, build.mul_int(k, build.panel))
        for v in range(vectors):
            start = build.at(source, v * build.lanes)
            value = element(build, lambda k, p=start: build.load(build.at(p, build.mul_int(k, stride))), k, K)  # type: ignore[misc]
            build.store(value, build.at(there, v * build.lanes))

    build.loop(build.elements_int(K), row)


def _turn(build: Build, source: Value, stride: Value, target: Value, K: Value) -> None:
    """Rows of the source are columns here: transpose squares of lanes x lanes in registers. K is whole squares."""
    lanes = build.lanes

    def square(k: Value, _: list[Value]) -> None:
        here = build.at(source, k)
        columns = [build.load(build.at(here, build.mul_int(stride, n))) for n in range(lanes)]
        rows, there = transposed(build, columns), build.at(target, build.mul_int(build.elements_int(k), build.panel))
        if build.paired:
            rows = [pair(build, low, high) for low, high in zip(rows[::2], rows[1::2])]
        for n, row in enumerate(rows):
            build.store(row, build.at(there, n * build.panel))

    build.loop(K, square, step=lanes)


def transposed(build: Build, rows: list[Value]) -> list[Value]:
    """Transpose a square of vectors: shuffle the deck of rows perfectly, as often as it takes."""
    lanes, half = build.lanes, build.lanes // 2
    low = [lane // 2 + lane % 2 * lanes for lane in range(lanes)]
    high = [lane + half for lane in low]
    for _ in range(half.bit_length()):
        pairs = [(rows[n], rows[n + half]) for n in range(half)]
        rows = [build.shuffle(a, b, order) for a, b in pairs for order in (low, high)]
    return rows


def _scalars(
    build: Build, source: Value, strides: tuple[Value, Value], target: Value, span: tuple[Value, Value], left: Value
) -> None:
    """What is left over: the rows span[0] <= k < span[1] of one vector's columns, zero where there is no column."""
    start, K = span

    def row(k: Value, _: list[Value]) -> None:
        there = build.at(target, build.mul_int(k, build.panel))
        build.store(build.k(0.0), there)

        def column(c: Value, _: list[Value]) -> None:
            here = build.at(source, build.mul_int(c, strides[1]))
            number = element(build, lambda k: build.load_scalar(build.at(here, build.mul_int(k, strides[0]))), k, K)
            build.store_scalar(number, build.at(there, c))

        build.loop(build.min_int(left, build.lanes), column)

    build.loop(build.elements_int(K), row, start=build.elements_int(start))


def spread(
    build: Build,
    held: Value,
    width: int,
    out: Value,
    strides: tuple[Value, Value],
    sizes: tuple[Value, Value],
    again: Value,
) -> None:
    """Write numbers that lie in rows of this width, or add them, element by element."""

    def column(c: Value, _: list[Value]) -> None:
        source, target = build.at(held, c), build.at(out, build.mul_int(c, strides[1]))

        def row(r: Value, _: list[Value]) -> None:
            place = build.at(target, build.mul_int(r, strides[0]))
            value = build.load_scalar(build.at(source, build.mul_int(r, width)))

            def add() -> None:
                build.store_scalar(build.add(value, build.load_scalar(place)), place)

            build.choose(build.compare("!=", again, 0), add, lambda: build.store_scalar(value, place))

        build.loop(sizes[0], row)

    build.loop(sizes[1], column)
