"""Check, prepare and look at a data set, or at one file.

%(prog)s verify --cfg K400/MVITv2_B.yaml DATA.PATH_TO_DATA_DIR /data/k400
%(prog)s prepare --cfg … --output /data/k400_small --short-side 320 --gop 16
%(prog)s shard --cfg … --output /data/k400_shards
%(prog)s index /data/others/*.tar
%(prog)s duplicates features/train features/val --output pairs.csv
%(prog)s show --cfg … --output sheets --class abseiling --class 17
%(prog)s inspect clip.mp4 --sheet clip.png --times
%(prog)s browse --cfg … --split val --predictions runs/mine/predictions.csv

The exit code of verify, prepare, shard and inspect is 0 where all videos could be read, 3 where
some could not, 1 where none could; that of duplicates is 3 where it finds some.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from videonet.choices import FRAMES_FPS, SPLITS
from videonet.commands.arguments import Words, new_parser, parse
from videonet.config.command_line import OVERRIDES_HELP
from videonet.errors import PARTIAL, ConfigError, exit_code
from videonet.terminal import printable

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from videonet.data.datasets.lists import VideoList
    from videonet.serving.browsing import Browser

    Run = Callable[[argparse.Namespace], int]
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]  # of add_subparsers


def main(argv: Words = None, prog: str | None = None) -> int:
    """Check, prepare, show or inspect videos.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Returns:
        The exit code, as the help says.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_verify(commands)
    _add_prepare(commands)
    _add_shard(commands)
    _add_index(commands)
    _add_duplicates(commands)
    _add_show(commands)
    _add_inspect(commands)
    _add_browse(commands)
    args = parse(parser, argv)
    from videonet.terminal import start_logging

    start_logging()
    return args.run(args)


def _add(
    commands: Subcommands, name: str, run: Run, text: str, *, parallel: bool
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=OVERRIDES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("--cfg", required=True, help="a YAML file, on disk or shipped by name")
    if parallel:
        command.add_argument(
            "--split", action="append", choices=SPLITS, help="may be repeated (default train, val)"
        )
        command.add_argument(
            "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: cores)"
        )
        command.add_argument(
            "--timeout", type=float, default=600.0, help="seconds for one video (default 600)"
        )
    return command


def _add_verify(commands: Subcommands) -> None:
    text = "read every video to its end and write what is in it beside the list"
    command = _add(commands, "verify", run_verify, text, parallel=True)
    command.add_argument("--fresh", action="store_true", help="read again what is known already")


def _add_prepare(commands: Subcommands) -> None:
    text = "write the videos again, small and with many key frames, and lists of them"
    command = _add(commands, "prepare", run_prepare, text, parallel=True)
    command.add_argument("--output", type=Path, required=True, help="folder of the new data set")
    command.add_argument(
        "--overwrite", action="store_true", help="write again what was made otherwise"
    )
    command.add_argument("--short-side", type=int, default=320, help="in pixels (default 320)")
    command.add_argument("--gop", type=int, default=16, help="frames per key frame (default 16)")
    command.add_argument("--crf", type=int, default=23, help="quality of x264 (default 23)")


def _add_shard(commands: Subcommands) -> None:
    text = "write the videos into tar files as WebDataset has them, with indexes and lists of them"
    command = _add(commands, "shard", run_shard, text, parallel=True)
    command.add_argument("--output", type=Path, required=True, help="folder of the new data set")
    command.add_argument("--overwrite", action="store_true", help="replace the shards of a split")
    command.add_argument(
        "--megabytes", type=float, default=512.0, help="of a tar file (default 512)"
    )
    command.add_argument(
        "--short-side", type=int, default=0,
        help="write the videos again, as prepare does (default: the bytes of their files)",
    )  # fmt: skip
    command.add_argument("--gop", type=int, default=16, help="with --short-side (default 16)")
    command.add_argument("--crf", type=int, default=23, help="with --short-side (default 23)")


def _add_index(commands: Subcommands) -> None:
    text = "write the indexes of tar files that something else has written"
    command = commands.add_parser("index", help=text, description=text)
    command.set_defaults(run=run_index, takes_overrides=False)
    command.add_argument("shards", nargs="+", metavar="TAR")


def _add_duplicates(commands: Subcommands) -> None:
    text = "name videos that show the same thing, in one collection or between two"
    command = commands.add_parser("duplicates", help=text, description=text)
    command.set_defaults(run=run_duplicates, takes_overrides=False)
    command.add_argument(
        "features", nargs="+", type=Path, metavar="FOLDER",
        help="one or two folders of videonet features (or index), as of train and val",
    )  # fmt: skip
    command.add_argument("--output", type=Path, help="a CSV table of the pairs")
    command.add_argument(
        "--threshold", type=float, default=0.95, help="least cosine of embeddings (default 0.95)"
    )
    command.add_argument(
        "--difference", type=float, default=4.0,
        help="largest mean difference of pixels, 0 to 255 (default 4); -1: do not look at pixels",
    )  # fmt: skip


def _add_show(commands: Subcommands) -> None:
    text = "draw what the loader delivers, one picture per class"
    command = _add(commands, "show", run_show, text, parallel=False)
    command.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    command.add_argument(
        "--class", dest="classes", action="append", default=[], metavar="CLASS",
        help="name or number, may be repeated (default: all)",
    )  # fmt: skip
    command.add_argument("--videos", type=int, default=4, help="videos per class (default 4)")
    command.add_argument("--epoch", type=int, default=0, help="whose draws (default 0)")


def _add_inspect(commands: Subcommands) -> None:
    text = "say what is in video files, what is read of them, and why"
    command = commands.add_parser("inspect", help=text, description=text)
    command.set_defaults(run=run_inspect, takes_overrides=False)
    command.add_argument("files", nargs="+", metavar="FILE", help="or a folder of pictures")
    command.add_argument("--sheet", type=Path, help="draw frames to this picture (of one file)")
    command.add_argument("--times", action="store_true", help="list the time of every frame")
    command.add_argument(
        "--frames-fps", type=float, default=FRAMES_FPS, help="rate of pictures (default 30)"
    )


def _add_browse(commands: Subcommands) -> None:
    from videonet.commands.serve import add_server_arguments

    text = "a page of the clips: worst losses, suspected labels, duplicates"
    command = _add(commands, "browse", run_browse, text, parallel=False)
    command.add_argument("--split", choices=SPLITS, default="train", help="(default train)")
    command.add_argument(
        "--predictions", type=Path, help="predictions.csv or scores.csv of a test of these clips"
    )
    command.add_argument(
        "--checkpoint", action="append", default=[], metavar="[NAME=]CHECKPOINT",
        help="a model; without --predictions it scores the clips while the page is open",
    )  # fmt: skip
    command.add_argument(
        "--anywhere", action="store_true", help="show files outside the list's folder too"
    )
    add_server_arguments(command)


def run_browse(args: argparse.Namespace) -> int:
    """Show the clips of a list on a page until a signal stops it.

    Args:
        args: of the command line.

    Returns:
        The exit code.
    """
    from videonet.commands.serve import run_server
    from videonet.config.loading import load_config
    from videonet.data.datasets.classes import label_names
    from videonet.data.loading.build import read_videos

    def browser() -> Browser:
        from videonet.serving.browsing import Browser

        cfg = load_config(args.cfg, args.overrides)
        videos, names = read_videos(cfg, args.split), label_names(cfg, args.split)
        return Browser(videos, names, args.predictions, anywhere=args.anywhere)

    run_server(argparse.Namespace(**vars(args) | {"browser": browser, "overrides": []}))
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Say what is in files.

    Args:
        args: of the command line.

    Returns:
        The exit code, as the help says.
    """
    if args.sheet and len(args.files) > 1:
        raise ConfigError(f"--sheet draws one file, but {len(args.files)} are given")
    from videonet.data.preparing.inspection import inspect, write_frame_sheet

    bad = 0
    for file in args.files:
        found = inspect(file, args.frames_fps)
        bad += bool(found.reason)
        print(found.text())
        if args.times:
            print("\n".join(f"{k:>8} {time:12.6f}" for k, time in enumerate(found.times)))
        if args.sheet and len(found.times):
            count = write_frame_sheet(found, args.sheet, args.frames_fps)
            print(f"{printable(str(args.sheet))}: {count} frames")
    return exit_code(bad, len(args.files))


def run_verify(args: argparse.Namespace) -> int:
    """Read every video of lists.

    Args:
        args: of the command line.

    Returns:
        The exit code, as the help says.
    """
    from videonet.config.loading import load_config
    from videonet.data.loading.build import read_videos
    from videonet.data.preparing.verify import verify

    cfg = load_config(args.cfg, args.overrides)
    bad = total = 0
    for split in args.split or SPLITS[:2]:
        videos = read_videos(cfg, split)
        path, mark, rows = verify(
            videos,
            workers=args.workers,
            timeout=args.timeout,
            frames_fps=cfg.DATA.FRAMES_FPS,
            fresh=args.fresh,
        )
        unreadable = [row for row in rows if row["reason"]]
        bad, total = bad + len(unreadable), total + len(rows)
        for row in unreadable:
            print(printable(f"{row['path']}: {row['reason']}"))
        print(
            f"{printable(str(path))}: {len(rows)} videos, {len(unreadable)} unreadable, "
            f"data set {mark}"
        )
    return exit_code(bad, total)


def run_prepare(args: argparse.Namespace) -> int:
    """Write the videos of lists again.

    Args:
        args: of the command line.

    Returns:
        The exit code, as the help says.
    """
    from videonet.config.loading import load_config
    from videonet.data.preparing.prepare import Encoder, prepare

    cfg = load_config(args.cfg, args.overrides)
    encode = Encoder(args.short_side, args.gop, args.crf, cfg.DATA.FRAMES_FPS)

    def write(split: str, videos: VideoList) -> tuple[Path, dict[str, str]]:
        return prepare(
            videos,
            args.output,
            f"{split}.csv",
            encode,
            workers=args.workers,
            timeout=args.timeout,
            overwrite=args.overwrite,
        )

    return _write_splits(args, cfg, write)


def run_shard(args: argparse.Namespace) -> int:
    """Write the videos of lists into tar files.

    Args:
        args: of the command line.

    Returns:
        The exit code, as the help says.
    """
    from videonet.config.loading import load_config
    from videonet.data.datasets.classes import class_names
    from videonet.data.datasets.form import tells_names
    from videonet.data.preparing.prepare import Encoder
    from videonet.data.preparing.shard import write_shards

    if args.megabytes <= 0:
        raise ConfigError(f"--megabytes is {args.megabytes:g}, expected more than 0")
    cfg = load_config(args.cfg, args.overrides)
    names = class_names(cfg)
    encode = None
    if args.short_side:
        encode = Encoder(args.short_side, args.gop, args.crf, cfg.DATA.FRAMES_FPS)

    def write(split: str, videos: VideoList) -> tuple[Path, dict[str, str]]:
        return write_shards(
            videos,
            args.output,
            split,
            names=names if tells_names(names) else (),
            most_bytes=int(args.megabytes * 1e6),
            encode=encode,
            workers=args.workers,
            timeout=args.timeout,
            overwrite=args.overwrite,
        )

    return _write_splits(args, cfg, write)


def _write_splits(
    args: argparse.Namespace,
    cfg: CfgNode,
    write: Callable[[str, VideoList], tuple[Path, dict[str, str]]],
) -> int:
    """Write the splits that are asked for, and say which videos could not be read; exit code."""
    from videonet.data.loading.build import read_videos

    bad = total = 0
    for split in args.split or SPLITS[:2]:
        videos = read_videos(cfg, split)
        path, failed = write(split, videos)
        bad, total = bad + len(failed), total + len(videos)
        for reason in failed.values():
            print(printable(reason))
        written = len(videos) - len(failed)
        print(f"{printable(str(path))}: {written} videos, {len(failed)} could not be read")
    return exit_code(bad, total)


def run_index(args: argparse.Namespace) -> int:
    """Write the indexes of tar files.

    Args:
        args: of the command line.

    Returns:
        The exit code.
    """
    from videonet.data.datasets.shards import scan, write_index

    for shard in args.shards:
        index = scan(shard, checksums=True)
        path = write_index(shard, index)
        print(f"{printable(str(path))}: {len(index.videos)} videos")
    return 0


def run_duplicates(args: argparse.Namespace) -> int:
    """Name the videos that are alike.

    Args:
        args: of the command line.

    Returns:
        The exit code, as the help says.
    """
    if len(args.features) > 2:
        raise ConfigError(f"{len(args.features)} folders are given, expected one or two")
    from videonet.data.tables import write_table
    from videonet.inference.duplicates import as_rows, find_duplicates
    from videonet.inference.search import SearchIndex

    indexes = [SearchIndex.open(folder, exact=True) for folder in args.features]
    difference = None if args.difference < 0 else args.difference
    pairs = find_duplicates(*indexes, threshold=args.threshold, difference=difference)
    rows = as_rows(pairs)
    for pair, row in zip(pairs, rows[1:], strict=True):
        labels = "" if pair.labels[0] == pair.labels[1] else f"  labels {row[-2]} and {row[-1]}"
        apart = f"  pixels differ by {row[3]}" if row[3] else ""
        print(printable(f"{row[2]}{apart}  {pair.first}  {pair.second}{labels}"))
    if args.output:
        write_table(args.output, rows[0], rows[1:])
    print(f"{len(pairs)} pairs of videos are alike")
    return PARTIAL if pairs else 0


def run_show(args: argparse.Namespace) -> int:
    """Draw what the loader delivers.

    Args:
        args: of the command line.

    Returns:
        The exit code, as the help says.
    """
    from videonet.config.loading import load_config
    from videonet.data.datasets.classes import class_names
    from videonet.data.loading.build import build_dataset, evaluation_views
    from videonet.data.preparing.contact_sheet import (
        chosen_classes,
        sheet_name,
        write_contact_sheet,
    )

    cfg = load_config(args.cfg, args.overrides)
    names = class_names(cfg)
    dataset = build_dataset(cfg, "train")
    for label in chosen_classes(dataset, names, args.classes):
        path = args.output / sheet_name(label, names[label])
        views = evaluation_views(cfg)
        write_contact_sheet(
            path, label, names[label], dataset, views, videos=args.videos, epoch=args.epoch
        )
        print(printable(str(path)))
    return 0
