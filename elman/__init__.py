"""Write the step; elman unfolds it through time."""

from elman import cell, nn
from elman.cell import Cell, watch
from elman.errors import (
    BackendWarning,
    CellError,
    DataError,
    DivergenceError,
    ElmanError,
    InputError,
    OptionError,
    RunError,
)
from elman.module import (
    Bidirectional,
    EncoderDecoder,
    Grid,
    Layer,
    Located,
    Recurrent,
    SequenceModel,
    Stacked,
    backend,
    beam_search,
    check,
    explain,
    feeding,
    fixed_points,
    gradient_by_lag,
    locate,
    precision,
    scan,
)

__version__ = "0.1.0"

__all__ = [
    "BackendWarning",
    "Bidirectional",
    "Cell",
    "CellError",
    "DataError",
    "DivergenceError",
    "ElmanError",
    "EncoderDecoder",
    "Grid",
    "InputError",
    "Layer",
    "Located",
    "OptionError",
    "Recurrent",
    "RunError",
    "SequenceModel",
    "Stacked",
    "backend",
    "beam_search",
    "cell",
    "check",
    "explain",
    "feeding",
    "fixed_points",
    "gradient_by_lag",
    "locate",
    "nn",
    "precision",
    "scan",
    "watch",
]
