r"""Train an attention head over the frozen features of a video's clips, and compare it.

python tools/extract_features.py data/demo/train.csv --checkpoint runs/demo --output features/train
python tools/extract_features.py data/demo/val.csv --checkpoint runs/demo --output features/val
%(prog)s --cfg configs/DEMO/video_head.yaml \
    --train features/train --val features/val OUTPUT_DIR runs/head
python tools/predict.py video.mp4 --checkpoint runs/demo --aggregate attention --head runs/head
"""

from __future__ import annotations

import json
from pathlib import Path

from videonet.commands.arguments import Words, new_parser, parse


def main(argv: Words = None, prog: str | None = None) -> None:
    """Train a head and print its results.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument("--cfg", required=True, help="VIDEO_HEAD and SOLVER in a YAML file")
    parser.add_argument("--train", type=Path, required=True, help="folder of features with labels")
    parser.add_argument("--val", type=Path, required=True, help="folder of features with labels")
    args = parse(parser, argv)
    import torch

    from videonet.config.loading import load_config
    from videonet.data.feature_store import read_description, read_features
    from videonet.engine.video_head import train_video_head
    from videonet.tasks.clip_head import FILE, ClipHeadTraining
    from videonet.terminal import start_logging

    cfg = load_config(args.cfg, args.overrides)
    start_logging(Path(cfg.OUTPUT_DIR))
    names = read_description(args.train)["classes"]
    features = (read_features(args.train), read_features(args.val))
    torch.manual_seed(cfg.RNG_SEED)
    values = train_video_head(cfg, ClipHeadTraining(cfg.VIDEO_HEAD, *features, names))
    results = {"head": str(Path(cfg.OUTPUT_DIR) / FILE), "attention": round(values["top1"], 3)}
    print(json.dumps(results, indent=2))
