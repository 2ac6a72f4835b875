"""Small real videos, written by PyAV, whose pixels say which frame they are."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode

from videonet.config import load_config

STEP = 6  # grey levels between two frames of a written video: more than the codec's error


def write_video(
    path: Path,
    frames: int = 20,
    *,
    width: int = 64,
    height: int = 48,
    fps: int = 30,
    codec: str = "libx264",
    gop: int = 8,
    stamps: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Frame k is grey ``20 + 6 k`` with a bright left edge; ``stamps`` are in 1/1000 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.gop_size = gop
        stream.bit_rate = 4_000_000
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for k in range(frames):
            picture = np.full((height, width, 3), 20 + STEP * k, dtype=np.uint8)
            picture[:, : width // 8] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[k], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown_indices(frames: torch.Tensor) -> list[int]:
    """Which frames of a written video these are, ``(T, H, W, 3)`` or ``(3, T, H, W)``."""
    if frames.shape[0] == 3 and frames.shape[-1] != 3:
        frames = frames.permute(1, 2, 3, 0)
    height, width = frames.shape[1:3]
    centre = frames[:, height // 2, width // 2].float().mean(-1)
    return ((centre - 20) / STEP).round().int().tolist()


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    return write_video


@pytest.fixture(scope="session")
def indices_in() -> Callable[[torch.Tensor], list[int]]:
    return shown_indices


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven readable videos with train, val lists; the lengths and shapes differ."""
    folder = tmp_path_factory.mktemp("videos")
    lines = []
    for k in range(11):
        size = {"width": 64, "height": 48} if k % 2 else {"width": 48, "height": 64}
        write_video(folder / f"v{k}.mp4", frames=10 + 2 * k, **size)
        lines.append(f"v{k}.mp4 {k % 4}\n")
    (folder / "train.csv").write_text("".join(lines))
    (folder / "val.csv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def make_config() -> Callable[..., CfgNode]:
    def make(folder: Path, *overrides: object) -> CfgNode:
        small = {
            "MODEL.NAME": "mvit_v2_xs",
            "MODEL.NUM_CLASSES": 4,
            "DATA.PATH_TO_DATA_DIR": str(folder),
            "DATA.NUM_FRAMES": 4,
            "DATA.SAMPLING_RATE": 2,
            "DATA.TRAIN_JITTER_SCALES": [36, 44],
            "DATA.TRAIN_CROP_SIZE": 32,
            "DATA.TEST_CROP_SIZE": 32,
            "TRAIN.BATCH_SIZE": 4,
            "TEST.BATCH_SIZE": 12,
            "TEST.NUM_ENSEMBLE_VIEWS": 2,
            "TEST.NUM_SPATIAL_CROPS": 3,
            "DATA_LOADER.NUM_WORKERS": 0,
            "DATA_LOADER.PIN_MEMORY": False,
        }
        small |= dict(zip(overrides[::2], overrides[1::2], strict=True))
        return load_config(None, [str(part) for pair in small.items() for part in pair])

    return make
