"""Optimisers of torch, by name, and which parameter decays by how much."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import nn

from elman.errors import OptionError
from elman.task.options import TrainOptions, parse_rules

ADAM = ("step", "exp_avg", "exp_avg_sq")
MEMORY = {
    "adamw": ADAM, "adam": ADAM, "adagrad": ("step", "sum"), "sgd": (), "rmsprop": ("step", "square_avg"),
}  # fmt: skip
SHOWN = 8  # parameters that an error names


def memory(options: TrainOptions) -> tuple[str, ...]:
    """What the optimiser keeps for each parameter, by its own names."""
    return MEMORY[options.optimizer] + (("momentum_buffer",) if options.momentum else ())


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser that the options name. Errors: OptionError where a rule of decay means no parameter.

    Parameters that need no gradient are not its own: they stay as they are.
    """
    o, groups = options, decaying(model, options)
    if o.optimizer == "adagrad":
        # g / sqrt(1e-8 + sum of g^2), as min-char-rnn has it; torch's eps would stand outside the root
        return torch.optim.Adagrad(groups, lr=o.rate, initial_accumulator_value=1e-8, eps=0.0)
    if o.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=o.rate, momentum=o.momentum)
    if o.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=o.rate, momentum=o.momentum)
    betas = (0.9, 0.99) if o.optimizer == "adamw" else (0.9, 0.999)
    return torch.optim.AdamW(groups, lr=o.rate, betas=betas, fused=True)  # one pass over memory


def decaying(model: nn.Module, options: TrainOptions) -> list[dict[str, object]]:
    """The parameters in groups of one decay each, matrices first.

    The last rule whose pattern fits a parameter's name says its decay; without one, --decay, and 0 for vectors: biases
    and initial states. Errors: OptionError naming a pattern that fits no parameter.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rules = parse_rules(options.decay_rules)
    for pattern, _ in rules:
        if not any(fnmatchcase(name, pattern) for name in trained):
            names = ", ".join([*trained][:SHOWN]) + (", ..." if len(trained) > SHOWN else "")
            raise OptionError(
                f"--decay-rules {' '.join(options.decay_rules)}: {pattern} fits no parameter; there are {names}"
            )
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in sorted(trained.items(), key=lambda item: item[1].dim() <= 1):
        decay = options.decay if parameter.dim() > 1 else 0.0
        for pattern, given in rules:
            decay = given if fnmatchcase(name, pattern) else decay
        groups.setdefault(decay, []).append(parameter)
    return [{"params": members, "weight_decay": decay} for decay, members in groups.items()]
