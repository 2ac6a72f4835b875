"""Results as files that can be fetched for a while."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from videonet.inference.result_files import FORMATS, VideoResult, WindowResult

KEPT_SECONDS = 3600.0
KEPT_BYTES = 2**26


class ResultStore:
    """Texts under names that cannot be guessed; the oldest go first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[str, tuple[float, dict[str, str]]] = OrderedDict()

    def add(self, video: str, windows: list[WindowResult], result: VideoResult, top_k: int) -> str:
        """Keep a result in all formats, as the files that ``videonet predict`` writes.

        Returns:
            Its name.
        """
        return self.keep({kind: _written(kind, video, windows, result, top_k) for kind in FORMATS})

    def keep(self, texts: dict[str, str]) -> str:
        """Keep the texts of a result by their kinds, which end the names of their files.

        Returns:
            Its name.
        """
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._texts[name] = (time.monotonic(), texts)
            while self._size() > KEPT_BYTES or self._oldest() > KEPT_SECONDS:
                self._texts.popitem(last=False)
        return name

    def text(self, name: str, kind: str) -> str | None:
        """A result as a file of a kind; None where it is not kept."""
        with self._lock:
            added, texts = self._texts.get(name, (0.0, dict[str, str]()))
            return texts.get(kind) if time.monotonic() - added <= KEPT_SECONDS else None

    def _size(self) -> int:
        return sum(len(text) for _, texts in self._texts.values() for text in texts.values())

    def _oldest(self) -> float:
        return time.monotonic() - next(iter(self._texts.values()))[0] if self._texts else 0.0


def _written(
    kind: str, video: str, windows: list[WindowResult], result: VideoResult, top_k: int
) -> str:
    with tempfile.TemporaryDirectory(prefix="videonet-") as folder:
        path = Path(folder, f"results.{kind}")
        about: dict[str, Any] = {"top_k": top_k}
        with FORMATS[kind](path, about) as writer:
            for window in windows:
                writer.window(video, window)
            writer.video(video, result)
        return path.read_text(encoding="utf-8", errors="replace")
