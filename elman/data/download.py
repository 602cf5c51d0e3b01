"""Well-known data sets by name: fetched once, checked, kept."""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from elman.errors import DataError

BLOCK = 1 << 18


class File(NamedTuple):
    """One file of a set: its address, name, size in bytes and checksum."""

    url: str
    name: str
    size: int
    sha256: str


class DataSet(NamedTuple):
    """A set that has a name: its files, and under which licence they are given."""

    about: str
    licence: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


FILES = """
mnist https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz 1648877
    8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6
mnist https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz 4542
    f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6
mnist https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz 9912422
    440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609
mnist https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz 28881
    3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c
tinyshakespeare https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt 1115394
    86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed
names https://raw.githubusercontent.com/karpathy/makemore/master/names.txt 228145
    0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d
"""  # set, address, size, SHA-256


def files_of(name: str) -> tuple[File, ...]:
    words = FILES.split()
    rows = zip(words[::4], words[1::4], words[2::4], words[3::4])
    return tuple(File(url, url.rpartition("/")[2], int(n), digest) for owner, url, n, digest in rows if owner == name)


SETS: dict[str, DataSet] = {
    name: DataSet(about, licence, files_of(name))
    for name, about, licence in (
        ("mnist", "60,000 + 10,000 handwritten digits of 28 x 28", "CC BY-SA 3.0, as usually stated"),
        ("tinyshakespeare", "40,000 lines of Shakespeare's plays", "public domain"),
        ("names", "32,033 first names, a line each", "MIT"),
    )
}


def home() -> Path:
    """Where fetched data is kept: $ELMAN_DOWNLOADS, else ~/.cache/elman/data."""
    named = os.environ.get("ELMAN_DOWNLOADS")
    return Path(named) if named else Path.home() / ".cache" / "elman" / "data"


def located(name: str) -> Path:
    """A path that is there as it is; else the folder of the set of this name, or its only file, fetched if need be.

    Errors: DataError where it cannot be fetched, or is not what it should be.
    """
    path = Path(name)
    if path.exists() or name not in SETS:
        return path
    found, folder = SETS[name], home() / name
    missing = [file for file in found.files if not whole(folder / file.name, file)]
    if missing:
        size, where = sum(file.size for file in missing), missing[0].url.split("/")[2]
        print(
            f"elman: fetching {name} ({found.about}): {size / 1e6:.1f} MB from {where}, licence: {found.licence}, "
            f"to {folder}",
            file=sys.stderr,
        )
    for file in missing:
        fetch(file, folder)
    return folder if len(found.files) > 1 else folder / found.files[0].name


def kept(name: str) -> str:
    """How a file is named in a run: by its whole path, or by the name of a set."""
    return name if name in SETS and not Path(name).exists() else str(Path(name).absolute())


def whole(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def fetch(file: File, folder: Path) -> None:
    """Download a file, going on where an earlier attempt broke off. Errors: DataError."""
    part, target = folder / f"{file.name}.part", folder / file.name
    by_hand = f"or fetch {file.url} yourself and put it at {target}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = part.stat().st_size if part.exists() else 0
        if begun != file.size:
            receive(file.url, part, begun if begun < file.size else 0)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"cannot fetch {file.url} ({reason}): go online and run this again, {by_hand}") from None
    except OSError as error:
        raise DataError(
            f"cannot keep {file.name} in {folder}: {error.strerror}; name a folder: ELMAN_DOWNLOADS"
        ) from None
    if part.stat().st_size < file.size:
        raise DataError(f"{file.url} broke off at {part.stat().st_size:,} of {file.size:,} bytes: run this again")
    if (found := digest_of(part)) != file.sha256:
        part.unlink()
        raise DataError(
            f"{file.url} is not the file it was (SHA-256 {found[:12]}..., not {file.sha256[:12]}...): {by_hand}"
        )
    os.replace(part, target)


def receive(url: str, part: Path, begun: int) -> None:
    """Add to a file, of which so many bytes are there, what is left of it at an address."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        resumed = answer.status == 206  # else it sends the whole file again
        with open(part, "ab" if resumed else "wb") as out:
            while block := answer.read(BLOCK):
                out.write(block)


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
