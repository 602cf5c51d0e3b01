"""What machine the kernels are for: its vectors, its registers, and LLVM's way to address it.

Nothing here imports llvmlite at import time, so that `import elman` works, and stays quick, without it.
"""

import ctypes
import functools
import os
import sys
from dataclasses import dataclass, replace
from typing import Any

WIDTHS = (512, 256, 128)
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, TILE_DATA = 158, 0x1023, 18  # Linux on x86-64: a system call and its arguments


class NoTarget(Exception):  # noqa: N818 - not a failure: the caller takes another route
    """No native kernels can be made here; the text says why."""


@dataclass(frozen=True)
class Target:
    """A machine to emit code for. Two equal targets run the same objects."""

    kind: str  # "x86" or "arm"
    triple: str  # as LLVM writes it, e.g. "x86_64-unknown-linux-gnu"
    cpu: str  # a generic name: what the machine can do is said by `features`
    features: str  # LLVM's "+avx2,-avx512f,..."
    bits: int  # the width of a vector: 512, 256 or 128

    def lanes(self, bits: int) -> int:
        """How many elements of 32 or 64 bits a vector holds."""
        return self.bits // bits

    @property
    def tile_rows(self) -> int:
        """The most rows of a product that are kept in registers at once."""
        return 6

    @property
    def tile_vectors(self) -> int:
        """Vectors per row of such a tile: 6 x 4 fills 32 registers, 6 x 2 fills 16."""
        return 4 if self.bits == 512 or self.kind == "arm" else 2

    def panel(self, bits: int) -> int:
        """Columns of a packed panel of weights, in elements of 32 or 64 bits."""
        return self.tile_vectors * self.lanes(bits)

    @property
    def multiplies_pairs(self) -> bool:
        """Whether there is an instruction that multiplies pairs of bfloat16 and adds them to float32."""
        return self.bits == 512 and "+avx512bf16" in self.features.split(",")

    @property
    def multiplies_tiles(self) -> bool:
        """Whether there are registers of tiles of bfloat16, and one instruction for the product of two (AMX)."""
        return self.multiplies_pairs and "+amx-bf16" in self.features.split(",")

    @property
    def divides_quickly(self) -> bool:
        """Whether dividing beats estimating an inverse. Measured on AMD's Zen 4; others are taken to be slow."""
        return "+sse4a" in self.features.split(",")  # which no Intel processor has

    def machine(self) -> Any:
        """Return a new llvmlite TargetMachine. Level 1 made the products as fast as 2 and 3, at less compile time."""
        import llvmlite.binding as llvm

        _initialize()
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=1, reloc="pic", codemodel="small", jit=True
        )


def host() -> Target:
    """Return this machine's target, narrowed to ELMAN_VECTOR=512|256|128 where that is set.

    For tests of what is done without them, ELMAN_BF16=avx512 takes the tiles of bfloat16 away, and ELMAN_BF16=emulated
    the instruction for pairs, too.
    """
    target = _host(os.environ.get("ELMAN_VECTOR", ""))
    if emulated():
        return without_pairs(target)
    return without_tiles(target) if os.environ.get("ELMAN_BF16", "") == "avx512" else target


def emulated() -> bool:
    """Whether products of bfloat16 are to run without the instruction for them, at a fraction of the speed."""
    return os.environ.get("ELMAN_BF16", "") == "emulated"


def without_tiles(target: Target) -> Target:
    """Return `target` without the registers that hold tiles."""
    return replace(target, features=target.features.replace("+amx-", "-amx-"))


def without_pairs(target: Target) -> Target:
    """Return `target` without any instruction that multiplies pairs of bfloat16."""
    target = without_tiles(target)
    return replace(target, features=target.features.replace("+avx512bf16", "-avx512bf16"))


def lacks_pairs() -> str:
    """Why products of bfloat16 cannot run here; empty if they can."""
    try:
        target = host()
    except NoTarget as error:
        return str(error)
    if target.multiplies_pairs or emulated():
        return ""
    return "this processor has no AVX512-BF16 (AMD from Zen 4 on, Intel Xeon from Cooper Lake on)"


def pairs_by() -> str:
    """Name what multiplies bfloat16 here, for people."""
    target = host()
    return "AMX" if target.multiplies_tiles else "AVX512-BF16" if target.multiplies_pairs else "emulation"


def narrowed(target: Target, bits: int) -> Target:
    """Return `target` with vectors of `bits`; the wider instructions are switched off, not just unused."""
    if bits not in WIDTHS or bits > target.bits:
        raise NoTarget(
            f"ELMAN_VECTOR={bits}: this machine's vectors have {target.bits} bits; choose {_choices(target)}"
        )
    if bits == target.bits:
        return target
    features = target.features
    if target.bits == 512:
        off = ("avx512", "avx10", "evex")
        features = ",".join("-" + name[1:] if name[1:].startswith(off) else name for name in features.split(","))
    return Target(target.kind, target.triple, target.cpu, features, bits)


@functools.cache
def _host(vector: str) -> Target:
    target = _widest()
    if not vector:
        return target
    if not vector.isdigit():
        raise NoTarget(f"ELMAN_VECTOR={vector!r} is not a width in bits; choose {_choices(target)}")
    return narrowed(target, int(vector))


@functools.cache
def _widest() -> Target:
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise NoTarget(f"llvmlite is not installed ({error}); pip install llvmlite") from None
    _initialize()
    triple = llvm.get_process_triple()
    architecture = triple.split("-")[0].lower()
    features = llvm.get_host_cpu_features()
    flat = features.flatten()
    if architecture in ("aarch64", "arm64"):
        return Target("arm", triple, "generic", flat, 128)
    if architecture not in ("x86_64", "amd64"):
        raise NoTarget(f"no native kernels for {architecture}; there are some for x86-64 and AArch64")
    if all(features.get(name) for name in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        target = Target("x86", triple, "x86-64", flat, 512)
        return target if not target.multiplies_tiles or _tiles_granted() else without_tiles(target)
    if features.get("avx2") and features.get("fma"):
        return Target("x86", triple, "x86-64", flat, 256)
    raise NoTarget("this x86-64 processor has no AVX2 with FMA, which the native kernels need")


def _tiles_granted() -> bool:
    """Ask the system for the registers of tiles, which it keeps from those that do not. Linux alone is asked."""
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None).syscall
    call.argtypes, call.restype = [ctypes.c_long] * 3, ctypes.c_long
    return bool(call(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0)


def _choices(target: Target) -> str:
    return " or ".join(str(bits) for bits in WIDTHS if bits <= target.bits)


@functools.cache
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
