"""Calls of kernels: worked out once, one launch each, and nothing kept of what they were given."""

import gc
import threading
import weakref

import pytest
import torch

pytest.importorskip("llvmlite")

import elman
from elman.compiler.emit import cpu, jobs, native
from elman.compiler.emit.call import Call
from elman.compiler.emit.target import NoTarget, host

try:
    host()
except NoTarget as reason:
    pytest.skip(str(reason), allow_module_level=True)


@pytest.fixture
def made(monkeypatch):
    """The calls that are worked out."""
    found, init = [], Call.__init__

    def noted(self, *given):
        found.append(self)
        init(self, *given)

    monkeypatch.setattr(Call, "__init__", noted)
    return found


@pytest.fixture
def layer():
    return elman.Recurrent(elman.cell.LSTM(3, 5), strict=True)


def test_a_size_is_worked_out_once_and_each_layout_for_itself(made, layer):
    x = torch.randn(6, 2, 3)
    with torch.no_grad():
        first, _ = layer(x)
        again, _ = layer(x.clone())
        assert len(made) == 1
        turned, _ = layer(x.transpose(0, 1).contiguous().transpose(0, 1))
        assert len(made) == 2
        layer(x[:5])
        assert len(made) == 3
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    torch.testing.assert_close(turned, first)


def test_sizes_that_change_at_every_call_are_forgotten(made, layer, monkeypatch):
    monkeypatch.setattr(cpu, "MANY", 4)
    x = torch.randn(20, 2, 3)
    with torch.no_grad():
        for T in [*range(2, 20), 2]:
            layer(x[:T])
        assert len(made) == 19
        layer(x[:2])
    assert len(made) == 19
    assert len(made[-1].kernel.calls) <= 4


@pytest.mark.parametrize("rows", [1, 16])
def test_a_direction_is_one_launch(layer, rows, monkeypatch):
    """The kernel with the product of x ahead of it; the backward kernel with the products behind it."""
    launches, parallel = [], jobs.threads.parallel
    x = torch.randn(6, rows, 3, requires_grad=True)
    layer(x)[0].sum().backward()
    monkeypatch.setattr(jobs.threads, "parallel", lambda *given: launches.append(parallel(*given)))
    y, _ = layer(x)
    assert len(launches) == 1
    y.sum().backward()
    assert len(launches) == 2


def test_nothing_is_kept_of_what_was_given(layer):
    x = torch.randn(6, 2, 3, requires_grad=True)
    y = layer(x)[0]
    y.sum().backward()
    held = [weakref.ref(value) for value in (x, x.grad, y)]
    del x, y
    gc.collect()
    assert [value() for value in held] == [None] * 3


def test_backward_is_compiled_beside_forward_and_its_errors_are_its_own(layer, monkeypatch, tmp_path):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_memo", {})
    made, init = [], cpu.Compiled.__init__

    def noted(self, loop, *given):
        made.append((loop.summed != {}, threading.current_thread() is threading.main_thread()))
        if failing and loop.summed:
            raise MemoryError
        init(self, loop, *given)

    monkeypatch.setattr(cpu.Compiled, "__init__", noted)
    failing, before = True, threading.active_count()
    y, _ = layer(torch.randn(6, 8, 3))
    assert made == [(False, True), (True, False)]  # forward here, backward there, which failed
    assert threading.active_count() == before
    with pytest.raises(MemoryError):
        y.sum().backward(retain_graph=True)
    failing = False
    y.sum().backward()
    assert made[2:] == [(True, True)] * 2


def test_where_no_thread_can_be_started_backward_is_compiled_when_it_runs(layer, monkeypatch, tmp_path):
    def refused(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_memo", {})
    with monkeypatch.context() as patch:
        patch.setattr(cpu.Thread, "start", refused)
        y, _ = layer(torch.randn(6, 8, 3))
    y.sum().backward()
    assert layer.cell.W.weight.grad.any()
