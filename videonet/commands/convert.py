"""Rewrite a checkpoint in the names of another project.

%(prog)s mvit_v2_s.pth mvit_v2_s.safetensors
%(prog)s best.pyth for_torchvision.pth --to torchvision
"""

from __future__ import annotations

from pathlib import Path

from videonet.choices import CHECKPOINT_NAMES
from videonet.commands.arguments import Words, new_parser
from videonet.terminal import printable


def main(argv: Words = None, prog: str | None = None) -> None:
    """Write a checkpoint in the names of another project.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog)
    parser.add_argument("source", help="file or URL; its names are recognised")
    parser.add_argument("target", type=Path, help="file to write; .safetensors or .pyth")
    parser.add_argument(
        "--to", choices=CHECKPOINT_NAMES, default=CHECKPOINT_NAMES[0], help="whose names to write"
    )
    arguments = parser.parse_args(argv)
    from videonet.checkpoint.convert import convert_checkpoint

    found, count = convert_checkpoint(arguments.source, arguments.target, arguments.to)
    target = printable(str(arguments.target))
    print(f"{target}: {count} tensors, from the names of {found} to {arguments.to}")
