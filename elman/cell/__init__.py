"""One step each, plain torch, equations as in the paper."""

from elman.cell.around import Around
from elman.cell.attend import Attend
from elman.cell.base import Cell, watch
from elman.cell.conditioned import Conditioned
from elman.cell.elman import Elman, ElmanReLU
from elman.cell.feedback import Feedback
from elman.cell.gru import GRU
from elman.cell.lstm import LSTM
from elman.cell.lstm2d import LSTM2D

__all__ = [
    "GRU",
    "LSTM",
    "LSTM2D",
    "Around",
    "Attend",
    "Cell",
    "Conditioned",
    "Elman",
    "ElmanReLU",
    "Feedback",
    "watch",
]
