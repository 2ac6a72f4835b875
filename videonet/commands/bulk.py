"""Label very many videos, on one machine or on those of a Ray cluster; Parquet comes out.

%(prog)s videos/ list.txt --checkpoint runs/demo --output rows/
%(prog)s s3://bucket/videos --checkpoint mvit_v2_s.k400 --output rows/ --address auto
%(prog)s files.parquet --column path --checkpoint runs/demo --output rows/ --engine processes

The same command again goes on where it was stopped and tries what failed again; another checkpoint
or other options need another --output, or --overwrite. The exit code is 0 where all videos could be
read, 3 where some could not, 1 where none could.
"""

from __future__ import annotations

from pathlib import Path

from videonet.commands.arguments import (
    DECODING,
    Words,
    add_model_arguments,
    add_window_arguments,
    is_sliding,
    make_predictor,
    new_parser,
    parse,
)
from videonet.errors import ConfigError, exit_code
from videonet.fork_server import start_fork_server


def main(argv: Words = None, prog: str | None = None) -> int:
    """Write the rows of all videos.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Returns:
        The exit code, as the help says.

    Raises:
        ConfigError: a package is missing.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument(
        "videos",
        nargs="+",
        help="files, folders, lists, addresses (s3, gs, hf), or .parquet with a column of paths",
    )
    add_model_arguments(parser)
    add_window_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the Parquet files")
    parser.add_argument("--overwrite", action="store_true", help="begin anew what is in --output")
    parser.add_argument("--column", default="path", help="of a .parquet with paths (path)")
    parser.add_argument("--top-k", type=int, default=5, help="how many classes (default 5)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--engine", choices=("ray", "processes"), default="ray", help="processes: without Ray"
    )
    parser.add_argument("--workers", type=int, help="the most that decode (default: by cores)")
    group = parser.add_argument_group("Ray")
    group.add_argument("--address", help="of a cluster, or auto (default: this machine alone)")
    group.add_argument("--models", type=int, help="copies of the model (default: one per GPU)")
    args = parse(parser, argv)
    if args.engine == "processes" and args.workers != 0:
        start_fork_server(DECODING)
    try:
        from videonet.inference.bulk import bulk_here, describe_bulk, paths_of
    except ImportError as error:
        raise ConfigError(f"{error}: install videonet[ray]") from error
    from videonet.inference.many import default_workers
    from videonet.inference.options import Options
    from videonet.inference.rows import Parts
    from videonet.terminal import start_logging

    start_logging(main=False)
    options = Options(
        args.top_k, is_sliding(args), window=args.window, stride=args.stride, crops=args.crops
    )
    paths = paths_of(args.videos, args.column)
    predictor = make_predictor(args)
    about = describe_bulk(predictor, options)
    with Parts(args.output, about, overwrite=args.overwrite) as parts:
        if args.engine == "processes":
            workers = args.workers
            if workers is None:
                workers = default_workers(len(paths), sliding=options.sliding)
            failed = bulk_here(
                predictor, paths, parts, options, workers=workers, progress=not args.quiet
            )
        else:
            try:
                from videonet.inference.bulk_ray import bulk_on_ray
            except ImportError as error:
                raise ConfigError(f"{error}: install videonet[ray]") from error
            failed = bulk_on_ray(
                predictor,
                paths,
                parts,
                options,
                address=args.address,
                models=args.models,
                decoders=args.workers,
                progress=not args.quiet,
            )
    return exit_code(failed, len(paths))
