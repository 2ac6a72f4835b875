r"""How good are frozen features, and a classifier on them for a new data set.

%(prog)s --cfg configs/JHMDB21/DINOv2_S_probe.yaml DATA.PATH_TO_DATA_DIR jhmdb21 \
    TRAIN.CHECKPOINT_FILE_PATH dinov2_s14.pth OUTPUT_DIR runs/probe
%(prog)s --checkpoint runs/k400 DATA.PATH_TO_DATA_DIR my_videos OUTPUT_DIR runs/mine

computes the features of the training and validation videos once and keeps them, trains classifiers
(attentive, statistics, linear, knn) whose settings are chosen on held-out training videos, prints
their accuracies and leaves the best one as a model in OUTPUT_DIR/model. The classes are those of
the data, whatever the backbone was trained for. PROBE has the settings (videonet config --help
PROBE).

%(prog)s --train features/train --val features/val

measures features that videonet features has written, without a new model.
"""

from __future__ import annotations

import json
from pathlib import Path

from videonet.commands.arguments import Words, new_parser, parse


def main(argv: Words = None, prog: str | None = None) -> None:
    """Measure features, or train classifiers on them, and print the accuracies.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument("--cfg", help="a YAML file: the backbone, the clips, the data")
    parser.add_argument(
        "--checkpoint", help="in place of --cfg: a run or a saved model with its configuration"
    )
    parser.add_argument("--train", type=Path, help="folder of features with labels")
    parser.add_argument("--val", type=Path, help="folder of features with labels")
    parser.add_argument("--neighbours", type=int, default=20, help="of --train (%(default)s)")
    parser.add_argument("--l2", type=float, default=1e-3, help="of --train (default %(default)s)")
    args = parse(parser, argv)
    if (args.train is None) != (args.val is None):
        parser.error("--train and --val go together")
    if sum(map(bool, (args.train, args.cfg, args.checkpoint))) != 1:
        parser.error("give --cfg or --checkpoint with a data set, or --train with --val")
    if args.train is None:
        from videonet.finetuning.probing import load_probe_config, run_probe

        results = run_probe(load_probe_config(args.cfg, args.checkpoint, args.overrides))
    elif args.overrides:
        parser.error(f"{args.overrides[0]}: with --train there is no configuration")
    else:
        results = _measure(args.train, args.val, args.neighbours, args.l2)
    print(json.dumps(results, indent=2))


def _measure(train: Path, val: Path, neighbours: int, l2: float) -> dict:
    from videonet.data.feature_store import read_features
    from videonet.tasks.probe import probe

    features = read_features(train), read_features(val)
    labels = [video.label for videos in features for video in videos if video.label is not None]
    return probe(*features, max(labels, default=0) + 1, neighbours=neighbours, l2=l2)
