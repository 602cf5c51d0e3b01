"""Run one kernel on several threads: torch's own OpenMP threads where there are such, a pool of our own elsewhere.

Torch's threads are already there, awake and next to its data: a launch takes a few microseconds, and a second pool
beside them would fight over the processors. They are reached through GNU OpenMP's own entry, `GOMP_parallel`.
"""

import ctypes
import functools
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elman.compiler.emit import native
from elman.compiler.emit.llvm import Build, Value, i32, i64, pointer
from elman.compiler.emit.target import host

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

Launch = Callable[[int, int, int], None]


def parallel(address: int, args: int, threads: int) -> None:
    """Call the C function `kernel(void *args, int64 thread, int64 threads)` at `address` on that many threads at once.

    Returns when all are done. Fewer threads may be given, and the kernel is told how many were; all of them run at the
    same time, so that they may wait for each other. In a forked child there is only one.
    """
    if threads <= 1 or _forked:
        _function(address)(args, 0, 1)
    else:
        _launcher()(address, args, threads)


def route() -> str:
    """Name the way that `parallel` takes: "openmp", or "python" (also with ELMAN_THREADS=python at the first call)."""
    return "python" if _launcher() == _pool.launch else "openmp"


def _after_fork() -> None:
    """A child has none of its parent's threads, and GNU OpenMP would wait for them for ever."""
    global _forked
    _forked = True


_forked = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.lru_cache(maxsize=4096)
def _function(address: int) -> Any:
    return _KERNEL(address)


@functools.cache
def _launcher() -> Launch:
    library = None if os.environ.get("ELMAN_THREADS") == "python" else _libgomp()
    return _pool.launch if library is None else _openmp(library)


# ---- code of its own


def chain() -> int:
    """The address of a kernel that runs others in turn; its block: how many, flags, each of them and its block."""
    return _code().address("chain")


def repeat() -> int:
    """The address of a kernel that runs another several times; its block: see `_write_repeat`."""
    return repeated().address("repeat")


def repeated() -> native.Code:
    def build() -> Any:
        made = Build(host(), name="repeat")
        _write_repeat(made)
        _write_apart(made)
        return made.module

    return native.load("repeat", "", build)


def apart() -> int:
    """The address of a kernel that runs another on each of several blocks, every time on one thread.

    Its block: how many there are, the other kernel, the addresses of the blocks.
    """
    return repeated().address("apart")


def _code() -> native.Code:
    def build() -> Any:
        made = Build(host(), name="threads")
        _write_enter(made)
        _write_chain(made)
        return made.module

    return native.load("threads", "", build)


def _write_chain(build: Build) -> None:
    """`chain(block, thread, threads)`: all threads meet after each kernel."""
    with build.function("chain", [pointer, i64, i64]) as (block, thread, count):
        flags = build.read_pointer(block, 1)

        def job(n: Value, _: list[Value]) -> None:
            pair = build.at(block, build.add_int(build.mul_int(n, 2), 2), 8)
            function, own = (build.read_pointer(pair, slot) for slot in (0, 1))
            build.call_pointer(function, own, thread, count)
            build.barrier(flags, thread, count, build.add_int(n, 1))

        build.loop(build.read_int(block, 0), job)


def _write_repeat(build: Build) -> None:
    """`repeat(block, thread, threads)`: run a kernel some times; between, clear its flags and move what it reads.

    block: the kernel, its block, how many times, flags, how many slots to clear, how many to add to; then the addresses
    of the first, and of the others with what is added to each.
    """
    with build.function("repeat", [pointer, i64, i64]) as (block, thread, count):
        function, own, flags = (build.read_pointer(block, slot) for slot in (0, 1, 3))
        zeros, moves = (build.read_int(block, slot) for slot in (4, 5))
        first = build.at(block, 6, 8)
        second = build.at(first, zeros, 8)

        def clear(i: Value, _: list[Value]) -> None:
            build.b.store(build.c(0), build.read_pointer(build.at(first, i, 8), 0))

        def move(i: Value, _: list[Value]) -> None:
            pair = build.at(second, build.mul_int(i, 2), 8)
            place = build.read_pointer(pair, 0)
            build.b.store(build.add_int(build.read_int(place, 0), build.read_int(pair, 1)), place)

        def once(n: Value, _: list[Value]) -> None:
            build.call_pointer(function, own, thread, count)
            passed = build.mul_int(n, 2)
            build.barrier(flags, thread, count, build.add_int(passed, 1))

            def prepare() -> None:
                build.loop(zeros, clear)
                build.loop(moves, move)

            build.when(build.compare("==", thread, 0), prepare)
            build.barrier(flags, thread, count, build.add_int(passed, 2))

        build.loop(build.read_int(block, 2), once)


def _write_apart(build: Build) -> None:
    """`apart(block, thread, threads)`: there may be fewer threads than blocks."""
    with build.function("apart", [pointer, i64, i64]) as (block, thread, count):
        function, first = build.read_pointer(block, 1), build.at(block, 2, 8)

        def one(i: Value, _: list[Value]) -> None:
            build.call_pointer(function, build.read_pointer(build.at(first, i, 8), 0), build.c(0), build.c(1))

        build.loop(build.read_int(block, 0), one, start=thread, step=count)


# ---- torch's OpenMP threads


def _libgomp() -> Any:
    """Return the libgomp that torch has loaded, or None."""
    if not sys.platform.startswith("linux"):
        return None
    import torch

    near = Path(torch.__file__).parent
    mapped = {line.split(maxsplit=5)[5].strip() for line in _maps() if "libgomp" in line}
    paths = sorted(mapped, key=lambda path: not path.startswith(str(near.parent)))
    for path in [path for path in paths if os.path.exists(path)]:
        library = ctypes.CDLL(path)
        if hasattr(library, "GOMP_parallel"):
            return library
    return None


def _maps() -> list[str]:
    try:
        return Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []


def _openmp(library: Any) -> Launch:
    start = library.GOMP_parallel
    start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    start.restype = None
    number, count = (
        ctypes.cast(f, ctypes.c_void_p).value for f in (library.omp_get_thread_num, library.omp_get_num_threads)
    )
    entry = _code().address("enter")
    block = ctypes.c_void_p * 4

    def launch(address: int, args: int, threads: int) -> None:
        start(entry, block(address, args, number, count), threads, 0)

    return launch


def _write_enter(build: Build) -> None:
    """`enter(data)`: ask OpenMP which thread this is, of how many, and call the kernel with that."""
    with build.function("enter", [pointer]) as (data,):
        kernel, args, number, count = (build.read_pointer(data, slot) for slot in range(4))
        thread, threads = (build.b.zext(build.call_pointer(f, result=i32), i64) for f in (number, count))
        build.call_pointer(kernel, args, thread, threads)


# ---- threads of our own


class _Job:
    """One launch: run once, however often it is asked for."""

    def __init__(self, address: int, args: int, threads: int) -> None:
        self.address, self.args, self.threads = address, args, threads
        self.begun = False
        self.done = threading.Event()


class _Pool:
    """Sleeping Python threads, woken for one launch at a time; ctypes lets go of the GIL while a kernel runs.

    A leader hands out the work, so that Ctrl-C or another signal's handler, which interrupt the caller, cannot leave a
    kernel running on memory that the caller then frees.
    """

    def __init__(self) -> None:
        self._first = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._leader: threading.Thread | None = None
        self._work: list[queue.SimpleQueue[tuple[int, int, int]]] = []
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def launch(self, address: int, args: int, threads: int) -> None:
        if self._leader is None:
            with self._first:
                self._leader = self._leader or self._led()
        job = _Job(address, args, threads)
        raised: BaseException | None = None
        while True:
            try:
                while not job.done.is_set():
                    self._jobs.put(job)
                    job.done.wait()
                break
            except BaseException as error:  # by a signal's handler
                raised = error
        if raised is not None:
            raise raised

    def _led(self) -> threading.Thread:
        leader = threading.Thread(target=self._lead, name="elman-0", daemon=True)
        leader.start()
        return leader

    def _lead(self) -> None:
        while True:
            job = self._jobs.get()
            if job.begun:
                continue
            job.begun = True
            helpers = self._grow(job.threads - 1)
            for thread in range(helpers):
                self._work[thread].put((job.address, job.args, helpers + 1))
            _function(job.address)(job.args, 0, helpers + 1)
            for _ in range(helpers):
                self._done.get()
            job.done.set()

    def _grow(self, helpers: int) -> int:
        """Return how many helpers there are to use, of those wished for."""
        while len(self._work) < helpers:
            work: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()
            thread = len(self._work) + 1
            try:
                threading.Thread(target=self._help, args=(thread, work), name=f"elman-{thread}", daemon=True).start()
            except RuntimeError:  # the system gives no more threads: fewer do the work
                return len(self._work)
            self._work.append(work)
        return helpers

    def _help(self, thread: int, work: queue.SimpleQueue[tuple[int, int, int]]) -> None:
        while True:
            address, args, threads = work.get()
            _function(address)(args, thread, threads)
            self._done.put(None)


_pool = _Pool()
