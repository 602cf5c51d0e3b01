"""torch's own tests of its recurrent modules, run on elman's: its inputs, its reference functions, its errors."""

import copy

import pytest
import safetensors.torch
import torch
from tolerance import all_close
from torch.nn.utils.rnn import PackedSequence
from torchs_modules import CASES, NAMES, each, error_samples, leaves, pair, samples, silently

import elman

DTYPES = (torch.float64, torch.float32)
# (test, module, index of torch's sample): why elman's module fails it. Each must fail; none is left out.
EXPECTED_FAILURES: dict[tuple[str, str, int], str] = {}
every_case = pytest.mark.parametrize(("name", "i"), CASES, ids=[f"{name}-{i}" for name, i in CASES])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])


@pytest.fixture(autouse=True)
def _expected(request):
    """Mark what is known to fail."""
    given = getattr(request.node, "callspec", None)
    key = (request.node.originalname, given.params.get("name"), given.params.get("i")) if given else None
    if key in EXPECTED_FAILURES:
        request.applymarker(pytest.mark.xfail(strict=True, reason=EXPECTED_FAILURES[key]))


def called(module, args):
    """The tensors that a call returns, and gradients to its arguments and parameters of one scalar of them all."""
    out = leaves(silently(module, *args))
    torch.manual_seed(2)
    scalar = sum((value * torch.randn_like(value)).sum() for value in out)
    return out, torch.autograd.grad(scalar, [*leaves(args), *module.parameters()])


@every_dtype
@every_case
def test_forward_and_gradients_in_training_and_evaluation(name, i, dtype):
    ours, theirs, args = pair(name, i, dtype)
    assert isinstance(ours, type(theirs))
    want = called(theirs, args)
    for training in (True, False):
        got = called(ours.train(training), args)
        all_close(got, want, name)
        assert [t.stride() for t in got[0]] == [t.stride() for t in want[0]]
    if not isinstance(args[0], PackedSequence):  # of which torch's reference functions know nothing
        all_close(got[0], leaves(silently(samples(name)[i].reference_fn, ours, *args)), "reference")


@every_case
def test_gradients_and_second_gradients_are_those_of_differences(name, i):
    module, _, args = pair(name, i)
    parameters = dict(module.named_parameters())
    tensors = [*leaves(args), *parameters.values()]

    def function(flat):
        parts = iter(flat.split([t.numel() for t in tensors]))
        given = each(args, lambda t: next(parts).view_as(t))
        weights = {key: next(parts).view_as(p) for key, p in parameters.items()}
        return torch.cat([t.flatten() for t in leaves(torch.func.functional_call(module, weights, given))])

    flat = torch.cat([t.detach().flatten() for t in tensors]).requires_grad_()
    assert torch.autograd.gradcheck(function, flat, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, flat, fast_mode=True)


@every_case
def test_inputs_that_are_not_contiguous(name, i):
    module, _, args = pair(name, i)
    strided = each(args, lambda t: t.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_())
    all_close(called(module, strided), called(module, args), name)


@every_case
def test_device_and_dtype_arguments(name, i):
    given = samples(name)[i].constructor_input
    module = getattr(elman.nn, name)(*given.args, **given.kwargs, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float64)}
    ours, _, args = pair(name, i)
    got = leaves(silently(module, *each(args, lambda t: t.to("meta"))))
    assert [(t.shape, t.dtype, t.device.type) for t in got] == [
        (t.shape, t.dtype, "meta") for t in leaves(silently(ours, *args))
    ]
    assert {p.device.type for p in module.to_empty(device="cpu").parameters()} == {"cpu"}


@every_case
def test_state_dict_both_ways_through_a_file(name, i, tmp_path):
    ours, theirs, args = pair(name, i)
    given = samples(name)[i].constructor_input
    want = leaves(silently(theirs, *args))
    for source, room in ((theirs, elman.nn), (ours, torch.nn)):
        safetensors.torch.save_file(source.state_dict(), tmp_path / "weights")
        module = getattr(room, name)(*given.args, **given.kwargs, dtype=torch.float64)
        module.load_state_dict(safetensors.torch.load_file(tmp_path / "weights"))
        with elman.backend("plain"):  # nothing to compile anew for each copy
            all_close(leaves(silently(module, *args)), want, name)


@every_case
def test_words_copies_and_whole_modules_in_a_file(name, i, tmp_path):
    ours, theirs, args = pair(name, i)
    want = leaves(ours(*args))
    assert repr(ours) == repr(theirs)
    assert sorted(vars(ours)) == sorted(vars(theirs))
    torch.save(ours, tmp_path / "module")
    with elman.backend("plain"):
        for other in (copy.deepcopy(ours), torch.load(tmp_path / "module", weights_only=False)):
            assert type(other) is type(ours)
            all_close(leaves(other(*args)), want, name)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.zero_()
            other(*args)
    assert all(map(torch.equal, leaves(ours(*args)), want))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", NAMES[:3])
def test_batch_first_is_a_transposition(name, bidirectional):
    torch.manual_seed(0)
    late = getattr(elman.nn, name)(3, 4, 2, bidirectional=bidirectional)
    first = getattr(elman.nn, name)(3, 4, 2, bidirectional=bidirectional, batch_first=True)
    first.load_state_dict(late.state_dict())
    x = torch.randn(5, 2, 3)
    (want, last), (got, state) = late(x), first(x.transpose(0, 1))
    all_close(got.transpose(0, 1), want, name)
    all_close(leaves([state]), leaves([last]), name)


@pytest.mark.parametrize("name", NAMES[:3])
def test_training_and_evaluation_differ_by_dropout(name):
    module = getattr(elman.nn, name)(3, 4, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    assert not torch.equal(module.train()(x)[0], module.eval()(x)[0])
    assert torch.equal(module(x)[0], module(x)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_errors(name, dtype):
    checked = 0
    for error in error_samples(name, dtype):
        given, call = error.module_error_input.constructor_input, error.module_error_input.forward_input
        with pytest.raises(error.error_type, match=error.error_regex):
            getattr(elman.nn, name)(*given.args, **given.kwargs)(*call.args, **call.kwargs)
        checked += 1
    assert checked >= 4
