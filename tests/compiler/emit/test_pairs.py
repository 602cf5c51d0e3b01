"""Products of operands in bfloat16 against wider numbers, with each of the processor's instructions and without."""

import math

import pytest
import torch

pytest.importorskip("llvmlite")

from amx import lacks_amx, with_amx
from native_products import outer, product
from widths import targets

from elman.compiler.emit import native
from elman.compiler.emit.outer import DEPTH
from elman.compiler.emit.product import products
from elman.compiler.emit.target import Target, host, lacks_pairs, without_pairs, without_tiles

SIZES = [(1, 1, 1), (7, 5, 3), (13, 64, 130), (33, 65, 65), (100, 513, 70), (9, 2501, 70)]  # rows, K, N
SIZES += [(16, 32, 16), (17, 31, 96), (32, 64, 64), (48, 33, 40), (63, 100, 129), (65, 96, 32)]  # about a tile's
with_and_without = pytest.mark.parametrize(
    "target",
    [
        *(without_pairs(target) for target in targets()),
        pytest.param("pairs", marks=pytest.mark.skipif(bool(lacks_pairs()), reason=lacks_pairs())),
        pytest.param("tiles", marks=pytest.mark.skipif(bool(lacks_amx()), reason=lacks_amx())),
    ],
    indirect=True,
    ids=lambda target: target if isinstance(target, str) else str(target.bits),
)


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """The machine with tiles, or without them, or a width without any instruction for pairs."""
    if request.param == "tiles":
        return with_amx()
    return without_tiles(host()) if request.param == "pairs" else request.param


def framed(rows: int, columns: int) -> torch.Tensor:
    """Random numbers with NaN all around them."""
    held = torch.full((rows + 2, columns + 2), math.nan)
    held[1:-1, 1:-1] = torch.randn(rows, columns)
    return held[1:-1, 1:-1]


def assert_sum(got: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Got is a @ b of operands rounded as torch rounds them, but for the order of a sum in float32."""
    a, b = (value.bfloat16().double() for value in (a, b))
    assert (got.double() - a @ b).abs().le(4e-7 * (a.abs() @ b.abs()) + 1e-30).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["straight", "turned"])
@with_and_without
def test_linear(target: Target, size: tuple[int, int, int], turned: bool) -> None:
    """Weights in both layouts, odd K, rows and columns beyond a tile."""
    rows, K, N = size
    torch.manual_seed(0)
    a, w = framed(rows, K), framed(N, K).t() if turned else framed(K, N)
    assert_sum(product(a, w, "bf16", target), a, w)


@pytest.mark.parametrize("size", [*SIZES, (70, 2 * DEPTH + 1, 19)], ids=str)
@with_and_without
def test_outer(target: Target, size: tuple[int, int, int]) -> None:
    """Odd K leaves half a pair empty; K beyond one visit; one side wider than the other."""
    M, K, N = size
    torch.manual_seed(0)
    a, b = framed(K, M), framed(K, N)
    assert_sum(outer(a, b, "bf16", target), a.t(), b)


@with_and_without
def test_rounding_is_torchs(target: Target) -> None:
    """Ties to even, up to infinity, NaN of any bits; a product with 1 shows the operand as it was rounded."""
    bits = torch.tensor([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF])
    a = torch.cat([bits, bits | 0x80000000]).to(torch.int32).view(torch.float32)[:, None]
    for got in (product(a, torch.ones(1, 3), "bf16", target), product(torch.ones(3, 1), a.t(), "bf16", target).t()):
        torch.testing.assert_close(got, a.bfloat16().float().expand(-1, 3), rtol=0, atol=0, equal_nan=True)


@with_and_without
def test_what_is_not_read_stays_out(target: Target) -> None:
    """A NaN beyond the last row of K reaches no sum, whichever half of a pair it would be."""
    held = torch.ones(5, 3)
    held[3:] = math.nan
    assert (outer(held[:3], held[:3], "bf16", target) == 3).all()


def test_the_instruction_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision and instruction each have code of their own, on the disk and in memory."""
    monkeypatch.setattr(native, "_memo", {})
    ways = {host(), without_tiles(host()), without_pairs(host())}
    found = {products(dtype, target).product for dtype in ("f32", "bf16") for target in ways}
    assert len(found) == 2 * len(ways)
    assert len(ways) == 1 + host().multiplies_pairs + host().multiplies_tiles
