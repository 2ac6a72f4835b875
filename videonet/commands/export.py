"""Write a trained model for use outside of this project, and check what was written.

%(prog)s --checkpoint runs/demo --output exported/demo
%(prog)s --checkpoint runs/demo --output exported/demo --kinds onnx

Clips go in as float32 (B, 3, T, S, S), normalised, for any B; mean, deviation and class names are
stored in the file.
"""

from __future__ import annotations

from pathlib import Path

from videonet.choices import EXPORT_SUFFIXES
from videonet.commands.arguments import (
    Words,
    add_model_arguments,
    make_predictor,
    new_parser,
    parse,
)
from videonet.terminal import printable


def main(argv: Words = None, prog: str | None = None) -> None:
    """Write a model in every format that is asked for.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    add_model_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=tuple(EXPORT_SUFFIXES),
        default=["pt2", "onnx"],
        help="torch.export, ONNX, AOTInductor (default: pt2 onnx)",
    )
    args = parse(parser, argv)
    from videonet.inference.export import TOLERANCE, export_model
    from videonet.terminal import start_logging

    start_logging(main=False)
    predictor = make_predictor(args)
    for kind in args.kinds:
        path = args.output.with_name(args.output.name + EXPORT_SUFFIXES[kind])
        worst = export_model(predictor, kind, path)
        size = path.stat().st_size / 2**20
        print(
            f"{printable(str(path))}: {size:.1f} MiB, logits within {worst:.1e} of the model's "
            f"(≤ {TOLERANCE:.0e})"
        )
