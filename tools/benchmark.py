"""Measure speed and memory, side by side with other libraries.

python tools/benchmark.py model torchvision:mvit_v2_s mvit_v2_s mvit_v2_s@bf16
python tools/benchmark.py scaling mvit_v2_s --all-frames 8 16 32 64
python tools/benchmark.py data --cfg K400/MVITv2_B.yaml DATA.PATH_TO_DATA_DIR /data/k400
"""

from __future__ import annotations

import argparse
import logging

from videonet.benchmark import data, model, scaling
from videonet.errors import run_tool

SUBJECTS = {"model": model, "scaling": scaling, "data": data}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being measured")
    subjects = parser.add_subparsers(dest="subject", required=True)
    for name, module in SUBJECTS.items():
        summary = module.__doc__.partition("\n")[0]
        module.add_arguments(subjects.add_parser(name, help=summary, description=module.__doc__))
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s"
    )
    print(SUBJECTS[args.subject].run(args))


if __name__ == "__main__":
    run_tool(main)
