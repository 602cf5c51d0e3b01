"""Pictures with captions: CSV, and the layouts of Flickr8k and COCO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from elman.data.files import read_bytes, read_lines, read_table
from elman.data.images import PICTURES
from elman.errors import DataError

USUAL = ("captions.csv", "captions.tsv", "captions.txt", "Flickr8k.token.txt", "captions.json")
TABLES = (".csv", ".tsv", ".json")
HEADS = (("image", "image_name", "file_name", "picture"), ("caption", "captions", "text"))
TOKEN = re.compile(r"(.+)#\d+\t(.*)")  # a line of Flickr8k.token.txt


class Captioned(NamedTuple):
    """A picture, and what is said of it, where that is known."""

    name: str
    captions: tuple[str, ...]
    where: str  # file and line
    picture: Path | Tensor | None = None  # a file, or pixels (R, C, 3) of uint8


class Line(NamedTuple):
    """One caption of one picture."""

    name: str
    caption: str
    where: str


def read_captions(path: Path) -> list[Captioned]:
    """The pictures that a file of captions names, in its order, each once with all its captions. Errors: DataError.

    CSV (or, by its name, TSV) with columns image and caption; Flickr8k.token.txt, lines of name.jpg#0, a tab and a
    caption; COCO's JSON with "images" and "annotations"; or a folder that holds such a file.
    """
    path = file_in(path) if path.is_dir() else path
    if path.suffix.lower() == ".json":
        lines = coco(path)
    elif path.suffix.lower() == ".txt" and TOKEN.fullmatch(next(iter(read_lines(path)), "")):
        lines = tokens(path)
    else:
        lines = table(path)
    found: dict[str, list[Line]] = {}
    for line in lines:
        if not line.caption.strip():
            raise DataError(f"{line.where}: the caption of {line.name} is empty; write one, or take the line out")
        found.setdefault(line.name, []).append(line)
    if not found:
        raise DataError(f"{path} holds no captions; name a file with pictures and captions")
    return [Captioned(name, tuple(t.caption.strip() for t in told), told[0].where) for name, told in found.items()]


def has_captions(path: Path) -> bool:
    """Whether a path is a file of captions, by its name, or a folder that holds such a file."""
    if path.is_dir():
        return any(p.name in USUAL or p.suffix.lower() in TABLES for p in path.iterdir())
    return path.suffix.lower() not in (*PICTURES, ".safetensors")


def file_in(folder: Path) -> Path:
    """The file of captions in a folder. Errors: DataError where there is none, or which one is open."""
    for name in USUAL:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLES)
    if len(found) != 1:
        shown = ", ".join(p.name for p in found[:5]) or "none"
        raise DataError(f"{folder} should hold one file of captions, as captions.csv; it has {shown}: name the file")
    return found[0]


def table(path: Path) -> Iterator[Line]:
    rows = read_table(path)
    _, head = next(rows, (1, []))
    names = [cell.strip().lower() for cell in head]
    places = [next((names.index(name) for name in of if name in names), None) for of in HEADS]
    at, where = places
    if at is None or where is None:
        shown = ", ".join(names[:8]) or "nothing"
        raise DataError(f"{path}, line 1: needs columns named image and caption in its first line; it has {shown}")
    for number, row in rows:
        if len(row) <= max(at, where) or not row[at].strip():
            raise DataError(f"{path}, line {number}: needs an image and a caption; it has {row!r:.60}")
        yield Line(row[at].strip(), row[where], f"{path}, line {number}")


def tokens(path: Path) -> Iterator[Line]:
    for number, line in enumerate(read_lines(path), 1):
        match = TOKEN.fullmatch(line)
        if match:
            yield Line(match[1], match[2], f"{path}, line {number}")
        elif line.strip():
            raise DataError(f"{path}, line {number}: expected name.jpg#0, a tab and a caption; it has {line!r:.60}")


def coco(path: Path) -> Iterator[Line]:
    try:
        whole = json.loads(read_bytes(path))
        names = {each["id"]: str(each["file_name"]) for each in whole["images"]}
        told = [(names.get(each["image_id"]), each["image_id"], str(each["caption"])) for each in whole["annotations"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON of COCO's kind ({type(error).__name__}: {error}): it needs images with id and "
            "file_name, and annotations with image_id and caption"
        ) from None
    for number, (name, image, caption) in enumerate(told):
        if name is None:
            raise DataError(f"{path}, annotation {number}: image_id {image!r} is not among its images; mend the file")
        yield Line(name, caption, f"{path}, annotation {number}")


def with_pictures(examples: Iterable[Captioned], path: Path) -> list[Captioned]:
    """The same with the files of the pictures, or none where there is no such file.

    They are looked for beside the file of captions, in the folders beside it, and, where it lies in a folder called
    annotations, in those beside that folder.
    """
    home = path if path.is_dir() else path.parent
    top = home.parent if home.name == "annotations" else home
    folders = [home, *sorted(p for p in top.iterdir() if p.is_dir())]
    found = []
    for e in examples:
        file = next((folder / e.name for folder in folders if (folder / e.name).is_file()), None)
        found.append(e._replace(picture=file))
    return found


def pictures_of(paths: Iterable[Path]) -> Iterator[Captioned]:
    """Pictures without captions: files, and all pictures of folders. Errors: DataError for a folder without any."""
    for path in paths:
        if not path.is_dir():
            yield Captioned(str(path), (), str(path), path)
            continue
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not found:
            raise DataError(f"{path} holds no pictures ({', '.join(PICTURES)}); name another folder, or picture files")
        for file in found:
            yield Captioned(str(file), (), str(file), file)


def words_of(caption: str) -> list[str]:
    """A caption's words in lower case, punctuation apart."""
    return re.findall(r"\w+(?:['\u2019-]\w+)*|[^\w\s]", caption.lower())
