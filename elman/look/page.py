"""One page that holds everything: no network, no other file, and nothing in it runs but its own script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from elman.look.film import Film

HERE = Path(__file__).parent
DOTS = 200  # an inch, of what is drawn as points within a picture
INK = "#123457"  # stands for the page's own colour of text


@dataclass(frozen=True)
class Section:
    """A part of the page: what it shows as HTML, data by name for the script's view of that name, and its pictures by
    name, as they are written on request, those that move as films too."""

    title: str
    body: str
    data: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    films: Mapping[str, Film] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A title, rows of name and text about what is shown, and sections; titles and rows are plain text."""

    title: str
    about: Mapping[str, str]
    sections: Sequence[Section]

    @property
    def html(self) -> str:
        """The whole page."""
        return page(self.title, self.about, self.sections)

    @property
    def figures(self) -> dict[str, Figure]:
        """All pictures, by name."""
        return {name: figure for section in self.sections for name, figure in section.figures.items()}

    @property
    def films(self) -> dict[str, Film]:
        """All films, by name."""
        return {name: film for section in self.sections for name, film in section.films.items()}

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        return f'<iframe srcdoc="{escape(self.html)}" width="100%" height="800" style="border:0"></iframe>'


def page(title: str, about: Mapping[str, str], sections: Iterable[Section]) -> str:
    """The whole page as HTML. Titles and `about` are plain text."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = [part for section in sections for part in laid_out(section)]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{allowed}'">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{described(about.items())}
<main>{"".join(parts)}</main>
<script>{script}</script>
</body>
</html>
"""


def laid_out(section: Section) -> Iterable[str]:
    """A section, with its data in blocks that no browser runs."""
    yield f"<section><h2>{escape(section.title)}</h2>{section.body}"
    for name, value in section.data.items():
        yield f'<script type="application/json" id="{name}-data">{as_data(value)}</script>'
    yield "</section>"


def described(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of name and text, both plain, as a list."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows) + "</dl>"


def escape(text: object) -> str:
    return html.escape(str(text))


def as_data(value: Any) -> str:
    """JSON that cannot end the block it stands in, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def choice(label: str, items: Mapping[str, str], play: bool = False) -> str:
    """Several pieces of HTML by name (plain text), of which one is seen at a time: chosen from a list, or, with
    `play`, moved through by a slider and a button that lets them follow each other."""
    parts = "".join(f'<div class="item" hidden>{body}</div>' for body in items.values())
    if play:
        names = escape(json.dumps(list(items)))
        control = (
            f'<button type="button" class="play" aria-pressed="false">play</button> <output></output> '
            f'<label>{escape(label)}<input type="range" min="0" max="{len(items) - 1}" value="0" data-names="{names}">'
            "</label>"  # the output stands outside, or it would be what the label names
        )
    else:
        options = "".join(f'<option value="{k}">{escape(name)}</option>' for k, name in enumerate(items))
        control = f"<label>{escape(label)} <select>{options}</select></label>"
    return f'<div class="choice">{control}{parts}</div>'


def picture(figure: Figure, said: str) -> str:
    """A figure as SVG within the page, in the page's own colours; `said` is what it shows, in words."""
    svg = own_ids(svg_of(figure).replace(INK, "currentColor"))
    head = f'<svg role="img" aria-label="{escape(said)}" '
    return f"<figure>{svg.replace('<svg ', head, 1)}<figcaption>{escape(said)}</figcaption></figure>"


def own_ids(svg: str) -> str:
    """The same with ids that no other picture of the page has: what one refers to may be hidden in another."""
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{mark}-", svg)


def svg_of(figure: Figure) -> str:
    """The SVG of a figure without prolog and metadata; its words are text, in the fonts of the page."""
    from matplotlib import rc_context

    found = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "elman"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page has others
        figure.savefig(found, format="svg", dpi=DOTS, transparent=True, metadata={"Date": None})
    svg = found.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg ") :], flags=re.DOTALL)
