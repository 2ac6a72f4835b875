"""Does a model look at the order of frames? Test it on a list, forwards and played backwards.

%(prog)s --checkpoint runs/egogestar8 DATA.PATH_TO_DATA_DIR /data/ego

Prints the top-1 accuracy of both, and what the clips of every class look like backwards.
"""

from __future__ import annotations

from collections import Counter

from videonet.commands.arguments import Words, new_parser, parse


def main(argv: Words = None, prog: str | None = None) -> None:
    """Test a model forwards and backwards, and print both accuracies.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument("--checkpoint", required=True, help="a checkpoint, or the folder of a run")
    parser.add_argument("--cfg", help="a YAML file; by default the one inside the checkpoint")
    args = parse(parser, argv)
    from videonet.data.loading.build import build_dataset
    from videonet.inference import Predictor
    from videonet.terminal import progress_bar, start_logging

    start_logging(main=False)
    predictor = Predictor.from_checkpoint(args.checkpoint, cfg=args.cfg, overrides=args.overrides)
    dataset = build_dataset(predictor.cfg, "test")
    names = predictor.class_names
    seen: dict[str, tuple[Counter, Counter]] = {name: (Counter(), Counter()) for name in names}
    videos = zip(dataset.paths, dataset.labels, strict=True)
    for path, label in progress_bar(videos, total=len(dataset), desc="videos", unit="videos"):
        clips = predictor.views(path)
        for direction, views in enumerate((clips, clips.flip(2))):
            best = predictor.score(views).scores.argmax()
            seen[names[label]][direction][names[best]] += 1
    for direction, title in enumerate(("forwards", "backwards")):
        right = sum(counts[direction][name] for name, counts in seen.items())
        print(f"{title}: {right} of {len(dataset)} right, {100 * right / len(dataset):.1f} %")
    for name, (_, backwards) in seen.items():
        guesses = ", ".join(f"{count} {guess}" for guess, count in backwards.most_common())
        print(f"  {name} backwards: {guesses or 'none'}")
