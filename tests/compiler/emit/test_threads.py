"""Kernels on several threads: OpenMP's, our own, and the one of a forked child."""

import ctypes
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from elman.compiler.emit import native, threads
from elman.compiler.emit.llvm import FLAG_BYTES, Build, i32, i64, pointer, void
from elman.compiler.emit.target import NoTarget, host

try:
    host()
except NoTarget as reason:
    pytest.skip(str(reason), allow_module_level=True)

ROUNDS = 50
SOURCE = Path(__file__).read_text()  # part of the key: an edited test is compiled again


def module():
    """`mark`: args[thread] = threads. `meet`: steps kept apart by barriers. `flushed`: a denormal product."""
    build = Build(host())
    with build.function("mark", [pointer, i64, i64]) as (args, thread, count):
        build.b.store(count, build.at(args, thread, 8))
    with build.function("meet", [pointer, i64, i64]) as (args, thread, count):
        flags, cells = build.read_pointer(args, 0), build.read_pointer(args, 1)

        def round_(i, _):
            """Each thread adds one to its neighbour's cell: a lost step shows in the sums."""
            following = build.b.urem(build.add_int(thread, build.add_int(i, 1)), count)
            cell = build.at(cells, following, 8)
            value = build.b.load(cell, typ=i64)
            build.b.store(build.add_int(build.mul_int(value, 3), thread), cell)
            build.barrier(flags, thread, count, build.add_int(i, 1))

        build.loop(ROUNDS, round_)
    with build.function("flushed", [pointer, i64, i64]) as (args, _, _):
        back = build.flush_denormals()
        half = build.mul(build.load(args), build.k(0.5))
        build.store(half, build.at(args, build.lanes))
        back()
    return build.module


@pytest.fixture(params=["openmp", "python"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Each of the two ways to other threads."""
    if request.param == "python":
        monkeypatch.setenv("ELMAN_THREADS", "python")
    threads._launcher.cache_clear()
    if threads.route() != request.param:
        pytest.skip(f"this machine has only the route {threads.route()}")
    yield request.param
    threads._launcher.cache_clear()


def address(name: str) -> int:
    return native.load("test_threads", SOURCE, module).address(name)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_thread_runs_once(route: str, count: int) -> None:
    marks = np.zeros(8, np.int64)
    threads.parallel(address("mark"), marks.ctypes.data, count)
    np.testing.assert_array_equal(marks, [count] * count + [0] * (8 - count))


def meet(count: int) -> np.ndarray:
    flags, cells = np.zeros(count * FLAG_BYTES, np.uint8), np.zeros(count, np.int64)
    args = (ctypes.c_void_p * 2)(flags.ctypes.data, cells.ctypes.data)
    threads.parallel(address("meet"), ctypes.addressof(args), count)
    return cells


def met(count: int) -> np.ndarray:
    cells = [0] * count
    for i in range(ROUNDS):
        new = list(cells)
        for thread in range(count):
            place = (thread + i + 1) % count
            new[place] = cells[place] * 3 + thread
        cells = new
    return np.array([(value + 2**63) % 2**64 - 2**63 for value in cells])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_barriers_keep_threads_in_step(route: str, count: int) -> None:
    """Also with more threads than this machine may have processors."""
    np.testing.assert_array_equal(meet(count), met(count))


def test_launches_from_two_threads_at_once(route: str) -> None:
    found: list[np.ndarray] = []
    callers = [threading.Thread(target=lambda: found.append(meet(2))) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 2
    for cells in found:
        np.testing.assert_array_equal(cells, met(2))


def test_denormals_are_flushed_inside_only() -> None:
    lanes = Build(host()).lanes
    smallest = np.finfo(np.float32).tiny
    data = np.full(2 * lanes, smallest, np.float32)
    threads.parallel(address("flushed"), data.ctypes.data, 1)
    assert (data[lanes:] == 0).all()
    assert (data[:lanes] * np.float32(0.5) > 0).all()


FORKED = """
import os, numpy as np
from tests_module import address, threads
def marks():
    found = np.zeros(4, np.int64)
    threads.parallel(address("mark"), found.ctypes.data, 2)
    return found.tolist()
assert marks() == [2, 2, 0, 0], marks()
child = os.fork()
if child == 0:
    os._exit(0 if marks() == [1, 0, 0, 0] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert marks() == [2, 2, 0, 0]
"""


@pytest.mark.skipif(not hasattr(threads.os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["", "python"])
def test_a_forked_child_has_one_thread(way: str) -> None:
    load = f"import importlib.util, sys; spec = importlib.util.spec_from_file_location('tests_module', {__file__!r})"
    load += "; sys.modules['tests_module'] = m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)\n"
    environment = {**threads.os.environ, "ELMAN_THREADS": way}
    command = [sys.executable, "-W", "ignore", "-c", load + FORKED]
    run = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_only_known_c_functions_can_be_called() -> None:
    build = Build(host())
    with build.function("f", []):
        with pytest.raises(ValueError, match="system is not among the C functions"):
            build.call_c("system", i32)
        build.call("llvm.x86.sse2.pause", void) if host().kind == "x86" else None


def kernel(work):
    """A kernel in Python, and its address: work(args, thread, threads)."""
    made = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(work)
    return made, ctypes.cast(made, ctypes.c_void_p).value


def test_threads_that_launch_first_at_the_same_time_have_one_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, leaders, start = threads._Pool(), [], threading.Barrier(4)
    led = pool._led

    def slowly():
        time.sleep(0.05)
        leaders.append(led())
        return leaders[-1]

    monkeypatch.setattr(pool, "_led", slowly)
    hold, where = kernel(lambda args, thread, count: None)

    def launch():
        start.wait()
        pool.launch(where, 0, 2)

    callers = [threading.Thread(target=launch) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(leaders) == 1
    assert hold


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer's signal")
def test_a_signal_waits_for_the_kernel() -> None:
    """Whatever its handler raises: memory must not go while a kernel runs on it."""
    pool, done = threads._Pool(), []

    def work(args, thread, count):
        time.sleep(0.3)
        done.append(thread)

    def handler(number, frame):
        raise TimeoutError("time is over")

    hold, where = kernel(work)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(TimeoutError, match="time is over"):
            pool.launch(where, 0, 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sorted(done) == [0, 1]
    assert hold
