"""Videos of plain colours, and a model that names the colour: every score can be foretold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.config import load_config
from videonet.heads.classification import ClassificationHead
from videonet.inference import Predictor
from videonet.models.base import VideoModel
from videonet.models.stages import RunBlock, StageInfo, StageOutput
from videonet.tasks import build_task

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


class ColourModel(VideoModel):
    """Names the channel that is the brightest on average."""

    num_features = 3
    feature_info = (StageInfo(3, (1, 4, 4)),)

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool3d((1, 4, 4))
        self.head = ClassificationHead(3, 3)
        with torch.no_grad():
            self.head.projection.weight.copy_(4 * torch.eye(3))

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        yield StageOutput([run(self.pool, clip)])

    def finish(self, last: StageOutput) -> Tensor:
        return last.x[0]

    def pool_features(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3, 4))


def write_colours(
    path: Path, parts: Sequence[tuple[str, int]], *, fps: int = 10, size: tuple[int, int] = (48, 32)
) -> Path:
    """An H.264 video of (colour, frames) parts; ``size`` is (width, height)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for colour, frames in parts:
            picture = np.full((size[1], size[0], 3), COLOURS[colour], dtype=np.uint8)
            for _ in range(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_model(cfg: CfgNode, path: Path, seed: int = 0) -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(seed)
    task = build_task(cfg)
    content = {"model_state": task.build_model().state_dict(), "cfg": task.cfg.dump()}
    torch.save(content | {"class_names": task.names}, path)
    return path


@pytest.fixture(scope="session")
def make_colours() -> Callable[..., Path]:
    return write_colours


@pytest.fixture
def colour_predictor() -> Callable[..., Predictor]:
    """A function of KEY VALUE overrides; windows are 8 places of 10 frames a second by default."""

    def make(*overrides: object) -> Predictor:
        base = {
            "MODEL.NAME": "mvit_v2_xs",
            "MODEL.NUM_CLASSES": 3,
            "DEVICE": "cpu",
            "DATA.NUM_FRAMES": 4,
            "DATA.SAMPLING_RATE": 2,
            "DATA.TARGET_FPS": 10.0,
            "DATA.TEST_CROP_SIZE": 16,
            "TEST.BATCH_SIZE": 8,
            "TEST.NUM_ENSEMBLE_VIEWS": 2,
            "TEST.NUM_SPATIAL_CROPS": 1,
        }
        base |= dict(zip(overrides[::2], overrides[1::2], strict=True))
        cfg = load_config(None, [str(part) for pair in base.items() for part in pair])
        return Predictor(ColourModel(), cfg, list(COLOURS))

    return make
