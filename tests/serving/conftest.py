"""A server on a port of this machine, with models that name the colour of a video."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import torch

from tests.inference.conftest import COLOURS, ColourModel, write_colours, write_model
from tests.tasks.conftest import INSTANCES, SEMANTICS, clips, images, small  # noqa: F401
from tests.tasks.drawn import scene
from videonet import DensePredictor
from videonet.config import load_config
from videonet.data.feature_store import FeatureWriter
from videonet.data.video.writer import new_video
from videonet.inference import Predictor
from videonet.inference.extraction import describe_features, extract_features
from videonet.inference.run import Options
from videonet.inference.search import SearchIndex
from videonet.inference.sources import Source

pytest.importorskip("fastapi", reason="the page needs the extra [web]")
uvicorn = pytest.importorskip("uvicorn", reason="the page needs the extra [web]")

SLIDING = Options(sliding=True, window=0.8, stride=0.4)
SETTINGS = {
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


def make_predictor(sharpness: float = 1.0) -> Predictor:
    """A predictor whose windows are 8 places of 10 frames a second."""
    words = [str(part) for pair in SETTINGS.items() for part in pair]
    model = ColourModel()
    with torch.no_grad():
        model.head.projection.weight.mul_(sharpness)
    return Predictor(model, load_config(None, words), list(COLOURS))


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]


class RunningServer:
    """A server in a thread of this process."""

    def __init__(self, app: Any, service: Any):
        self.service = service
        config = uvicorn.Config(app, port=0, log_level="error", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            assert self._thread.is_alive()
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        **parameters: Any,
    ) -> Answer:
        """GET, or with a body POST."""
        query = f"?{urlencode(parameters, doseq=True)}" if parameters else ""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            verb = "GET" if body is None else "POST"
            chunked = body is not None and not isinstance(body, bytes)
            head = dict(headers or {})
            if chunked and "Content-Length" not in head:
                connection.request(verb, path + query, body, head, encode_chunked=True)
            else:
                connection.request(verb, path + query, body, head)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., RunningServer]]:
    from videonet.serving.app import create_app
    from videonet.serving.limits import Limits
    from videonet.serving.service import Service

    running = []

    def start(
        predictors: dict[str, Predictor], *, search: Any = None, workers: int = 1, limits: Any = (),
        **options: Any,
    ) -> RunningServer:  # fmt: skip
        service = Service(predictors, Limits(**dict(limits)), workers=workers, search=search)
        running.append(RunningServer(create_app(service, **options), service))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture(scope="session")
def run_lengths() -> None:
    """Skips what needs masks where they cannot be encoded."""
    pytest.importorskip("pycocotools", reason="masks need the extra [dense]")


@pytest.fixture(scope="session")
def dense_models(run_lengths, small, clips, images, tmp_path_factory) -> dict[str, DensePredictor]:  # noqa: F811
    """A detector for clips of two frames and a segmenter of single ones, with random weights."""
    folder = tmp_path_factory.mktemp("dense")
    words = [*INSTANCES, "MODEL.NAME", "mvit_v2_xs", "TEST.EVERY_FRAME", True]
    words += ["MODEL.ARGUMENTS", "{patch_stride: [1, 4, 4], embed_dim: 16}"]
    cfgs = {
        "objects": small(clips, folder, "youtube_vis", 2, *words),
        "maps": small(images, folder, "coco", 1, *SEMANTICS),
    }
    paths = {name: write_model(cfg, folder / f"{name}.pth") for name, cfg in cfgs.items()}
    return {name: DensePredictor.from_checkpoint(path) for name, path in paths.items()}


@pytest.fixture(scope="session")
def dense_server(start_server, dense_models) -> RunningServer:
    """A detector, a segmenter and a model of labels; files of up to 8 frames and 64 x 64 pixels."""
    limits = {"max_frames": 8, "max_pixels": 64 * 64}
    return start_server({**dense_models, "plain": make_predictor()}, limits=limits)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """A video of 7 frames with a square and a disc."""
    path = tmp_path_factory.mktemp("shapes") / "shapes.mp4"
    with new_video(path, 10.0) as writer:
        for t, picture in enumerate(scene(3, 7)[0]):
            writer.add(picture, t / 10)
    return path


@pytest.fixture(scope="session")
def index(videos, tmp_path_factory) -> SearchIndex:
    """Windows of 0.8 s of the videos of colours, by the model of ``make_predictor``."""
    return make_index(tmp_path_factory.mktemp("index"), videos.values(), SLIDING)


def make_index(folder: Path, videos: Iterable[Path], options: Options) -> SearchIndex:
    """Embeddings of videos."""
    predictor = make_predictor()
    with FeatureWriter(folder, describe_features(predictor, options, frames=False)) as writer:
        sources = [Source(str(video)) for video in videos]
        assert not extract_features(predictor, sources, writer, options, progress=False)
    return SearchIndex.open(folder)


@pytest.fixture(scope="session")
def server(start_server) -> RunningServer:
    """Two models; files of up to 2 MB, 60 s and 512 x 512 pixels."""
    limits = {"max_mb": 2, "max_seconds": 60, "max_pixels": 2**18, "max_windows": 100}
    return start_server(
        {"plain": make_predictor(), "sharp": make_predictor(3.0)}, limits=limits, workers=2
    )


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> dict[str, Path]:
    """Videos of 3 s: of one colour each, and one that changes from red to blue."""
    folder = tmp_path_factory.mktemp("videos")
    parts = {name: [(name, 30)] for name in COLOURS} | {"change": [("red", 15), ("blue", 15)]}
    return {name: write_colours(folder / f"{name}.mp4", part) for name, part in parts.items()}
