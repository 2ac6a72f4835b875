"""Files, streams and views give the scores that they should, and the same ones."""

from __future__ import annotations

import csv
import json
import mmap
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import videonet
from videonet.config import load_config
from videonet.data.decode import PyAVReader
from videonet.data.synthetic import write_demo_dataset
from videonet.engine.distributed import process
from videonet.engine.multiview import run_multiview_test
from videonet.errors import ConfigError, DecodeError
from videonet.predict.segments import merge_segments


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=8, val_clips=8, size=32, num_frames=40, seed=0)
    return folder


@pytest.fixture(scope="module")
def run_folder(data, tmp_path_factory):
    """A run with a checkpoint of random weights that carries its config and class names."""
    folder = tmp_path_factory.mktemp("run")
    cfg = load_config(
        "DEMO/MVITv2_XS.yaml",
        [
            *("DATA.PATH_TO_DATA_DIR", str(data), "OUTPUT_DIR", str(folder), "DEVICE", "cpu"),
            *("DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32", "DATA.SAMPLING", "dense"),
            *("DATA.SAMPLING_RATE", "2", "TEST.NUM_SPATIAL_CROPS", "3", "TEST.BATCH_SIZE", "7"),
            *("DATA_LOADER.NUM_WORKERS", "0", "TRAIN.ENABLE", "False"),
        ],
    )
    torch.manual_seed(0)
    model = videonet.create_model("mvit_v2_xs", num_classes=8, num_frames=8, crop_size=32)
    with torch.no_grad():  # scores that differ from class to class
        model.head.projection.weight.normal_(std=0.5)
    names = (data / "classes.txt").read_text().split()
    content = {"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": names}
    path = folder / "checkpoints" / "checkpoint_epoch_00001.pyth"
    path.parent.mkdir()
    torch.save(content, path)
    return folder


def worst(one, other) -> float:
    assert [w.index for w in one] == [w.index for w in other] and one
    return max((a.scores - b.scores).abs().max().item() for a, b in zip(one, other, strict=True))


def test_scores_are_those_of_testing(run_folder, data):
    cfg = load_config(run_folder / "config.yaml") if (run_folder / "config.yaml").exists() else None
    predictor = videonet.Predictor.from_config(cfg, checkpoint=run_folder)
    with process("cpu") as this:
        run_multiview_test(predictor.cfg, this)
    rows = list(csv.DictReader((run_folder / "predictions.csv").open()))
    assert len(rows) == 8
    for row in rows:
        ((name, score),) = predictor(row["path"], top_k=1).top
        assert name == row["prediction"]
        assert score == pytest.approx(float(row["score"]), abs=1e-5)


def test_a_checkpoint_alone_suffices_and_one_view_is_a_number_of_the_model(run_folder, data):
    predictor = videonet.Predictor.from_config(checkpoint=run_folder)
    video = next((data / "val").rglob("*.mp4"))
    prediction = predictor(video, top_k=3)
    assert len(prediction.top) == 3 and prediction.clip.shape == (3, 8, 32, 32)
    assert prediction.clip_scores.shape == (9, 8)
    assert torch.allclose(prediction.scores, prediction.clip_scores.mean(dim=0))
    assert {name for name, _ in prediction.top} <= set(predictor.class_names)


def test_batch_size_does_not_matter(run_folder, data):
    video = str(next((data / "val").rglob("*.mp4")))
    found = []
    for batch in ("1", "8"):
        overrides = ["TEST.BATCH_SIZE", batch]
        predictor = videonet.Predictor.from_config(checkpoint=run_folder, overrides=overrides)
        found.append((predictor(video).scores, list(predictor.windows(video, stride=0.2, crops=3))))
    assert (found[0][0] - found[1][0]).abs().max() <= 1e-5
    assert worst(found[0][1], found[1][1]) <= 1e-5


def test_a_stream_gives_what_the_file_gives(run_folder, data):
    predictor = videonet.Predictor.from_config(checkpoint=run_folder)
    video = str(next((data / "val").rglob("*.mp4")))
    with PyAVReader(video) as reader:
        fps = reader.info.fps
        frames = [(time, picture()) for time, picture in reader.forwards()]
    whole = list(predictor.windows(video, stride=0.3))
    timed = list(predictor.stream(frames, fps=fps, stride=0.3))
    plain = list(
        predictor.stream((torch.from_numpy(f.copy()) for _, f in frames), fps=fps, stride=0.3)
    )
    assert len(whole) >= 5
    assert worst(whole, timed) <= 1e-6 and worst(whole, plain) <= 1e-6
    later = list(predictor.windows(video, stride=0.3, first=3))
    assert worst(whole[3:], later) <= 1e-6


def test_a_stream_answers_before_it_ends(colour_predictor):
    predictor = colour_predictor()
    taken = []

    def camera():
        for k in range(1000):
            taken.append(k)
            yield np.full((20, 30, 3), (0, 0, 250), dtype=np.uint8)

    results = predictor.stream(camera(), fps=10.0, stride=0.5)
    first, second = next(results), next(results)
    assert len(taken) == 13  # the frames of 0 … 0.8 s, and half a second more
    assert first.scores.argmax() == 2 and (second.start, second.end) == (0.5, 1.3)


def test_a_picture_of_another_kind_is_refused(colour_predictor):
    with pytest.raises(ConfigError, match="frame 0 of the stream is float64"):
        list(colour_predictor().stream([np.zeros((4, 4, 3))], fps=10.0))


@pytest.mark.parametrize("stride", [0.2, 0.4, 0.7])
def test_a_planted_segment_is_found_within_one_stride(
    colour_predictor, make_colours, tmp_path, stride
):
    parts = [("red", 120), ("blue", 37), ("red", 80), ("green", 20), ("red", 30)]
    video = make_colours(tmp_path / "planted.mp4", parts)
    predictor = colour_predictor()
    windows = list(predictor.windows(video, stride=stride))
    times = [(w.start, w.end) for w in windows]
    scores = np.stack([w.scores.numpy() for w in windows])
    segments = merge_segments(times, scores, predictor.class_names)
    assert [s.label for s in segments] == ["red", "blue", "red", "green", "red"]
    borders = np.cumsum([count for _, count in parts]) / 10
    for segment, start, end in zip(segments, [0.0, *borders], borders, strict=False):
        assert abs(segment.start - start) <= stride + 1e-9
        assert abs(segment.end - end) <= stride + 1e-9


def test_aggregation_over_windows(colour_predictor):
    predictor = colour_predictor()
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    assert predictor.aggregate(scores, None, "mean").tolist() == pytest.approx([0.4, 0.5, 0.1])
    assert predictor.aggregate(scores, None, "max").tolist() == pytest.approx([0.7, 0.8, 0.1])
    with pytest.raises(ConfigError, match="trained head"):
        predictor.aggregate(scores, None, "attention")
    with pytest.raises(ConfigError, match="median"):
        predictor.aggregate(scores, None, "median")


def test_a_file_that_ends_early(colour_predictor, make_colours, tmp_path):
    whole = make_colours(tmp_path / "whole.mp4", [("red", 60)]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DecodeError, match=r"cut\.mp4"):
        list(colour_predictor().windows(tmp_path / "cut.mp4"))


@pytest.mark.slow
def test_memory_does_not_grow_with_an_hour(colour_predictor, make_colours, tmp_path):
    """The same clip 360 times, by copying packets: an hour of 128 x 96 at 10 frames a second."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the memory of a process is read from /proc")
    parts = [("red", 40), ("green", 60)]
    clip = make_colours(tmp_path / "clip.mp4", parts, size=(128, 96))
    hour = tmp_path / "hour.mp4"
    with av.open(str(hour), "w") as out:
        copy, shift = None, 0
        for _ in range(360):
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                if copy is None:
                    copy = out.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.dts += shift
                        packet.pts += shift
                        packet.stream = copy
                        out.mux(packet)
                shift += stream.duration
    predictor, memory = colour_predictor(), []
    for window in predictor.windows(hour, stride=1.0):
        if window.index % 100 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory.append(pages * mmap.PAGESIZE / 2**20)
    assert window.end == pytest.approx(3600, abs=1) and len(memory) == 36
    assert max(memory) - memory[2] < 50, json.dumps(memory)
