"""How good are features? A linear probe and nearest neighbours, on frozen features with labels.

python tools/probe.py --train features/train --val features/val
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from videonet.data.features import read_description, read_features
from videonet.engine.probe import probe
from videonet.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True, help="folder of features with labels")
    parser.add_argument("--val", type=Path, required=True, help="folder of features with labels")
    parser.add_argument("--neighbours", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--l2", type=float, default=1e-3, help="of the probe (default %(default)s)")
    args = parser.parse_args()
    names = read_description(args.train)["classes"]
    train, val = read_features(args.train), read_features(args.val)
    results = probe(train, val, len(names), neighbours=args.neighbours, l2=args.l2)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    run_tool(main)
