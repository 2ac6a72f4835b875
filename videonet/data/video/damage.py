"""Listening to what FFmpeg says of a file while it is read.

A decoder that meets damage mostly conceals it, and says so in its log only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import av


class Complaints:
    """What was said while :func:`listening`."""

    def __init__(self):
        self.entries: list[tuple[int, str, str]] = []

    def about(self, *names: str, since: int = 0) -> str:
        """The first error that one of these said, ``name: message``; empty where none did.

        ``names`` are those of decoders and containers: what the decoder of the sound says does
        not count. ``since``: how many entries are passed over.
        """
        for level, name, message in self.entries[since:]:
            text = message.strip(" .\n")
            if level <= av.logging.ERROR and name in names and text:
                return f"{name}: {text.splitlines()[0]}"
        return ""


@contextlib.contextmanager
def listening() -> Iterator[Complaints]:
    """Collect what FFmpeg logs as errors in this thread; the level of its log is put back after.

    The level belongs to the process, so this is for processes of one thread.
    """
    complaints, before = Complaints(), av.logging.get_level()
    repeated = av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as entries:
            complaints.entries = entries
            yield complaints
    finally:
        av.logging.set_level(before)
        av.logging.set_skip_repeated(repeated)
