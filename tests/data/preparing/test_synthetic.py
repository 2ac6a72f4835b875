"""The demo data set: its files, and the two laws that make single frames useless."""

import hashlib
import json
import logging
import runpy
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from videonet.data.preparing import shapes, synthetic
from videonet.data.preparing.synthetic import CLASS_NAMES, RULES, render_clip, sample_trajectory
from videonet.errors import DataError

SMALL = {"train_clips": 16, "val_clips": 8, "size": 48, "num_frames": 8, "fps": 10}
ROOT = Path(__file__).resolve().parents[3]
OPPOSITES = [(label, label + 1) for label in range(0, len(CLASS_NAMES), 2)]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def entries(list_file: Path) -> list[tuple[str, int]]:
    pairs = (line.split() for line in list_file.read_text().splitlines())
    return [(path, int(label)) for path, label in pairs]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "set"
    assert synthetic.write_demo_dataset(folder, **SMALL).written == 24
    return folder


# The files


def test_clips_are_h264_files_of_the_stated_size(dataset):
    for path, _ in entries(dataset / "train.csv") + entries(dataset / "val.csv"):
        with av.open(str(dataset / path)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == SMALL["fps"]
        assert len(frames) == SMALL["num_frames"]
        assert frames[0].shape == (SMALL["size"], SMALL["size"], 3)


def test_decoded_frames_are_the_drawn_ones(dataset):
    label = CLASS_NAMES.index("come_nearer")
    clip = synthetic._Clip("train", label)
    drawn, _ = render_clip(label, SMALL["size"], SMALL["num_frames"], clip.generator(0))
    with av.open(str(dataset / clip.path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(np.stack(decoded).astype(float) - drawn).mean() < 8


def test_lists_are_balanced_and_name_every_file(dataset):
    assert (dataset / "classes.txt").read_text().split() == list(CLASS_NAMES)
    listed = {}
    for split, per_class in (("train", 2), ("val", 1)):
        pairs = entries(dataset / f"{split}.csv")
        assert Counter(label for _, label in pairs) == dict.fromkeys(range(8), per_class)
        assert all(path.split("/")[:2] == [split, CLASS_NAMES[label]] for path, label in pairs)
        listed |= dict(pairs)
    assert {str(path.relative_to(dataset)) for path in dataset.rglob("*.mp4")} == set(listed)


def test_boxes_give_one_box_inside_the_frame_per_frame(dataset):
    boxes = json.loads((dataset / "boxes.json").read_text())
    assert set(boxes) == {p for s in ("train", "val") for p, _ in entries(dataset / f"{s}.csv")}
    array = np.array(list(boxes.values()))
    assert array.shape == (24, SMALL["num_frames"], 4)
    assert array.min() >= 0 and array.max() <= SMALL["size"]
    assert (array[..., 2:] > array[..., :2]).all()


# Reproducible, resumable, careful


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_processes(dataset, tmp_path):
    synthetic.write_demo_dataset(tmp_path / "again", **SMALL, processes=2)
    assert digests(tmp_path / "again") == digests(dataset)


def test_no_clip_is_shared_between_seeds_or_splits(dataset, tmp_path):
    synthetic.write_demo_dataset(tmp_path / "other", **SMALL, seed=1)
    clips = [
        digest
        for folder in (dataset, tmp_path / "other")
        for path, digest in digests(folder).items()
        if path.endswith(".mp4")
    ]
    assert len(clips) == len(set(clips)) == 48


def test_a_complete_data_set_is_left_as_it_is(dataset, caplog):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    with caplog.at_level(logging.INFO, logger=synthetic.__name__):
        assert synthetic.write_demo_dataset(dataset, **SMALL).written == 0
    assert "left as it is" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_an_interrupted_run_is_completed(dataset, tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write_demo_dataset(tmp_path / "set", **SMALL, progress=interrupt)
    assert not (tmp_path / "set" / "train.csv").exists()
    calls = []
    result = synthetic.write_demo_dataset(
        tmp_path / "set", **SMALL, progress=lambda *call: calls.append(call)
    )
    assert result.written == 17
    assert calls == [(done, 17) for done in range(1, 18)]
    assert digests(tmp_path / "set") == digests(dataset)


def test_a_lost_list_is_written_again(dataset, tmp_path):
    synthetic.write_demo_dataset(tmp_path / "set", **SMALL)
    (tmp_path / "set" / "val.csv").unlink()
    synthetic.write_demo_dataset(tmp_path / "set", **SMALL)
    assert digests(tmp_path / "set") == digests(dataset)


@pytest.mark.parametrize("change", [{"seed": 3}, {"fps": 12}, {"train_clips": 30}])
def test_another_data_set_is_not_overwritten(dataset, change):
    before = digests(dataset)
    (key,) = change
    with pytest.raises(DataError, match=f"another demo data set: {key} is"):
        synthetic.write_demo_dataset(dataset, **(SMALL | change))
    assert digests(dataset) == before


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="is not empty"):
        synthetic.write_demo_dataset(tmp_path, **SMALL)
    with pytest.raises(DataError, match="is a file"):
        synthetic.write_demo_dataset(tmp_path / "thesis.txt", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_description_is_an_error(tmp_path):
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(DataError, match="demo.json is not JSON"):
        synthetic.write_demo_dataset(tmp_path, **SMALL)


@pytest.mark.parametrize(
    "change", [{"size": 47}, {"num_frames": 1}, {"val_clips": 0}, {"seed": -1}, {"processes": 0}]
)
def test_parameters_out_of_range_are_refused_before_anything_is_written(tmp_path, change):
    with pytest.raises(DataError, match=f"{next(iter(change))} is .*expected"):
        synthetic.write_demo_dataset(tmp_path / "set", **(SMALL | change))
    assert not (tmp_path / "set").exists()


def test_the_tool_writes_then_leaves_alone_then_refuses(tmp_path, monkeypatch, capsys):
    def run(*more: str) -> tuple[int, str, str]:
        command = ["make_demo_data.py", "--output", str(tmp_path / "set"), "--train-clips", "10"]
        monkeypatch.setattr(sys, "argv", [*command, "--val-clips", "10", *more])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(ROOT / "tools" / "make_demo_data.py"), run_name="__main__")
        return exit_info.value.code, *capsys.readouterr()

    picture = tmp_path / "pictures" / "sheet.png"
    code, out, _ = run("--processes", "1", "--picture", str(picture))
    assert code == 0 and "wrote 20 clips" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = run()
    assert code == 0 and "left as it is" in out
    code, _, errors = run("--seed", "1")
    assert code == 1
    assert errors.splitlines()[-1].startswith("error: ")


# The laws


@pytest.mark.parametrize("first,second", OPPOSITES)
def test_a_clip_played_backwards_is_a_clip_of_the_opposite_class(first, second):
    assert RULES[CLASS_NAMES[first]][0] == RULES[CLASS_NAMES[second]][0]
    for seed in range(20):
        forwards = sample_trajectory(first, 32, np.random.default_rng(seed))
        backwards = sample_trajectory(second, 32, np.random.default_rng(seed))
        for name, path in forwards.items():
            np.testing.assert_array_equal(path[::-1], backwards[name])


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)))
def test_only_the_attribute_of_the_class_changes_and_it_changes_one_way(label):
    moving, direction = RULES[CLASS_NAMES[label]]
    for seed in range(20):
        for name, path in sample_trajectory(label, 32, np.random.default_rng(seed)).items():
            steps = np.diff(path) * direction
            if name == moving:
                assert (steps >= 0).all() and (steps > 0).sum() > 20
            else:
                assert (steps == 0).all()


def states_of_single_frames(clips: int, seed: int, frame: int | None) -> np.ndarray:
    """The state at one frame (random if None) of clips of every class: (classes, clips, 6)."""
    rng = np.random.default_rng(seed)
    states = np.empty((len(CLASS_NAMES), clips, 5))
    for label in range(len(CLASS_NAMES)):
        for clip in range(clips):
            state = sample_trajectory(label, 16, rng)
            t = rng.integers(16) if frame is None else frame
            x, y, radius, angle = (state[name][t] for name in state)
            states[label, clip] = x, y, radius, np.sin(angle), np.cos(angle)
    return states


def test_single_frames_have_the_same_distribution_in_every_class():
    clips = 1000
    states = states_of_single_frames(clips, seed=0, frame=None)
    limit = 2.2 * np.sqrt(1 / clips)  # Kolmogorov-Smirnov against the pool, about 1 in 10^4
    for attribute in range(states.shape[-1]):
        pooled = np.sort(states[:, :, attribute].ravel())
        for label in range(len(CLASS_NAMES)):
            own = np.sort(states[label, :, attribute])
            below = np.searchsorted(own, pooled, side="right") / clips
            gap = np.abs(below - np.arange(1, pooled.size + 1) / pooled.size).max()
            assert gap < limit, (CLASS_NAMES[label], attribute, gap)


def nearest_neighbour_accuracy(frame: int | None) -> float:
    known = states_of_single_frames(200, seed=1, frame=frame)
    asked = states_of_single_frames(100, seed=2, frame=frame)
    scale = known.reshape(-1, 5).std(0)
    known, asked = known.reshape(-1, 5) / scale, asked.reshape(-1, 5) / scale
    squared = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    nearest = np.argpartition(squared, 25, axis=1)[:, :25] // 200
    votes = (nearest[:, :, None] == np.arange(8)).sum(1)
    return float((votes.argmax(1) == np.repeat(np.arange(8), 100)).mean())


def test_a_probe_of_one_frame_at_a_random_time_stays_at_chance():
    assert nearest_neighbour_accuracy(frame=None) < 0.172  # chance 0.125, four standard deviations
    # The same probe does find what is there to find once it is told when the frame was taken.
    assert nearest_neighbour_accuracy(frame=0) > 0.2


# The drawing


def test_what_changes_lies_in_the_boxes(monkeypatch):
    monkeypatch.setattr(shapes, "DRIFT_SHARE", 0.0)
    for label in range(len(CLASS_NAMES)):
        frames, boxes = render_clip(label, 64, 8, np.random.default_rng(label))
        changed = (frames != frames[:1]).any(axis=(0, 3))
        assert changed.mean() > 0.01
        allowed = np.zeros_like(changed)
        for x0, y0, x1, y1 in boxes:
            allowed[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = True
        assert not (changed & ~allowed).any(), CLASS_NAMES[label]


def test_a_background_may_drift(monkeypatch):
    monkeypatch.setattr(shapes, "DRIFT_SHARE", 1.0)
    frames, boxes = render_clip(0, 64, 8, np.random.default_rng(0))
    outside = np.ones(frames.shape[1:3], dtype=bool)
    for x0, y0, x1, y1 in boxes:
        outside[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
    assert (frames[0] != frames[-1]).any(axis=-1)[outside].mean() > 0.1


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_no_shape_looks_the_same_after_a_turn(shape):
    table = shapes._distance_table(shape)
    axis = np.linspace(-1.2, 1.2, 96, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    upright = shapes._lookup(table, u, v, 1.2) < 0
    assert upright.mean() > 0.1
    for angle in np.radians(np.arange(40, 330, 4)):
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        turned = shapes._lookup(table, u * c + v * s, v * c - u * s, 1.2) < 0
        assert (upright & turned).sum() / (upright | turned).sum() < 0.9


def test_a_rising_angle_turns_clockwise_on_the_screen():
    frames = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    state = {"x": 32, "y": 32, "radius": 20}
    trajectory = {name: np.full(2, float(value)) for name, value in state.items()}
    trajectory["angle"] = np.array([0, np.pi / 2])  # the drop points up, then right
    black = [np.zeros(3, dtype=np.float32)]
    shapes.draw_shape(frames, "drop", trajectory, black, np.random.default_rng(0))
    tips = []
    for frame in frames:
        rows, columns = np.nonzero(frame.any(axis=-1))
        farthest = np.argmax((rows - 32) ** 2 + (columns - 32) ** 2)
        tips.append((columns[farthest] - 32, rows[farthest] - 32))
    (_, up), (right, _) = tips
    assert up < -15 and right > 15
