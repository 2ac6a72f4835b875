"""Published weights: which there are, what belongs to them, and fetching them.

%(prog)s 'mvit*'
%(prog)s mvit_v2_s.k400
%(prog)s --fetch mvit_v2_s.k400

The name of weights goes wherever a checkpoint does: videonet predict clip.mp4 --checkpoint NAME,
TRAIN.CHECKPOINT_FILE_PATH NAME.
"""

from __future__ import annotations

from videonet.commands.arguments import Words, new_parser
from videonet.errors import ConfigError
from videonet.terminal import printable


def main(argv: Words = None, prog: str | None = None) -> None:
    """List weights, show those of one name, or fetch them.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog)
    parser.add_argument("pattern", nargs="?", default="*", help="names, such as 'mvit*' (all)")
    parser.add_argument(
        "--fetch", metavar="NAME", action="append", default=[],
        help="download these into the cache and print where they are; may be repeated",
    )  # fmt: skip
    args = parser.parse_args(argv)
    from videonet.models import get_weights, list_weights
    from videonet.models.weights import fetch_weights
    from videonet.terminal import start_logging

    start_logging(main=bool(args.fetch))
    for name in args.fetch:
        print(printable(str(fetch_weights(name))))
    if args.fetch:
        return
    names = list_weights(args.pattern)
    if names == [args.pattern]:
        print(get_weights(args.pattern))
        return
    if not names:
        get_weights(args.pattern)  # says which name is like it
        raise ConfigError(f"the model of the weights {args.pattern!r} is not in this version")
    width = max(map(len, names))
    row = f"{{:{width}}}  {{:>8}}  {{:>6}}  {{:>4}}  {{:>7}}  {{:12}}  {{:10}}  {{}}"
    print(row.format("name", "frames", "size", "top1", "classes", "licence", "checked", "fetched"))
    for weights in map(get_weights, names):
        print(
            row.format(
                weights.name,
                weights.num_frames,
                weights.size,
                "" if weights.top1 is None else f"{weights.top1:.1f}",
                weights.num_classes or "",
                weights.licence or "none",
                weights.checked or "no",
                "by link" if weights.url else "from the hub" if weights.hub else "by hand",
            )
        )
