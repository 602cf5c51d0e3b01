"""Several language models as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elman.task.language import LanguageModel, Predictor


class Ensemble(Predictor):
    """Language models side by side, each with weights and dropout of its own: p is the mean of theirs.

    None learns from another: the loss in training is the mean of theirs, so each has its own gradient over their
    number, which the clipping sees and sgd, and adam does not. Shapes: as LanguageModel's; the state
    is that of the first member's layers, then of the second's, and so on.
    Source: Hansen, Salamon (1990), "Neural network ensembles".
    """

    def __init__(self, members: Sequence[LanguageModel]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(members)

    @property
    def members(self) -> list[LanguageModel]:
        """The models, the first of which is the one to look into."""
        return list(self.parts)  # type: ignore[arg-type]

    def forward(self, ids: Tensor, state: Any = None, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        made = [member(ids, own, reset) for member, own in self._each(state)]
        log_p = torch.stack([logits.log_softmax(-1) for logits, _ in made])
        return log_p.logsumexp(0) - math.log(len(made)), joined(new for _, new in made)

    def losses(self, x: Tensor, y: Tensor, state: Any, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """-log p of every target, in nats, (T*B,), and the state; in training the mean of the members' own."""
        made = [member.losses(x, y, own, reset) for member, own in self._each(state)]
        found = torch.stack([losses for losses, _ in made])
        mean = found.mean(0) if self.training else math.log(len(made)) - (-found).logsumexp(0)
        return mean, joined(new for _, new in made)

    def initial(self, batch_size: int) -> Any:
        return joined(member.initial(batch_size) for member in self.members)

    def _each(self, state: Any) -> list[tuple[Any, Any]]:
        """The members, each with its own part of the state."""
        count = len(self.members)
        size = 0 if state is None else len(state) // count
        return [(m, None if state is None else state[i * size :][:size]) for i, m in enumerate(self.members)]


def joined(states: Any) -> Any:
    """One state of those of all members."""
    return tuple(layer for state in states for layer in state)
