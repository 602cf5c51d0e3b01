"""Products of operands in bfloat16: the contracts of a layer against the oracle with rounded products."""

import math

import oracle
import pytest
import torch
from amx import lacks_amx, take_amx
from cells import CASES, THOROUGH, context_of, irregular, make
from rounded import RoundedProducts

import elman
from elman import BackendWarning, OptionError
from elman.compiler import lacks_pairs

CLOSE = 1 / 3  # of the way to float32's own answer: a sum in another order may round a few operands the other way
OUTSIDE = ("conditioned", "attend-additive", "decoder")  # have products outside of the step, which are not rounded
WAYS = ("amx", "avx512", "emulated", "reference")
WITHIN = [("emulated", *case) for case in CASES if case[0] in THOROUGH]
WITHIN += [(way, *case) for way in ("amx", "avx512", "reference") for case in CASES if case[0] not in OUTSIDE]


@pytest.fixture(params=WAYS)
def bf16(request, monkeypatch):
    """Inside the test layers run in bf16: by AMX, by AVX512-BF16, without either, and in torch operations."""
    lacks = {"amx": lacks_amx(), "avx512": lacks_pairs()}.get(request.param)
    if lacks:
        pytest.skip(lacks)
    if request.param == "amx":
        take_amx(monkeypatch)
    else:
        monkeypatch.setenv("ELMAN_BF16", "avx512" if request.param == "avx512" else "emulated")
    with elman.backend("reference" if request.param == "reference" else "fused"), elman.precision("bf16"):
        yield


@pytest.fixture
def emulated(monkeypatch):
    """On any processor bf16 is not refused."""
    monkeypatch.setenv("ELMAN_BF16", "emulated")


def answer(leaves, y, last, twice=False):
    """Outputs, last states and gradients; with `twice`, those of the gradients' squared norm, too."""
    torch.manual_seed(7)
    total = sum((value * torch.randn_like(value)).sum() for value in (y, *last))
    first = torch.autograd.grad(total, leaves, create_graph=twice, materialize_grads=True)
    second = ()
    if twice:
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves, materialize_grads=True)
    return [value.detach() for value in (y, *last, *first, *second)]


def apart(found, want):
    """How far two answers are from each other: the root mean square of the tensors' relative distances."""
    each = [float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in zip(found, want)]
    return math.sqrt(sum(e * e for e in each) / len(each))


def assert_rounded(found, want, full):
    """Found is the oracle's rounded answer, and not that of float32."""
    assert all(value.dtype == torch.float32 for value in found)
    assert apart(found, want) <= CLOSE * apart(full, want) + 1e-6


@pytest.mark.parametrize(("bf16", "kind", "size"), WITHIN, indirect=["bf16"], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward whole", "reverse lengths and resets"])
def test_values_and_gradients_are_those_of_rounded_products(bf16, kind, size, reverse):
    cell, x, state = make(kind, size, torch.float32)
    context = context_of(cell, x)
    lengths, reset = irregular(*size[:2])
    how = {"lengths": lengths, "reset": reset} if reverse else {}
    leaves = [x, *state, *(value for value in context.values() if value.requires_grad), *cell.parameters()]
    layer, before = elman.Recurrent(cell, reverse=reverse), (lengths, reset) if how else (None, None)
    found = answer(leaves, *layer(x, state, **how, **context))
    with RoundedProducts():
        want = answer(leaves, *oracle.run(cell, x, state, *before, reverse, cell.output_size, **context))
    full = answer(leaves, *oracle.run(cell, x, state, *before, reverse, cell.output_size, **context))
    assert_rounded(found, want, full)


def test_second_derivatives_are_those_of_rounded_products(bf16):
    cell, x, state = make("lstm", (4, 3, 2, 3), torch.float32)
    leaves = [x, *state, *cell.parameters()]
    found = answer(leaves, *elman.Recurrent(cell)(x, state), twice=True)
    with RoundedProducts():
        want = answer(leaves, *oracle.run(cell, x, state), twice=True)
    assert_rounded(found, want, answer(leaves, *oracle.run(cell, x, state), twice=True))


def test_a_sequence_is_its_steps_and_its_segments(bf16):
    """A single step is rounded as it would be within a sequence, and a segment that is computed again."""
    cell, x, state = make("gru", (9, 3, 4, 33), torch.float32)
    leaves = [x, *state, *cell.parameters()]
    whole = answer(leaves, *elman.Recurrent(cell)(x, state))
    kept = answer(leaves, *elman.Recurrent(cell, checkpoint=4)(x, state))
    ys, last = [], state
    for row in x.split(1):
        y, last = elman.Recurrent(cell)(row, last)
        ys.append(y)
    full = answer(leaves, *oracle.run(cell, x, state))
    assert_rounded(kept, whole, full)
    assert_rounded(answer(leaves, torch.cat(ys), last), whole, full)


@pytest.mark.parametrize("rows", [7, 40])
def test_segments_of_a_part_of_the_batch_on_a_thread_each(bf16, threads, rows):
    threads(2)
    cell, x, state = make("lstm", (35, rows, 33, 40), torch.float32)
    leaves = [x, *state, *cell.parameters()]
    whole, kept = (answer(leaves, *elman.Recurrent(cell, checkpoint=k)(x, state)) for k in (None, 5))
    assert_rounded(kept, whole, answer(leaves, *oracle.run(cell, x, state)))


def test_the_same_answer_twice_to_the_bit(bf16):
    cell, x, state = make("lstm", (9, 4, 6, 33), torch.float32)
    leaves = [x, *state, *cell.parameters()]
    one, two = (answer(leaves, *elman.Recurrent(cell)(x, state)) for _ in range(2))
    assert all(map(torch.equal, one, two))


def test_backward_is_as_its_forward_was_wherever_it_runs(emulated):
    cell, x, state = make("lstm", (6, 3, 4, 5), torch.float32)
    leaves = [x, *state, *cell.parameters()]
    with elman.precision("bf16"):
        inside = answer(leaves, *elman.Recurrent(cell)(x, state))
        y, last = elman.Recurrent(cell)(x, state)
    assert all(map(torch.equal, answer(leaves, y, last), inside))
    with elman.precision("bf16"), elman.precision("float32"):
        full = answer(leaves, *elman.Recurrent(cell)(x, state))
    assert all(map(torch.equal, full, answer(leaves, *elman.Recurrent(cell)(x, state))))
    assert apart(inside, full) > 1e-4


def test_float64_is_left_alone(emulated):
    cell, x, state = make("lstm", (6, 3, 4, 5))
    y, _ = elman.Recurrent(cell)(x, state)
    with elman.precision("bf16"):
        assert torch.equal(elman.Recurrent(cell)(x, state)[0], y)


def test_torchs_modules_are_rounded_too(emulated):
    torch.manual_seed(0)
    lstm, x = elman.nn.LSTM(5, 7, num_layers=2), torch.randn(6, 3, 5)
    with torch.no_grad():
        y, _ = lstm(x)
        with elman.precision("bf16"):
            rounded, _ = lstm(x)
    assert 1e-4 < apart([rounded], [y]) < 1e-2


def test_a_step_that_runs_plainly_says_that_it_is_not_rounded(emulated):
    def step(x, h):
        h = torch.fft.fft(h).real + x
        return h, (h,)

    x, h = torch.randn(4, 2, 3), torch.zeros(2, 3)
    with elman.precision("bf16"), pytest.warns(BackendWarning, match="on the plain backend, its products in float32: "):
        elman.scan(step, x, h)


def test_explain_names_the_precision(emulated):
    layer, x = elman.Recurrent(elman.cell.LSTM(3, 4)), torch.randn(5, 2, 3)
    assert "\nprecision: float32\n" in str(elman.explain(layer, x))
    with elman.precision("bf16"):
        text = str(elman.explain(layer, x))
    line = "bf16 -- operands of products; sums, states, gradients and weights in float32; multiplied by emulation"
    assert f"\nprecision: {line}\n" in text


def test_what_cannot_run_is_refused(monkeypatch):
    monkeypatch.delenv("ELMAN_BF16", raising=False)
    monkeypatch.setenv("ELMAN_VECTOR", "128")
    with pytest.raises(OptionError, match="precision bf16 cannot run here: .*AVX512-BF16.*; use float32"):
        elman.precision("bf16").__enter__()
    with pytest.raises(OptionError, match="precision must be one of float32, bf16; got 'fp8'"):
        elman.precision("fp8").__enter__()
