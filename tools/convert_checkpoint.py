"""Rewrite a checkpoint in the names of another project.

python tools/convert_checkpoint.py mvit_v2_s.pth mvit_v2_s.safetensors
python tools/convert_checkpoint.py best.pyth for_torchvision.pth --to torchvision
"""

from __future__ import annotations

import argparse
from pathlib import Path

from videonet.checkpoint.convert import TARGETS, convert_checkpoint
from videonet.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="file or URL; its names are recognised")
    parser.add_argument("target", type=Path, help="file to write; .safetensors or .pyth")
    parser.add_argument("--to", choices=TARGETS, default=TARGETS[0], help="whose names to write")
    arguments = parser.parse_args()
    found, count = convert_checkpoint(arguments.source, arguments.target, arguments.to)
    print(f"{arguments.target}: {count} tensors, from the names of {found} to {arguments.to}")


if __name__ == "__main__":
    run_tool(main)
