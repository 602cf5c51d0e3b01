"""How far the gates of a network stand open, and for how long its units keep what they hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elman.look.curves import COLOURS, drawing, plain
from elman.look.page import Section, picture
from elman.task.inside import Reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHUT, OPEN = 0.1, 0.9
BINS = 40
LONGEST = 1e4  # steps, the longest time constant that is told apart


def gates(reading: Reading) -> Figure:
    """A histogram of each gate's values over units and steps, a row a layer, with the shares of open and shut."""
    found = {name: value for name, value in reading.gates.items() if name.endswith("_gate")}
    layers = [*dict.fromkeys(layer_of(name) for name in found)]
    kinds = [*dict.fromkeys(name.split()[-1] for name in found)]
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 0.5 + 1.7 * len(layers)), layout="constrained")
        for row, layer in zip(figure.subplots(len(layers), len(kinds), squeeze=False, sharex=True), layers):
            for axes, kind in zip(row, kinds):
                value = found[f"{layer} {kind}"]
                shares = value.histc(BINS, 0, 1) / value.numel()
                axes.stairs(shares.tolist(), torch.linspace(0, 1, BINS + 1).tolist(), fill=True, color=COLOURS[0])
                shut, wide = ((value < SHUT).float().mean(), (value > OPEN).float().mean())
                axes.set_title(f"{layer}, {kind.replace('_', ' ')}\nshut {shut:.0%}, open {wide:.0%}", fontsize=8)
                axes.set_yticks([])
                axes.set_xlim(0, 1)
        return figure


def time_constants(reading: Reading) -> dict[str, Tensor]:
    """Steps in which what a unit holds falls to 1/e, by the mean of what it keeps at each step, (H,) by layer.

    -1 / ln(mean f), f the forget gate, or the update gate's share of the state before.
    """
    found = {}
    for layer in dict.fromkeys(layer_of(name) for name in reading.gates):
        if (share := kept(reading, layer)) is not None:
            fall = -share.mean(0).double().clamp(max=1).log()
            found[layer] = 1 / fall.clamp(min=1 / LONGEST)
    return found


def kept(reading: Reading, layer: str) -> Tensor | None:
    """How much of its state each unit keeps at each step, (M, H); None where no gate says so.

    An update gate may mean what is kept or what is new: whichever way round the states come out.
    """
    gates, states = reading.gates, reading.states
    if (forget := gates.get(f"{layer} forget_gate")) is not None:
        return forget
    z, new, h = gates.get(f"{layer} update_gate"), gates.get(f"{layer} candidate"), states.get(f"{layer} h")
    if z is None or new is None or h is None or len(z) < 2:
        return None
    h = h[reading.start :][: len(z)]
    before, after = h[:-1], h[1:]
    for share in (z[1:], 1 - z[1:]):
        if torch.allclose(share * before + (1 - share) * new[1:], after, atol=1e-4):
            return share
    return None


def layer_of(name: str) -> str:
    """ "layer 1" of "layer 1 forget_gate"."""
    return name.rpartition(" ")[0]


def constants(found: dict[str, Tensor]) -> Figure:
    """How many units of each layer have which time constant, on a log scale."""
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 2.6), layout="constrained")
        axes = figure.subplots()
        low = min(float(value.min()) for value in found.values())
        edges = torch.logspace(math.log10(low), math.log10(LONGEST), BINS + 1).tolist()
        axes.hist(
            [value.tolist() for value in found.values()], edges, label=[*found], stacked=True, histtype="stepfilled"
        )
        axes.set(xscale="log", xlabel="time constant, steps", ylabel="units")
        plain(axes.xaxis)
        axes.legend()
        return figure


def section(reading: Reading) -> Section:
    """Both pictures; the second where a gate says what is kept."""
    steps = len(next(iter(reading.gates.values())))
    figures = {"gates": gates(reading)}
    body = picture(
        figures["gates"],
        f"The values of each gate, over all units and {steps:,} steps: shut is below {SHUT}, open above {OPEN}.",
    )
    if found := time_constants(reading):
        figures["time-constants"] = constants(found)
        said = ", ".join(
            f"{name}: half of the units below {value.median():.1f} steps, the longest {value.max():,.0f}"
            for name, value in found.items()
        )
        body += picture(
            figures["time-constants"],
            f"The time constants of the units, -1 / ln(mean of what is kept at each step): {said}.",
        )
    return Section("Its gates", body, figures=figures)
