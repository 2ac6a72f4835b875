"""Predictions for whatever people have: files, bytes, addresses, frames in memory."""

from __future__ import annotations

import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videonet.data.decode import PyAVReader
from videonet.data.video.memory import stack_frames
from videonet.errors import ConfigError, DecodeError


@pytest.fixture
def video(make_colours, tmp_path) -> Path:
    return make_colours(tmp_path / "green.mp4", [("green", 20)])


@pytest.fixture
def frames(video) -> torch.Tensor:
    with PyAVReader(str(video)) as reader:
        return reader.frames_at(range(20))  # (T, H, W, 3)


@pytest.fixture
def server(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_in_all_its_forms(colour_predictor, video):
    predict = colour_predictor()
    expected = predict(video).scores
    content = video.read_bytes()
    for form in (str(video), content, bytearray(content), io.BytesIO(content)):
        assert torch.equal(predict(form).scores, expected)
    with video.open("rb") as file:
        assert torch.equal(predict(file).scores, expected)


def test_frames_in_all_their_layouts(colour_predictor, video, frames):
    predict = colour_predictor()
    expected = predict(video).scores
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    forms = {
        "numpy": frames.numpy(),
        "tensor": frames,
        "colours first": frames.permute(3, 0, 1, 2),
        "frames, then colours": frames.permute(0, 3, 1, 2),
        "pictures": pictures,
        "arrays": list(frames.numpy()),
        "tensors": list(frames.permute(0, 3, 1, 2)),
    }
    for name, form in forms.items():
        found = predict(form, fps=10)
        assert (found.scores - expected).abs().max() < 2e-2, name
        assert found.top[0][0] == "green"


def test_the_rate_of_frames_counts(colour_predictor, make_colours, tmp_path):
    video = make_colours(tmp_path / "two.mp4", [("red", 10), ("blue", 30)])
    with PyAVReader(str(video)) as reader:
        frames = reader.frames_at(range(40))
    predict = colour_predictor()
    views = [predict.views(frames, fps=fps) for fps in (10, 20)]
    assert (predict.views(video).float() - views[0].float()).abs().max() < 8
    assert (views[1].float() - views[0].float()).abs().max() > 100  # other frames are red


def test_a_list_of_videos_keeps_its_order(colour_predictor, make_colours, tmp_path):
    red, blue = (make_colours(tmp_path / f"{c}.mp4", [(c, 20)]) for c in ("red", "blue"))
    with PyAVReader(str(red)) as reader:
        frames = reader.frames_at(range(20))
    found = colour_predictor()([blue, red.read_bytes(), frames, str(blue)], fps=10)
    assert [prediction.top[0][0] for prediction in found] == ["blue", "red", "red", "blue"]


def test_an_address(colour_predictor, video, server, tmp_path):
    Path(tmp_path, "v.mp4").write_bytes(video.read_bytes())
    predict = colour_predictor()
    assert torch.equal(predict(f"{server}/v.mp4?x=1").scores, predict(video).scores)
    with pytest.raises(DecodeError, match=rf"cannot read {server}/none\.mp4: .*404"):
        predict(f"{server}/none.mp4")
    Path(tmp_path, "bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(DecodeError, match=rf"^cannot read {server}/bad\.mp4: "):
        predict(f"{server}/bad.mp4")


def test_pictures_as_bytes(colour_predictor, frames):
    file = io.BytesIO()
    Image.fromarray(frames[0].numpy()).save(file, format="PNG")
    assert colour_predictor()(file.getvalue()).top[0][0] == "green"


@pytest.mark.parametrize(
    "shape, sentence",
    [
        ((4, 8, 8), r"the shape \(4, 8, 8\), expected"),
        ((4, 8, 8, 4), "expected"),
        ((3, 3, 8, 8), r"may be \(3, T, H, W\) or \(T, 3, H, W\)"),
        ((0, 8, 8, 3), "expected"),
        ((8, 4, 8, 8), "expected"),
    ],
)
def test_layouts_that_cannot_be_meant(colour_predictor, shape, sentence):
    with pytest.raises(DecodeError, match=sentence):
        colour_predictor()(np.zeros(shape, dtype=np.uint8), fps=10)


def test_other_things_get_one_sentence(colour_predictor, frames):
    predict = colour_predictor()
    with pytest.raises(ConfigError, match="give fps"):
        predict(frames)
    with pytest.raises(ConfigError, match="fps is 0"):
        predict(frames, fps=0)
    with pytest.raises(DecodeError, match="float32, expected uint8"):
        predict(frames.float() / 255, fps=10)
    with pytest.raises(DecodeError, match=r"different sizes \(48x32, 48x16\)|48x16, 48x32"):
        predict([frames[0], frames[1, :16]], fps=10)
    with pytest.raises(DecodeError, match="frame 1 is a str"):
        predict([frames[0], "x"], fps=10)
    with pytest.raises(DecodeError, match="empty"):
        predict([], fps=10)
    with pytest.raises(ConfigError, match="given as a int"):
        predict(3)
    with pytest.raises(ConfigError, match="'rb'"):
        predict(io.StringIO("text"))
    for empty in (b"", io.BytesIO()):
        with pytest.raises(DecodeError, match="no bytes"):
            predict(empty)
    with pytest.raises(DecodeError, match="^cannot read the video: "):
        predict(b"no video at all")


def test_grey_and_transparent_pictures():
    pictures = [Image.new("L", (4, 2), 7), Image.new("RGBA", (4, 2), (1, 2, 3, 4))]
    frames = stack_frames(pictures)
    assert frames.shape == (2, 2, 4, 3)
    assert frames[0, 0, 0].tolist() == [7, 7, 7] and frames[1, 0, 0].tolist() == [1, 2, 3]


def test_a_prediction_shows_itself(colour_predictor, video):
    predictor = colour_predictor()
    predictor.class_names[1] = "<b>green"
    predictor.task.output_names[1] = "<b>green"
    found = predictor(video)
    lines = str(found).splitlines()
    assert len(lines) == 3 and lines[0].endswith("green")
    page = found._repr_html_()
    assert "<table>" in page and "data:image/png;base64," in page and "<b>" not in page
