"""The objects compiled before, on disk: one file per key, each checked before it is used.

A file is a mark, the hash of its key, the hash of the object, and the object. It is written under another name and
moved into place, so two processes may do so at once. What is damaged counts as absent. Nothing here raises: a folder
that cannot be used means compiling again, and `problem` says why.

It does not grow without end: entries lie in 256 folders by the first letters of their hash, and of each folder those
that were not used for longest go when it holds too many.

An object is code that will run, so the folder must be the user's own and writable by no one else.
"""

import hashlib
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

MARK = b"elman object 1\n"
HASH = hashlib.sha256().digest_size
MOST = 64  # entries of a folder, most of 4-30 kB: some 150 MB in all


def folder() -> Path | None:
    """Where objects are kept: ELMAN_CACHE, or the system's place for caches; None for ELMAN_CACHE=off."""
    chosen = os.environ.get("ELMAN_CACHE", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(os.path.expanduser(chosen))
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "elman" / "cache"
    if os.path.isabs(os.environ.get("XDG_CACHE_HOME", "")):  # others are to be ignored
        return Path(os.environ["XDG_CACHE_HOME"]) / "elman"
    home = Path(os.path.expanduser("~"))
    return home / "Library" / "Caches" / "elman" if sys.platform == "darwin" else home / ".cache" / "elman"


def problem() -> str | None:
    """Say why objects are not kept on disk, in a line; None when they are."""
    where, found = folder(), distrust()
    if found or where is None or os.access(where, os.W_OK | os.X_OK):
        return found
    return f"the cache folder {where} cannot be written"


def distrust() -> str | None:
    """Say why nothing is read from the disk either."""
    where = folder()
    if where is None:
        return "switched off by ELMAN_CACHE=off"
    if str(where).startswith("~"):
        return f"the cache folder {where} is in no known home; set ELMAN_CACHE to a folder"
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = where.stat()
    except OSError as error:
        return f"the cache folder {where} cannot be made: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"the cache folder {where} is not a folder"
    if sys.platform != "win32":
        if found.st_uid != os.geteuid():
            return f"the cache folder {where} belongs to another user, and code is loaded from it"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others may write to the cache folder {where}, and code is loaded from it; chmod 700 it"
    return None


def read(key: str) -> bytes | None:
    """Return the object kept under this key, or None."""
    where = folder()
    if where is None or distrust():
        return None
    path = _path(where, key)
    try:
        entry = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):
        os.utime(path)  # used now
    head, data = entry[: len(MARK) + 2 * HASH], entry[len(MARK) + 2 * HASH :]
    return data if head == _head(key, data) else None


def write(key: str, data: bytes) -> None:
    """Keep an object under this key, if that is possible."""
    where = folder()
    if where is None or problem():
        return
    path, temporary = _path(where, key), ""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="new-")
        with os.fdopen(handle, "wb") as file:
            file.write(_head(key, data) + data)
        os.replace(temporary, path)
        temporary = ""
        _make_room(path.parent)
    except OSError:
        pass
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


def _make_room(where: Path) -> None:
    """Remove what was not used for longest, what a process that was killed left half written too."""
    with os.scandir(where) as found:
        entries = sorted(found, key=lambda entry: entry.stat().st_mtime_ns)
    for entry in entries[:-MOST]:
        os.unlink(entry)


def _head(key: str, data: bytes) -> bytes:
    return MARK + hashlib.sha256(key.encode()).digest() + hashlib.sha256(data).digest()


def _path(where: Path, key: str) -> Path:
    name = hashlib.sha256(key.encode()).hexdigest()
    return where / name[:2] / f"{name[2:]}.o"
