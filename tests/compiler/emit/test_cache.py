"""Compiled objects on disk: found again, checked, and never loaded from where others may write."""

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("llvmlite")

import llvmlite.binding as llvm

from elman.compiler.emit import cache, native
from elman.compiler.emit.llvm import Build, pointer
from elman.compiler.emit.target import NoTarget, host

try:
    host()
except NoTarget as reason:
    pytest.skip(str(reason), allow_module_level=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone, and a process that remembers nothing."""
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "_memo", {})
    return tmp_path / "cache"


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class Builder:
    """Makes a module whose `answer(out)` writes a number, and counts how often."""

    calls = 0

    def __call__(self):
        self.calls += 1
        build = Build(host(), "f64")
        with build.function("answer", [pointer]) as (out,):
            build.store_scalar(build.scalar(42.0), out)
        return build.module


def answer(code: native.Code) -> float:
    out = ctypes.c_double()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address("answer"))(ctypes.addressof(out))
    return out.value


def load_anew(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> native.Code:
    """Load as a new process would."""
    monkeypatch.setattr(native, "_memo", {})
    code = native.load("answer", "a key", builder)
    assert answer(code) == 42.0
    return code


def test_a_second_process_does_not_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder()
    assert not load_anew(builder, monkeypatch).kept
    assert native.load("answer", "a key", builder) is native.load("answer", "a key", builder)
    assert load_anew(builder, monkeypatch).kept
    assert builder.calls == 1
    assert cache.problem() is None
    assert (folder.stat().st_mode & 0o777) == 0o700
    with pytest.raises(KeyError, match="no function 'question'"):
        native.load("answer", "a key", builder).address("question")


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "another"])
def test_a_damaged_entry_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    builder = Builder()
    load_anew(builder, monkeypatch)
    (entry,) = entries(folder)
    data = entry.read_bytes()
    if damage == "another":
        cache.write("another key", data[-100:])
        (other,) = set(entries(folder)) - {entry}
        other.replace(entry)
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        entry.write_bytes({"empty": b"", "short": data[:-1], "flipped": flipped}[damage])
    assert not load_anew(builder, monkeypatch).kept
    assert load_anew(builder, monkeypatch).kept
    assert builder.calls == 2


def test_two_processes_at_once(folder: Path) -> None:
    script = "from elman.compiler.emit.product import products; print(products('f64').panel)"
    runs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert [path.suffix for path in entries(folder)] == [".o"]


def test_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELMAN_CACHE", "off")
    builder = Builder()
    load_anew(builder, monkeypatch)
    load_anew(builder, monkeypatch)
    assert builder.calls == 2
    assert cache.problem() == "switched off by ELMAN_CACHE=off"


def test_a_folder_that_cannot_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_text("a file stands where the folder should be")
    load_anew(Builder(), monkeypatch)
    assert "cannot be made" in (cache.problem() or "")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o500)
    load_anew(Builder(), monkeypatch)
    assert "cannot be written" in (cache.problem() or "")


def test_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    load_anew(Builder(), monkeypatch)
    assert entries(folder) == []


def test_what_was_not_used_for_longest_makes_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 2)
    keys = [f"key {i}" for i in range(2000)]
    home = cache._path(folder, keys[0]).parent
    first, second, third, *_ = [key for key in keys if cache._path(folder, key).parent == home]
    for age, key in enumerate((second, first)):
        cache.write(key, key.encode())
        os.utime(cache._path(folder, key), (age, age))
    (home / "new-left").write_bytes(b"half")
    os.utime(home / "new-left", (0, 0))
    assert cache.read(second) == second.encode()  # which makes it newer than the first
    cache.write(third, b"3")
    assert [cache.read(key) for key in (first, second, third)] == [None, second.encode(), b"3"]
    assert len(entries(folder)) == 2
    for key in keys:
        cache.write(key, b"")
    assert len(entries(folder)) <= 2 * 256


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    builder = Builder()
    load_anew(builder, monkeypatch)
    folder.chmod(mode)
    assert not load_anew(builder, monkeypatch).kept
    assert "others may write" in (cache.problem() or "")
    assert cache.read("a key") is None


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX owners")
def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder()
    load_anew(builder, monkeypatch)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert not load_anew(builder, monkeypatch).kept
    assert "belongs to another user" in (cache.problem() or "")


def test_the_customary_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ELMAN_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "elman"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "elman"


@pytest.mark.parametrize("chosen", ["~nobody-of-this-name/cache", None], ids=["another's", "one's own"])
def test_without_a_home_nothing_is_kept(chosen: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ELMAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv("ELMAN_CACHE", chosen)
    else:  # HOME unset, and a user whom the system does not know
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    load_anew(Builder(), monkeypatch)
    assert "is in no known home; set ELMAN_CACHE" in (cache.problem() or "")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_can_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_anew(Builder(), monkeypatch)

    def refused(*_: object) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "utime", refused)
    assert "cannot be written" in (cache.problem() or "")
    assert load_anew(Builder(), monkeypatch).kept


def test_an_interrupt_leaves_nothing_half_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.write("a key", b"data")
    assert entries(folder) == []


def test_threads_that_ask_for_the_same_code_have_it_compiled_once(folder: Path) -> None:
    builder = Builder()
    with ThreadPoolExecutor(4) as pool:
        codes = [*pool.map(lambda _: native.load("answer", "a key", builder), range(4))]
    assert builder.calls == 1
    assert all(code is codes[0] for code in codes)


def test_different_code_is_compiled_at_the_same_time(folder: Path) -> None:
    """Each waits, its module begun, until the others have begun theirs."""
    begun = threading.Barrier(3, timeout=30)

    def module():
        begun.wait()
        return Builder()()

    with ThreadPoolExecutor(3) as pool:
        codes = [*pool.map(lambda key: native.load("answer", key, module), ["one", "two", "three"])]
    assert [answer(code) for code in codes] == [42.0] * 3


def test_with_llvmlites_lock_the_object_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a llvmlite without what we go around it by would give it."""
    module = Builder()()
    ours = native.compiled(module, host())
    locked = llvm.ffi.lib.LLVMPY_TargetMachineEmitToMemory
    monkeypatch.setitem(llvm.ffi.lib._fntab, "LLVMPY_TargetMachineEmitToMemory", lambda *given: locked(*given))
    assert native.compiled(module, host()) == ours
