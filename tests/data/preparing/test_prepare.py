import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from videonet.data.decode import open_video
from videonet.data.loading.build import build_dataset, evaluation_views, read_videos
from videonet.data.preparing.contact_sheet import chosen_classes, sheet_name, write_contact_sheet
from videonet.data.preparing.prepare import Encoder, prepare
from videonet.errors import DataError, WriteError


def ended_process() -> int:
    """The number of a process that is gone."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.fixture
def folder(video_folder, make_video, tmp_path):
    """Videos in sub-folders, with an odd size, uneven times, and one that is none."""
    for name in ("a/one.mp4", "b/one.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(video_folder / "v3.mp4", tmp_path / name)
    stamps = [0, 10, 20, 200, 210, 220, 700, 710]
    make_video(tmp_path / "vfr.mkv", frames=8, stamps=stamps, width=128, height=96)
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 50)
    lines = "a/one.mp4 0\nb/one.mp4 1\nvfr.mkv 2\nbad.mp4 3\n"
    (tmp_path / "train.csv").write_text(lines)
    return tmp_path


def test_prepared_videos_are_small_upright_and_seekable(folder, make_config, indices_in, tmp_path):
    videos = read_videos(make_config(folder), "train")
    output = tmp_path / "small"
    encode = Encoder(short_side=40, gop=4, crf=10)
    path, failed = prepare(videos, output, "train.csv", encode, workers=2)
    assert list(failed) == [str(folder / "bad.mp4")] and "cannot read" in failed[videos.paths[3]]
    assert path.read_text() == "a/one.mp4 0\nb/one.mp4 1\nvfr.mp4 2\n"
    with open_video(output / "a" / "one.mp4") as reader:
        info = reader.info
        assert (info.width, info.height, info.frames) == (52, 40, 16) and info.codec == "h264"
        assert info.fps == pytest.approx(30) and list(reader.table.keys) == [0, 4, 8, 12]
        assert indices_in(reader.frames_at([0, 7, 15])) == [0, 7, 15]
    with open_video(folder / "vfr.mkv") as old, open_video(output / "vfr.mp4") as new:
        assert new.times == pytest.approx(old.times, abs=2e-3)
    again = read_videos(make_config(output), "train")
    assert again.labels.tolist() == [0, 1, 2]


def test_preparing_goes_on_where_it_was(folder, make_config, tmp_path):
    videos = read_videos(make_config(folder), "train")
    output = tmp_path / "small"
    encode = Encoder(short_side=40, gop=4, crf=30)
    prepare(videos, output, "train.csv", encode)
    times = {file: file.stat().st_mtime_ns for file in output.rglob("*.mp4")}
    (output / "b" / "one.mp4").unlink()
    (output / "b" / f".part.{ended_process()}.one.mp4").write_bytes(b"an interrupted run")
    prepare(videos, output, "train.csv", encode)
    assert len(times) == 3 and not list(output.rglob(".part.*"))
    for file, time in times.items():
        assert (file.stat().st_mtime_ns == time) == (file.parent.name != "b")


def test_videos_made_otherwise_are_not_mixed(folder, make_config, make_video, tmp_path):
    (folder / "train.csv").write_text("a/one.mp4 0\n")
    videos = read_videos(make_config(folder), "train")
    output, encode = tmp_path / "small", Encoder(40, 4, 30)
    prepare(videos, output, "train.csv", encode)
    made = output / "a" / "one.mp4"
    before = made.read_bytes()
    with pytest.raises(DataError, match="with short side 40.*not from .* side 32.*--overwrite"):
        prepare(videos, output, "train.csv", Encoder(32, 4, 30))
    assert made.read_bytes() == before
    prepare(videos, output, "train.csv", Encoder(32, 4, 30), overwrite=True)
    with open_video(made) as reader:
        assert reader.info.height == 32
    make_video(folder / "a" / "one.mp4", frames=9)  # the source changes
    prepare(videos, output, "train.csv", Encoder(32, 4, 30))
    with open_video(made) as reader:
        assert reader.info.frames == 9


def test_a_file_of_somebody_else_is_not_written_over(folder, make_config, tmp_path):
    (folder / "train.csv").write_text("a/one.mp4 0\n")
    videos = read_videos(make_config(folder), "train")
    (tmp_path / "small" / "a").mkdir(parents=True)
    (tmp_path / "small" / "a" / "one.mp4").write_text("mine")
    with pytest.raises(DataError, match="nothing says what made it"):
        prepare(videos, tmp_path / "small", "train.csv", Encoder(40, 4, 30))
    before = (folder / "a" / "one.mp4").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(DataError, match="written over itself"):
            prepare(videos, folder, "new.csv", Encoder(40, 4, 30), overwrite=overwrite)
    assert (folder / "a" / "one.mp4").read_bytes() == before


def test_a_full_disk_is_one_sentence(folder, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    task = (str(folder / "a" / "one.mp4"), str(tmp_path / "small" / "one.mp4"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*one\.mp4: File too large"):
            Encoder(40, 4, 10)(task)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "small").iterdir())
    assert Encoder(40, 4, 10)(task) is None


def test_two_videos_that_would_be_one_file(folder, make_config, tmp_path):
    shutil.copy(folder / "vfr.mkv", folder / "vfr.webm")
    (folder / "train.csv").write_text("vfr.mkv 0\nvfr.webm 1\n")
    videos = read_videos(make_config(folder), "train")
    with pytest.raises(DataError, match="vfr.mkv and .*vfr.webm would both be written to"):
        prepare(videos, tmp_path / "small", "train.csv", Encoder(40, 4, 30))


def test_a_sheet_per_class(folder, make_config, tmp_path):
    cfg = make_config(folder, "AUG.NUM_SAMPLE", 2)
    dataset = build_dataset(cfg, "train")
    names = ["zero", "one", "two", "three"]
    assert chosen_classes(dataset, names, []) == [0, 1, 2, 3]
    assert chosen_classes(dataset, names, ["two", "0"]) == [2, 0]
    with pytest.raises(DataError, match="no class 'five'"):
        chosen_classes(dataset, names, ["five"])
    for label in (1, 3):  # the only video of class 3 cannot be read, which the picture says
        path = Path(tmp_path / "sheets" / sheet_name(label, names[label]))
        write_contact_sheet(path, label, names[label], dataset, evaluation_views(cfg))
        assert path.name.endswith(f"_{names[label]}.png") and path.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(DataError, match="no video of class 7"):
        write_contact_sheet(tmp_path / "x.png", 7, "x", dataset, evaluation_views(cfg))
