import io
import json
import logging
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from videonet.commands.data import main
from videonet.data import Batch, build_loader
from videonet.data.datasets.classes import class_names
from videonet.data.datasets.shards import read_index, scan, shard_names
from videonet.data.decode import open_video
from videonet.data.loading.build import build_dataset, read_videos
from videonet.data.preparing.prepare import Encoder
from videonet.data.preparing.shard import write_shards
from videonet.data.preparing.verify import verify
from videonet.data.video import tar_members
from videonet.data.video.tar_members import Place, place_of
from videonet.errors import DataError, DecodeError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from range_server import serving

FULL = ("AUG.ENABLE", True, "AUG.NUM_SAMPLE", 2, "AUG.AA_TYPE", "rand-m7-n4-mstd0.5-inc1",
        "DATA.MAX_BAD_SHARE", 0.5)  # fmt: skip


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.clips, y.clips)
        and torch.equal(x.targets["labels"], y.targets["labels"])
        and torch.equal(x.videos, y.videos)
        and [f.index for f in x.failures] == [f.index for f in y.failures]
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def listed(video_folder, tmp_path_factory):
    """A list with one video that is none."""
    folder = tmp_path_factory.mktemp("listed")
    for file in video_folder.glob("v*.mp4"):
        shutil.copy(file, folder)
    (folder / "bad.mp4").write_bytes(b"no video" * 50)
    lines = (video_folder / "train.csv").read_text() + "bad.mp4 2\n"
    (folder / "train.csv").write_text(lines)
    (folder / "val.csv").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def sharded(listed, make_config, tmp_path_factory):
    """The same in several tar files, by the command."""
    folder = tmp_path_factory.mktemp("sharded")
    words = ["--cfg", str(folder / "x.yaml"), "--output", str(folder), "--megabytes", "0.02"]
    (folder / "x.yaml").write_text("MODEL:\n  NAME: mvit_v2_xs\n  NUM_CLASSES: 4\n")
    assert main(["shard", *words, "DATA.PATH_TO_DATA_DIR", str(listed)]) == 0
    assert len(list(folder.glob("train-*.tar"))) > 2
    return folder


@pytest.fixture(scope="module")
def reference(listed, make_config):
    loader = build_loader(make_config(listed, *FULL), "train")
    return [list(loader), list(loader)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_those_of_the_list(reference, sharded, make_config, workers):
    cfg = make_config(sharded, *FULL, "DATA_LOADER.NUM_WORKERS", workers)
    loader = build_loader(cfg, "train")
    loader.set_position(0, batch=1)  # resumed in the middle of an epoch
    assert same(list(loader), reference[0][1:])
    assert same(list(loader), reference[1])
    assert any(batch.failures for epoch in reference for batch in epoch)
    loader.close()


def test_evaluation_is_that_of_the_list(listed, sharded, make_config):
    batches = [list(build_loader(make_config(f), "test")) for f in (listed, sharded)]
    assert same(*batches)
    (failure,) = [failure for batch in batches[1] for failure in batch.failures]
    assert "00000011_bad.mp4" in failure.path and "cannot read" in failure.reason


def test_shards_over_http(reference, sharded, make_config, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(tar_members, "PAUSES", (0.0, 0.0, 0.0))
    last = len(list(sharded.glob("train-*.tar"))) - 1
    with serving(sharded) as server:
        lines = f"# over HTTP\n{server.url}/train-{{000000..{last:06d}}}.tar\n"
        (tmp_path / "train.shards").write_text(lines)
        assert len(shard_names(tmp_path / "train.shards")) == last + 1
        loader = build_loader(make_config(tmp_path, *FULL), "train")
        server.faults = 2  # the network fails twice, and is asked again
        assert same(list(loader), reference[0])
        path = loader.dataset.paths[0]
    with serving(sharded, ranges=False) as server:
        other = f"{server.url}/train-000000.tar" + path[path.index("::") :]
        with pytest.raises(DecodeError, match="does not know ranges"):
            open_video(other)
        with pytest.raises(DecodeError, match=r"absent.tar"):
            open_video(other.replace("train-000000", "absent"))


def test_large_members_are_read_in_parts(listed, sharded, make_config, monkeypatch):
    monkeypatch.setattr(tar_members, "WHOLE", 100)
    path = read_videos(make_config(sharded), "train").paths[3]
    with open_video(path) as member, open_video(listed / "v3.mp4") as file:
        assert member.info == file.info
        assert torch.equal(member.frames_at([0, 9, 15]), file.frames_at([0, 9, 15]))


@pytest.mark.parametrize("damage", ["zeros", "cut"])
def test_a_damaged_tar_file_costs_its_videos(
    reference, sharded, make_config, tmp_path, damage, caplog
):
    folder = shutil.copytree(sharded, tmp_path / "copy")
    shard = folder / "train-000001.tar"
    first, second = read_index(str(shard)).videos[:2]
    content = bytearray(shard.read_bytes())
    if damage == "zeros":
        content[first.start + 100 : first.start + 200] = bytes(100)
    else:
        content = content[: second.start + 10]
    shard.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset(make_config(folder), "val")
    assert "train-000001.tar has" not in caplog.text  # val is whole
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset(make_config(folder), "train")
    assert ("train-000001.tar" in caplog.text) == (damage == "cut")
    lost = []
    for k, path in enumerate(dataset.paths):
        try:
            dataset.make_clips(path, (0, 0, k))
        except DecodeError as error:
            assert "train-000001.tar" in str(error) or "bad" in path
            lost.append(path.rpartition("::")[2])
    wanted = first.name if damage == "zeros" else second.name
    assert wanted in lost and lost[-1] == "00000011_bad.mp4"
    assert len(lost) < 2 + len(read_index(str(shard)).videos)
    loader = build_loader(make_config(folder, *FULL[:-1], 0.9), "train")
    list(loader)
    assert any("train-000001.tar" in failure.reason for failure in loader.failures.values())


def test_a_missing_tar_file_is_refused(sharded, make_config, tmp_path):
    folder = shutil.copytree(sharded, tmp_path / "copy")
    (folder / "train-000001.tar").unlink()
    with pytest.raises(DataError, match=r"there is no tar file .*train-000001.tar"):
        read_videos(make_config(folder), "train")


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        '{"format": 2}',
        '{"format": 1, "bytes": 5, "videos": [["a.mp4", 1, 9, "", [0]]]}',
        '{"format": 1, "bytes": 50, "videos": [["a.mp4", -1, 9, "", [0]]]}',
        '{"format": 1, "bytes": 50, "videos": [["a.mp4", 1, 9, "../..", [0]]]}',
        '{"format": 1, "bytes": 50, "videos": [["a.mp4", 1, 9, "", ["x"]]]}',
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(bytes(50))
    (tmp_path / "a.tar.index.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.tar\.index\.json"):
        read_index(str(tmp_path / "a.tar"))


def add(archive: tarfile.TarFile, name: str, data: bytes, **attributes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def test_hostile_archives_lead_nowhere(listed, make_config, tmp_path):
    """Links and devices are no videos, and names are never places."""
    video, shard = (listed / "v1.mp4").read_bytes(), tmp_path / "train.tar"
    with tarfile.open(shard, "w") as archive:
        add(archive, "../../etc/evil.mp4", video)
        add(archive, "../../etc/evil.cls", b"1")
        add(archive, "link.mp4", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "hard.mp4", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")
        add(archive, "pipe.mp4", b"", type=tarfile.FIFOTYPE)
        add(archive, "a::1+2-::/x::y.mp4", video)
        add(archive, "a::1+2-::/x::y.json", json.dumps({"label": 3}).encode())
    (tmp_path / "train.shards").write_text("train.tar\n")
    videos = read_videos(make_config(tmp_path), "train")
    assert videos.labels.tolist() == [1, 3]
    for path in videos.paths:
        assert place_of(path).shard == str(shard)
        with open_video(path) as reader:
            assert reader.info.frames == 12
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["train.shards", "train.tar"]


def test_archives_without_labels_are_refused(listed, tmp_path):
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as archive:
        add(archive, "a.mp4", b"123")
    with pytest.raises(DataError, match=r"a\.mp4 has no label"):
        scan(str(shard))
    shard.write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match="no tar file that can be read"):
        scan(str(shard))


def test_webdataset_reads_what_is_written(listed, sharded, tmp_path):
    """And what it writes is read here."""
    webdataset = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted(sharded.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == 12
    for k, sample in enumerate(samples[:-1]):
        assert sample["mp4"] == (listed / f"v{k}.mp4").read_bytes()
        assert json.loads(sample["json"])["label"] == k % 4
    with webdataset.ShardWriter(str(tmp_path / "w-%06d.tar"), maxcount=5, verbose=0) as writer:
        for k, sample in enumerate(samples):
            writer.write({"__key__": f"k{k}", "mp4": sample["mp4"], "cls": k % 4})
    assert main(["index", *map(str, sorted(tmp_path.glob("w-*.tar")))]) == 0
    found = [v for path in sorted(tmp_path.glob("w-*.tar")) for v in read_index(str(path)).videos]
    assert [video.labels for video in found] == [[k % 4] for k in range(12)]
    ours = [v for shard in shards for v in read_index(shard).videos]
    assert [video.crc for video in found] == [video.crc for video in ours]
    assert ours == [v for shard in shards for v in scan(shard, checksums=True).videos]


def test_the_manifest_holds_for_shards(listed, sharded, make_config, tmp_path):
    folder = shutil.copytree(sharded, tmp_path / "copy")
    cfg = make_config(folder)
    _, _, rows = verify(read_videos(cfg, "train"))
    assert [bool(row["reason"]) for row in rows] == [False] * 11 + [True]
    _, _, from_files = verify(read_videos(make_config(listed), "train"))
    assert [row["digest"] for row in rows] == [row["digest"] for row in from_files]
    dataset = build_dataset(cfg, "train")
    assert list(dataset.bad) == [11] and dataset.manifest.info(3).frames == 16
    for split in ("train", "val"):
        (listed / f"{split}.csv.manifest.json").unlink(missing_ok=True)


def test_prepared_shards_and_class_names(listed, make_config, tmp_path, make_video):
    (tmp_path / "data").mkdir()
    shutil.copy(listed / "v3.mp4", tmp_path / "data" / "a b.c.mp4")
    shutil.copy(listed / "bad.mp4", tmp_path / "data" / "bad.mp4")
    (tmp_path / "data" / "train.csv").write_text("a b.c.mp4,walk\nbad.mp4,run\na b.c.mp4,run\n")
    cfg = make_config(tmp_path / "data", "MODEL.NUM_CLASSES", 0)
    names = class_names(cfg)
    videos, output = read_videos(cfg, "train"), tmp_path / "out"
    encode = Encoder(short_side=24, gop=4, crf=20)
    path, failed = write_shards(videos, output, "train", names=names, encode=encode)
    assert list(failed) == [str(tmp_path / "data" / "bad.mp4")]
    again = make_config(output, "MODEL.NUM_CLASSES", 0)
    assert class_names(again) == ["run", "walk"]
    found = read_videos(again, "train")
    assert found.labels.tolist() == [1, 0] and found.paths[0].endswith("::00000000_a_b_c.mp4")
    with open_video(found.paths[1]) as reader:
        assert min(reader.info.width, reader.info.height) == 24
    assert not [entry for entry in output.iterdir() if entry.name.startswith(".part")]
    with pytest.raises(DataError, match="--overwrite"):
        write_shards(videos, output, "train")
    write_shards(videos, output, "train", overwrite=True, most_videos=1)
    assert len(list(output.glob("train-*.tar"))) == 3
    write_shards(videos, output, "train", overwrite=True)
    assert len(list(output.glob("train-*.tar"))) == 1


def test_several_labels(listed, make_config, tmp_path):
    (listed / "several.csv").write_text('v1.mp4 0,3\nv2.mp4 ""\nv3.mp4 2\n')
    multi = ("TRAIN.DATASET", "multilabel", "MODEL.LOSS_FUNC", "bce_logit")
    cfg = make_config(listed, *multi, "DATA.TRAIN_LIST", "several.csv")
    write_shards(read_videos(cfg, "train"), tmp_path, "train")
    found = read_videos(make_config(tmp_path, *multi), "train")
    assert [found.classes_of(k) for k in range(3)] == [[0, 3], [], [2]]
    with pytest.raises(DataError, match=r"has 2 labels, expected one"):
        read_videos(make_config(tmp_path), "train")


def test_folders_of_pictures_have_to_be_encoded(tmp_path, make_config):
    from PIL import Image

    (tmp_path / "clip").mkdir()
    for k in range(3):
        Image.new("RGB", (48, 32), (k * 40,) * 3).save(tmp_path / "clip" / f"{k:03d}.jpg")
    (tmp_path / "train.csv").write_text("clip 1\nclip/000.jpg 0\n")
    videos = read_videos(make_config(tmp_path), "train")
    with pytest.raises(DataError, match=r"clip is a folder of pictures: give --short-side"):
        write_shards(videos, tmp_path / "out", "train")
    (tmp_path / "train.csv").write_text("clip/000.jpg 0\n")
    write_shards(read_videos(make_config(tmp_path), "train"), tmp_path / "out", "train")
    with open_video(read_videos(make_config(tmp_path / "out"), "train").paths[0]) as reader:
        assert reader.info.codec == "jpeg" and reader.info.frames == 1


def test_bytes_and_open_files_are_read_as_files(listed, tmp_path):
    with open_video(listed / "v5.mp4") as file:
        frames, info = file.frames_at([0, 7, 19]), file.info
    with open(listed / "v5.mp4", "rb") as opened:
        for source in ((listed / "v5.mp4").read_bytes(), opened):
            for backend in ("auto", "decord"):
                with open_video(source, backend) as reader:
                    assert reader.info == info
                    assert torch.equal(reader.frames_at([0, 7, 19]), frames)
        assert not opened.closed
    with pytest.raises(DecodeError, match="cannot read the bytes in memory"):
        open_video(b"no video")
    with open(listed / "train.csv") as text, pytest.raises(DecodeError, match="open as text"):
        open_video(text)


def test_a_plain_file_wins_over_a_member(listed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = str(Place("a.tar", 0, 10, "", "v.mp4"))
    assert place_of(name) == ("a.tar", 0, 10, "", "v.mp4")
    shutil.copy(listed / "v1.mp4", name)
    assert place_of(name) is None
    with open_video(name) as reader:
        assert reader.info.frames == 12
