"""The console command: ``videonet VERB``, with the functions that tools/ has a file each for."""

from __future__ import annotations

import argparse
import importlib

from videonet import __version__
from videonet.commands.arguments import Words
from videonet.errors import run_tool

VERBS = {  # module, function, what it does
    "finetune": (
        "commands.finetune",
        "main",
        "from a folder of your videos to a model and a report",
    ),
    "run": ("commands.run", "main", "train and test, as a configuration says"),
    "train": ("commands.run", "train", "train alone"),
    "test": ("commands.run", "test", "test alone, with several views"),
    "predict": ("commands.predict", "main", "what is in a video, a folder of them, or over time"),
    "bulk": ("commands.bulk", "main", "the same for millions of files, on one machine or many"),
    "refine": ("commands.refine", "main", "sharper boundaries for the masks of any detector"),
    "serve": ("commands.serve", "main", "a page and an HTTP API: labels over time beside a video"),
    "features": ("commands.features", "main", "write the embeddings of videos' clips"),
    "index": ("commands.index", "main", "embeddings of a collection, to be searched"),
    "search": ("commands.search", "main", "the moments that are nearest to a clip"),
    "probe": ("commands.probe", "main", "a linear probe and nearest neighbours on features"),
    "head": ("commands.head", "main", "train an attention head over features"),
    "data": ("commands.data", "main", "check, prepare and look at a data set"),
    "demo-data": ("commands.demo_data", "main", "write the demo data set"),
    "weights": ("commands.weights", "main", "published weights by name: list and fetch them"),
    "convert": ("commands.convert", "main", "a checkpoint in the names of another project"),
    "export": ("commands.export", "main", "a model for torch.export, ONNX or AOTInductor"),
    "benchmark": ("commands.benchmark", "main", "speed and memory beside other libraries"),
    "plot": ("commands.plot", "main", "learning curves of one run or several"),
    "reversed": ("commands.reversed", "main", "does a model look at the order of frames"),
    "config": ("commands.config", "main", "what the keys of a configuration mean"),
    "doctor": ("environment", "main", "what of videonet works on this machine"),
}


def main(argv: Words = None) -> int | None:
    """Call a verb with the words that follow it.

    Args:
        argv: the words of the command line; None for those of the process.
    """
    width = max(map(len, VERBS))
    parser = argparse.ArgumentParser(
        prog="videonet",
        usage="%(prog)s [-h] [--version] VERB …",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Video understanding.\n\n{_table(width)}",
        epilog="videonet VERB --help says more.",
    )
    parser.add_argument("--version", action="version", version=f"videonet {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="one of these")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    module, function, _ = VERBS[args.verb]
    run = getattr(importlib.import_module(f"videonet.{module}"), function)
    return run(args.words, prog=f"videonet {args.verb}")


def _table(width: int) -> str:
    return "\n".join(f"  {verb:{width}}  {text}" for verb, (_, _, text) in VERBS.items())


def entry() -> None:
    """What the console command calls."""
    run_tool(main)


if __name__ == "__main__":
    entry()
