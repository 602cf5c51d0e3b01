"""Reading files, with errors that name them."""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elman.errors import DataError

GZIP = b"\x1f\x8b"  # how a packed file begins


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked where it is gzip. Errors: DataError."""
    with readable(path):
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == GZIP else data


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors: DataError where a file cannot be read while the block runs."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name an existing one") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name a file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; name a readable file") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without their ends. Errors: DataError."""
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        return text.removesuffix("\n").split("\n") if text else []  # no other character ends a line
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file") from None


def each_line(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, one after another, each with a newline at its end. Errors: DataError."""
    with readable(path), open(path, "rb") as plain:
        packed = plain.peek(2)[:2] == GZIP
        for number, data in enumerate(gzip.GzipFile(fileobj=plain) if packed else plain, 1):
            try:
                text = data.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                wrong = f"{path}, line {number}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file"
                raise DataError(wrong) from None
            if "\r" in text:
                lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
                yield from (f"{line}\n" for line in lines)
            else:
                yield text


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of a CSV file, or, by its name, a TSV file. Errors: DataError."""
    tabs = ".tsv" in path.suffixes
    csv.field_size_limit(2**31 - 1)  # a text may be long
    reader = csv.reader(each_line(path), delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else 0)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; mend the line") from None


def input_lines() -> Iterator[tuple[int, str]]:
    """Number and text of each line of standard input, as it comes. Errors: DataError."""
    for number, data in enumerate(sys.stdin.buffer, 1):
        try:
            yield number, data.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"standard input, line {number}: byte 0x{data[error.start]:02x} is not UTF-8; convert the input"
            ) from None
