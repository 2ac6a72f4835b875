"""Too many open files: one sentence, and no video is blamed."""

import os
import resource
import sys

import pytest

from videonet.data.decode import open_video
from videonet.data.loading.workers import WorkerPool
from videonet.data.preparing.verify import Examiner
from videonet.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def few_files():
    """Lets this process open so many files more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(more: int) -> None:
        free = os.dup(0)  # the lowest number that is not in use
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, limits[1]))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_reading_without_a_free_descriptor(make_video, tmp_path, few_files, kind):
    path = make_video(tmp_path / "a.mp4")
    if kind == "png":
        from PIL import Image

        path = tmp_path / "a.png"
        Image.new("RGB", (32, 32)).save(path)
    with open_video(path) as reader:  # what is imported and opened once
        reader.frames_at([0])
    few_files(0)
    with pytest.raises(DataError, match=r"limit of \d+ open files is reached: raise it"):
        open_video(path)
    with pytest.raises(DataError, match="open files"):
        Examiner()(str(path))


def test_workers_without_free_descriptors(few_files):
    few_files(3)
    with pytest.raises(DataError, match=r"worker process \d+ cannot be started: .*ulimit -n"):
        WorkerPool(len, 40)
