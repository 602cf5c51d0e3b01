"""A text as a language model reads it: each symbol tinted by a unit, units found that track what a reader knows."""

from __future__ import annotations

import base64
import math
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from elman.look.page import Section, escape
from elman.look.probes import Probe, Tracking, probes, tracked
from elman.task.inside import Read

SHOWN = 2500  # symbols on the page
TRACKS = 1000  # units on the page, each a byte a symbol
WEAK = 0.3  # strength, from 0 to 1: what a unit below it shows is no tracking


def found_in(view: Read) -> list[Tracking]:
    """The units that track best what there is to know of the text."""
    ends = [max(0, end - 1) for end in accumulate(map(len, view.pieces))]
    text = "".join(view.pieces)
    known = [Probe(p.name, p.values[ends], p.binary) for p in probes(text)] if text else []
    return tracked(known, view.reading.states)


def section(view: Read) -> Section:
    """The text with its controls, and the table of units."""
    found, r = found_in(view), view.reading
    values = r.states | r.gates
    part = slice(r.start, r.start + SHOWN)
    shown = len(view.pieces[part])
    kept = units_kept(view, found)
    cut = {name: value[part] for name, value in r.states.items()} | {k: v[:shown] for k, v in r.gates.items()}
    tracks = {name: {str(unit): packed(cut[name][:, unit]) for unit in units} for name, units in kept.items()}
    data = {
        "pieces": view.pieces[part],
        "surprise": [None if math.isnan(v) else round(v, 2) for v in r.surprise[part].tolist()],
        "expected": view.expected[part],
        "p": [[round(p, 3) for p in row] for row in r.p[part].tolist()],
        "tracks": tracks,
    }
    H = next(iter(values.values())).shape[1]
    note = (
        f"Symbols {r.start + 1:,} to {r.start + shown:,} of the {len(view.pieces):,} that were read, where "
        f"many kinds are frequent; of {H:,} units in each of "
        f"{len(values)} states and gates those that track something, and those that vary most: "
        f"{sum(map(len, kept.values())):,} in all. Orange is above a unit's mean, blue below. "
        "Move over the text, or go through it with the arrow keys."
    )
    body = f"""{table(found)}
<p><label>tint by <select id="values"></select></label> <label>unit <select id="unit"></select></label></p>
<pre id="reading" class="tall" tabindex="0" aria-label="the text, read symbol by symbol"></pre>
<p id="expected" role="status" class="note"></p><p class="note">{escape(note)}</p>"""
    return Section("What it remembers while it reads", body, {"reading": data})


def table(found: list[Tracking]) -> str:
    """The units that were found, each with its evidence."""
    if not found:
        return '<p class="note">The text is too short, or too uniform, to look for units.</p>'
    rows = "".join(
        f"<tr><td>{escape(t.probe)}</td><td><button data-values='{escape(t.values)}' data-unit='{t.unit}' "
        f"aria-pressed='false'>{escape(t.values)}, unit {t.unit}</button></td><td class='number'>{t.score:.3f}</td>"
        f"<td><span class='bar' style='width:{80 * max(0.0, t.strength):.0f}px'></span></td>"
        f"<td>{'high' if t.sign > 0 else 'low'}{' there' if t.binary else ' where it is large'}</td></tr>"
        for t in found
        if t.strength >= WEAK
    )
    weak = ", ".join(t.probe for t in found if t.strength < WEAK)
    missed = f"<p class='note'>No unit tracks: {escape(weak)}.</p>" if weak else ""
    head = "<tr><th>what</th><th>tracked by</th><th>held-out score</th><th></th><th></th></tr>"
    return (
        f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
        "<p class='note'>Found on the first half of what was read, scored on the second: area under the ROC curve "
        f"(0.5 a guess, 1 perfect), for numbers the rank correlation.</p>{missed}"
    )


def units_kept(view: Read, found: list[Tracking]) -> dict[str, list[int]]:
    """Which units stand on the page: those that were found, then in each state and gate those that vary most."""
    values = view.reading.states | view.reading.gates
    each = max(1, TRACKS // len(values))
    kept = {}
    for name, value in values.items():
        first = [t.unit for t in found if t.values == name]
        most = value.var(0).argsort(descending=True).tolist()
        kept[name] = sorted(dict.fromkeys([*first, *most[:each]]))
    return kept


def packed(track: Tensor) -> str:
    """A unit's values about their mean, as signed bytes in base64, the farthest at 127."""
    centred = track - track.mean()
    scale = float(centred.abs().max()) or 1.0
    whole: Any = (centred / scale * 127).round().to(torch.int8).numpy()
    return base64.b64encode(whole.tobytes()).decode()
