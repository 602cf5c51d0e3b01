"""One page that holds everything: no network, no other file, and nothing in it runs but its own script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
INK = "#123457"  # stands for the page's own colour of text


@dataclass(frozen=True)
class Section:
    """A part of the page: what it shows as HTML, and data by name for the script's view of that name."""

    title: str
    body: str
    data: Mapping[str, Any] = field(default_factory=dict)


def page(title: str, about: Mapping[str, str], sections: Iterable[Section]) -> str:
    """The whole page as HTML. Titles and `about` are plain text."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in about.items())
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
<dl>{rows}</dl>
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


def escape(text: object) -> str:
    return html.escape(str(text))


def as_data(value: Any) -> str:
    """JSON that cannot end the block it stands in, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def picture(figure: Figure, said: str) -> str:
    """A figure as SVG within the page, in the page's own colours; `said` is what it shows, in words."""
    svg = svg_of(figure)
    svg = svg.replace(INK, "currentColor")
    head = f'<svg role="img" aria-label="{escape(said)}" '
    return f"<figure>{svg.replace('<svg ', head, 1)}<figcaption>{escape(said)}</figcaption></figure>"


def svg_of(figure: Figure) -> str:
    """The SVG of a figure without prolog and metadata; its words are text, in the fonts of the page."""
    from matplotlib import rc_context

    found = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "elman"}):
        figure.savefig(found, format="svg", transparent=True, metadata={"Date": None})
    svg = found.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg ") :], flags=re.DOTALL)
