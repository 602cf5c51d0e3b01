"""The fused path against the plain loop: traces that grow old, memory, threads, processes, the cache on disk."""

import copy
import functools
import gc
import itertools
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref

import pytest
import torch
from tolerance import all_close
from torch import nn
from torch.func import functional_call

import elman
from elman.module.owner import Snapshot

SECONDS = 60  # for a process of its own; a hang is a failure


class Blend(elman.Cell):
    """tanh of two maps and a plain number, each of which a test replaces."""

    def __init__(self, input_size=4, hidden_size=4):
        super().__init__(input_size, hidden_size)
        self.read, self.keep = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.gain, self.flags, self.sizes = 1.0, [1.0], {"a": 1.0}

    def step(self, x, h):
        h = torch.tanh(self.gain * self.read(x) + self.keep(h) * self.flags[0] * self.sizes["a"])
        return h, (h,)


def sequence(T=5, B=3, width=4, seed=0, dtype=torch.float32):
    return torch.randn(T, B, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def made(step, width=4, **attributes):
    cell = type("Mine", (elman.Cell,), {"step": step})(width, width)
    for name, value in attributes.items():
        setattr(cell, name, value)
    return elman.Recurrent(cell)


def trained(layer, x, state=None, **how):
    """Values and every gradient of one call."""
    x = x.detach().requires_grad_()
    y, last = layer(x, state, **how)
    total = y.square().sum() + sum(s.sum() for s in last)
    leaves = [x, *(p for p in layer.parameters() if p.requires_grad)]
    return [y, *last, *torch.autograd.grad(total, leaves, materialize_grads=True)]


def test_a_tuple_of_numbers_costs_nothing_and_is_seen_when_replaced():
    class Scaled(Blend):
        def __init__(self):
            super().__init__()
            self.flags, self.sizes, self.factors = None, None, (1.0, (2.0, "x"))

        def step(self, x, h):
            h = torch.tanh(self.factors[1][0] * self.read(x) + self.keep(h))
            return h, (h,)

    layer, x = elman.Recurrent(Scaled(), strict=True), sequence()
    layer(x)
    assert Snapshot(layer.cell).stable
    layer.cell.factors = (1.0, (3.0, "x"))
    with elman.backend("plain"):
        want = layer(x)
    all_close(layer(x), want)


def same(run, fused=True):
    """`run` gives on the fastest backend what it gives on the plain one."""
    if fused:
        with elman.backend("fused"):
            got = run()
    else:
        got = run()
    with elman.backend("plain"):
        all_close(got, run())
    return got


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return elman.Recurrent(Blend())


CHANGES = {
    "a number": lambda cell: setattr(cell, "gain", 3.0),
    "a list": lambda cell: cell.flags.__setitem__(0, 2.0),
    "a dict": lambda cell: cell.sizes.update(a=0.3),
    "a parameter replaced": lambda cell: setattr(cell.read, "weight", nn.Parameter(torch.randn(4, 4))),
    "a parameter's data": lambda cell: cell.read.weight.data.mul_(2),
    "parameters tied": lambda cell: setattr(cell.keep, "weight", cell.read.weight),
    "modules tied": lambda cell: setattr(cell, "keep", cell.read),
    "a module replaced": lambda cell: setattr(cell, "keep", nn.Sequential(nn.Linear(4, 4), nn.ReLU())),
    "a bias lost": lambda cell: setattr(cell.keep, "bias", None),
    "a parameter frozen": lambda cell: cell.read.weight.requires_grad_(False),
    "a forward replaced": lambda cell: setattr(cell.keep, "forward", lambda h: h * 2),
    "another mode": lambda cell: cell.eval(),
    "weight_norm": lambda cell: nn.utils.parametrizations.weight_norm(cell.read),
    "orthogonal": lambda cell: nn.utils.parametrizations.orthogonal(cell.keep),
    "a state dict": lambda cell: cell.load_state_dict({k: v * 2 for k, v in cell.state_dict().items()}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_calls_is_seen(layer, change):
    x = sequence()
    before = same(lambda: trained(layer, x))
    CHANGES[change](layer.cell)
    after = same(lambda: trained(layer, x))
    if change not in ("a parameter frozen", "another mode"):
        assert len(after) != len(before) or not torch.equal(after[0], before[0])


def test_hooks_of_a_part_run_at_each_step_while_they_are_there(layer):
    x = sequence()
    same(lambda: trained(layer, x))
    hook = layer.cell.keep.register_forward_hook(lambda module, given, out: out * 2)
    with pytest.warns(elman.BackendWarning, match="hooks"):
        layer(x)
    same(lambda: trained(layer, x), fused=False)
    hook.remove()
    same(lambda: trained(layer, x))


def test_optimiser_steps_and_other_types(layer):
    x = sequence()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        layer(x)[0].square().sum().backward()
        optimiser.step()
        same(lambda: trained(layer, x))
    layer.double()
    same(lambda: trained(layer, x.double()))
    layer.float()
    same(lambda: trained(layer, x))


def test_functional_call_and_torch_func(layer):
    x = sequence()
    layer(x)

    def run():
        doubled = {name: 2 * p for name, p in layer.named_parameters()}
        y = functional_call(layer, doubled, (x,))[0]
        return [y, *torch.autograd.grad(y.sum(), list(layer.parameters()))]

    same(run)
    with pytest.warns(elman.BackendWarning, match="torch.func"):
        torch.func.vmap(lambda one: layer(one)[0])(torch.stack([x, x]))
    params = {name: p.detach() for name, p in layer.named_parameters()}
    same(lambda: tuple(torch.func.grad(lambda p: functional_call(layer, p, (x,))[0].sum())(params).values()), False)


def test_copies_live_lives_of_their_own(layer):
    x = sequence()
    first = trained(layer, x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        all_close(same(functools.partial(trained, other, x)), first)
        with torch.no_grad():
            other.cell.read.weight.mul_(2)
        other.cell.gain = 0.5
        assert not torch.equal(same(functools.partial(trained, other, x))[0], first[0])
    all_close(trained(layer, x), first)


def test_a_layer_that_is_gone_is_forgotten():
    layer = elman.Recurrent(Blend())
    layer(sequence())
    gone = weakref.ref(layer.cell)
    del layer
    gc.collect()
    assert gone() is None


def test_a_bare_step_sees_its_closure_as_it_is():
    scale, lengths, weight, part = 1.0, [1.0], torch.ones(4, requires_grad=True), nn.Linear(4, 4)

    def step(x, h):
        h = torch.tanh(part(h) + x * scale * lengths[0] * weight)
        return h, (h,)

    x, zeros = sequence(), torch.zeros(3, 4)

    def run():
        y, _ = elman.scan(step, x, zeros)
        return [y, *torch.autograd.grad(y.sum(), [weight, *part.parameters()])]

    found = [same(run)[0]]
    scale = 2.0
    found.append(same(run)[0])
    lengths[0] = 3.0
    found.append(same(run)[0])
    part = nn.Linear(4, 4)
    found.append(same(run)[0])
    weight = torch.full((4,), 0.1, requires_grad=True)
    found.append(same(run)[0])
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(found))


def test_functions_made_in_a_loop_are_each_their_own():
    x, zeros = sequence(), torch.zeros(3, 4)
    for k in range(5):
        same(lambda k=k: elman.scan(functools.partial(lambda k, x, h: (h + k * x, (h + k * x,)), k), x, zeros)[0])


# y, (states) of steps in which values coincide, stand still, or leave as they came
ODD = {
    "y is the state before": lambda self, x, a, b: (a, (torch.tanh(a + x), b)),
    "y is part of what is saved": lambda self, x, a, b: ((a + x)[:, 1:3], (torch.tanh(a + x), b)),
    "y is part of a state": lambda self, x, a, b: (torch.tanh(a + x)[:, :2], (torch.tanh(a + x), b)),
    "states exchanged": lambda self, x, a, b: (a + x, (b, a)),
    "states exchanged by halves": lambda self, x, a, b: (x * a + b, (b, torch.cat([a[:, 2:], b[:, :2]], 1))),
    "a state never read": lambda self, x, a, b: (x + a, (x * a, x + 1)),
    "a state never changed": lambda self, x, a, b: (x * a, (a, b * 0.5)),
    "a new state of numbers": lambda self, x, a, b: (x * a + b, (a * 0 + 1, torch.zeros_like(b))),
    "a row's sum": lambda self, x, a, b: ((a * x).sum(-1), (torch.tanh(a + x.mean(-1, keepdim=True)), b)),
}


@pytest.mark.parametrize("how", [{}, {"reverse": True}, {"checkpoint": 2}], ids=str)
@pytest.mark.parametrize("kind", [k for k in ODD if k != "y is the state before"])
def test_odd_steps_keep_their_values_while_others_run(kind, how):
    layer = elman.Recurrent(made(ODD[kind]).cell, **how)
    x, state = sequence(), [sequence(1, seed=s)[0] for s in (1, 2)]
    found = same(lambda: trained(layer, x, state))
    kept = [value.detach().clone() for value in found]
    with torch.no_grad():
        free, last = layer(x, state)
    kept_free = [value.clone() for value in (free, *last)]
    for seed in range(4):  # their memory is used again, which must not be that of a result
        trained(layer, sequence(seed=seed + 5), state)
        with torch.no_grad():
            layer(sequence(seed=seed + 5))
    assert all(torch.equal(a, b) for a, b in zip(found, kept))
    assert all(torch.equal(a, b) for a, b in zip((free, *last), kept_free))


@pytest.mark.parametrize("which", ["y", "last"])
@pytest.mark.parametrize("kind", ODD)
def test_a_loss_on_one_output_alone(kind, which):
    layer = made(ODD[kind])
    x, a, b = (value.requires_grad_() for value in (sequence(), *sequence(2, seed=1)))

    def run():
        y, last = layer(x, (a, b))
        return torch.autograd.grad((y if which == "y" else last[0]).square().sum(), (x, a, b), materialize_grads=True)

    same(run)


def test_many_graphs_in_any_order_and_more_than_once():
    torch.manual_seed(0)
    layer = elman.Recurrent(elman.cell.LSTM(4, 8))
    xs = [sequence(9, seed=s) for s in range(8)]

    def run():
        ys = [layer(x)[0] for x in xs]
        found = []
        for i in (3, 1, 2, 0, 7, 5, 6, 4):
            found += torch.autograd.grad(ys[i].square().sum(), list(layer.parameters()), retain_graph=i % 2 == 0)
            layer(xs[0])
            if i % 2 == 0:
                found += torch.autograd.grad(ys[i].square().sum(), list(layer.parameters()))
        return [*found, *ys]

    same(run)


def test_a_state_carried_through_calls_hooks_and_anomaly_mode(layer):
    def run():
        state, total = None, 0
        for seed in range(4):
            y, state = layer(sequence(seed=seed), state)
            y.register_hook(lambda g: g * 3)
            total = total + y.square().sum()
        return torch.autograd.grad(total, list(layer.parameters()))

    same(run)
    with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
        same(run)


def test_backward_twice_is_torchs_error(layer):
    total = layer(sequence())[0].sum()
    total.backward()
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


EDITS = {
    "x": lambda layer, x, h, y: x.detach().add_(1),
    "the state": lambda layer, x, h, y: h.detach().add_(1),
    "a weight": lambda layer, x, h, y: layer.cell.read.weight.detach().add_(1),
    "y": lambda layer, x, h, y: y.detach().add_(1),
}


@pytest.mark.parametrize("edited", EDITS)
def test_an_edit_before_backward_is_torchs_error(layer, edited):
    x, h = sequence().requires_grad_(), torch.rand(3, 4, requires_grad=True)
    y, _ = layer(x, (h,))
    EDITS[edited](layer, x, h, y)
    with pytest.raises(RuntimeError, match="modified (by an inplace operation|inplace)"):
        y.sum().backward()


@pytest.mark.parametrize("checkpoint", [None, 2, "sqrt"])
def test_gradcheck_twice_over(checkpoint):
    torch.manual_seed(0)
    layer = elman.Recurrent(elman.cell.LSTM(2, 3).double(), checkpoint=checkpoint)
    given = [sequence(4, 2, 2, dtype=torch.float64), *sequence(2, 2, 3, dtype=torch.float64)]
    given = [value.requires_grad_() for value in given]

    def run(x, h, c):
        y, last = layer(x, (h, c))
        return y, *last

    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "Elman"])  # whose outputs tell one state, or all
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [1, 3, "sqrt", 7, 100])
def test_checkpoints_change_nothing(checkpoint, reverse, kind):
    torch.manual_seed(0)
    cell = getattr(elman.cell, kind)(4, 3).double().learn_initial()
    whole = elman.Recurrent(cell, reverse=reverse)
    pieces = elman.Recurrent(cell, reverse=reverse, checkpoint=checkpoint)
    x = sequence(7, 5, dtype=torch.float64)
    lengths, reset = torch.tensor([7, 1, 0, 5, 7]), sequence(7, 5, 1)[..., 0] > 0.7
    for how in ({}, {"lengths": lengths}, {"reset": reset}, {"lengths": lengths, "reset": reset}):
        all_close(trained(pieces, x, **how), trained(whole, x, **how))


LAYOUTS = {
    "batch first": lambda: sequence(3, 5).transpose(0, 1),
    "columns of more": lambda: sequence(5, 3, 9)[:, :, 2:6],
    "every other": lambda: sequence(10, 6, 8)[::2, ::2, ::2],
    "one step for all": lambda: sequence(1).expand(5, 3, 4),
    "one row for all": lambda: sequence(5, 1).expand(5, 3, 4),
    "one column for all": lambda: sequence(5, 3, 1).expand(5, 3, 4),
    "one number": lambda: sequence(1, 1, 1).expand(5, 3, 4),
    "back to front": lambda: sequence(4, 3, 5).permute(2, 1, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides_of_inputs_and_gradients(layer, layout):
    x, state = LAYOUTS[layout](), (torch.rand(4, 3).t(),)
    same(lambda: trained(layer, x, state))
    weights = sequence(4, 3, 5).permute(2, 1, 0)

    def run():
        given = x.detach().requires_grad_()
        y, _ = layer(given, state)
        return torch.autograd.grad(y, [given, *layer.parameters()], weights)

    same(run)


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 17, 1, 17), (2, 33, 5, 65), (3, 13, 7, 130), (150, 2, 1, 16)])
def test_sizes_by_threads_and_the_same_bits_again(threads, size):
    T, B, I, H = size  # noqa: E741
    torch.manual_seed(0)
    layer, x = elman.Recurrent(elman.cell.GRU(I, H)), sequence(T, B, I)
    for count in (1, 2, 3, 5):
        threads(count)
        first = trained(layer, x)
        assert all(map(torch.equal, first, trained(layer, x)))
        if T < 100:
            same(lambda: trained(layer, x))


def test_another_number_of_threads_for_backward(threads):
    torch.manual_seed(0)
    layer, x = elman.Recurrent(elman.cell.LSTM(4, 20)), sequence(6, 13)
    leaves = list(layer.parameters())
    with elman.backend("plain"):
        want = torch.autograd.grad(layer(x)[0].square().sum(), leaves)
    for forward, back in ((1, 3), (3, 1), (2, 5), (5, 2)):
        threads(forward)
        total = layer(x)[0].square().sum()
        threads(back)
        all_close(torch.autograd.grad(total, leaves), want)


def test_several_python_threads_at_once():
    torch.manual_seed(0)
    layers = [elman.Recurrent(kind(4, 12)) for kind in (elman.cell.LSTM, elman.cell.GRU, elman.cell.Elman)]
    xs = [sequence(8, B) for B in (2, 14, 33)]
    with elman.backend("plain"):
        want = {(i, j): trained(layer, x) for i, layer in enumerate(layers) for j, x in enumerate(xs)}
    wrong = []

    def work(first):
        try:
            for turn in range(12):
                i, j = (first + turn) % 3, turn % 3
                all_close(trained(layers[i], xs[j]), want[i, j])
        except Exception as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SECONDS)
    assert not any(worker.is_alive() for worker in workers)
    assert not wrong


def test_small_numbers_stay_as_they_were_in_the_caller():
    layer = elman.Recurrent(elman.cell.GRU(4, 8))
    trained(layer, sequence())
    assert (torch.tensor(1e-40) * 1).item() != 0


def test_inference_mode_after_training_and_before(layer):
    x = sequence()
    same(lambda: trained(layer, x))
    with torch.inference_mode():
        y, state = same(lambda: layer(x))
        assert y.is_inference()
        same(lambda: layer(x, state)[0])
    with torch.no_grad():
        same(lambda: layer(x, state)[0])
    same(lambda: trained(layer, x))


# ---- processes of their own

START = """
    import os, sys, warnings, torch, elman
    torch.manual_seed(0)
    layer, x, wide = elman.Recurrent(elman.cell.LSTM(3, 20)), torch.randn(9, 4, 3), torch.randn(9, 40, 3)
    def run(x):
        y, _ = layer(x)
        return torch.cat([g.flatten() for g in torch.autograd.grad(y.square().sum(), list(layer.parameters()))])
"""


def process(code, start=START, **environment):
    """What a new interpreter prints; anything on its error output but warnings is a failure."""
    text = textwrap.dedent(start) + textwrap.dedent(code)
    env = {**os.environ, **environment}
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=SECONDS, env=env)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_cache_on_disk_may_be_new_full_damaged_unusable_or_off(tmp_path):
    code = "print(run(x).sum().item(), elman.explain(layer, x).backends)"
    folder = tmp_path / "cache"
    first = process(code, ELMAN_CACHE=str(folder))
    kept = sorted(folder.rglob("*.o"))
    assert "fused" in first
    assert kept
    for i, path in enumerate(kept):
        data = path.read_bytes()
        path.write_bytes((data[: len(data) // 2], b"", data[:-5] + b"wrong")[i % 3])
    assert process(code, ELMAN_CACHE=str(folder)) == first
    assert process(code, ELMAN_CACHE="off") == first
    assert process(code, ELMAN_CACHE=str(kept[0])) == first


def test_without_llvmlite_the_reference_runs_and_says_so_once():
    code = """
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run(x), run(x), elman.Recurrent(elman.cell.LSTM(3, 20))(x)
        assert elman.explain(layer, x).backends == ("reference",)
        print(*(w.message for w in said), sep="|")
    """
    out = process(code, start="import sys; sys.modules['llvmlite'] = None\n" + textwrap.dedent(START))
    assert out.startswith("LSTM runs on the reference backend: kernels need llvmlite")
    assert "pip install llvmlite" in out
    assert "|" not in out


# ---- words


def running(self, x, h):
    h = h + torch.cumsum(x, -1)
    return h, (h,)


def test_what_cannot_be_fused_is_named_with_its_line_once():
    layer, x = elman.Recurrent(made(running).cell, strict=True), sequence()
    line = running.__code__.co_firstlineno + 1
    words = f"Mine runs on the plain backend: test_backends.py:{line}: the step uses cumsum"
    with pytest.raises(elman.CellError, match=words):
        layer(x)
    layer.strict = False
    with pytest.raises(elman.CellError, match=words + ".*asked for: fused"), elman.backend("fused"):
        layer(x)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for one in (layer, layer, made(running)):
            one(x)
    assert re.match(words, str(said[0].message))
    assert len(said) == 1
    assert said[0].filename == __file__


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "root"])
def test_checkpoint_says_what_it_takes(given):
    with pytest.raises(elman.OptionError, match="checkpoint must be a number of steps of at least 1"):
        elman.Recurrent(elman.cell.GRU(3, 4), checkpoint=given)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["openmp", "python"])
def test_children_of_a_process_that_used_the_kernels(way):
    code = """
        want = run(x), run(wide)
        warnings.simplefilter("ignore")
        child = os.fork()
        if child == 0:
            fine = all(torch.allclose(run(v), w, 1e-4, 1e-4) for v, w in zip((x, wide), want))
            os._exit(0 if fine else 3)
        assert os.waitpid(child, 0)[1] == 0
        class Items(torch.utils.data.Dataset):
            def __len__(self): return 4
            def __getitem__(self, i): return run(wide)
        loader = torch.utils.data.DataLoader(Items(), batch_size=2, num_workers=2, multiprocessing_context="fork")
        for batch in loader:
            assert torch.allclose(batch, want[1].expand_as(batch), 1e-4, 1e-4)
        assert torch.equal(run(wide), want[1])
        print("fine")
    """
    assert process(code, ELMAN_THREADS=way) == "fine"


@pytest.mark.parametrize("reverse", [False, True])
def test_segments_write_their_outputs_where_the_caller_finds_them(reverse, monkeypatch):
    from elman.compiler import segments

    written: list[bool] = []
    settle = segments.settle

    def watched(whole, outputs, low, high):
        rooms = {name: room[low:high] for name, room in whole.items()}
        written.extend(outputs[name].data_ptr() == room.data_ptr() for name, room in rooms.items())
        settle(whole, outputs, low, high)

    monkeypatch.setattr(segments, "settle", watched)
    layer = elman.Recurrent(elman.cell.LSTM(3, 16), reverse=reverse, checkpoint=3)
    x = torch.randn(7, 8, 3, requires_grad=True)
    layer(x)[0].sum().backward()
    assert len(written) == 4  # d:x, three segments, and of y the last, as the others were one launch
    assert all(written)


def test_the_meta_device_runs_plainly():
    layer = elman.Recurrent(elman.cell.LSTM(3, 4)).to("meta")
    with pytest.warns(elman.BackendWarning, match="meta device hold no numbers"):
        y, state = layer(torch.zeros(5, 2, 3, device="meta"))
    assert y.shape == (5, 2, 4)
    assert state.h.is_meta
