"""What cells are built with, checked once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elman.cell.base import Cell
from elman.errors import CellError, OptionError


def whole_number(cell: Cell, name: str, value: Any) -> int:
    """A size of at least 1, or a CellError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CellError(f"{type(cell).__name__}: {name} must be a whole number of at least 1, got {value!r}")
    return value


def probability(name: str, value: Any, below: bool = False) -> float:
    """A number in 0..1, or an OptionError; with `below`, 1 itself is none, since what is kept is divided by 1 - p."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1 or (below and value == 1):
        raise OptionError(f"{name} must be a number from 0 to 1{', less than 1' if below else ''}; got {value!r}")
    return float(value)


def positive(name: str, value: Any, zero: bool = False) -> float:
    """A finite number above 0, or from 0 on; else an OptionError."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf") or (value == 0 and not zero):
        raise OptionError(f"{name} must be a number {'of at least' if zero else 'above'} 0; got {value!r}")
    return float(value)


def rates_of_states(cell: Cell, rates: Mapping[str, float], below: bool = False) -> dict[str, float]:
    """Rates by the names of the cell's states; those of 0 are left out."""
    for name in rates:
        if name not in cell.state_sizes:
            raise CellError(f"{type(cell).__name__} has no state {name!r}; it has {', '.join(cell.state_sizes)}")
    checked = {name: probability(f"the rate of {name!r}", rate, below) for name, rate in rates.items()}
    return {name: rate for name, rate in checked.items() if rate}
