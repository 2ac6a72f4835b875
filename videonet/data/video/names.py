"""Which files are videos and which are pictures, by their names."""

from __future__ import annotations

import os

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: ``.DS_Store``, macOS' ``._clip.mp4``."""
    return os.path.basename(name).startswith(".")


def is_video(name: str) -> bool:
    """Whether a file is a video by its ending, and not hidden."""
    return name.lower().endswith(VIDEO_SUFFIXES) and not is_hidden(name)


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its ending, and not hidden."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not is_hidden(name)
