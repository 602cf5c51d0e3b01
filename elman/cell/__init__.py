"""One step each, plain torch, equations as in the paper; and parts that go around any of them."""

from elman.cell.around import Around
from elman.cell.attend import Attend
from elman.cell.base import Cell, watch
from elman.cell.conditioned import Conditioned
from elman.cell.deep import Deep
from elman.cell.drop_connect import DropConnect
from elman.cell.elman import Elman, ElmanReLU
from elman.cell.feedback import Feedback
from elman.cell.gru import GRU
from elman.cell.gru_variants import MinGRU, OriginalGRU
from elman.cell.independent import IndRNN
from elman.cell.jordan import Jordan
from elman.cell.layer_norm import LayerNormLSTM
from elman.cell.lstm import LSTM
from elman.cell.lstm2d import LSTM2D
from elman.cell.peephole import PeepholeLSTM
from elman.cell.projected import ProjectedLSTM
from elman.cell.rate import Rate
from elman.cell.residual import Residual
from elman.cell.variational import Variational
from elman.cell.zoneout import Zoneout

__all__ = [
    "GRU",
    "LSTM",
    "LSTM2D",
    "Around",
    "Attend",
    "Cell",
    "Conditioned",
    "Deep",
    "DropConnect",
    "Elman",
    "ElmanReLU",
    "Feedback",
    "IndRNN",
    "Jordan",
    "LayerNormLSTM",
    "MinGRU",
    "OriginalGRU",
    "PeepholeLSTM",
    "ProjectedLSTM",
    "Rate",
    "Residual",
    "Variational",
    "Zoneout",
    "watch",
]
