"""What each piece of a translation looks at in its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman.look.curves import COLOURS, drawing, tints
from elman.look.page import Section, choice, described, picture
from elman.task.alignment import Alignments, Translation, bare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 60  # pieces of a side that are drawn
ACROSS = 90  # characters that have room above the picture, side by side
NAME = 70  # characters of a source in the list


def heat(made: Translation) -> Figure:
    """How much each piece of the translation (row) looks at each of the source (column)."""
    source, target = ([bare(piece) for piece in side[:LONGEST]] for side in (made.source, made.target))
    T, S = len(target), len(source)
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 1.2 + 0.19 * T), layout="constrained")
        axes = figure.subplots()
        weights, colours = made.attention[:T, :S].numpy(), tints(COLOURS[0])
        shown = axes.imshow(weights, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        small = 8 if max(S, T) <= 40 else 6
        upright = S * max(map(len, source)) > ACROSS
        axes.set_xticks(range(S), source, fontsize=small, parse_math=False, rotation=90 if upright else 0)
        axes.set_yticks(range(T), target, fontsize=small, parse_math=False)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=2)
        axes.grid(False)
        figure.colorbar(shown, ax=axes, pad=0.01, aspect=12, ticks=(0, 0.5, 1)).outline.set_visible(False)
        return figure


def section(view: Alignments) -> Section:
    """Each source, its translation and what would be right, above what is looked at; one is seen at a time."""
    items, figures = {}, {}
    for number, (source, made, right) in enumerate(zip(view.sources, view.made, view.right), 1):
        rows = {"source": source, "translation": made.text} | ({} if right is None else {"reference": right})
        drawn = ""
        if made.source and made.target:
            figures[f"alignment-{number}"] = figure = heat(made)
            drawn = picture(figure, said(made))
        items[f"{number}: {source[:NAME]}"] = f"{described(rows.items())}{drawn}"
    few = f"{len(view.made):,} of {view.of:,}, evenly spread" if len(view.made) < view.of else f"All {view.of:,}"
    how = "Before each piece the network weighs those of the source: the stronger the colour, the more."
    note = f"<p class='note'>{few}. {how}</p>"
    return Section("What it looks at while it translates", note + choice("source", items), figures=figures)


def said(made: Translation) -> str:
    """What the picture shows, in words: the strongest pairs, and what is left out of it."""
    pairs = ", ".join(f"{bare(t)} at {bare(made.source[s])}" for t, s in zip(made.target[:LONGEST], made.attended))
    T, S = len(made.target), len(made.source)
    cut = f" Drawn: the first {LONGEST} pieces of {S} by {T}." if max(T, S) > LONGEST else ""
    return f"Looked at most: {pairs}; log p {made.log_p:.2f}.{cut}"
