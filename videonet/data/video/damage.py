"""Listening to what FFmpeg and libjpeg say of a file while it is read.

A decoder that meets damage mostly conceals it, and says so in its log only.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator

import av
import torch


class Complaints:
    """What was said while :func:`listening`."""

    def __init__(self) -> None:
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


def libjpeg_report(data: bytes) -> str:
    """The first warning of libjpeg about a JPEG that Pillow reads; empty where it has none.

    It writes them to the error output of the process, which is led elsewhere meanwhile: for
    processes of one thread.
    """
    try:  # takes a while to import; torchvision means to leave it to others some day
        from torchvision.io import decode_jpeg
    except ImportError:
        return ""
    content, kept = torch.frombuffer(bytearray(data), dtype=torch.uint8), os.dup(2)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                decode_jpeg(content)
        except RuntimeError:  # a kind of JPEG that torchvision is not built for
            pass
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        output.seek(0)
        return output.read().decode("utf-8", errors="replace").strip().partition("\n")[0]
