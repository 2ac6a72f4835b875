"""Draw the learning curves of one run, or of several over one another.

%(prog)s runs/demo
%(prog)s runs/seed0 runs/seed1 runs/seed2 --output seeds.png --smoothing 20
"""

from __future__ import annotations

import sys
from pathlib import Path

from videonet.commands.arguments import Words, new_parser
from videonet.errors import DataError
from videonet.terminal import printable


def main(argv: Words = None, prog: str | None = None) -> None:
    """Draw the curves, and print where they are.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders, or their log.jsonl")
    parser.add_argument("--output", type=Path, help="PNG file; default: learning_curve.png or "
                        "comparison.png in the first folder")  # fmt: skip
    parser.add_argument("--smoothing", type=int, default=1, metavar="N",
                        help="mean of N records of the loss, for several runs")  # fmt: skip
    args = parser.parse_args(argv)
    from videonet.engine.metric_logger import read_log
    from videonet.engine.plots import plot_learning_curve, plot_runs

    logs = [run / "log.jsonl" if run.is_dir() else run for run in args.runs]
    for log in logs:
        if not log.is_file():
            raise DataError(f"{log} does not exist: {log.parent} is no folder of a run")
    if len(logs) == 1:
        output = args.output or logs[0].parent / "learning_curve.png"
        plot_learning_curve(read_log(logs[0]), output)
    else:
        output = args.output or logs[0].parent / "comparison.png"
        runs = {name: read_log(log) for name, log in zip(_names(logs), logs, strict=True)}
        plot_runs(runs, output, smoothing=max(args.smoothing, 1))
    sys.stdout.write(printable(str(output)) + "\n")


def _names(logs: list[Path]) -> list[str]:
    """The folders' names, and their paths where two have the same."""
    names = [log.resolve().parent.name for log in logs]
    return [
        name if names.count(name) == 1 else str(log.parent)
        for name, log in zip(names, logs, strict=True)
    ]
