"""Write a trained model for use outside of this project, and check what was written.

python tools/export.py --checkpoint runs/demo --output exported/demo
python tools/export.py --checkpoint runs/demo --output exported/demo --kinds onnx

Clips go in as float32 (B, 3, T, S, S), normalised, for any B; mean, deviation and class names are
stored in the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from videonet.engine.runlog import start_logging
from videonet.errors import run_tool
from videonet.predict.export import SUFFIXES, TOLERANCE, export_model
from videonet.predict.options import add_model_arguments, make_predictor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=tuple(SUFFIXES),
        default=["pt2", "onnx"],
        help="torch.export, ONNX, AOTInductor (default: pt2 onnx)",
    )
    args = parser.parse_args()
    start_logging(main=False)
    predictor = make_predictor(args)
    for kind in args.kinds:
        path = args.output.with_name(args.output.name + SUFFIXES[kind])
        worst = export_model(predictor, kind, path)
        size = path.stat().st_size / 2**20
        print(
            f"{path}: {size:.1f} MiB, logits within {worst:.1e} of the model's (≤ {TOLERANCE:.0e})"
        )


if __name__ == "__main__":
    run_tool(main)
