"""Recordings as spectrograms, above p of each symbol over the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman.look.curves import COLOURS, drawing
from elman.look.page import INK, Section, choice, described, escape, picture
from elman.task.spikes import Heard, Spike, Spikes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 6.0  # seconds that are drawn
HOP = 0.01  # seconds of a frame
LEVELS = (1.03, 1.14, 1.25)  # heights at which names of symbols stand, so that neighbours do not touch


def spectrogram(view: Heard) -> Figure:
    """The frames over time, and beneath them p of each symbol that was heard, and of none of them (grey)."""
    frames, p = view.frames[: round(LONGEST / HOP)], view.p[: round(LONGEST / view.seconds)]
    end, D = len(frames) * HOP, frames.shape[1]
    colours = {symbol: COLOURS[k % len(COLOURS)] for k, symbol in enumerate(view.symbols)}
    times = [(t + 0.5) * view.seconds for t in range(len(p))]
    shown = [spike for spike in view.spikes if at(spike) < end]
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.2, 1))
        above.imshow(frames.T.numpy(), origin="lower", aspect="auto", cmap="magma", extent=(0, end, 0, D))
        above.set_ylabel(view.row)
        above.grid(False)
        below.fill_between(times, p[:, -1].numpy(), color=INK, alpha=0.15, lw=0)
        for colour, track in zip(colours.values(), p.T.numpy()):
            below.plot(times, track, color=colour, lw=1.2)
        for spike, height in zip(shown, heights([at(spike) for spike in shown], 0.015 * end)):
            colour = colours[spike.symbol]
            below.text(at(spike), height, bare(spike), color=colour, ha="center", fontsize=9, parse_math=False)
        below.set(ylim=(0, 1.35), yticks=(0, 0.5, 1), ylabel="p", xlabel="seconds", xlim=(0, end))
        return figure


def at(spike: Spike) -> float:
    """Its middle, in seconds."""
    return (spike.start + spike.end) / 2


def bare(spike: Spike) -> str:
    """Its symbol as people read it."""
    return spike.symbol.strip() or "␣"


def heights(times: list[float], room: float) -> list[float]:
    """For the name at each of these times the lowest height at which it touches none before it; it takes `room`."""
    ends, found = [-1.0] * len(LEVELS), []
    for time in times:
        free = [k for k, end in enumerate(ends) if time - end >= room]
        k = free[0] if free else ends.index(min(ends))
        ends[k] = time
        found.append(LEVELS[k])
    return found


def section(view: Spikes) -> Section:
    """Each recording, what was said and what was heard; one is seen at a time."""
    items, figures = {}, {}
    for number, heard in enumerate(view.shown, 1):
        figures[f"spikes-{number}"] = figure = spectrogram(heard)
        rows = {"recording": heard.name} | ({} if heard.said is None else {"said": heard.said}) | {"heard": heard.heard}
        if heard.rates is not None:
            rows["wrong"] = "{:.0%} of words, {:.0%} of characters".format(*heard.rates)
        items[f"{number}: {heard.heard[:60]}"] = f"{described(rows.items())}{picture(figure, said(heard))}"
    return Section(
        "What it hears, and when", f"<p class='note'>{note(view)}</p>{choice('recording', items)}", {}, figures
    )


def note(view: Spikes) -> str:
    """How many recordings these are, and what is drawn."""
    of = f", of {view.of:,}, evenly spread" if view.listened < view.of else ""
    wrong = (
        "" if view.wrong is None else f"; {view.wrong:,} were heard wrong{', the worst come first' * bool(view.wrong)}"
    )
    left_out = f" Left out: {escape(view.left_out)}." if view.left_out else ""
    return (
        f"{len(view.shown):,} of {view.listened:,} recordings that were listened to{of}{wrong}. Beneath the sound: how "
        "probable each symbol is in each moment, named where it is heard; grey: none of them (the blank of CTC)."
        f"{left_out}"
    )


def said(heard: Heard) -> str:
    """What a picture shows, in words."""
    seconds = len(heard.frames) * HOP
    heads = ", ".join(f"{bare(s)} at {s.start:.2f}" for s in heard.spikes if s.start < LONGEST)
    cut = f" Drawn: the first {LONGEST:g} seconds of {seconds:.1f}." if seconds > LONGEST else ""
    return f"Heard, in seconds: {heads or 'nothing'}.{cut}"
