"""What one request may cost, and what is said to one that costs more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from videonet.errors import ConfigError, VideonetError

LIMITS = {  # key, its default, what it limits
    "max_mb": (256.0, "megabytes of an upload"),
    "max_seconds": (900.0, "seconds that a video may last"),
    "max_pixels": (2.0**24, "pixels of a frame"),
    "max_windows": (2000.0, "windows of a video"),
    "max_frames": (3000.0, "frames of a video, for a model that sees every frame"),
    "upload_seconds": (120.0, "seconds that an upload may take"),
    "step_seconds": (30.0, "seconds that a decoder may take for one step"),
    "job_seconds": (300.0, "seconds that a request may take once it is its turn"),
    "memory_mb": (4096.0, "megabytes that a decoder may add to its process"),
    "queue": (64.0, "requests that are held at a time; others are sent away"),
}


@dataclass(frozen=True)
class Limits:
    """Limits of a server, see :data:`LIMITS`; each is a flag of ``videonet serve``."""

    max_mb: float = LIMITS["max_mb"][0]
    max_seconds: float = LIMITS["max_seconds"][0]
    max_pixels: float = LIMITS["max_pixels"][0]
    max_windows: float = LIMITS["max_windows"][0]
    max_frames: float = LIMITS["max_frames"][0]
    upload_seconds: float = LIMITS["upload_seconds"][0]
    step_seconds: float = LIMITS["step_seconds"][0]
    job_seconds: float = LIMITS["job_seconds"][0]
    memory_mb: float = LIMITS["memory_mb"][0]
    queue: float = LIMITS["queue"][0]

    def __post_init__(self) -> None:
        for name in LIMITS:
            if not getattr(self, name) > 0:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} is {getattr(self, name):g}, but must be above 0")

    @property
    def max_bytes(self) -> int:
        """Bytes of an upload."""
        return int(self.max_mb * 1e6)


class Refusal(VideonetError):
    """A request that is not answered, and why, in one sentence.

    Args:
        status: of HTTP.
        sentence: what the answer says.
        headers: of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None):
        super().__init__(sentence)
        self.status, self.headers = status, dict(headers or {})


def too_large(limits: Limits) -> Refusal:
    """For an upload above the limit."""
    return Refusal(413, f"the file is larger than {limits.max_mb:g} MB, the limit of this server")


def busy() -> Refusal:
    """For a request that finds the queue full."""
    sentence = "the server is busy, its queue is full: try again in a few seconds"
    return Refusal(503, sentence, {"Retry-After": "5"})
