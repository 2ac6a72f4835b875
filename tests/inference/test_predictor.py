"""Files, streams and views give the scores that they should, and the same ones."""

from __future__ import annotations

import csv
import json
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import videonet
from videonet.config import load_config, load_config_text
from videonet.data.decode import PyAVReader
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.engine.distributed import process
from videonet.engine.multiview import run_multiview_test
from videonet.errors import CheckpointError, ConfigError, DecodeError
from videonet.tasks.segments import merge_segments


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
    predictor = videonet.Predictor.from_checkpoint(run_folder, cfg=cfg)
    with process("cpu") as this:
        run_multiview_test(predictor.cfg, this)
    rows = list(csv.DictReader((run_folder / "predictions.csv").open()))
    assert len(rows) == 8
    for row in rows:
        ((name, score),) = predictor(row["path"], top_k=1).top
        assert name == row["prediction"]
        assert score == pytest.approx(float(row["score"]), abs=1e-5)


def test_a_checkpoint_alone_suffices_and_one_view_is_a_number_of_the_model(run_folder, data):
    predictor = videonet.Predictor.from_checkpoint(run_folder)
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
        predictor = videonet.Predictor.from_checkpoint(run_folder, overrides=overrides)
        found.append((predictor(video).scores, list(predictor.windows(video, stride=0.2, crops=3))))
    assert (found[0][0] - found[1][0]).abs().max() <= 1e-5
    assert worst(found[0][1], found[1][1]) <= 1e-5


def test_a_stream_gives_what_the_file_gives(run_folder, data):
    predictor = videonet.Predictor.from_checkpoint(run_folder)
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


@pytest.fixture(scope="module")
def labels_folder(data, run_folder, tmp_path_factory):
    """The same weights as of a run whose videos have several labels; returns its list too."""
    folder = tmp_path_factory.mktemp("labels")
    content = torch.load(
        run_folder / "checkpoints" / "checkpoint_epoch_00001.pyth", weights_only=True
    )
    videos = [str(path) for path in sorted((data / "val").rglob("*.mp4"))]
    (folder / "val.csv").write_text(
        "".join(f"{path}\t{k % 8}\t{(k + 1) % 8}\n" for k, path in enumerate(videos))
    )
    overrides = [
        *("TRAIN.DATASET", "multilabel", "TEST.DATASET", "multilabel"),
        *("MODEL.LOSS_FUNC", "bce_logit", "OUTPUT_DIR", str(folder)),
        *("DATA.PATH_TO_DATA_DIR", str(folder)),
    ]
    cfg = load_config_text(content["cfg"], overrides)
    path = folder / "checkpoints" / "checkpoint_epoch_00001.pyth"
    path.parent.mkdir()
    torch.save({**content, "cfg": cfg.dump()}, path)
    return folder


@pytest.mark.parametrize("ensemble", ["softmax", "logits", "max"])
def test_several_labels_get_the_scores_of_testing(labels_folder, ensemble):
    overrides = ["TEST.ENSEMBLE", ensemble]
    predictor = videonet.Predictor.from_checkpoint(labels_folder, overrides=overrides)
    with process("cpu") as this:
        run_multiview_test(predictor.cfg, this)
    with (labels_folder / "scores.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    tested = torch.tensor([float(row[name]) for name in predictor.class_names])
    prediction = predictor(row["path"])
    assert torch.allclose(prediction.scores, tested, atol=1e-5)
    assert (prediction.clip_scores.sum(dim=1) - 1).abs().min() > 1e-3
    logits, _ = predictor.run(predictor.views(row["path"]))
    assert torch.allclose(prediction.clip_scores, logits.sigmoid(), atol=1e-6)
    for window in predictor.windows(row["path"], stride=0.5, crops=3):
        assert abs(window.scores.sum().item() - 1) > 1e-3


def test_the_task_is_the_checkpoints_own(labels_folder, run_folder):
    """A configuration from elsewhere says how clips are made, not what was trained."""
    cfg = labels_folder / "other.yaml"
    content = torch.load(
        run_folder / "checkpoints" / "checkpoint_epoch_00001.pyth", weights_only=True
    )
    cfg.write_text(content["cfg"])
    assert videonet.Predictor.from_checkpoint(labels_folder, cfg=cfg).task.multi_label
    assert not videonet.Predictor.from_checkpoint(run_folder).task.multi_label


def test_attention_is_for_one_label(labels_folder):
    predictor = videonet.Predictor.from_checkpoint(labels_folder)
    predictor.video_head = torch.nn.Identity()
    with pytest.raises(ConfigError, match="one label per video"):
        predictor.aggregate(torch.zeros(2, 8), torch.zeros(2, 4), "attention")


def test_threads_get_their_own_embeddings(run_folder):
    predictor = videonet.Predictor.from_checkpoint(run_folder)
    torch.manual_seed(0)
    clips = [torch.randint(0, 256, (k, 3, 8, 32, 32), dtype=torch.uint8) for k in (1, 2, 3, 4)]
    wanted = [predictor.run(clip) for clip in clips]
    frames = [predictor.frame_embeddings(clip) for clip in clips]

    def work(number):
        for _ in range(5):
            logits, embeddings = predictor.run(clips[number])
            assert torch.allclose(logits, wanted[number][0], atol=1e-5)
            assert torch.allclose(embeddings, wanted[number][1], atol=1e-5)
            assert torch.allclose(predictor.frame_embeddings(clips[number]), frames[number])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not predictor.model.head._forward_pre_hooks


ODD = {
    "a number": ({"class_names": 5}, r"class_names are 5, expected a list of names"),
    "text": ({"class_names": "abcdefgh"}, "class_names are 'abcdefgh'"),
    "numbers": ({"class_names": list(range(8))}, "expected a list of names"),
    "empty": ({"class_names": []}, "expected a list of names"),
    "too few": ({"class_names": ["a"]}, "names 1 classes, but its model has 8"),
    "one number": ({"class_names": ["0"]}, "names 1 classes, but its model has 8"),
    "no tensors": ({"model_state": {1: torch.zeros(1)}}, "called 1, expected text"),
    "too many views": (
        {"cfg": ("NUM_ENSEMBLE_VIEWS: 3", "NUM_ENSEMBLE_VIEWS: 100000000")},
        "TEST.NUM_ENSEMBLE_VIEWS .* is 100000000, but must be at most 1,000",
    ),
    "too large a model": (
        {"cfg": ("NAME: mvit_v2_xs", "NAME: mvit_v2_h")},
        "holds .* values, but its configuration describes a model of",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_checkpoints_get_one_sentence(run_folder, tmp_path, kind):
    change, message = ODD[kind]
    content = torch.load(
        run_folder / "checkpoints" / "checkpoint_epoch_00001.pyth", weights_only=True
    )
    if "cfg" in change:
        before, after = change["cfg"]
        assert before in content["cfg"]
        change = {"cfg": content["cfg"].replace(before, after)}
    torch.save({**content, **change}, tmp_path / "x.pyth")
    with pytest.raises((CheckpointError, ConfigError), match=message) as caught:
        videonet.Predictor.from_checkpoint(tmp_path / "x.pyth")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(run_folder, tmp_path):
    content = torch.load(
        run_folder / "checkpoints" / "checkpoint_epoch_00001.pyth", weights_only=True
    )
    content["model_state"]["norm.weight"][3] = float("nan")
    torch.save(content, tmp_path / "x.pyth")
    with pytest.raises(CheckpointError, match=r"its norm\.weight has values that are not finite"):
        videonet.Predictor.from_checkpoint(tmp_path / "x.pyth")


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
