"""Memory of outputs that callers have let go: used again, and never while anything still reads it."""

import gc
import threading

import pytest
import torch

import elman
from elman.compiler.emit import pool

pytest.importorskip("llvmlite")


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    """So that sizes of tests count as large ones; with nothing there from other tests."""
    monkeypatch.setattr(pool, "LARGE", 1)
    pool.handed.clear()
    pool.waiting.clear()
    for most in (pool.most_handed, pool.most_leased):
        monkeypatch.setattr(most, "bytes", 0.0)


def room(shape=(3, 5), dtype=torch.float32):
    """Memory for an output, with its address."""
    tensor = pool.room(shape, dtype)
    return tensor, tensor.data_ptr()


def test_what_is_let_go_is_used_again():
    first, place = room()
    assert first.shape == (3, 5)
    assert first.is_contiguous()
    assert first._base is None
    del first
    again, where = room((5, 3))
    assert where == place
    assert again.shape == (5, 3)


@pytest.mark.parametrize(
    "hold",
    [
        lambda y: y,
        lambda y: y[1:, :2],
        lambda y: y.detach(),
        lambda y: y.numpy()[0],
        lambda y: memoryview(y.numpy()),
        lambda y: y.untyped_storage(),
        lambda y: torch.from_dlpack(y),
        lambda y: (y * torch.ones(5, requires_grad=True)).grad_fn,
    ],
    ids=["itself", "view", "detached", "array", "buffer", "storage", "dlpack", "saved for backward"],
)
def test_what_is_held_is_left_alone(hold):
    y, place = room()
    held = hold(y)
    del y
    assert room()[1] != place
    del held
    gc.collect()
    assert place in {room()[1] for _ in range(2)}


def test_other_sizes_and_types_get_other_memory():
    y, place = room((4, 4))
    del y
    assert room((4, 3))[1] != place  # a tensor that is saved takes all its memory along
    assert room((2, 4), torch.float64)[1] != place


def test_memory_that_other_processes_see_is_not_used_again():
    y, _ = room()
    y.share_memory_()
    place = y.data_ptr()
    del y
    assert room()[1] != place


def test_memory_that_was_given_back_is_not_used_again():
    y, _ = room()
    y.untyped_storage().resize_(0)
    del y
    assert room()[0].fill_(1.0).sum() == 15


def test_the_last_few_are_kept_and_no_more():
    held = [room((size,)) for size in range(1, 2 * pool.KEPT)]
    assert len(pool.handed) == pool.KEPT
    assert held


def total(pieces):
    return sum(piece.numel() * piece.element_size() for piece in pieces)


def test_of_lengths_that_do_not_come_again_little_stays():
    for size in range(1000, 1000 + 3 * pool.KEPT):
        room((size,))
    assert total(pool.handed) <= (1 + pool.Most.SLACK) * 4 * size


def test_work_of_lengths_that_do_not_come_again_goes_and_that_of_several_layers_stays():
    for size in range(1000, 20_000, 1000):
        pool.lease(size, torch.float32)
    assert total(pool.waiting) <= pool.Most.SLACK * 4 * size
    for _ in range(6):
        layers = [pool.lease(size, torch.float32) for size in (20_000, 30_000, 50_000)]
        places = {lease.memory.data_ptr() for lease in layers}
        del layers
    layers = [pool.lease(size, torch.float32) for size in (20_000, 30_000, 50_000)]
    assert {lease.memory.data_ptr() for lease in layers} == places


def test_under_inference_mode_and_after_it():
    with torch.inference_mode():
        y, place = room()
        assert y.is_inference()
        del y
    y, where = room()
    assert where == place
    assert not y.is_inference()


@pytest.mark.parametrize("how", [{}, {"checkpoint": 3}], ids=["whole", "in segments"])
def test_layers_in_threads_keep_their_outputs(how):
    """Each thread holds some outputs, and lets them go in turn; none of them may change meanwhile."""
    torch.manual_seed(0)
    layer, x = elman.Recurrent(elman.cell.GRU(4, 6), **how), torch.randn(8, 11, 6, 4)
    with torch.no_grad():
        expected = [layer(x[i])[0].clone() for i in range(8)]
    wrong = []

    def run(number):
        held = {}
        for turn in range(60):
            i = (number + turn) % 8
            held[turn % 3] = (i, layer(x[i])[0])
            wrong.extend(i for i, y in held.values() if not torch.equal(y, expected[i]))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
