"""Damaged videos, and decoders that end or hang their process, from the list to the run's end."""

import csv
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from videonet.config import load_config
from videonet.data import build_loader
from videonet.data.loading import build
from videonet.data.loading.batching import read_bad_list
from videonet.data.loading.build import build_dataset, read_videos
from videonet.data.loading.loader import BAD_LIST
from videonet.data.preparing import verify
from videonet.data.preparing.manifest import manifest_path, read_manifest
from videonet.errors import DataError

HERE = Path(__file__).resolve().parents[1]
VIDEOS, CLASSES = 100, 4
DAMAGED = {3: "kills.mp4", 20: "cut.mp4", 41: "zeros.mp4", 62: "hangs.mp4", 88: "text.mp4"}


@pytest.fixture(scope="module")
def faults():
    """The module of the simulated decoders, which worker processes can import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import faults

        yield faults


@pytest.fixture(scope="module")
def source(make_video, tmp_path_factory):
    """100 videos: 3 % are damaged, one hangs its decoder and one ends its process."""
    folder = tmp_path_factory.mktemp("damaged")
    good = [make_video(folder / f"good{k}.mp4", frames=10 + k) for k in range(8)]
    content = good[7].read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    start = content.find(b"mdat") + 8
    (folder / "zeros.mp4").write_bytes(content[:start] + bytes(2000) + content[start + 2000 :])
    (folder / "text.mp4").write_bytes(b"no video" * 50)
    for name in ("hangs.mp4", "kills.mp4"):
        shutil.copy(good[0], folder / name)
    names = [DAMAGED.get(k, f"good{k % 8}.mp4") for k in range(VIDEOS)]
    lines = [f"{name} {k % CLASSES}\n" for k, name in enumerate(names)]
    (folder / "train.csv").write_text("".join(lines))
    (folder / "val.csv").write_text("".join(lines[:10]))
    return folder


@pytest.fixture
def folder(source, tmp_path):
    return Path(shutil.copytree(source, tmp_path / "data"))


@pytest.fixture
def config(folder, tmp_path):
    def make(*overrides):
        base = [
            *("DATA.PATH_TO_DATA_DIR", folder, "OUTPUT_DIR", tmp_path / "run"),
            *("MODEL.NUM_CLASSES", CLASSES, "DATA.NUM_FRAMES", 4, "DATA.SAMPLING_RATE", 2),
            *("DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
            *("DATA.TRAIN_JITTER_SCALES", [32, 36], "TRAIN.BATCH_SIZE", 20),
            *("DATA.MAX_BAD_SHARE", 0.05, "DATA_LOADER.NUM_WORKERS", 2),
            *("DATA_LOADER.VIDEO_TIMEOUT", 4, "TRAIN.EVAL_PERIOD", 0),
            *("SOLVER.MAX_EPOCH", 2, "SOLVER.WARMUP_EPOCHS", 1, "TEST.ENABLE", False),
        ]
        return load_config("DEMO/MVITv2_XS.yaml", [str(o) for o in (*base, *overrides)])

    return make


@pytest.fixture
def simulate(monkeypatch, faults):
    """Let the decoders of hangs.mp4 and kills.mp4 do that, or refuse them."""

    def set_up(kind):
        wrap = getattr(faults, kind)
        for name in ("training_clips", "evaluation_views"):
            make = getattr(build, name)
            monkeypatch.setattr(build, name, lambda *args, make=make: wrap(make(*args)))
        pool = verify.WorkerPool
        monkeypatch.setattr(verify, "WorkerPool", lambda work, *args: pool(wrap(work), *args))

    return set_up


def all_batches(cfg, epochs=1):
    loader = build_loader(cfg, "train")
    batches = [batch for _ in range(epochs) for batch in loader]
    loader.close()
    return loader, batches


def test_a_crash_and_a_hang_are_replaced_as_any_damage_is(config, simulate, tmp_path):
    simulate("Refusing")
    _, expected = all_batches(config("DATA_LOADER.NUM_WORKERS", 0), epochs=2)
    simulate("Faulty")
    loader, batches = all_batches(config(), epochs=2)
    assert len(batches) == len(expected) == 10
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.clips, other.clips)
        assert torch.equal(batch.targets["labels"], other.targets["labels"])
        assert torch.equal(batch.videos, other.videos)
        assert [f.index for f in batch.failures] == [f.index for f in other.failures]
    assert set(loader.failures) == set(DAMAGED)
    assert "ended its process with SIGSEGV" in loader.failures[3].reason
    assert "it took longer than 4 s" in loader.failures[62].reason
    with open(tmp_path / "run" / BAD_LIST, newline="") as file:
        listed = {Path(path).name: reason for path, reason in csv.reader(file)}
    assert set(listed) == {"kills.mp4", "hangs.mp4"}  # each once: the second epoch passed them over
    resumed, again = all_batches(config())  # a new process reads the list
    assert [f.index for batch in again for f in batch.failures] == [
        f.index for batch in expected[:5] for f in batch.failures
    ]
    assert set(resumed.dataset.bad) == {3, 62}


def test_in_evaluation_they_fail_and_nothing_takes_their_place(config, simulate):
    simulate("Faulty")
    loader = build_loader(config("DATA.VAL_LIST", "train.csv"), "val")
    batches = list(loader)
    loader.close()
    seen = torch.cat([batch.videos for batch in batches]).tolist()
    assert seen == [k for k in range(VIDEOS) if k not in DAMAGED]
    assert [f.index for batch in batches for f in batch.failures] == sorted(DAMAGED)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_killed_worker_condemns_no_good_video(config, simulate, folder, tmp_path, split):
    (folder / f"{split}.csv").write_text("".join(f"good{k}.mp4 {k % CLASSES}\n" for k in range(4)))
    simulate("KilledOnce")
    loader = build_loader(config("TRAIN.BATCH_SIZE", 4, "TEST.BATCH_SIZE", 4), split)
    batches = list(loader)
    loader.close()
    assert sorted(torch.cat([batch.videos for batch in batches]).tolist()) == [0, 1, 2, 3]
    assert [f for batch in batches for f in batch.failures] == []
    assert len(list(folder.glob("*.visited"))) == 4
    assert not (tmp_path / "run" / BAD_LIST).exists()


def test_an_iteration_may_end_early_and_start_again(config, simulate):
    simulate("Refusing")
    cfg = config("DATA_LOADER.VIDEO_TIMEOUT", 0)
    loader = build_loader(cfg, "train")
    for batch in loader:
        first = batch
        break
    loader.set_position(0)
    batches = list(loader)
    loader.close()
    assert len(batches) == 5 and torch.equal(batches[0].clips, first.clips)


def test_verify_then_train(config, simulate, folder, tmp_path, caplog):
    from videonet.engine.distributed import process
    from videonet.engine.train import Trainer

    simulate("Faulty")
    cfg = config()
    path, mark, rows = verify.verify(read_videos(cfg, "train"), workers=2, timeout=4)
    assert path == folder / "train.csv.manifest.json" and len(rows) == 13
    reasons = {row["path"]: row["reason"] for row in rows if row["reason"]}
    assert set(reasons) == set(DAMAGED.values())
    assert "SIGSEGV" in reasons["kills.mp4"] and "longer than 4 s" in reasons["hangs.mp4"]

    with caplog.at_level(logging.INFO, logger="videonet"), process("cpu", "gloo") as this:
        trainer = Trainer(cfg, this)
        trainer.run()
    assert mark in caplog.text
    assert trainer.position.step == 10
    assert set(trainer.loader.failures) == set(DAMAGED)
    for name in DAMAGED.values():
        assert f"cannot read {folder / name}: " in caplog.text
    assert not (tmp_path / "run" / BAD_LIST).exists()  # no process ended: they were not opened


def test_too_many_known_bad_videos_stop_before_the_start(config, simulate):
    simulate("Refusing")
    cfg = config("DATA.MAX_BAD_SHARE", 0.04)
    verify.verify(read_videos(cfg, "train"), workers=2)
    with pytest.raises(DataError, match="5 of 100 videos cannot be read.*MAX_BAD_SHARE = 0.04"):
        build_loader(cfg, "train")


def test_the_manifest(config, simulate, folder):
    simulate("Refusing")
    cfg = config()
    videos = read_videos(cfg, "train")
    path, mark, _ = verify.verify(videos, workers=2)
    manifest = read_manifest(videos)
    assert len(manifest) == VIDEOS and manifest.fingerprint == mark
    assert set(manifest.bad) == set(DAMAGED)
    info = manifest.info(1)
    assert (info.frames, info.width, info.height, info.codec) == (11, 64, 48, "h264")
    assert info.fps == pytest.approx(30) and info.even and info.rotation == 0
    assert manifest.info(3) is None

    known = [build_dataset(cfg, "train")[0, k].clips for k in range(8)]
    path.unlink()
    assert read_manifest(videos) is None
    for k, clips in enumerate(known):
        assert torch.equal(build_dataset(cfg, "train")[0, k].clips, clips)


def test_the_manifest_follows_the_files(config, simulate, folder):
    simulate("Refusing")
    videos = read_videos(config(), "train")
    path, mark, _ = verify.verify(videos, workers=2)
    written = path.stat().st_mtime_ns
    before = json.loads(path.read_text())
    assert verify.verify(videos, workers=2)[1] == mark and json.loads(path.read_text()) == before
    assert path.stat().st_mtime_ns > written
    shutil.copy(folder / "good5.mp4", folder / "cut.mp4")
    (folder / "good1.mp4").write_bytes((folder / "good2.mp4").read_bytes())
    outdated = read_manifest(videos)
    assert 20 not in outdated.bad and outdated.info(1) is None  # they have changed
    _, other, rows = verify.verify(videos, workers=2)
    fresh = {row["path"]: row for row in rows}
    assert other != mark and fresh["cut.mp4"]["reason"] == "" and fresh["good1.mp4"]["frames"] == 12


def test_the_fingerprint_is_of_content_and_labels_not_of_order(config, simulate, folder):
    simulate("Refusing")
    videos = read_videos(config(), "train")
    _, mark, _ = verify.verify(videos, workers=2)
    lines = (folder / "train.csv").read_text().splitlines()
    (folder / "other.csv").write_text("\n".join(reversed(lines)))
    swapped = [lines[0].replace(" 0", " 1"), *lines[1:]]
    (folder / "labels.csv").write_text("\n".join(swapped))
    marks = {}
    for name in ("other.csv", "labels.csv"):
        videos = read_videos(config("DATA.TRAIN_LIST", name), "train")
        marks[name] = verify.verify(videos, workers=2)[1]
        assert manifest_path(videos.name).name == f"{name}.manifest.json"
    assert marks["other.csv"] == mark != marks["labels.csv"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 0}', '{"format": 2, "columns": []}'])
def test_a_manifest_that_cannot_be_used(config, folder, content):
    (folder / "train.csv.manifest.json").write_text(content)
    with pytest.raises(DataError, match="manifest.json is no manifest that can be used"):
        build_dataset(config(), "train")


def test_a_manifest_of_an_earlier_version_is_not_used(config, folder, caplog):
    videos = read_videos(config(), "train")
    (folder / "train.csv.manifest.json").write_text('{"format": 1, "columns": []}')
    assert read_manifest(videos) is None and "run tools/data.py verify" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [("width", 0), ("frames", 1.5), ("fps", float("nan")), ("rotation", 45), ("codec", None)],
)
def test_a_row_that_no_video_has(config, simulate, folder, key, value):
    simulate("Refusing")
    videos = read_videos(config(), "train")
    path, _, _ = verify.verify(videos, workers=2)
    content = json.loads(path.read_text())
    row = next(row for row in content["videos"] if row[0] == "good3.mp4")
    row[content["columns"].index(key)] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"manifest.json is no manifest .*good3.mp4: {key} is"):
        read_manifest(videos)


def test_a_change_in_place_is_seen(config, simulate, folder):
    """A file of the same size with another content: read anew, with another fingerprint."""
    simulate("Refusing")
    videos = read_videos(config(), "train")
    path, mark, _ = verify.verify(videos, workers=2)
    name = folder / "good2.mp4"
    state, content = name.stat(), bytearray(name.read_bytes())
    assert read_manifest(videos).info(2) is not None
    place = content.rfind(b"Lavf")  # the name of the program that wrote the file
    content[place : place + 4] = b"lavf"
    name.write_bytes(content)
    os.utime(name, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert name.stat().st_size == state.st_size and read_manifest(videos).info(2) is None
    _, other, _ = verify.verify(videos, workers=2)
    assert other != mark and read_manifest(videos).info(2) is not None


def test_a_list_of_bad_videos_that_is_damaged_itself(tmp_path):
    path = tmp_path / BAD_LIST
    path.write_text('a.mp4,hangs\n"b.mp4\n' + "c.mp4,hangs\n" * 20_000)
    with pytest.raises(DataError, match=f"{BAD_LIST}, line .*: field larger than .*; remove what"):
        read_bad_list(path, ["a.mp4"])
