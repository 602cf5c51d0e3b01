"""AMX in tests: the processor's own, or the same machine code with its instructions carried out one by one (amx.c)."""

import ctypes
import functools
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from elman.compiler.emit import target as targets
from elman.compiler.emit.target import Target, host, lacks_pairs


def lacks_amx() -> str:
    """Why code for AMX cannot be run here, not even emulated; empty if it can."""
    if lacks_pairs():
        return lacks_pairs()
    if host().multiplies_tiles or not emulation():
        return ""
    return f"this processor has no AMX, or the system keeps it, and for emulating it {emulation()}"


@functools.cache
def emulation() -> str:
    """Load what carries out AMX's instructions in this process, and return why that is not possible, or nothing."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return "Linux on x86-64 is needed"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "a C compiler is needed (cc, gcc or clang)"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "amx.so")
        source = Path(__file__).with_suffix(".c")
        subprocess.run([compiler, "-O3", "-shared", "-fPIC", "-o", library, source], check=True)
        ctypes.CDLL(str(library))
    return ""


def with_amx() -> Target:
    """This machine's target with AMX. Only where nothing is lacking."""
    if host().multiplies_tiles:
        return host()
    assert not emulation()
    return replace(host(), features=host().features.replace("-amx-tile", "+amx-tile").replace("-amx-bf16", "+amx-bf16"))


def take_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """For this test, this machine is one with AMX."""
    has = with_amx()
    monkeypatch.delenv("ELMAN_BF16", raising=False)
    monkeypatch.setattr(targets, "_host", lambda vector: has)
