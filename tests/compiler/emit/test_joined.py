"""Sums of products: joined where both are computed in one place, and equal to the sum."""

import pytest
import torch

pytest.importorskip("llvmlite")

from native_products import sum_of_products
from widths import both

from elman.compiler import graph
from elman.compiler.emit.joined import chain, joined, onto
from elman.compiler.emit.target import Target
from elman.compiler.graph import Loop, Node, Op, matmul, pointwise


def loop_of(parts: int) -> tuple[Loop, list[Node]]:
    """tanh(b + x U + h W + ...), so many products of states."""
    x, b = Node(Op.STEP, (), "x", 3), Node(Op.SHARED, (), "b", 4)
    states = [Node(Op.STATE, (), f"h{i}", 4) for i in range(parts)]
    weights = [Node(Op.SHARED, (), f"W{i}", 4, 4) for i in range(parts)]
    products = [matmul(x, Node(Op.SHARED, (), "U", 4, 3)), *map(matmul, states, weights)]
    total = b
    for product in products:
        total = pointwise(Op.ADD, total, product)
    new = pointwise(Op.TANH, total)
    return Loop({"y": new}, {state.arg: new for state in states}), products


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_products_of_one_sum_are_one_chain(parts):
    loop, products = loop_of(parts)
    made = joined(loop, lambda node: "inside")
    assert [n.op for n in made.nodes()].count(Op.ADD) == 1
    (last,) = (n for n in made.nodes() if onto(n) and not any(onto(m) is n for m in made.nodes()))
    assert [n.src[:2] for n in chain(last)] == [n.src for n in products]


def test_products_of_other_places_stay_apart():
    loop, _ = loop_of(1)
    assert graph.show(joined(loop, lambda node: node.src[0].arg)) == graph.show(loop)
    assert graph.show(joined(loop, lambda node: "")) == graph.show(loop)


def test_a_product_that_is_read_elsewhere_too_stays_apart():
    loop, (first, _) = loop_of(1)
    more = Loop({**loop.per_step, "seen": first}, loop.carried)
    assert not any(onto(n) for n in joined(more, lambda node: "inside").nodes())


@both
@pytest.mark.parametrize("rows", [1, 7, 60, 97, 200, 391])
def test_the_sum_of_products_of_many_rows(monkeypatch, target: Target, dtype: str, rows: int) -> None:
    """By panels and by blocks of rows; one product is as it is alone."""
    torch.manual_seed(0)
    kind = {"f32": torch.float32, "f64": torch.float64}[dtype]
    pairs = [(torch.randn(rows, K, dtype=kind), torch.randn(130, K, dtype=kind).t()) for K in (28, 500, 1)]
    for count in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        want = sum(a.double() @ w.double() for a, w in pairs)
        torch.testing.assert_close(sum_of_products(pairs, dtype, target), want.to(kind), rtol=1e-5, atol=1e-4)
