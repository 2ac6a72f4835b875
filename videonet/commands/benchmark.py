"""Measure speed and memory, side by side with other libraries.

%(prog)s model torchvision:mvit_v2_s mvit_v2_s mvit_v2_s@bf16
%(prog)s scaling mvit_v2_s --all-frames 8 16 32 64
%(prog)s detectors torchvision:maskrcnn_resnet50_fpn COCO/MaskRCNN_Swin_T.yaml
%(prog)s gpu --output results/card
%(prog)s data --cfg K400/MVITv2_B.yaml DATA.PATH_TO_DATA_DIR /data/k400
"""

from __future__ import annotations

import importlib
import logging

from videonet.benchmark import arguments
from videonet.commands.arguments import Words, new_parser, parse

SUBJECTS = {  # each is a module of videonet.benchmark
    "model": ("models side by side: speed and memory", arguments.add_model),
    "scaling": ("how time and memory grow with the clip", arguments.add_scaling),
    "detectors": ("detectors with masks side by side", arguments.add_detectors),
    "gpu": ("every family on one card beside its peers, in minutes", arguments.add_gpu),
    "data": ("clips per second of the loader, and what they cost", arguments.add_data),
}


def main(argv: Words = None, prog: str | None = None) -> None:
    """Measure models or the loader, and print the report.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being measured")
    subjects = parser.add_subparsers(dest="subject", required=True)
    for name, (summary, add_arguments) in SUBJECTS.items():
        add_arguments(subjects.add_parser(name, help=summary, description=summary))
    args = parse(parser, argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s"
    )
    print(importlib.import_module(f"videonet.benchmark.{args.subject}").run(args))
