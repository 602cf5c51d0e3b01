"""Optimisers of torch, by name."""

from __future__ import annotations

import torch
from torch import nn

from elman.task.options import TrainOptions

ADAM = ("step", "exp_avg", "exp_avg_sq")
MEMORY = {"adamw": ADAM, "adam": ADAM, "adagrad": ("step", "sum")}  # what an optimiser keeps a parameter


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser that the options name. Weight decay spares vectors: biases and initial states.

    Parameters that need no gradient are not its own: they stay as they are.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if options.optimizer == "adagrad":
        # g / sqrt(1e-8 + sum of g^2), as min-char-rnn has it; torch's eps would stand outside the root
        return torch.optim.Adagrad(
            trained, lr=options.rate, weight_decay=options.decay, initial_accumulator_value=1e-8, eps=0.0
        )
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": options.decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    betas = (0.9, 0.99) if options.optimizer == "adamw" else (0.9, 0.999)
    return torch.optim.AdamW(groups, lr=options.rate, betas=betas)
