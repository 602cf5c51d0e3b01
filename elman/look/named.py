"""A cell by what the command line calls it: lstm, or FILE.py:NAME."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from elman import cell as cells
from elman.cell.base import Cell
from elman.compiler.frames import TORCH
from elman.errors import CellError, ElmanError, OptionError

ELMAN = str(Path(__file__).parents[1])
WIDTHS = ["input_size", "hidden_size"]
MODULE = "file_with_a_cell"  # what a loaded file is called in sys.modules


def named(what: str, input_size: int, hidden_size: int) -> Cell:
    """One of elman's cells, or what a file has under a name: a class, to be made in these widths, or a cell.

    The file is run, with its own folder among those that it imports from.
    Errors: OptionError, CellError, in one line: a file or a name that is not there, what is no cell or cannot be made.
    """
    file, colon, name = what.rpartition(":")
    if not colon and what.endswith(".py"):
        raise OptionError(f"{what}: name the cell in it too, as {what}:MyCell")
    found = in_file(Path(file), name) if colon else built_in(what)
    if isinstance(found, Cell):
        return found
    if not (isinstance(found, type) and issubclass(found, Cell)):
        raise CellError(f"{what} is no cell but a {type(found).__name__}: name a subclass of elman.Cell, or a cell")
    takes = signature(found)
    try:
        takes.bind(input_size, hidden_size)
    except TypeError:
        raise CellError(
            f"{found.__name__}({', '.join(takes.parameters)}) is not made from input and hidden width alone: "
            "make one in a file, and name that, as FILE.py:cell"
        ) from None
    made: Cell = found(input_size, hidden_size)
    return made


def built_in(what: str) -> Any:
    """One of `elman.cell`, in capitals or not, with hyphens or without."""
    kinds = {name.lower(): getattr(cells, name) for name in cells.__all__}
    kinds = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and kind is not Cell}
    found = kinds.get(what.lower().replace("-", ""))
    if found is None:
        plain = [kind.__name__ for kind in kinds.values() if list(signature(kind).parameters) == WIDTHS]
        raise OptionError(f"unknown cell {what!r}: it is one of {', '.join(sorted(plain))}, or FILE.py:NAME")
    return found


def in_file(path: Path, name: str) -> Any:
    """What a Python file has under a name."""
    if path.suffix != ".py":
        raise OptionError(f"{path} is no Python file: a cell is named as FILE.py:NAME")
    if not path.is_file():
        raise OptionError(f"{path}: no such file")
    found = vars(loaded(path))
    if name not in found:
        own = [k for k, v in found.items() if isinstance(v, type) and issubclass(v, Cell) and v.__module__ == MODULE]
        raise OptionError(f"{path} has no {name!r}; cells in it: {', '.join(own) or 'none'}")
    return found[name]


def loaded(path: Path) -> ModuleType:
    """A file as a module."""
    spec = spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[MODULE] = module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


@contextmanager
def told(what: str) -> Iterator[None]:
    """What goes wrong in the user's own code inside the block, in one line, as a CellError."""
    try:
        yield
    except ElmanError:
        raise
    except SyntaxError as error:
        raise CellError(f"{what}: {one_line(error)}") from None
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = [frame for frame in frames if not frame.filename.startswith((TORCH, "<"))][-1]
        if last.filename.startswith(ELMAN):
            raise
        raise CellError(f"{what}: {one_line(error)} ({Path(last.filename).name}:{last.lineno})") from None


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
