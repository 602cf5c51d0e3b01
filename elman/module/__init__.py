"""Layers: a cell unfolded over time, stacked, in both directions."""

from elman.module import feeding
from elman.module.backends import backend
from elman.module.check import Report, check
from elman.module.dropout import Dropout
from elman.module.encoder_decoder import EncoderDecoder
from elman.module.explain import Explanation, explain, ways
from elman.module.fixed import FixedPoints, fixed_points
from elman.module.grid import Grid
from elman.module.lags import gradient_by_lag
from elman.module.layer import Layer
from elman.module.locate import Located, locate
from elman.module.precision import precision
from elman.module.recurrent import Recurrent, scan
from elman.module.search import Found, beam_search
from elman.module.sequence import Drawn, SequenceModel
from elman.module.stacked import Bidirectional, Stacked

__all__ = [
    "Bidirectional",
    "Drawn",
    "Dropout",
    "EncoderDecoder",
    "Explanation",
    "FixedPoints",
    "Found",
    "Grid",
    "Layer",
    "Located",
    "Recurrent",
    "Report",
    "SequenceModel",
    "Stacked",
    "backend",
    "beam_search",
    "check",
    "explain",
    "feeding",
    "fixed_points",
    "gradient_by_lag",
    "locate",
    "precision",
    "scan",
    "ways",
]
