"""How good are features? A linear probe and nearest neighbours, on frozen features with labels.

%(prog)s --train features/train --val features/val
"""

from __future__ import annotations

import json
from pathlib import Path

from videonet.commands.arguments import Words, new_parser


def main(argv: Words = None, prog: str | None = None) -> None:
    """Measure features and print the accuracies.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog)
    parser.add_argument("--train", type=Path, required=True, help="folder of features with labels")
    parser.add_argument("--val", type=Path, required=True, help="folder of features with labels")
    parser.add_argument("--neighbours", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--l2", type=float, default=1e-3, help="of the probe (default %(default)s)")
    args = parser.parse_args(argv)
    from videonet.data.feature_store import read_description, read_features
    from videonet.tasks.probe import probe

    names = read_description(args.train)["classes"]
    train, val = read_features(args.train), read_features(args.val)
    results = probe(train, val, len(names), neighbours=args.neighbours, l2=args.l2)
    print(json.dumps(results, indent=2))
