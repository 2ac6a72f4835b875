"""Starting a server, and the models that it is given."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from videonet.errors import ConfigError, VideonetError
from videonet.inference.dense import DensePredictor, load_predictor
from videonet.inference.predictor import Predictor
from videonet.inference.search import SearchIndex
from videonet.serving.guard import LOCAL

if TYPE_CHECKING:
    from fastapi import FastAPI

    from videonet.serving.searching import IndexSearch

MISSING = "a server needs packages that are not installed: pip install 'videonet[web]' ({})"


def load_models(
    checkpoints: Sequence[str], overrides: Sequence[str] = ()
) -> dict[str, Predictor | DensePredictor]:
    """The models of a command line by the names that a page shows.

    Args:
        checkpoints: each whatever :meth:`Predictor.from_pretrained` takes, or ``NAME=`` and that;
            the default name is the last part of the path.
        overrides: ``KEY VALUE`` pairs for all configurations.

    Raises:
        ConfigError: a name comes twice, or a configuration cannot be used.
        CheckpointError: a checkpoint cannot be used.
    """
    models: dict[str, Predictor | DensePredictor] = {}
    for text in checkpoints:
        name, given, source = text.partition("=")
        if not given or "/" in name:
            name, source = Path(text).name or text, text
        if name in models:
            raise ConfigError(f"two models are called {name}: write --checkpoint NAME={source}")
        models[name] = load_predictor(source, overrides=overrides)
    return models


def open_search(folder: Path, models: Mapping[str, Predictor | DensePredictor]) -> IndexSearch:
    """The index of a folder, to be searched with one of some models.

    Raises:
        ConfigError: none of them made the index.
        DataError: the folder holds none.
    """
    from videonet.serving.searching import IndexSearch

    labelling = {name: m for name, m in models.items() if isinstance(m, Predictor)}
    return IndexSearch(SearchIndex.open(folder), labelling)


def reached_by(host: str, allowed: Sequence[str]) -> frozenset[str]:
    """The names that a server is reached by, none for any.

    Args:
        host: that it listens on.
        allowed: more names.
    """
    if host not in LOCAL and not allowed:
        return frozenset()
    return LOCAL | {host.lower()} | {name.lower() for name in allowed}


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, so that the address is known before the models are loaded.

    Raises:
        VideonetError: the address is taken, or is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideonetError(f"cannot listen on {host} port {port}: {reason}") from None


def address_of(listener: socket.socket) -> str:
    """Where a browser finds the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer requests until a signal stops it.

    Args:
        app: the application.
        listener: of :func:`open_socket`.
    """
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", server_header=False, timeout_graceful_shutdown=5, ws="none"
    )
    uvicorn.Server(config).run(sockets=[listener])
