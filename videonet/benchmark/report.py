"""Numbers of comparisons as tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from videonet.figures import save_figure


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width: the first one left, numbers right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join((line(header), f"| {' | '.join(rule)} |", *map(line, rows)))


def plot_models(results: dict, path: Path) -> None:
    """Bars of speed and of peak memory, one row per mode."""
    modes = results["modes"]
    count = max(len(r["candidates"]) for r in modes.values())
    figure = Figure(figsize=(11, len(modes) * (1.2 + 0.35 * count)), layout="constrained")
    for axes, (mode, result) in zip(
        figure.subplots(len(modes), 2, squeeze=False), modes.items(), strict=True
    ):
        rows = result["candidates"]
        names = [row["candidate"] for row in rows]
        task = result["task"]
        title = f"{mode}: batch {task['batch']} of {task['frames']}×{task['size']}²"
        _bars(axes[0], names, [row["clips_per_second"] for row in rows], "clips/s", "{:.2f}")
        _bars(axes[1], names, [row["memory"] / 1e6 for row in rows], "peak memory (MB)", "{:.0f}")
        axes[0].set_title(f"{title}, {task['device']}", loc="left", fontsize=10)
        axes[1].set_yticklabels([])
    save_figure(figure, path)


def _bars(axes, names: Sequence[str], values: Sequence[float], label: str, form: str) -> None:
    colors = ["tab:gray"] + ["tab:blue"] * (len(names) - 1)  # the first one is the reference
    bars = axes.barh(range(len(names)), values, color=colors)
    axes.bar_label(bars, [form.format(v) for v in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.15)


def plot_scaling(result: dict, path: Path) -> None:
    """Time and peak memory against the multiply-adds of a clip, one line per sweep and model."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    time, memory = figure.subplots(1, 2)
    for name, sweeps in result["candidates"].items():
        for (sweep, points), style in zip(sweeps.items(), ("o-", "s--"), strict=True):
            done = [p for p in points if "seconds" in p]
            work = [p["multiply_adds"] / 1e9 for p in done]
            label = f"{name}, {sweep}"
            (line,) = time.plot(work, [p["seconds"] for p in done], style, label=label)
            memory.plot(
                work, [p["memory"] / 1e6 for p in done], style, label=label, color=line.get_color()
            )
            for point, x in zip(done, work, strict=True):
                time.annotate(
                    f"{point['frames']}×{point['size']}²",
                    (x, point["seconds"]),
                    fontsize=6,
                    xytext=(3, -7),
                    textcoords="offset points",
                )
    time.set(ylabel="seconds per clip")
    memory.set(ylabel="peak memory (MB)")
    for axes in (time, memory):
        axes.set(xlabel="multiply-adds per clip (1e9)", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    save_figure(figure, path)
