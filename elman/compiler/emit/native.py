"""From a module to code that can be called: through the memo of this process, the cache on disk, or LLVM."""

import ctypes
import ctypes.util
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from elman.compiler.emit import cache
from elman.compiler.emit.flow import C_FUNCTIONS, C_PREFIX
from elman.compiler.emit.target import Target, host

FORMAT = 1  # of what is kept on disk

_memo: dict[str, "Code"] = {}
_making: dict[str, threading.Lock] = {}


def _after_fork() -> None:
    """The threads that may have held locks are not in the child."""
    _making.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Code:
    """Loaded machine code. It stays valid for the life of the process."""

    def __init__(self, engine: Any, kept: bool) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}  # asking LLVM takes microseconds
        self.kept = kept  # whether it came from the disk

    def address(self, symbol: str) -> int:
        """Return the address of a function of the module."""
        if symbol not in self._addresses:
            address = self._engine.get_function_address(symbol)
            if not address:
                raise KeyError(f"the compiled module has no function {symbol!r}")
            self._addresses[symbol] = int(address)
        return self._addresses[symbol]


def load(name: str, key: str, build: Callable[[], Any], target: Target | None = None) -> Code:
    """Return the code of the module that `build` makes, which is called only if no process has compiled it before.

    `name` is for people; `key` says everything that the module depends on besides the target and elman itself. Safe to
    call from several threads: the module is compiled once.
    """
    target = target or host()
    full = "\n".join([name, key, repr(target), _versions()])
    if full in _memo:
        return _memo[full]
    with _making.setdefault(full, threading.Lock()):
        if full not in _memo:
            data = cache.read(full)
            kept = data is not None
            if data is None:
                data = compiled(build(), target)
                cache.write(full, data)
            _memo[full] = Code(_engine(data, target), kept)
        return _memo[full]


def compiled(module: Any, target: Target) -> bytes:
    """Return the object file of a module. No optimiser passes: the emitters write what is meant."""
    machine = target.machine()
    parsed = llvm.parse_assembly(str(module), llvm.create_context())
    parsed.verify()
    return _emitted(machine, parsed)


def _emitted(machine: Any, parsed: Any) -> bytes:
    """The same as `machine.emit_object(parsed)`, beside which other threads may use LLVM.

    llvmlite holds one lock over every call; LLVM itself asks only that threads have contexts of their own.
    """
    ffi = llvm.ffi
    emit = getattr(ffi.lib.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
    if emit is None:  # another llvmlite
        return bytes(machine.emit_object(parsed))
    with ffi.OutputString() as error:
        buffer = emit(machine, parsed, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _engine(data: bytes, target: Target) -> Any:
    empty = llvm.parse_assembly(f'target triple = "{target.triple}"')
    # llvmlite's own memory manager keeps a module's sections together, which small code needs
    engine = llvm.create_mcjit_compiler(empty, target.machine(), use_lmm=True)
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    for name, address in _c_functions().items():
        place = engine.get_global_value_address(C_PREFIX + name)
        if place:
            ctypes.c_void_p.from_address(place).value = address
    return engine


@functools.cache
def _c_functions() -> dict[str, int]:
    """Where the C functions are that kernels call. Not every process exports them, so LLVM is not left to look."""
    if sys.platform == "win32":
        library = ctypes.CDLL("ucrtbase")
        rest = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        library = ctypes.CDLL(ctypes.util.find_library("m") if sys.platform == "darwin" else "libm.so.6")
        rest = ctypes.CDLL(None).sched_yield
    functions = {name: rest if name == "sched_yield" else getattr(library, name) for name in C_FUNCTIONS}
    return {name: ctypes.cast(function, ctypes.c_void_p).value or 0 for name, function in functions.items()}


@functools.cache
def _versions() -> str:
    """What an object depends on besides its module: LLVM, and the text of the compiler itself."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        sources.update(path.read_bytes())
    lines = (FORMAT, llvmlite.__version__, llvm.llvm_version_info, sources.hexdigest())
    return "\n".join(str(line) for line in lines)
