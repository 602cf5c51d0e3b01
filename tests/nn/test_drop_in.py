"""elman.nn's modules in the place of torch.nn's: values, gradients, dropout's stream, errors, transforms, compiling."""

import copy
import importlib
import itertools
import sys
import warnings

import pytest
import torch
from tolerance import all_close
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torchs_modules import leaves, silently

import elman

KINDS = ("RNN", "LSTM", "GRU")
every_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS = {"sorted": [7, 5, 5, 2, 1], "unsorted": [1, 7, 3, 7, 2], "equal": [7] * 5, "short": [1] * 5}
SIZES = (4, 6)  # I, H


def pair(kind, *args, **kwargs):
    """elman's module and torch's from the same seed, which must give the same weights."""
    made = []
    for room in (elman.nn, nn):
        torch.manual_seed(0)
        made.append(getattr(room, kind)(*(args or SIZES), **kwargs))
    ours, theirs = made
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    return ours, theirs


def state_for(module, batch, dtype):
    """A random first state, in the form that the module takes."""
    count = module.num_layers * (1 + module.bidirectional)
    widths = (module.proj_size or module.hidden_size, module.hidden_size)
    states = tuple(torch.randn(count, *batch, w, dtype=dtype, requires_grad=True) for w in widths)
    return states if module.mode == "LSTM" else states[0]


def called(module, x, state, seed=3):
    """All that a call returns, and all gradients, from the same random stream."""
    torch.manual_seed(seed)
    out = leaves(silently(module, x, state))
    torch.manual_seed(seed)
    scalar = sum((value * torch.randn_like(value)).sum() for value in out)
    inputs = [t for t in leaves([x, state]) if t.requires_grad]
    return out, torch.autograd.grad(scalar, [*inputs, *module.parameters()])


def same(ours, theirs, x, state=None):
    """Values and gradients agree; gradients of weights are sums over all steps and rows, and so is their rounding."""
    (got, grads), (want, wanted) = called(ours, x, state), called(theirs, x, state)
    all_close(got, want, "outputs")
    scale = max(1.0, *(g.abs().max().item() for g in wanted))
    all_close([g / scale for g in grads], [g / scale for g in wanted], "gradients")


OPTIONS = [
    (layers, both, bias, dtype)
    for layers, both, bias in itertools.product((1, 2), (False, True), (False, True))
    for dtype in (torch.float32, torch.float64)[layers - 1 :]
]


@pytest.mark.parametrize(("layers", "both", "bias", "dtype"), OPTIONS)
@every_kind
def test_every_option_with_and_without_state_batch_and_packing(kind, layers, both, bias, dtype):
    options = dict(num_layers=layers, bidirectional=both, bias=bias, dtype=dtype)
    if kind == "RNN" and layers == 2:
        options["nonlinearity"] = "relu"
    for proj, first in itertools.product((0, 3) if kind == "LSTM" else (0,), (False, True)):
        if not first:
            ours, theirs = pair(kind, **options, **({"proj_size": proj} if proj else {}))
        ours.batch_first = theirs.batch_first = first
        x = torch.randn(7, 5, 4, dtype=dtype, requires_grad=True)
        x = x.transpose(0, 1) if first else x
        same(ours, theirs, x)
        same(ours, theirs, x, state_for(ours, (5,), dtype))
        same(ours, theirs, x[0])
        same(ours, theirs, x[0], state_for(ours, (), dtype))
        packed = pack_padded_sequence(x, LENGTHS["unsorted"], batch_first=first, enforce_sorted=False)
        same(ours, theirs, packed, state_for(ours, (5,), dtype))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@every_kind
def test_packed_sequences(kind, lengths):
    ours, theirs = pair(kind, num_layers=2, bidirectional=True, dtype=torch.float64)
    rows = [torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in lengths]
    for sort in (True, False) if lengths == sorted(lengths, reverse=True) else (False,):
        packed = pack_sequence(rows, enforce_sorted=sort)
        for state in (None, state_for(ours, (5,), torch.float64)):
            same(ours, theirs, packed, state)
        got, want = ours(packed)[0], theirs(packed)[0]
        assert isinstance(got, PackedSequence)
        for a, b in zip(got[1:], want[1:]):
            assert torch.equal(a, b) if b is not None else a is None


@pytest.mark.parametrize("both", [False, True])
@every_kind
def test_dropout_draws_what_torch_draws(kind, both):
    for first in (False, True):
        ours, theirs = pair(kind, *SIZES, 3, dropout=0.4, bidirectional=both, batch_first=first, dtype=torch.float64)
        x = torch.randn(7, 5, 4, dtype=torch.float64)
        same(ours, theirs, x)
        same(ours, theirs, x[0])
        same(ours, theirs, pack_padded_sequence(x, LENGTHS["unsorted"], enforce_sorted=False))
        same(ours.eval(), theirs.eval(), x)


@every_kind
def test_single_steps_and_empty_batches(kind):
    ours, theirs = pair(kind, dtype=torch.float64)
    for T, B in ((1, 1), (1, 3), (4, 0)):
        x = torch.randn(T, B, 4, dtype=torch.float64)
        all_close(leaves(ours(x)), leaves(theirs(x)), f"{T} steps, {B} rows")


def wrong_calls(module):
    """Calls that torch refuses, by name."""
    x, h = torch.randn(7, 5, 4), torch.randn(1, 5, 6)
    two = (lambda *hs: hs) if module.mode == "LSTM" else (lambda h, *_: h)
    return {
        "width": (torch.randn(7, 5, 3), None),
        "one dimension": (torch.randn(4), None),
        "four dimensions": (torch.randn(2, 7, 5, 4), None),
        "no steps": (torch.randn(0, 5, 4), None),
        "dtype": (x.double(), None),
        "whole numbers": (x.long(), None),
        "packed width": (pack_sequence([torch.randn(3, 5)]), None),
        "state of other width": (x, two(h[..., :5], h)),
        "state of other batch": (x, two(h[:, :4], h)),
        "state of other depth": (x, two(h.repeat(2, 1, 1), h)),
        "state for one row": (x, two(h[:, 0], h[:, 0])),
        "batched state, unbatched input": (x[:, 0], two(h, h)),
        "state of other dtype": (x, two(h.double(), h.double())),
        "state on another device": (x, two(h.to("meta"), h.to("meta"))),
        "input on another device": (x.to("meta"), None),
        "a state too few": (x, (h,) if module.mode == "LSTM" else "h"),
        "no tensor": ([[1.0]], None),
    }


@pytest.mark.parametrize("name", wrong_calls(nn.RNN(*SIZES)))
@every_kind
def test_wrong_calls_raise_torchs_errors(kind, name):
    ours, theirs = pair(kind)
    if (kind, name) == ("LSTM", "packed width"):
        pytest.skip("torch's LSTM does not look at the width of packed input")
    args = wrong_calls(theirs)[name]
    with pytest.raises(Exception) as wanted:
        theirs(*args)
    with pytest.raises(type(wanted.value)) as got:
        ours(*args)
    assert str(got.value) == str(wanted.value)


def test_wrong_arguments_raise_torchs_errors():
    for kind, args in {"GRU": dict(proj_size=2), "RNN": dict(nonlinearity="sin"), "LSTM": dict(proj_size=9)}.items():
        with pytest.raises(ValueError) as wanted:
            getattr(nn, kind)(*SIZES, **args)
        with pytest.raises(ValueError, match=str(wanted.value).replace("'", ".")):
            getattr(elman.nn, kind)(*SIZES, **args)


@every_kind
def test_weights_are_read_at_every_call(kind):
    ours, theirs = pair(kind, num_layers=2, dtype=torch.float64)
    x = torch.randn(7, 5, 4, dtype=torch.float64)
    other = {name: p.detach() * 1.5 for name, p in ours.named_parameters()}
    all_close(leaves(functional_call(ours, other, x)), leaves(functional_call(theirs, other, x)), "functional_call")
    same(ours, theirs, x)  # and the module's own are back
    for module in (ours, theirs):
        nn.init.constant_(module.weight_ih_l0, 0.3)
        module.bias_hh_l1 = nn.Parameter(torch.ones_like(module.bias_hh_l1))
    same(ours, theirs, x)
    for module in (ours, theirs):
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    same(ours, theirs, x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # in torch's own forward derivatives
@every_kind
def test_transforms_of_torch_func(kind):
    ours, theirs = pair(kind, *SIZES, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(3, 7, 5, 4, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", elman.BackendWarning)
        all_close(vmap(lambda v: ours(v)[0])(x), torch.stack([theirs(v)[0] for v in x]), "vmap")
        loss = lambda weights, v: functional_call(ours, weights, v)[0].sin().sum()  # noqa: E731
        weights = dict(ours.named_parameters())
        by_sample = vmap(grad(loss), in_dims=(None, 0))(weights, x)
        wanted = torch.autograd.grad(theirs(x[1])[0].sin().sum(), tuple(theirs.parameters()))
        all_close([by_sample[name][1] for name in weights], wanted, "gradients by sample")
        value, slope = jvp(lambda v: ours(v)[0], (x[0],), (x[1],))
    step = 1e-6
    numeric = (theirs(x[0] + step * x[1])[0] - theirs(x[0] - step * x[1])[0]) / (2 * step)
    all_close(value, theirs(x[0])[0], "jvp")
    assert torch.allclose(slope, numeric, atol=1e-8)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@every_kind
def test_a_compiled_model_that_contains_one(kind, backend):
    ours, theirs = pair(kind, dtype=torch.float64)
    front = nn.Linear(4, 4, dtype=torch.float64)

    class Model(nn.Module):
        def __init__(self, rnn):
            super().__init__()
            self.front, self.rnn = front, rnn

        def forward(self, x, state):
            y, last = self.rnn(self.front(x).tanh(), state)
            return y.sin() + 1, last

    x = torch.randn(7, 5, 4, dtype=torch.float64, requires_grad=True)
    same(torch.compile(Model(ours), backend=backend), Model(theirs), x)
    same(torch.compile(ours, backend=backend), theirs, x)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights")  # of torch's modules alike
@every_kind
def test_exporting_sees_torchs_operators(kind):
    ours, theirs = pair(kind, batch_first=True)
    x = torch.randn(2, 3, 4)
    for strict in (False, True):
        exported = torch.export.export(ours, (x,), strict=strict).module()
        all_close(leaves(exported(2 * x)), leaves(theirs(2 * x)), f"strict={strict}")


@every_kind
def test_half_precision_autocast_and_meta(kind):
    x = torch.randn(7, 5, 4)
    ours, theirs = pair(kind)
    elman.module.outside._said.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want = leaves(theirs(x))
        with pytest.warns(elman.BackendWarning, match="autocast") as said:
            got = leaves(ours(x))
    assert said[0].filename == __file__  # with torch.compile's machinery imported or not, which is one call deeper
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, want))
    for dtype in (torch.bfloat16, torch.float16):
        ours, theirs = pair(kind, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", elman.BackendWarning)
            got, want = leaves(ours(x.to(dtype))), leaves(theirs(x.to(dtype)))
        assert all(a.dtype == dtype and torch.allclose(a, b, atol=0.02) for a, b in zip(got, want))
    y, _ = ours.to("meta")(x.to("meta", dtype))
    assert (y.shape, y.device.type) == ((7, 5, 6), "meta")


@every_kind
def test_what_it_is_and_what_it_carries(kind):
    ours, theirs = pair(kind, *SIZES, 2, bidirectional=True)
    assert isinstance(ours, getattr(nn, kind))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    before = ours(torch.ones(3, 2, 4))
    assert list(ours.modules()) == [ours]
    assert sorted(vars(copy.deepcopy(ours))) == sorted(vars(theirs))
    theirs.load_state_dict(ours.state_dict())
    all_close(leaves(theirs(torch.ones(3, 2, 4))), leaves(before), kind)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_are_torchs(name):
    assert getattr(elman.nn, name) is getattr(nn, name)


@every_kind
def test_explained_as_fused(kind):
    module = getattr(elman.nn, kind)(*SIZES, 2, bidirectional=True)
    text = elman.explain(module, torch.randn(7, 5, 4))
    assert text.backends == ("fused",) * 4
    assert str(text).startswith(f"{kind}: x (T=7, B=5, I=4), float32, cpu")
    packed = pack_sequence([torch.randn(n, 4) for n in (3, 2)])
    assert elman.explain(module, packed).backends == ("fused",) * 4


def test_modules_traced_in_many_threads_at_once_stay_with_elman():
    from concurrent.futures import ThreadPoolExecutor

    def run(size):
        module = elman.nn.GRU(3, size)
        return module(torch.ones(4, 2, 3))[0].shape

    with ThreadPoolExecutor(8) as pool:
        shapes = list(pool.map(run, range(5, 29)))
    assert shapes == [(4, 2, size) for size in range(5, 29)]
    assert set(elman.explain(elman.nn.GRU(3, 4), torch.ones(4, 2, 3)).backends) == {"fused"}


def test_a_subclass_computes_in_its_own_way_with_torch_compile_imported_or_not(monkeypatch):
    class Own(elman.nn.GRU):
        def computed(self, input, hx):
            y, last = super().computed(input, hx)
            return y + 1, last

    torch.manual_seed(0)
    own, x = Own(4, 6), torch.randn(7, 5, 4)
    torch.manual_seed(0)
    want = elman.nn.GRU(4, 6)(x)[0] + 1
    importlib.import_module("torch._dynamo")
    assert torch.equal(own(x)[0], want)
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    assert torch.equal(own(x)[0], want)
