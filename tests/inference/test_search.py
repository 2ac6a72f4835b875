"""Moments are found where they are, by the model that indexed them and by no other."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import videonet
from videonet import cli
from videonet.config import load_config
from videonet.data.feature_store import FeatureWriter, VideoFeatures
from videonet.data.preparing.prepare import Encoder
from videonet.errors import ConfigError, DataError, DecodeError
from videonet.inference.duplicates import find_duplicates
from videonet.inference.extraction import describe_features, extract_features
from videonet.inference.run import Options
from videonet.inference.search import SearchIndex, build_index, write_moments
from videonet.inference.sources import Source

SLIDING = Options(sliding=True, window=0.8, stride=0.4)


@pytest.fixture
def collection(make_colours, colour_predictor, tmp_path):
    """A folder of features of three videos; the parts are 2 s long."""
    films = {
        "rgb": [("red", 20), ("green", 20), ("blue", 20)],
        "g": [("green", 20)],
        "br": [("blue", 20), ("red", 20)],
    }
    sources = [
        Source(str(make_colours(tmp_path / f"{name}.mp4", parts)), k)
        for k, (name, parts) in enumerate(films.items())
    ]
    predictor = colour_predictor()
    about = describe_features(predictor, SLIDING, frames=False)
    with FeatureWriter(tmp_path / "index", about) as writer:
        assert not extract_features(predictor, sources, writer, SLIDING, progress=False)
    return tmp_path


def stems(moments) -> list[str]:
    return [Path(moment.video).stem for moment in moments]


@pytest.mark.parametrize("kind", ["features", "table", "graph"])
def test_the_nearest_moments(collection, colour_predictor, kind):
    folder = collection / "index"
    if kind != "features":
        pytest.importorskip("pyarrow")
        if kind == "graph":
            pytest.importorskip("faiss")
        build_index(folder, many=1 if kind == "graph" else 10**6)
    assert (folder / "vectors.faiss").exists() == (kind == "graph")
    index, predictor = SearchIndex.open(folder), colour_predictor()
    assert len(index) == len(SearchIndex.open(folder, exact=True)) > 20

    found = index.nearest(collection / "rgb.mp4", predictor, start=2.2, end=3.6, count=4)
    assert {*stems(found[:3])} == {"rgb", "g"} and found[0].score == pytest.approx(1, abs=1e-3)
    mine = next(moment for moment in found if Path(moment.video).stem == "rgb")
    assert 1.6 <= mine.start < mine.end <= 4.4 and mine.label == 0
    scores = [moment.score for moment in found]
    assert scores == sorted(scores, reverse=True)
    every = index.nearest(collection / "g.mp4", predictor, count=100)
    spans = sorted((m.video, m.start, m.end) for m in every)
    for (video, _, end), (other, start, _) in zip(spans, spans[1:], strict=False):
        assert video != other or end - start <= 0.25 * 0.8 + 1e-3  # no moment twice

    picture = collection / "blue.png"
    Image.new("RGB", (48, 32), (30, 30, 200)).save(picture)
    assert {*stems(index.nearest(picture, predictor, count=4))} == {"rgb", "br"}
    with open(collection / "g.mp4", "rb") as file:
        by_file = index.nearest(file, predictor, count=100)
    assert by_file == index.nearest((collection / "g.mp4").read_bytes(), predictor, count=100)
    assert by_file == every
    with pytest.raises(DecodeError, match=r"no frame from 9 s to its end, it lasts 2\.00 s"):
        index.nearest(collection / "g.mp4", predictor, start=9)
    with pytest.raises(DecodeError, match=r"no frame from 1\.5 s to 1 s"):
        index.nearest(collection / "g.mp4", predictor, start=1.5, end=1)


def test_a_query_has_the_embeddings_of_the_index(collection, colour_predictor):
    """A whole video that is asked for finds each of its own clips, exactly."""
    from videonet.inference.search import embed

    index = SearchIndex.open(collection / "index")
    vectors = embed(colour_predictor(), collection / "rgb.mp4", index.description["clips"])
    mine = index.vectors[index.owner == 0]
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors))
    torch.testing.assert_close(unit, mine)


def test_views_of_testing_can_be_searched(make_colours, colour_predictor, tmp_path):
    predictor, options = colour_predictor(), Options()
    films = [make_colours(tmp_path / f"{c}.mp4", [(c, 30)]) for c in ("red", "blue")]
    about = describe_features(predictor, options, frames=False)
    with FeatureWriter(tmp_path / "index", about) as writer:
        sources = [Source(str(film)) for film in films]
        extract_features(predictor, sources, writer, options, progress=False)
    index = SearchIndex.open(tmp_path / "index")
    assert stems(index.nearest(films[1], predictor, count=1)) == ["blue"]
    write_moments(tmp_path / "x.png", films[1], "blue", 0, None, index.nearest(films[1], predictor))
    assert Image.open(tmp_path / "x.png").width > 1000


def test_another_model_is_refused(collection, colour_predictor):
    index, other = SearchIndex.open(collection / "index"), colour_predictor()
    with torch.no_grad():
        other.model.head.projection.weight.mul_(2)
    with pytest.raises(ConfigError, match="with other weights than"):
        index.nearest(collection / "g.mp4", other)
    with pytest.raises(ConfigError, match="with other settings than"):
        index.nearest(collection / "g.mp4", colour_predictor("DATA.SAMPLING_RATE", 1))
    with pytest.raises(ConfigError, match="has 5 numbers, those of .* 3"):
        index.nearest_to(np.ones(5, np.float32))


def test_an_index_older_than_its_features_is_refused(collection, colour_predictor):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = collection / "index"
    build_index(folder)
    table = parquet.read_table(folder / "embeddings.parquet")
    assert table.column_names == ["video", "label", "start", "end", "embedding"]
    lengths = np.linalg.norm(np.array(table["embedding"].to_pylist()), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    about = json.loads(table.schema.metadata[b"videonet"])
    assert about["clips"]["window"] == 0.8 and about["weights"]
    predictor = colour_predictor()
    with FeatureWriter(folder, describe_features(predictor, SLIDING, frames=False)) as writer:
        writer.add(VideoFeatures("new.mp4", np.ones((1, 3)), np.zeros((1, 2))))
    with pytest.raises(DataError, match="run videonet index"):
        SearchIndex.open(folder)
    assert len(build_index(folder).videos) == 4


def test_a_graph_finds_what_comparing_all_finds(tmp_path):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 32))
    rows = (centres[rng.integers(50, size=3000)] + 0.5 * rng.normal(size=(3000, 32))).astype("f4")
    about = {"classes": ["a"], "clips": {"views": "1 x 1"}}
    with FeatureWriter(tmp_path, about) as writer:
        for k in range(30):
            times = np.arange(100)[:, None] + np.array([[0, 1]])
            writer.add(VideoFeatures(f"{k}.mp4", rows[100 * k : 100 * k + 100], times))
    build_index(tmp_path, many=1)
    graph, exact = SearchIndex.open(tmp_path), SearchIndex.open(tmp_path, exact=True)
    hits = 0
    for query in rng.normal(size=(20, 32)) + centres[:20]:
        one, two = (index.nearest_to(query, count=10) for index in (graph, exact))
        hits += len({(m.video, m.start) for m in one} & {(m.video, m.start) for m in two})
    assert hits >= 196  # of 200


def write_noise(path: Path, seed: int, *, frames: int = 40, shift: int = 0) -> Path:
    """A moving texture that no other seed has; it begins `shift` frames later."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (12, 40, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(shift, frames):
            part = Image.fromarray(np.roll(texture, k, axis=1)[:4, :6].copy())
            picture = np.array(part.resize((96, 64), Image.Resampling.BILINEAR))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_near_duplicates_by_the_commands(tmp_path, capsys):
    """Copies that are encoded again, smaller, or cut are found; other videos are not."""
    cfg = load_config(
        "DEMO/MVITv2_XS.yaml",
        [
            *("DEVICE", "cpu", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"),
            *("DATA.SAMPLING", "dense", "DATA.SAMPLING_RATE", "2", "DATA.TARGET_FPS", "10.0"),
            *("MODEL.NUM_CLASSES", "2"),
        ],
    )
    torch.manual_seed(0)
    model = videonet.create_model("mvit_v2_xs", num_classes=2, num_frames=8, crop_size=32)
    content = {"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": ["a", "b"]}
    torch.save(content, tmp_path / "model.pyth")
    train, val = tmp_path / "train", tmp_path / "val"
    train.mkdir()
    val.mkdir()
    films = [write_noise(train / f"{k}.mp4", k) for k in range(4)]
    Encoder(short_side=40, gop=8, crf=16)((str(films[1]), str(val / "small.mp4")))
    write_noise(val / "cut.mp4", 2, shift=4)
    write_noise(val / "own.mp4", 9)
    lines = {
        train: "0.mp4 0\n1.mp4 1\n2.mp4 0\n3.mp4 1\n",
        val: "small.mp4 1\ncut.mp4 1\nown.mp4 0\n",
    }
    model_words = ["--checkpoint", str(tmp_path / "model.pyth"), "--stride", "0.4", "--quiet"]
    for folder, text in lines.items():
        (folder / "list.csv").write_text(text)
        words = [str(folder / "list.csv"), *model_words, "--output", str(folder / "index")]
        verb = "index" if folder == train else "features"
        pytest.importorskip("pyarrow")
        assert cli.main([verb, *words]) == 0
    capsys.readouterr()

    both = [str(train / "index"), str(val / "index")]
    table = tmp_path / "pairs.csv"
    assert cli.main(["data", "duplicates", *both, "--output", str(table)]) == 3
    said = capsys.readouterr().out
    assert "2 pairs of videos are alike" in said and "labels 0 and 1" in said
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    pairs = {(Path(row[0]).stem, Path(row[1]).stem) for row in rows}
    assert pairs == {("1", "small"), ("2", "cut")}
    assert cli.main(["data", "duplicates", both[0]]) == 0  # within one
    index = SearchIndex.open(both[0], exact=True)
    assert len(find_duplicates(index, threshold=-1, difference=None)) == 6  # every pair, once

    capsys.readouterr()
    sheet = tmp_path / "found.png"
    words = [str(val / "cut.mp4"), "--from", "0.8", "--to", "2.8", "--index", both[0]]
    cli.main(["search", *words, "--json", "--sheet", str(sheet), "--top", "3"])
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert Path(first["video"]).stem == "2" and first["score"] > 0.95
    assert Image.open(sheet).height > 300


def test_collections_of_other_clips_are_not_compared(collection, colour_predictor):
    predictor, options = colour_predictor(), Options()
    with FeatureWriter(
        collection / "other", describe_features(predictor, options, frames=False)
    ) as writer:
        writer.add(VideoFeatures("new.mp4", np.ones((1, 3)), np.zeros((1, 2))))
    indexes = [SearchIndex.open(collection / name) for name in ("index", "other")]
    with pytest.raises(DataError, match="made with different clips"):
        find_duplicates(*indexes)
