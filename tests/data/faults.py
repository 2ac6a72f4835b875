"""Videos whose decoder ends or hangs its process, simulated by the names of their files.

Worker processes import this module by name, so a test puts this folder on the path.
"""

import ctypes
import os
import signal

from videonet.data.decode import open_video
from videonet.data.preparing import verify
from videonet.errors import DecodeError


def decode_faultily(path: str) -> None:
    if "kills" in os.path.basename(path):
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hangs" in os.path.basename(path):
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock, as a decoder in C may


class Faulty:
    """Around what makes clips of a video or examines it."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(self, path, *arguments):
        decode_faultily(path)
        return self.inner(path, *arguments)


class KilledOnce(Faulty):
    """Something else kills the process at its first visit to a video, as a full memory does."""

    def __call__(self, path, *arguments):
        mark = f"{path}.visited"
        if not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(path, *arguments)


class Refusing(Faulty):
    """The same videos as ordinary damaged ones."""

    def __call__(self, path, *arguments):
        if "kills" in os.path.basename(path) or "hangs" in os.path.basename(path):
            if isinstance(self.inner, verify.Examiner):
                return verify._row(path, reason="simulated")
            raise DecodeError(f"cannot read {path}: simulated")
        return self.inner(path, *arguments)


def read_some(task):
    """Frames of a video as a worker reads them, ``{milliseconds: frame}``, or why it cannot."""
    path, backend, indices = task
    try:
        with open_video(path, backend, short_side=32) as reader:
            wanted = [k for k in indices if k < reader.info.frames]
            frames = reader.frames_at(wanted)
            times = (1000 * reader.times[wanted]).round().astype(int).tolist()
    except DecodeError as error:
        return str(error)
    return {time: frame.numpy() for time, frame in zip(times, frames, strict=True)}
