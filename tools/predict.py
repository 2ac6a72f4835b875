"""Print what a model sees in one video file.

python tools/predict.py clip.mp4 --cfg configs/DEMO/MVITv2_XS.yaml --checkpoint runs/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

from videonet.engine.plots import plot_prediction
from videonet.engine.runlog import start_logging
from videonet.errors import run_tool
from videonet.predict import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help="a video file")
    parser.add_argument("--cfg", help="a YAML file; by default the one inside the checkpoint")
    parser.add_argument("--checkpoint", required=True, help="a checkpoint, or the folder of a run")
    parser.add_argument("--top-k", type=int, default=5, help="how many classes (default 5)")
    parser.add_argument("--picture", type=Path, help="write frames and scores to this PNG")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the file")
    args = parser.parse_args()
    start_logging(main=False)
    predictor = Predictor.from_config(args.cfg, checkpoint=args.checkpoint, overrides=args.opts)
    prediction = predictor(args.video, top_k=args.top_k)
    for name, score in prediction.top:
        print(f"{score:7.4f}  {name}")
    if args.picture:
        names, scores = zip(*prediction.top, strict=True)
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        plot_prediction(prediction.clip, names, scores, args.video, args.picture)


if __name__ == "__main__":
    run_tool(main)
