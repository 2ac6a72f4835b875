"""Pieces of a page in HTML that opens without a network; every text in it is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from videonet.terminal import printable_lines

# Nothing is fetched: no script runs, and pictures are inside the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1c2430;
  background: #fff; margin: 0 auto; max-width: 60rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.4rem; padding-top: 0.6rem;
  border-top: 1px solid #dfe4ea; }
p.lead { font-size: 1.1rem; }
p.note, td.note, figcaption { color: #55606e; font-size: 0.9rem; }
img { max-width: 100%; height: auto; }
img.medium { width: 34rem; }
img.small { width: 22rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 0.25rem 0.6rem 0.25rem 0; vertical-align: top; }
th { color: #55606e; font-weight: 600; font-size: 0.85rem; border-bottom: 1px solid #dfe4ea; }
tr + tr td { border-top: 1px solid #eef1f4; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
.track { position: relative; background: #eef1f4; border-radius: 3px; height: 0.9rem;
  min-width: 6rem; }
.range { position: absolute; top: 0; bottom: 0; background: #bcd4ee; border-radius: 3px; }
.value { position: absolute; top: -2px; bottom: -2px; width: 3px; background: #1f5fa8; }
.room { min-width: 4rem; }
.bar { background: #1f5fa8; border-radius: 3px; height: 0.6rem; }
.big { font-size: 3rem; font-weight: 700; line-height: 1; color: #1f5fa8; margin-bottom: 0.6rem; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid #dfe4ea; border-radius: 6px; padding: 0.5rem; }
figure img { display: block; width: 100%; border-radius: 3px; }
.scores { display: grid; grid-template-columns: 7rem 1fr 3rem; gap: 0 0.5rem; align-items: center;
  font-size: 0.9rem; }
.label { background: #fff1cc; padding: 0 0.2rem; border-radius: 3px; }
pre { background: #f4f6f8; padding: 0.7rem; border-radius: 6px; overflow-x: auto;
  font-size: 0.85rem; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details > summary { cursor: pointer; color: #1f5fa8; }
"""


def text(value: object) -> str:
    """A text as HTML shows it, whatever is in it."""
    return html.escape(printable_lines(str(value)))


def page(title: str, sections: Sequence[str]) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A part of a page with a title; nothing without content."""
    content = "\n".join(filter(None, parts))
    return f"<section><h2>{text(title)}</h2>\n{content}</section>" if content else ""


def paragraph(value: object, kind: str = "") -> str:
    """A paragraph of text."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def listing(values: Sequence[object]) -> str:
    """A list of texts; nothing without one."""
    return f"<ul>{''.join(f'<li>{text(v)}</li>' for v in values)}</ul>" if values else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table whose cells are HTML.

    Args:
        head: titles of the columns, as text.
        rows: cells, as HTML.
        numbers: places of the columns that hold numbers.
    """

    def line(row: Sequence[str]) -> str:
        return "".join(
            f'<td class="number">{cell}</td>' if k in numbers else f"<td>{cell}</td>"
            for k, cell in enumerate(row)
        )

    titles = "".join(
        f"<th{' class=number' if k in numbers else ''}>{text(title)}</th>"
        for k, title in enumerate(head)
    )
    body = "".join(f"<tr>{line(row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'


def folded(title: str, content: str) -> str:
    """Content that opens when it is asked for."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def interval(value: float, low: float, high: float) -> str:
    """A mark for a share within its interval, 0 to 1."""
    return (
        f'<div class="track"><div class="range" style="left:{100 * low:.1f}%;'
        f'width:{100 * (high - low):.1f}%"></div>'
        f'<div class="value" style="left:calc({100 * value:.1f}% - 1px)"></div></div>'
    )


def bar(value: float) -> str:
    """A bar of a share, 0 to 1."""
    width = 100 * min(max(value, 0), 1)
    return f'<div class="room"><div class="bar" style="width:{width:.1f}%"></div></div>'


def picture(content: bytes, kind: str, description: str, size: str = "") -> str:
    """A picture inside the page.

    Args:
        content: of its file.
        kind: "png" or "jpeg".
        description: for those who do not see it.
        size: "small" or "medium"; empty for as wide as there is room.
    """
    data = base64.b64encode(content).decode("ascii")
    width = f' class="{size}"' if size else ""
    return f'<img{width} alt="{text(description)}" src="data:image/{kind};base64,{data}">'


def picture_file(path: Path, description: str, size: str = "") -> str:
    """The picture of a PNG file; nothing where it is not there."""
    return picture(path.read_bytes(), "png", description, size) if path.is_file() else ""


def code(lines: Sequence[str]) -> str:
    """Lines to be copied."""
    return f"<pre><code>{text(chr(10).join(lines))}</code></pre>"
