"""Pictures, their captions, and where the network looked for each word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from elman.look.curves import COLOURS, drawing, tints
from elman.look.page import Section, choice, described, picture
from elman.task.gazes import Gaze, Gazes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 9  # pictures in a row, at most
ALONE = 4  # rooms in a row for a picture by itself
LONGEST = 20  # words of a caption that are drawn
NAME = 70  # characters of a caption in the list
STRONGEST = 0.75  # how much of the tint the greatest weight has: the picture is seen through it


def looks(view: Gaze) -> Figure:
    """The picture; with attention, for each word again in grey, its places tinted by how much they were looked at.

    Errors: ValueError where there is no picture.
    """
    if view.pixels is None:
        raise ValueError(f"{view.name} has features in place of pixels: there is no picture to draw")
    height, width, _ = view.pixels.shape
    looked = () if view.looked is None else view.looked[:LONGEST].numpy()
    with drawing() as make:
        down = -(-(1 + len(looked)) // ACROSS)
        across = -(-(1 + len(looked)) // down) if len(looked) else ALONE
        figure: Figure = make.Figure(figsize=(9, 9 / across * down + 0.25), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for axes in panels:
            axes.set_axis_off()
        panels[0].imshow(view.pixels.numpy())
        for axes, word, weights in zip(panels[1:], view.words, looked):
            axes.imshow(view.pixels.float().mean(-1).numpy(), cmap="gray", vmin=-100, vmax=340)
            axes.imshow(
                weights, cmap=tints(COLOURS[1]), vmin=0, vmax=most(view) / STRONGEST, interpolation="nearest",
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )  # fmt: skip
            axes.set_title(word, fontsize=9, parse_math=False)
        return figure


def most(view: Gaze) -> float:
    """The greatest weight of a place; 1 where nothing is looked at."""
    return 1.0 if view.looked is None or not view.looked.numel() else float(view.looked.max())


def section(view: Gazes) -> Section:
    """Each picture, its caption and those that are right; one is seen at a time."""
    items, figures = {}, {}
    for number, gaze in enumerate(view.shown, 1):
        caption = " ".join(gaze.words)
        rows = [("picture", Path(gaze.name).name), ("caption", caption), *(("reference", text) for text in gaze.right)]
        drawn = ""
        if gaze.pixels is not None:
            figures[f"caption-{number}"] = figure = looks(gaze)
            drawn = picture(figure, said(gaze))
        items[f"{number}: {caption[:NAME]}"] = f"{described(rows)}{drawn}"
    return Section(
        "What it sees, and where", f"<p class='note'>{note(view)}</p>{choice('picture', items)}", {}, figures
    )


def note(view: Gazes) -> str:
    """How many pictures these are, and which come first."""
    of = f", of {view.of:,}, evenly spread" if view.captioned < view.of else ""
    first = ", the least probable of them first" * bool(view.wrong)
    same = "" if view.wrong is None else f"; not word for word as a reference: {view.wrong:,}{first}"
    left_out = f" {view.left_out:,} could not be read and are left out." if view.left_out else ""
    blind = "" if view.shown[0].pixels is not None else " Features stand for pictures: there are none to show."
    return f"{len(view.shown):,} of {view.captioned:,} pictures that were captioned{of}{same}.{left_out}{blind}"


def said(gaze: Gaze) -> str:
    """What a picture shows, in words."""
    told = f"log p of the caption {gaze.log_p:.2f}"
    if gaze.looked is None:
        return f"{Path(gaze.name).name}: {told}."
    cut = f" Drawn: the first {LONGEST} words of {len(gaze.words)}." if len(gaze.words) > LONGEST else ""
    return (
        f"Before each word the network looks at the places of the picture, the more the stronger the tint; the "
        f"strongest is a weight of {most(gaze):.2f} of 1; {told}.{cut}"
    )
