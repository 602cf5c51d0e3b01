"""Which labels are taken for which, and where a classifier is most wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman.look.curves import drawing
from elman.look.page import Section, escape, picture
from elman.task.views import Confusion, Mistakes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24  # labels in a table
ACROSS = 8  # pictures in a row


def confused(view: Confusion) -> Section:
    """A table with a row for each right label, shaded by its share; of many labels those with the most mistakes."""
    counts = view.counts
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    shown = sorted(wrong.argsort(descending=True)[:MOST].tolist())
    names = [escape(view.labels[k]) for k in shown]
    rows = []
    for k, name in zip(shown, names):
        share = counts[k] / counts[k].sum().clamp(min=1)
        colours = [f"rgba(var(--{'low' if j == k else 'high'}),{0.7 * float(share[j]):.2f})" for j in shown]
        cells = "".join(
            f"<td class='number' style='background:{colour}'>{int(counts[k, j]) or ''}</td>"
            for j, colour in zip(shown, colours)
        )
        rows.append(f"<tr><th scope='row'>{name}</th>{cells}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    left_out = f" Of {len(view.labels)} labels those with the most mistakes." if len(shown) < len(view.labels) else ""
    note = f"Rows: what is right; columns: what it was taken for; shaded by the share of the row.{left_out}"
    table = f"<table class='matrix'><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return Section("What it takes for what", f"{table}<p class='note'>{note}</p>")


def wrongest(view: Mistakes) -> Section:
    """Pictures with what they were taken for, or a table of names and texts."""
    said = f"{view.count:,} of {view.of:,} are wrong"
    if not view.worst:
        return Section("Where it is wrong", f"<p class='note'>{said}.</p>")
    note = f"{said}; these the network was surest of, the surest first."
    if view.worst[0].pixels is not None:
        figure = pictures(view)
        return Section("Where it is wrong", picture(figure, note), figures={"mistakes": figure})
    rows = "".join(
        f"<tr><td>{escape(m.text or m.name)}</td><td>{escape(m.label)}</td><td>{escape(m.found)}</td>"
        f"<td class='number'>{m.p:.2f}</td></tr>"
        for m in view.worst
    )
    head = "<tr><th>example</th><th>right</th><th>taken for</th><th>p</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return Section("Where it is wrong", f"{table}<p class='note'>{escape(note)}</p>")


def pictures(view: Mistakes) -> Figure:
    """Each picture under what it is and what it was taken for."""
    with drawing() as make:
        down = -(-len(view.worst) // ACROSS)
        figure: Figure = make.Figure(figsize=(9, 1.5 * down), layout="constrained")
        for axes, mistake in zip(figure.subplots(down, ACROSS, squeeze=False).flat, view.worst):
            if mistake.pixels is not None:
                grey = mistake.pixels.shape[-1] == 1
                pixels = mistake.pixels.numpy()
                axes.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None)
            axes.set_title(f"{mistake.label}, not {mistake.found}", fontsize=8, parse_math=False)
        for axes in figure.axes:
            axes.set_axis_off()
        return figure
