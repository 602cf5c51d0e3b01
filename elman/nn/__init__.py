"""Instead of torch.nn: its recurrent modules, unfolded by elman.

Cells take a single step, which has nothing to unfold: `RNNCell`, `LSTMCell` and `GRUCell` are torch's own.
"""

from torch.nn import GRUCell, LSTMCell, RNNCell

from elman.nn.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
