"""Writing matplotlib's figures, whose texts are names of files and classes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text

from videonet.files import replacing
from videonet.terminal import printable_lines


def save_figure(figure: Figure, path: Path, *, dpi: int = 120) -> None:
    """Write a figure to a file. A ``$`` in a name is a dollar, not the start of a formula.

    Raises:
        WriteError: it cannot be written.
    """
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    powers = {text for axis in axes if axis.get_scale() == "log" for text in axis.findobj(Text)}
    for text in figure.findobj(Text):
        if text not in powers:
            text.set_parse_math(False)
            text.set_text(printable_lines(text.get_text()))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=path.suffix[1:] or "png")
