"""A page and an HTTP API: labels over time or boxes and masks, explanations, search of an index.

%(prog)s --checkpoint runs/demo
%(prog)s --checkpoint small=runs/s --checkpoint large=mvit_v2_b.k400 --port 8080
%(prog)s --index index/talks

Uploads are decoded in processes of their own, within limits, and deleted before the answer is sent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from videonet import __version__
from videonet.commands.arguments import Words, new_parser, parse
from videonet.errors import ConfigError

WORKERS = 2


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every server is told: where it listens, and its limits.

    Args:
        parser: gets the arguments.
    """
    from videonet.serving.limits import LIMITS

    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (8000)")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a name that the server is reached by, may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--allow-url-host", action="append", default=[], metavar="NAME",
        help="a host that files may be fetched from, may be repeated (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=WORKERS, help=f"processes that decode ({WORKERS})"
    )
    group = parser.add_argument_group("limits of a request")
    for name, (default, text) in LIMITS.items():
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=float, default=default, help=f"{text} ({default:g})")


def parse_arguments(argv: Words = None, prog: str | None = None) -> argparse.Namespace:
    """The arguments of the command, see :func:`main`."""
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="[NAME=]CHECKPOINT",
        help="a checkpoint, the folder of a run or of a saved model, or a name of videonet "
        "weights, of labels, objects or label maps; may be repeated to compare models",
    )  # fmt: skip
    parser.add_argument(
        "--index", type=Path,
        help="folder of videonet index whose nearest moments the page finds; one of the models "
        "has to be the one that made it (default: that one alone)",
    )  # fmt: skip
    add_server_arguments(parser)
    args = parse(parser, argv)
    if not args.checkpoint and args.index is None:
        parser.error("give --checkpoint, or --index to search with the model that made it")
    return args


def main(argv: Words = None, prog: str | None = None) -> int:
    """Answer until a signal stops it.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Returns:
        The exit code.
    """
    args = parse_arguments(argv, prog)
    run_server(args)
    return 0


def run_server(args: argparse.Namespace) -> None:
    """Serve the models of ``--checkpoint``, and the data set where ``browser`` makes one.

    Args:
        args: with those of :func:`add_server_arguments`, ``checkpoint``, ``index`` and
            ``overrides``; of ``videonet data browse`` without an index and with ``browser``, a
            function that makes what is browsed.

    Raises:
        ConfigError: a value cannot be used, or a package is missing.
        VideonetError: it cannot listen there.
    """
    from videonet.data.feature_store import read_description
    from videonet.serving.limits import LIMITS, Limits
    from videonet.serving.server import (
        MISSING,
        address_of,
        load_models,
        open_search,
        open_socket,
        reached_by,
        serve,
    )
    from videonet.terminal import start_logging

    start_logging()
    if args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}, expected 1 or more")
    limits = Limits(**{name: getattr(args, name) for name in LIMITS})
    try:
        from videonet.serving.app import create_app
        from videonet.serving.service import Service
    except ModuleNotFoundError as error:
        raise ConfigError(MISSING.format(error)) from None
    with open_socket(args.host, args.port) as listener:
        make_browser = getattr(args, "browser", None)
        browser = make_browser() if make_browser else None
        checkpoints, folder = args.checkpoint, getattr(args, "index", None)
        if folder is not None and not checkpoints:
            checkpoints = [read_description(folder)["checkpoint"]]
        models = load_models(checkpoints, args.overrides)
        search = None if folder is None else open_search(folder, models)
        app = create_app(
            Service(models, limits, workers=args.workers, search=search),
            browser=browser,
            hosts=reached_by(args.host, args.allow_host),
            url_hosts=frozenset(name.lower() for name in args.allow_url_host),
            version=__version__,
        )
        page = "/data" if browser else "/"
        print(f"videonet is at {address_of(listener)}{page} (Ctrl+C ends it)", flush=True)
        serve(app, listener)
