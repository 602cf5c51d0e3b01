"""The network of a text run, from its options."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from elman.task.ensemble import Ensemble
from elman.task.language import LanguageModel, Predictor
from elman.task.networks import CELLS, in_memory
from elman.task.text_options import Options


def build_model(o: Options, symbols: int) -> Predictor:
    """The network, or several, weights fixed by the seed. Errors: OptionError where it does not fit in memory."""
    torch.manual_seed(o.seed)
    members = [network(o, symbols) for _ in range(o.members)]
    return Ensemble(members) if len(members) > 1 else members[0]


def network(o: Options, symbols: int) -> LanguageModel:
    """One network, its weights drawn at random."""
    with in_memory(o):
        model = LanguageModel(
            symbols, CELLS[o.cell], o.hidden, o.layers, o.embedding, o.dropout,
            locked=o.locked, weight_dropout=o.weight_dropout, tied=o.tied,
        )  # fmt: skip
    if o.start is not None:
        small_start(model, o.start)
    return model


def vanilla(o: Options) -> Options:
    """The same with the vanilla cell, tanh(b + U x + W h), all else as it is."""
    return replace(o, cell="elman")


def small_start(model: nn.Module, deviation: float) -> None:
    """Weights normal with this standard deviation, biases zero: where min-char-rnn starts."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0.0, deviation)
        else:
            nn.init.zeros_(parameter)
