"""How a language model's state moves: what one symbol leaves behind in it, where it goes, and where it would stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.module import FixedPoints, Recurrent, fixed_points
from elman.task.inside import watchable
from elman.task.language import LanguageModel

LED_IN = 64  # symbols read before one is exchanged
FOLLOWED = 256  # steps after it
EXCHANGED = 32  # places at which one is
SMALL = 128  # numbers in a state of which fixed points are looked for
STARTS = 48  # states from which they are


@dataclass(frozen=True)
class Effect:
    """How far apart two readings of a text are, one symbol exchanged, k = 0 to K steps after it: (K + 1,) by state.

    1: as far as the states after two unrelated readings are.
    """

    distances: dict[str, Tensor]
    places: int


@dataclass(frozen=True)
class Space:
    """Where the last layer's state goes: its first part, as h of an LSTM, (N, H), after each of N symbols.

    name: which it is; pieces: the texts of the symbols; fixed: where the whole state would stand still if `input` came
    again and again, the first H numbers of which are those of the same part; None for networks too large to look.
    """

    name: str
    states: Tensor
    pieces: Sequence[str]
    fixed: FixedPoints | None = None
    input: str = ""


@torch.no_grad()
def effect(model: LanguageModel, ids: Tensor) -> Effect | None:
    """Of exchanging one symbol (another of the text's, drawn with a fixed seed) at many places of a text (N,).

    None where the text is too short. The distance of unrelated readings is that of windows to each other, at each step.
    """
    follow = min(FOLLOWED, len(ids) // 2 - LED_IN)
    length = LED_IN + follow + 1
    if follow < 2 or len(set(ids.tolist())) < 2:
        return None
    draw = torch.Generator().manual_seed(0)
    at = torch.randint(len(ids) - length + 1, (EXCHANGED,), generator=draw)
    x = torch.stack([ids[k : k + length] for k in at.tolist()], 1)  # (T, B)
    other = x.clone()
    new = ids[torch.randint(len(ids), (1000, EXCHANGED), generator=draw)]
    differs = (new != x[LED_IN]).int().argmax(0)  # the first of those drawn that is another symbol
    other[LED_IN] = new.gather(0, differs[None])[0]
    names, _ = watchable(model.recurrent)
    model.eval()
    (*_, one), (*_, two) = (model(ids, model.initial(EXCHANGED), watch=names) for ids in (x, other))
    found = {}
    for layer, (a, b) in enumerate(zip(one, two), 1):
        for name in names:
            s = a[name][LED_IN:]
            unrelated = (s - s.roll(1, 1)).norm(dim=-1).mean()
            apart = (s - b[name][LED_IN:]).norm(dim=-1).mean(1)  # (K + 1,)
            found[f"layer {layer} {name}"] = apart / unrelated.clamp(min=1e-30)
    return Effect(found, EXCHANGED)


def space(model: LanguageModel, states: dict[str, Tensor], pieces: Sequence[str], ids: Tensor) -> Space:
    """Of a text (N,) that was read, `states` by name; with fixed points where the network is one small layer.

    These are for the symbol that the text has most often.
    """
    layers = [part for part in model.recurrent.modules() if isinstance(part, Recurrent)]
    last = {name: value for name, value in states.items() if name.startswith(f"layer {len(layers)} ")}
    name, first = next(iter(last.items()))
    values, cell = torch.cat([*last.values()], -1), layers[-1].cell
    if len(layers) > 1 or values.shape[1] > SMALL:
        return Space(name, first, pieces)
    often = int(ids.bincount().argmax())
    x = model.embedded(torch.tensor([often])).detach()[0]
    starts = values[torch.linspace(0, len(values) - 1, min(STARTS, len(values))).long()]
    return Space(name, first, pieces, fixed_points(cell, x, starts), pieces[ids.tolist().index(often)])
