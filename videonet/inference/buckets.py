"""Files that lie elsewhere: addresses that fsspec reads, such as s3, gs and hf.

What its file systems raise is the choice of the library behind each, so any exception of theirs is
told as one that says which address could not be read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from videonet.data.video.names import is_hidden, is_video
from videonet.errors import DataError, DecodeError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # a letter alone is a drive of Windows
_EXTRA = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path begins with a scheme, as ``s3://bucket/clip.mp4`` does."""
    return isinstance(path, str) and _ADDRESS.match(path) is not None


def fetch(address: str, path: Path) -> None:
    """Copy what lies at an address into a file.

    Raises:
        DecodeError: it cannot be read.
    """
    try:
        system, name = _open(address)
        system.get_file(name, str(path))
    except Exception as error:
        raise DecodeError(f"cannot read {address}: {_said(error, address)}") from error


def list_videos(address: str) -> list[str]:
    """The addresses of the videos in a folder of a bucket and the folders in it, sorted.

    An address that is no folder is itself the only one.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        system, root = _open(address)
        if not system.isdir(root):
            return [address]
        names = sorted(system.find(root))
    except Exception as error:
        raise DataError(f"cannot list {address}: {_said(error, address)}") from error
    found = [name for name in names if is_video(name) and not _in_hidden(name, root)]
    return [str(system.unstrip_protocol(name)) for name in found]


def _open(address: str) -> tuple[Any, str]:
    import fsspec

    system, name = fsspec.core.url_to_fs(address)
    return system, name


def _in_hidden(name: str, root: str) -> bool:
    return any(is_hidden(part) for part in name.removeprefix(root).split("/") if part)


def _said(error: Exception, address: str) -> str:
    scheme = address.partition("://")[0].lower()
    if isinstance(error, ImportError) and scheme in _EXTRA:
        return f"that needs the package {_EXTRA[scheme]}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
