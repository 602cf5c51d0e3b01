"""What a trace must not outlive, and memory that must not be shared: steps beside each other, changes, checkpoints."""

import collections
import dataclasses
import gc
import sys
import types
import warnings
import weakref

import pytest
import torch
from tolerance import all_close
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import elman

settings = types.ModuleType("settings")  # as one of the user's own files
settings.__file__, settings.GAIN = "settings.py", 1.0


class Config:
    gain = 1.0


@dataclasses.dataclass(slots=True)
class Slotted:
    gain: float = 1.0


scale = 1.0


class Changing(elman.Cell):
    """A step that multiplies by numbers of many kinds, all 1 at first."""

    table = [1.0]

    def __init__(self):
        super().__init__(3, 3)
        self.W = nn.Linear(3, 3)
        self.slotted, self.last, self.seen = Slotted(), collections.deque([1.0]), {}

    @property
    def scaled(self):
        return scale

    def step(self, x, h):
        own = self.table[0] * settings.GAIN * Config.gain * self.slotted.gain * self.last[0] * self.scaled
        inner = (lambda: scale)()
        h = (x + self.W(h)) * own * inner
        return h, (h,)


CHANGES = {
    "a list of the class": lambda cell: Changing.table.__setitem__(0, 0.5),
    "a module of the user's": lambda cell: setattr(settings, "GAIN", 0.5),
    "a class": lambda cell: setattr(Config, "gain", 0.5),
    "an object with slots": lambda cell: setattr(cell.slotted, "gain", 0.5),
    "a deque": lambda cell: cell.last.__setitem__(0, 0.5),
    "a global": lambda cell: setattr(sys.modules[__name__], "scale", 0.5),
}


@pytest.fixture
def as_before(monkeypatch):
    for place, name, value in ((settings, "GAIN", 1.0), (Config, "gain", 1.0), (Changing, "table", [1.0])):
        monkeypatch.setattr(place, name, value)
    monkeypatch.setattr(sys.modules[__name__], "scale", 1.0)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("what", CHANGES)
def test_what_the_step_names_may_change(what):
    layer, x = elman.Recurrent(Changing(), strict=True), torch.randn(4, 2, 3)
    before = layer(x)[0]
    CHANGES[what](layer.cell)
    after = layer(x)[0]
    with elman.backend("plain"):
        assert torch.allclose(after, layer(x)[0], atol=1e-6)
    assert not torch.allclose(after, before)


def test_a_variable_around_the_class_may_change():
    gain = 1.0

    class Around(elman.Cell):
        def __init__(self):
            super().__init__(3, 3)

        def step(self, x, h):
            h = torch.tanh(x + gain * h)
            return h, (h,)

    layer, x = elman.Recurrent(Around(), strict=True), torch.ones(4, 2, 3)
    before = layer(x)[0]
    gain = 0.0
    assert torch.allclose(layer(x)[0], torch.tanh(x))
    assert not torch.allclose(before, torch.tanh(x))


def test_two_methods_of_one_module_are_two_steps():
    class Both(nn.Module):
        def encode(self, x, h):
            return x + h, (x + h,)

        def decode(self, x, h):
            return x - h, (x - h,)

    net, x, h = Both(), torch.randn(4, 2, 3), torch.randn(2, 3)
    for step in (net.encode, net.decode, net.encode):
        with elman.backend("plain"):
            want = elman.scan(step, x, h)[0]
        assert torch.allclose(elman.scan(step, x, h)[0], want, atol=1e-6)


def test_a_step_that_fills_what_it_filled_before_is_not_compiled():
    class Noting(Changing):
        def step(self, x, h):
            self.seen["h"] = h.detach()
            h = x + h
            return h, (h,)

    layer, x = elman.Recurrent(Noting()), torch.ones(4, 2, 3)
    layer.cell.seen["h"] = None
    with pytest.warns(elman.errors.BackendWarning, match="the step changes what is not its state"):
        layer(x)
    assert torch.equal(layer.cell.seen["h"], torch.full((2, 3), 3.0))


def test_one_tensor_under_two_names_is_two_once_they_differ():
    class Two(elman.Cell):
        def step(self, x, h, *, gain, shift):
            h = gain * (x + h) + shift
            return h, (h,)

    layer, x, one, zero = elman.Recurrent(Two(3, 3)), torch.ones(2, 2, 3), torch.ones(3), torch.zeros(3)
    assert layer(x, gain=one, shift=one)[0].flatten().unique().tolist() == [2, 4]
    assert layer(x, gain=one, shift=zero)[0].flatten().unique().tolist() == [1, 2]


def test_a_hook_on_a_value_of_the_step_runs_at_every_step():
    class Clipped(elman.Cell):
        def step(self, x, h):
            h = x + h
            if h.requires_grad:
                h.register_hook(lambda g: g.clamp(max=0.5))
            return h, (h,)

    x = torch.zeros(3, 1, 1, requires_grad=True)
    with pytest.warns(elman.errors.BackendWarning, match=r"test_changes\.py:\d+: the step asks for its gradients"):
        y, _ = elman.Recurrent(Clipped(1, 1))(x)
    y.sum().backward()
    assert x.grad.flatten().tolist() == [0.5] * 3


def test_a_step_that_draws_leaves_the_same_numbers_at_every_call():
    class Noisy(elman.Cell):
        def step(self, x, h):
            h = x + h + torch.randn_like(h)
            return h, (h,)

    layer, x, found = elman.Recurrent(Noisy(2, 2)), torch.ones(3, 2, 2), []
    for _ in range(2):
        torch.manual_seed(0)
        with elman.backend("plain") if found else pytest.warns(elman.errors.BackendWarning):
            found.append(layer(x)[0])
    assert torch.equal(*found)


def test_context_of_another_device_is_torchs_error():
    class Shifted(elman.Cell):
        def step(self, x, h, *, shift):
            h = x + h + shift
            return h, (h,)

    layer, x = elman.Recurrent(Shifted(2, 2)), torch.ones(3, 4, 2)
    layer(x, shift=torch.ones(4, 2))
    with pytest.raises(RuntimeError, match="meta"):
        layer(x, shift=torch.ones(4, 2, device="meta"))


def lstm(size=16, **options):
    torch.manual_seed(0)
    return elman.Recurrent(elman.cell.LSTM(size, size), strict=True, **options)


def gradients(run, *leaves):
    return torch.autograd.grad(run().square().sum(), leaves)


@pytest.mark.parametrize("reentrant", [True, False])
def test_torchs_own_checkpoints_give_the_same_gradients(reentrant):
    layers, x = [lstm() for _ in range(3)], torch.randn(20, 8, 16)

    def through(x, wrap):
        for layer in layers:
            x = wrap(lambda x, layer=layer: layer(x)[0], x)
        return x

    leaves = [x.requires_grad_(), *(p for layer in layers for p in layer.parameters())]
    want = gradients(lambda: through(x, lambda f, x: f(x)), *leaves)
    for _ in range(2):  # the second time with memory that has been used
        through(x, lambda f, x: checkpoint(f, x, use_reentrant=reentrant)).square().sum().backward()
        found = [leaf.grad for leaf in leaves]
        assert all(map(torch.equal, found, want))
        for leaf in leaves:
            leaf.grad = None


@pytest.mark.parametrize("way", ["fused", "reference"])
def test_the_first_call_of_all_may_be_within_torchs_checkpoint(way):
    """What tracing saves is not of the call: computed again, the call saves as much as the first time."""
    with elman.backend(way):
        layer, x = lstm(), torch.randn(20, 8, 16, requires_grad=True)
        found = gradients(lambda: checkpoint(lambda x: layer(x)[0], x, use_reentrant=False), x, *layer.parameters())
        assert all(map(torch.equal, found, gradients(lambda: layer(x)[0], x, *layer.parameters())))


@pytest.mark.parametrize("way", ["fused", "reference"])
@pytest.mark.parametrize("segment", [None, 3])
def test_second_derivatives_where_one_input_is_computed_from_another(way, segment):
    layer, x = lstm(checkpoint=segment).double(), torch.randn(7, 2, 16, dtype=torch.float64, requires_grad=True)

    def run():
        y, _ = layer(x, (torch.tanh(x[0]), x.mean(0)))
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return [first.detach(), *gradients(lambda: first, x, *layer.parameters())]

    with elman.backend("plain"):
        want = run()
    with elman.backend(way):
        torch.testing.assert_close(run(), want)


@pytest.mark.parametrize("way", ["fused", "reference"])
@pytest.mark.parametrize("segment", [None, 3])
def test_several_backwards_at_once(way, segment):
    layer, x = lstm(checkpoint=segment).double(), torch.randn(7, 2, 16, dtype=torch.float64, requires_grad=True)
    with elman.backend(way):
        y, _ = layer(x)
        grads = torch.randn(3, *y.shape, dtype=torch.float64)
        want = torch.stack([torch.autograd.grad(y, x, grad, retain_graph=True)[0] for grad in grads])
        (batched,) = torch.autograd.grad(y, x, grads, is_grads_batched=True, retain_graph=True)
        mapped = torch.vmap(lambda grad: torch.autograd.grad(y, x, grad, retain_graph=True)[0])(grads)
    torch.testing.assert_close([batched, mapped], [want, want])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's, of its own looking
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_torchs_compiler_leaves_a_layer_as_it_is(warm):
    layer, head, x = elman.Stacked(lstm(), lstm()), nn.Linear(16, 2), torch.randn(9, 3, 16)
    if warm:
        layer(x)
    run = torch.compile(lambda x: head(layer(x)[0]).relu(), backend="eager")
    found = gradients(lambda: run(x), *layer.parameters(), *head.parameters())
    want = gradients(lambda: head(layer(x)[0]).relu(), *layer.parameters(), *head.parameters())
    torch.testing.assert_close(found, want)


def test_what_is_saved_may_be_held_longer_than_its_graph():
    layer, x = lstm(), torch.randn(20, 8, 16)
    gradients(lambda: layer(x)[0], *layer.parameters())
    y, _ = layer(x)
    held = [t for t in y.grad_fn.saved_tensors if t.grad_fn is None]
    before = [t.clone() for t in held]
    del y
    for _ in range(3):
        layer(2 * x)
    torch.testing.assert_close(held, before, rtol=0, atol=0, equal_nan=True)


def test_what_hooks_keep_of_a_call_has_the_same_sizes_at_every_call():
    """Whatever memory there was to use again: torch's checkpoints compare them."""
    layer, x = lstm(), torch.randn(20, 8, 16)
    gradients(lambda: layer(torch.randn(30, 8, 16))[0], *layer.parameters())  # leaves memory that is larger
    sizes: list[list[torch.Size]] = []
    held = []
    for _ in range(2):
        sizes.append([])
        with saved_tensors_hooks(lambda t: sizes[-1].append(t.shape) or t, lambda t: t):
            held.append(layer(x))
    assert sizes[0] == sizes[1]


def test_what_hooks_keep_of_a_call_is_not_written_to_by_another():
    layer, x = lstm(), torch.randn(20, 8, 16)
    held = []
    with saved_tensors_hooks(lambda t: held.append(t) or len(held) - 1, lambda i: held[i]):
        layer(x)
    before = [t.clone() for t in held]
    for _ in range(3):
        gradients(lambda: layer(2 * x)[0], *layer.parameters())
    torch.testing.assert_close(held, before, rtol=0, atol=0, equal_nan=True)  # between pieces memory holds anything


def test_memory_of_a_call_without_gradients_serves_one_with_them():
    class Read(elman.Cell):
        def __init__(self):
            super().__init__(8, 8)
            self.W, self.V = nn.Linear(8, 8), nn.Linear(8, 8)

        def step(self, x, h):
            h = torch.tanh(x + self.W(h))
            return self.V(h), (h,)

    layer, x = elman.Recurrent(Read(), strict=True), torch.randn(37, 2, 8)
    with torch.inference_mode():
        layer(x)
    gradients(lambda: layer(x)[0], *layer.parameters())


def test_columns_of_different_places_are_different_kernels():
    def cell(low):
        class Part(elman.Cell):
            def step(self, x, h):
                y = 2 * x[:, low : low + 2] + 3 * h[:, low : low + 2]
                h = torch.tanh(x + h)
                return y, (h,)

        return (
            Part(10, 10, output_size=2) if "output_size" in elman.Cell.__init__.__code__.co_varnames else Part(10, 10)
        )

    for low in (3, 5):
        layer, x = elman.Recurrent(cell(low), strict=True), torch.randn(4, 8, 10, requires_grad=True)
        found = gradients(lambda layer=layer, x=x: layer(x)[0], x)
        with elman.backend("plain"):
            want = gradients(lambda layer=layer, x=x: layer(x)[0], x)
        assert torch.allclose(*found, *want, atol=1e-5)


@pytest.mark.parametrize("backend", elman.module.backends.BACKENDS[:2])
@pytest.mark.parametrize("rows", [1, 12])
def test_outputs_are_nobodys_memory(backend, rows):
    class Views(elman.Cell):
        def __init__(self):
            super().__init__(4, 4)
            self.U = nn.Linear(4, 4)

        def step(self, x, h):
            z = x.detach()
            h = torch.tanh(self.U(z) + h)
            self.watch("left", x[:, :2])
            self.watch("part", h[:, 1:3])
            return z, (h,)

    layer, x = elman.Recurrent(Views()), torch.randn(5, rows, 4)
    with elman.backend(backend):
        y, _, seen = layer(x, watch=("left", "part", "h"))
    before = x.clone(), seen["h"].clone()
    for value in (y, seen["left"], seen["part"]):
        value.zero_()
    assert torch.equal(x, before[0])
    assert torch.equal(seen["h"], before[1])


def test_many_substeps_are_compiled_in_no_time():
    class Substeps(elman.Cell):
        def step(self, x, h):
            for _ in range(30):
                h = h + 0.1 * (x - h * h)
            return h, (h,)

    layer, x = elman.Recurrent(Substeps(2, 2), strict=True), torch.rand(3, 2, 2, requires_grad=True)
    found = gradients(lambda: layer(x)[0], x)
    with elman.backend("plain"):
        assert torch.allclose(*found, *gradients(lambda: layer(x)[0], x), atol=1e-5)


def test_a_slice_that_is_there_ahead_of_a_narrow_loop():
    class Sliced(elman.Cell):
        def __init__(self):
            super().__init__(5, 9)
            self.G = nn.Linear(3, 3)

        def step(self, x, h):
            k = x[:, :3]
            read = torch.bmm(h.view(-1, 3, 3), k.unsqueeze(2)).squeeze(2)
            h = 0.5 * h + torch.cat([torch.sigmoid(self.G(k)) * read] * 3, -1)
            return h, (h,)

    layer, x = elman.Recurrent(Sliced(), strict=True), torch.randn(4, 1, 5, requires_grad=True)
    found = gradients(lambda: layer(x)[0], x, *layer.parameters())
    with elman.backend("plain"):
        want = gradients(lambda: layer(x)[0], x, *layer.parameters())
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, want))


def test_a_parameter_read_without_gradients_gets_none():
    class Frozen(elman.Cell):
        def __init__(self):
            super().__init__(3, 3)
            self.gain, self.W = nn.Parameter(torch.full((3,), -9.0)), nn.Linear(3, 3)

        def step(self, x, h):
            with torch.no_grad():
                gain = self.gain.exp()
            h = torch.tanh(x + self.W(h)) + gain * h
            return h, (h,)

    layer, x = elman.Recurrent(Frozen(), strict=True), torch.randn(4, 2, 3)
    layer(x)[0].sum().backward()
    assert layer.cell.gain.grad is None or not layer.cell.gain.grad.any()
    assert layer.cell.W.weight.grad.any()


def test_a_row_without_steps_gives_no_nan():
    class Direction(elman.Cell):
        def __init__(self):
            super().__init__(3, 3)
            self.W = nn.Linear(3, 3)

        def step(self, x, h):
            h = torch.tanh(self.W(x / x.norm(dim=-1, keepdim=True)) + h)
            return h, (h,)

    layer, x = elman.Recurrent(Direction()), torch.randn(4, 3, 3)
    for lengths in ([0, 4, 2], [4, 0, 0]):
        with elman.backend("plain"):
            found = gradients(lambda lengths=lengths: layer(x, lengths=lengths)[0], *layer.parameters())
        alone = [gradients(lambda b=b, n=n: layer(x[:n, b : b + 1])[0], *layer.parameters())
                 for b, n in enumerate(lengths) if n]  # fmt: skip
        assert all(torch.allclose(a, sum(parts), atol=1e-5) for a, parts in zip(found, zip(*alone)))


def test_weights_that_are_put_in_place_of_parameters():
    cell = elman.cell.DropConnect(elman.cell.Elman(3, 3), "W.weight", 0.5).learn_initial()
    layer, x = elman.Recurrent(cell), torch.randn(4, 2, 3)
    mask = torch.ones(3, 3)
    doubled = {name: 2 * p.detach() + 1 for name, p in layer.named_parameters()}
    found = functional_call(layer, doubled, (x,), {"drop_W_weight": mask})[0]
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.copy_(doubled[name])
    assert torch.allclose(found, layer(x, drop_W_weight=mask)[0], atol=1e-6)
    functional_call(layer, doubled, (x,))  # and with a mask that is drawn


def test_a_frozen_cell_is_checked_too():
    assert "second derivatives" in str(elman.check(elman.cell.GRU(3, 4).requires_grad_(False)))


@pytest.mark.parametrize("how", [{}, {"checkpoint": "sqrt"}], ids=["whole", "in segments"])
def test_memory_is_used_again(how, monkeypatch):
    from elman.compiler.emit import pool

    made, fresh = [], pool.fresh
    monkeypatch.setattr(pool, "fresh", lambda shape, kind: made.append(shape) or fresh(shape, kind))
    layer, x = elman.Recurrent(elman.cell.LSTM(16, 16), **how), torch.randn(100, 8, 16)
    for _ in range(12):  # what waits of other calls makes way
        made.clear()
        gradients(lambda: layer(x)[0], *layer.parameters())
    assert [shape for shape in made if shape != (0,)] == []


def test_a_first_state_may_be_a_buffer_and_what_is_no_tensor_is_none():
    cell = elman.cell.Elman(2, 3)
    cell.register_buffer("initial_h", torch.ones(3))
    assert cell.initial(2).h.tolist() == [[1.0] * 3] * 2
    del cell.initial_h
    cell.register_parameter("initial_h", None)
    assert cell.initial(2).h.tolist() == [[0.0] * 3] * 2


class Annealed(elman.Cell):
    """A step that reads a temperature from an attribute, or from a buffer where it has one."""

    def __init__(self, buffer):
        super().__init__(3, 3)
        self.W = nn.Linear(3, 3)
        if buffer:
            self.register_buffer("heat", torch.ones(()))
        else:
            self.heat = 1.0

    def step(self, x, h, *, cold=1.0):
        h = torch.tanh((x + self.W(h)) / self.heat / cold)
        return h, (h,)


@pytest.fixture
def compiled(monkeypatch):
    """Counts traces; many are three."""
    monkeypatch.setattr(elman.module.backends, "MANY", 3)
    elman.module.outside._said.clear()
    traces = []
    old = elman.module.backends.traced
    monkeypatch.setattr(elman.module.backends, "traced", lambda *args: traces.append(1) or old(*args))
    return traces


def test_a_number_that_changes_at_every_call_is_said_once(compiled):
    layer = elman.Recurrent(Annealed(buffer=False))

    def anneal():
        for i in range(12):
            layer.cell.heat = 1.0 + i / 8
            layer(torch.randn(4, 2, 3))

    with pytest.warns(elman.BackendWarning, match="3 times, .*, as heat did last: put .* into a buffer") as said:
        anneal()
    assert len(said) == 1
    assert len(compiled) == 12


def test_a_number_in_a_buffer_or_a_context_tensor_is_compiled_once(compiled):
    layer, x = elman.Recurrent(Annealed(buffer=True)), torch.randn(4, 2, 3)
    for i in range(12):
        layer.cell.heat.fill_(1.0 + i / 8)
        y, _ = layer(x, cold=torch.tensor(1.0 + i))
        with elman.backend("plain"):
            want, _ = layer(x, cold=torch.tensor(1.0 + i))
        torch.testing.assert_close(y, want)
    assert len(compiled) == 1


class Sized(elman.Cell):
    """Equal to every cell of its sizes, as some write it."""

    def __init__(self):
        super().__init__(3, 3)
        self.W = nn.Linear(3, 3)

    def step(self, x, h):
        h = torch.tanh(x + self.W(h))
        return h, (h,)

    def __eq__(self, other):
        return isinstance(other, Sized)

    def __hash__(self):
        return 0


def test_cells_that_compare_as_equal_keep_their_own_weights():
    x, (one, other) = torch.randn(4, 2, 3), (Sized(), Sized())
    y, z = (elman.Recurrent(cell)(x)[0] for cell in (one, other))
    with elman.backend("plain"):
        torch.testing.assert_close(z, elman.Recurrent(other)(x)[0])
    assert not torch.allclose(y, z)


class Selfish(Sized):
    """It holds a method of its own, and a part that leads back to it."""

    def __init__(self):
        super().__init__()
        self.squash, self.part = self.own, Config()
        self.part.whole = [self]

    def own(self, value):
        return torch.tanh(value)

    def step(self, x, h):
        h = self.squash(x + self.W(h))
        return h, (h,)


def test_a_cell_that_leads_back_to_itself_goes_when_nobody_has_it():
    layer = elman.Recurrent(Selfish())
    gone = weakref.ref(layer.cell)
    layer(torch.randn(4, 2, 3))
    del layer
    gc.collect()
    assert gone() is None


class Pointless:
    """A step that can be neither hashed nor weakly referenced."""

    __slots__ = ()
    __hash__ = None

    def __call__(self, x, h):
        return x + h, (x + h,)

    def step(self, x, h):
        return x - h, (x - h,)


@dataclasses.dataclass
class Leaky:
    """A step that cannot be hashed."""

    keep: float = 0.5

    def __call__(self, x, h):
        h = self.keep * h + x
        return h, (h,)


@pytest.mark.parametrize("step", [Pointless(), Pointless().step, Leaky()])
def test_what_cannot_be_hashed_or_weakly_referenced_is_a_step(step):
    x, state = torch.randn(4, 2, 3), torch.randn(2, 3)
    with elman.backend("plain"):
        want, _ = elman.scan(step, x, state)
    torch.testing.assert_close(elman.scan(step, x, state)[0], want)


class Bound:
    """An ordinary object with a step."""

    def __init__(self):
        self.gain = 1.0

    def step(self, x, h):
        h = torch.tanh(x + h * self.gain)
        return h, (h,)


def test_a_method_of_an_ordinary_object_is_compiled_once(compiled):
    one, other, x, state = Bound(), Bound(), torch.randn(4, 2, 3), torch.randn(2, 3)
    other.gain = 0.5
    for _ in range(3):
        y, z = (elman.scan(each.step, x, state)[0] for each in (one, other))
    assert len(compiled) == 2
    assert not torch.allclose(y, z)


def test_another_default_type_is_another_trace():
    def step(x, h):
        h = h * torch.tensor([0.3] * 4) + x
        return h, (h,)

    x, state = torch.randn(5, 3, 4), torch.zeros(3, 4)
    assert elman.scan(step, x, state)[0].dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", elman.BackendWarning)
            assert elman.scan(step, x, state)[0].dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_interrupt_while_a_mode_is_left_leaves_none_behind(monkeypatch):
    def interrupted(self, *error):
        raise KeyboardInterrupt

    layer, x = elman.Recurrent(Sized()), torch.randn(4, 2, 3)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["elman.compiler.trace"].Recorder, "__exit__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            layer(x)
    assert torch._C._len_torch_dispatch_stack() == 0
    assert elman.explain(layer, x).backends == ("fused",)


class Readout(Sized):
    """An output that is no state, and that backward does not read."""

    def __init__(self):
        super().__init__()
        self.R = nn.Linear(3, 5)

    def step(self, x, h):
        h = torch.tanh(x + self.W(h))
        return self.R(h), (h,)


@pytest.mark.parametrize("how", [{}, {"checkpoint": 2}], ids=["whole", "in segments"])
def test_an_output_that_backward_does_not_read_may_be_changed(how):
    cell, x = Readout(), torch.randn(5, 2, 3, requires_grad=True)
    y, _ = elman.Recurrent(cell, **how)(x)
    got = torch.autograd.grad(y.mul_(2).relu_().sum(), [x, *cell.parameters()])
    with elman.backend("plain"):
        y, _ = elman.Recurrent(cell)(x)
    want = torch.autograd.grad((y * 2).relu().sum(), [x, *cell.parameters()])
    all_close(got, want)


@pytest.mark.parametrize("how", [{}, {"checkpoint": 2}], ids=["whole", "in segments"])
def test_an_output_that_backward_reads_may_not(how):
    y, _ = elman.Recurrent(Sized(), **how)(torch.randn(5, 2, 3))
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
