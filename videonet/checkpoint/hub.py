"""The Hugging Face hub: the files of a repository that a model is read from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from videonet.checkpoint.download import OFFLINE, cache_folder, is_offline
from videonet.checkpoint.parts import CONFIG, HUB_FILES, INDEX
from videonet.errors import CheckpointError

HUB = "hf-hub:"
HUB_OFFLINE = "HF_HUB_OFFLINE"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?")


def huggingface_hub() -> Any:
    """The package of the hub.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise CheckpointError(
            "the hub needs huggingface_hub: pip install 'videonet[hub]'"
        ) from None
    return huggingface_hub


def fetch_repository(repository: str) -> Path:
    """The folder of this machine with a repository's weights and, where it has one, its config.

    Args:
        repository: ``OWNER/NAME``, or ``OWNER/NAME@REVISION``.

    Raises:
        CheckpointError: huggingface_hub is not installed, or the files cannot be fetched.
    """
    if not REPOSITORY.fullmatch(repository):
        raise CheckpointError(f"{HUB}{repository} is no repository of the hub: expected OWNER/NAME")
    fetch_file(repository, CONFIG)
    for name in HUB_FILES:
        found = fetch_file(repository, name)
        if found is None:
            continue
        if name.endswith(INDEX):
            table = json.loads(found.read_text(encoding="utf-8")).get("weight_map", {})
            for part in sorted(set(map(str, table.values()))):
                fetch_file(repository, part)
        return found.parent
    raise CheckpointError(f"{HUB}{repository} has none of {', '.join(HUB_FILES)}")


def fetch_file(repository: str, name: str) -> Path | None:
    """A file of a repository, fetched where the cache has none; None where there is no such file.

    Args:
        repository: as for :func:`fetch_repository`.
        name: of the file.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    hub = huggingface_hub()
    owner_and_name, _, revision = repository.partition("@")
    offline = next((word for word in (OFFLINE, HUB_OFFLINE) if is_offline(word)), "")
    try:
        path = hub.hf_hub_download(
            owner_and_name,
            name,
            revision=revision or None,
            cache_dir=cache_folder() / "hub",
            local_files_only=bool(offline),
        )
    except hub.errors.LocalEntryNotFoundError as error:
        if offline and name == CONFIG:
            return None
        why = f"{offline} is set and the cache {cache_folder()} lacks it" if offline else error
        raise CheckpointError(f"cannot fetch {name} of {HUB}{repository}: {_first(why)}") from error
    except hub.errors.EntryNotFoundError:
        return None
    except Exception as error:  # of HTTP, the disk, the hub's own: all mean "not fetched"
        raise CheckpointError(
            f"cannot fetch {name} of {HUB}{repository}: {_first(error)}"
        ) from error
    return Path(path)


def _first(error: object) -> str:
    """The first line of a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
