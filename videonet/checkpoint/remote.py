"""Where a checkpoint lies on this machine: paths, URLs and repositories of the hub, by iopath."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from iopath.common.file_io import HTTPURLHandler, PathHandler, PathManager, g_pathmgr

from videonet.checkpoint.download import cache_folder, download
from videonet.checkpoint.hub import HUB, fetch_repository
from videonet.errors import CheckpointError, WriteError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class WebHandler(HTTPURLHandler):
    """Downloads that go on where they ended, see :mod:`videonet.checkpoint.download`.

    iopath's own handler, which serves ``ftp``, begins anew, and takes files of two hosts with the
    same path for one.
    """

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        if path.startswith("ftp:"):
            folder = str(cache_folder() / "downloads")
            return super()._get_local_path(path, force, cache_dir=folder, **kwargs)
        return str(download(path))


class FileHandler(PathHandler):
    """``file:`` URLs of this machine."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["file://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        return url2pathname(urlsplit(path).path)


class HubHandler(PathHandler):
    """``hf-hub:OWNER/NAME``: the folder with the weights of a repository."""

    def _get_supported_prefixes(self) -> list[str]:
        return [HUB]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        return str(fetch_repository(path.removeprefix(HUB)))


def local_path(path: str) -> Path:
    """Where a file or folder lies on this machine; what is elsewhere is fetched once.

    Args:
        path: a path, an ``http``, ``https``, ``ftp`` or ``file`` URL, ``hf-hub:OWNER/NAME``, or a
            URL of which a handler was registered with iopath's ``g_pathmgr`` (such as
            ``S3PathHandler``).

    Raises:
        CheckpointError: it cannot be fetched.
        WriteError: the cache cannot be written.
    """
    manager = PathManager()
    for handler in (WebHandler(), FileHandler(), HubHandler()):
        manager.register_handler(handler)
    known = path.startswith((*("http://", "https://", "ftp://", "file://"), HUB))
    if SCHEME.match(path) and not known:
        manager = g_pathmgr
    try:
        return Path(manager.get_local_path(path))
    except (CheckpointError, WriteError):
        raise
    except Exception as error:  # of whatever a handler uses: all mean "not fetched"
        raise CheckpointError(f"cannot fetch checkpoint {path}: {error}") from error
