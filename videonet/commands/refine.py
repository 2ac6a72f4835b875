"""Refine the boundaries of masks, whatever found them, in images and in clips.

%(prog)s results.json --data instances_val.json --checkpoint runs/bpr --output refined.json
%(prog)s --coarse 7 14 --data instances_val.json --checkpoint runs/bpr --scores

The results are detections in the JSON of COCO (image_id, segmentation) or of YouTube-VIS (video_id,
segmentations); --data names the pictures. The refined detections are the same with other masks,
boxes and areas.
"""

from __future__ import annotations

import json
from pathlib import Path

from videonet.commands.arguments import Words, add_model_arguments, new_parser, parse
from videonet.errors import ConfigError


def main(argv: Words = None, prog: str | None = None) -> None:
    """Refine a file of results.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Raises:
        ConfigError: there are no masks, or nothing to do with them.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument("results", nargs="?", type=Path, help="JSON of detections with masks")
    add_model_arguments(parser)
    parser.add_argument(
        "--data", type=Path, required=True, help="JSON with the images or videos, and their files"
    )
    parser.add_argument(
        "--split", default="", help="train, val or test, where --data is a file that they share"
    )
    parser.add_argument("--prefix", default="", help="folder that names of pictures start from")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument(
        "--coarse",
        nargs=2,
        type=int,
        metavar=("LOW", "HIGH"),
        help="instead of results: the true masks of --data made coarse, by so many cells per side",
    )
    parser.add_argument(
        "--scores", action="store_true", help="print AP of boxes, masks and boundaries as JSON"
    )
    parser.add_argument("--max-detections", type=int, default=100, help="for --scores (100)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parse(parser, argv)
    if (args.results is None) == (args.coarse is None):
        raise ConfigError("give either a file of results or --coarse LOW HIGH")
    if args.output is None and not args.scores:
        raise ConfigError("give --output, --scores or both")
    from videonet.data.datasets.results import read_results
    from videonet.files import replacing_text
    from videonet.inference.refined_results import (
        coarse_results,
        refine_results,
        result_scores,
    )
    from videonet.inference.refinement import MaskRefiner
    from videonet.terminal import start_logging

    start_logging(main=False)
    overrides = list(args.overrides)
    if args.batch_size is not None:
        overrides += ["TEST.BATCH_SIZE", str(args.batch_size)]
    refiner = MaskRefiner.from_checkpoint(args.checkpoint, cfg=args.cfg, overrides=overrides)
    where = {"split": args.split, "prefix": args.prefix}
    if args.coarse is None:
        results = read_results(args.results)
    else:
        results = coarse_results(args.data, tuple(args.coarse), **where)
    refined = refine_results(refiner, args.data, results, **where, progress=not args.quiet)
    if args.output is not None:
        with replacing_text(args.output) as file:
            json.dump(refined, file)
    if args.scores:
        scores = {
            name: result_scores(
                args.data, entries, split=args.split, max_detections=args.max_detections
            )
            for name, entries in (("before", results), ("after", refined))
        }
        print(json.dumps(scores, indent=2))
