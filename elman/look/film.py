"""One picture whose lines move: on the page by its slider, and as a file that plays by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.look.page import INK, choice, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

EACH = 200  # milliseconds
LAST = 2000  # for the last frame, before it begins anew
COLOURS = 64
MOMENT = "moment"  # the id of the text that names the frame


@dataclass(frozen=True)
class Film:
    """A figure and, by the name of each frame, the values (T,) of those of its lines that move, by their ids: the lines
    that have one (matplotlib's gid)."""

    figure: Figure
    frames: Mapping[str, Mapping[str, Tensor]]

    def __post_init__(self) -> None:
        for line in self.lines:
            line.set_marker("")
        self.figure.text(0.01, 0.99, self.last, va="top", color=INK, gid=MOMENT, parse_math=False)
        self.figure.draw_without_rendering()  # now everything has its place, and keeps it
        self.figure.set_layout_engine("none")

    @property
    def lines(self) -> list[Line2D]:
        return [line for axes in self.figure.axes for line in axes.lines if line.get_gid()]

    @property
    def last(self) -> str:
        """The name of the last frame."""
        return list(self.frames)[-1]

    def at(self, name: str) -> Figure:
        """The figure as it is in a frame."""
        for line in self.lines:
            line.set_ydata(self.frames[name][str(line.get_gid())].numpy())
        for text in self.figure.texts:
            if text.get_gid() == MOMENT:
                text.set_text(name)
        return self.figure

    def html(self, label: str, said: Mapping[str, str], about: str) -> str:
        """The last frame under a slider, with what is said of each; `about` is what the picture shows, in words."""
        svg = picture(self.at(self.last), about)
        return f'<div id="film">{choice(label, said, play=True)}{svg}</div>'

    def data(self) -> dict[str, Any]:
        """The names of the frames, and the lines' paths in each, in the SVG's own units, for the page's script."""
        paths = {line.get_gid(): [self.path(line, name) for name in self.frames] for line in self.lines}
        return {"names": list(self.frames), "paths": paths}

    def path(self, line: Line2D, name: str) -> str:
        """A line in a frame, as SVG has it, in points."""
        x, y = torch.as_tensor(line.get_xdata(orig=False)), self.frames[name][str(line.get_gid())]
        placed = line.get_transform().transform(torch.stack([x, y], 1).numpy()) * 72 / self.figure.dpi
        height, said, letter = self.figure.get_figheight() * 72, [], "M"
        for across, up in placed.tolist():
            if math.isfinite(up):
                said.append(f"{letter}{across:.1f} {height - up:.1f}")
            letter = "L" if math.isfinite(up) else "M"
        return "".join(said)

    def write(self, path: Path) -> Path:
        """An animated GIF, without an end."""
        from PIL import Image

        pictures = []
        for name in self.frames:
            drawn = BytesIO()
            self.at(name).savefig(drawn, format="png", dpi=100)
            pictures.append(Image.open(drawn).convert("RGB").quantize(COLOURS))
        times = [EACH] * (len(pictures) - 1) + [LAST]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0)
        return path
