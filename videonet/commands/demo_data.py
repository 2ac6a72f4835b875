"""Write the demo data set: short H.264 videos that only the order of frames can classify."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from videonet.commands.arguments import Words, new_parser
from videonet.terminal import printable, progress_bar

if TYPE_CHECKING:
    from videonet.data.preparing.synthetic import DemoDataset


def parse_arguments(argv: Words = None, prog: str | None = None) -> argparse.Namespace:
    """The arguments of the command, see :func:`main`."""
    parser = new_parser(__doc__, prog)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--train-clips", type=int, default=5000, help="default: %(default)s")
    parser.add_argument("--val-clips", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="default: %(default)s"
    )
    parser.add_argument(
        "--picture", type=Path, help="also draw the first val clip of each class, 8 frames a row"
    )
    return parser.parse_args(argv)


def draw_contact_sheet(dataset: DemoDataset, path: Path, columns: int = 8) -> None:
    """Draw the first clip of every class in the validation set, one row per class.

    Args:
        dataset: the data set as it was written.
        path: PNG file to write.
        columns: frames per clip, evenly over time.
    """
    import numpy as np
    from matplotlib.figure import Figure

    from videonet.data.decode import open_video
    from videonet.figures import save_figure

    figure = Figure(figsize=(1.1 * columns + 1.6, 1.1 * len(dataset.classes)), layout="constrained")
    grid = figure.subplots(len(dataset.classes), columns, squeeze=False)
    for row, name in zip(grid, dataset.classes, strict=True):
        with open_video(dataset.folder / "val" / name / "0000.mp4") as video:
            indices = np.linspace(0, video.info.frames - 1, columns).round().astype(int)
            frames = video.frames_at(indices.tolist())
        for axes, frame in zip(row, frames, strict=True):
            axes.imshow(frame.numpy())
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
    save_figure(figure, path)


def main(argv: Words = None, prog: str | None = None) -> None:
    """Write the data set, and the picture of it.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    arguments = parse_arguments(argv, prog)
    from videonet.data.preparing.synthetic import write_demo_dataset

    with progress_bar(desc="demo clips", unit="clips", delay=0.5) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        dataset = write_demo_dataset(
            arguments.output,
            train_clips=arguments.train_clips,
            val_clips=arguments.val_clips,
            seed=arguments.seed,
            processes=arguments.processes,
            progress=show,
        )
    if dataset.written:
        print(f"{printable(str(dataset.folder))}: wrote {dataset.written} clips")
    else:
        print(f"{printable(str(dataset.folder))}: already complete, left as it is")
    if arguments.picture:
        draw_contact_sheet(dataset, arguments.picture)
        print(f"contact sheet: {printable(str(arguments.picture))}")
