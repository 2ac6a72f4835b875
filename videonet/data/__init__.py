"""From lists of video files to batches of clips."""

from videonet.data.decode import open_video
from videonet.data.loading.dataset import Batch, Failure
from videonet.data.loading.loader import VideoLoader, build_loader

__all__ = ["Batch", "Failure", "VideoLoader", "build_loader", "open_video"]
