"""Bulk runs: the rows of predict, each once, whatever stops or fails."""

import json
import random
import time
from pathlib import Path

import pytest
import torch

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from videonet.errors import ConfigError, DataError  # noqa: E402
from videonet.inference.buckets import is_address, list_videos  # noqa: E402
from videonet.inference.bulk import bulk_here, describe_bulk, paths_of  # noqa: E402
from videonet.inference.clips import fingerprint  # noqa: E402
from videonet.inference.options import Options  # noqa: E402
from videonet.inference.result_files import JsonLines  # noqa: E402
from videonet.inference.rows import SCHEMA, Parts, as_table  # noqa: E402
from videonet.inference.run import predict_videos  # noqa: E402
from videonet.inference.sources import Source  # noqa: E402

ABOUT = {"top_k": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_colours) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for k in range(6):
        make_colours(folder / f"{k}.mp4", [(("red", "green", "blue")[k % 3], 6 + 5 * k)])
    (folder / "damaged.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def predictor(colour_predictor):
    predictor = colour_predictor()
    torch.manual_seed(0)
    with torch.no_grad():
        predictor.model.head.projection.weight.normal_()
    return predictor


def rows(folder: Path) -> list[dict]:
    found = [row for part in folder.glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    return sorted(found, key=lambda row: (row["path"], row["window"]))


def predicted(predictor, paths, sliding: bool, path: Path) -> list[tuple]:
    """(path, window, best, scores of windows or of the best) as predict writes them."""
    with JsonLines(path, {"top_k": 2}) as writer:
        options = Options(2, sliding)
        predict_videos(predictor, [Source(p) for p in paths], writer, options, progress=False)
    found = []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if "error" in record:
            found.append((record["video"], 0, record["error"]))
        elif sliding == ("window" in record):
            top = [tuple(pair) for pair in record["top"]]
            found.append((record["video"], record.get("window", 0), top))
    return sorted(found)


def as_predicted(found: list[dict]) -> list[tuple]:
    return [
        (
            row["path"],
            row["window"],
            row["error"]
            or [
                (name, round(value, 6))
                for name, value in zip(row["labels"], row["values"], strict=True)
            ],
        )
        for row in found
    ]


@pytest.mark.parametrize("sliding", [False, True])
def test_the_rows_are_those_of_predict(predictor, folder, tmp_path, sliding):
    paths = paths_of([str(folder)], "path")
    options = Options(2, sliding)
    with Parts(tmp_path / "rows", describe_bulk(predictor, options)) as parts:
        assert bulk_here(predictor, paths, parts, options, workers=1, progress=False) == 1
    found = rows(tmp_path / "rows")
    assert as_predicted(found) == predicted(predictor, paths, sliding, tmp_path / "a.jsonl")
    for row in found:
        if row["error"] is None:
            assert row["fingerprint"] == fingerprint(row["path"]) and row["end"] > row["start"]
            assert len(row["scores"]) == 3 and len(row["embedding"]) == 3
            assert row["values"] == sorted(row["scores"], reverse=True)[:2]


def test_a_run_goes_on(predictor, folder, tmp_path, make_colours):
    options = Options(2, sliding=True)
    paths = paths_of([str(folder)], "path")
    about = describe_bulk(predictor, options)
    with Parts(tmp_path, about) as parts:
        bulk_here(predictor, paths[:4], parts, options, progress=False)
    first = rows(tmp_path)
    with Parts(tmp_path, about) as parts:
        assert len(parts.done) == 4
        assert bulk_here(predictor, paths, parts, options, progress=False) == 1
        assert bulk_here(predictor, paths, parts, options, progress=False) == 0
    found = rows(tmp_path)
    assert [row for row in found if row["path"] in paths[:4]] == first
    assert {row["path"] for row in found} == set(paths)
    with Parts(tmp_path, about) as parts:  # what failed is tried again
        assert paths[-1] not in parts.done and len(parts.done) == 6
    with pytest.raises(DataError, match="top_k is 2 there and 1 here"):
        Parts(tmp_path, about | {"top_k": 1})
    with Parts(tmp_path, about) as parts, pytest.raises(ConfigError, match="another process"):
        Parts(tmp_path, about)


def test_rows_in_any_order_and_twice_are_written_once(tmp_path):
    rng = random.Random(0)
    wanted = [
        {"path": f"{video}", "window": k, "last": k == video, "start": k, "end": k + 1}
        for video in range(20)
        for k in range(video + 1)
    ]
    sent = wanted + rng.sample(wanted, 100)
    rng.shuffle(sent)
    finished, seconds = 0, 0.0
    for attempt in (sent[:150], sent[150:], sent):  # a stop after a part of them, then all again
        with Parts(tmp_path, ABOUT) as parts:
            for start in range(0, len(attempt), 7):
                done = parts.add(as_table(attempt[start : start + 7]))
                finished, seconds = finished + done[0], seconds + done[2]
    found = rows(tmp_path)
    assert len(found) == len(wanted) == seconds and finished == 20
    assert {(row["path"], row["window"]) for row in found} == {
        (row["path"], row["window"]) for row in wanted
    }
    assert pq.read_schema(next(tmp_path.glob("*.parquet"))).equals(SCHEMA)


def test_a_damaged_part_is_named(tmp_path):
    with Parts(tmp_path, ABOUT) as parts:
        parts.add(as_table([{"path": "a", "window": 0, "last": True}]))
    part = next(tmp_path.glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DataError, match="part-000000.parquet: the rows cannot be read"):
        Parts(tmp_path, ABOUT)


def test_paths_come_from_a_column_and_from_a_bucket(folder, tmp_path):
    table = tmp_path / "files.parquet"
    pq.write_table(pa.table({"file": ["a.mp4", "b.mp4", "a.mp4"], "n": [1, 2, 3]}), table)
    assert paths_of([str(table)], "file") == ["a.mp4", "b.mp4"]
    with pytest.raises(DataError, match="has no column 'path', but file, n"):
        paths_of([str(table)], "path")
    with pytest.raises(DataError, match="row 0: expected a path in the column 'n'"):
        paths_of([str(table)], "n")
    listed = paths_of([f"file://{folder}"], "path")
    assert listed == [f"file://{path}" for path in paths_of([str(folder)], "path")]
    with pytest.raises(DataError, match="cannot list nowhere://x"):
        list_videos("nowhere://x")
    assert is_address("s3://b/c.mp4") and not is_address("C:\\c.mp4") and not is_address("a/b")


def test_a_file_in_a_bucket_gives_its_rows(predictor, folder, tmp_path):
    found = []
    for k, place in enumerate((f"{folder}/0.mp4", f"file://{folder}/0.mp4")):
        with Parts(tmp_path / str(k), ABOUT) as parts:
            assert bulk_here(predictor, [place], parts, Options(2), progress=False) == 0
        (row,) = rows(tmp_path / str(k))
        found.append({**row, "path": ""})
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("sliding", [False, True])
def test_two_nodes_of_which_one_is_killed(predictor, folder, tmp_path, monkeypatch, sliding):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from videonet.inference.bulk_ray import bulk_on_ray

    (tmp_path / "links").mkdir()
    for copy in range(8):
        for path in folder.iterdir():
            (tmp_path / "links" / f"{copy:02}-{path.name}").symlink_to(path)
    paths = paths_of([str(tmp_path / "links")], "path")
    memory = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, **memory})
    try:
        node = cluster.add_node(num_cpus=2, **memory)
        ray.init(address=cluster.address, log_to_driver=False)
        options = Options(2, sliding)
        with Parts(tmp_path / "rows", describe_bulk(predictor, options)) as parts:
            take = killing(parts.add, cluster, node)
            monkeypatch.setattr(parts, "add", take)
            failed = bulk_on_ray(predictor, paths, parts, options, models=2, progress=False)
            assert take.killed
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert failed == 8
    found = rows(tmp_path / "rows")
    assert as_predicted(found) == predicted(predictor, paths, sliding, tmp_path / "a.jsonl")
    with Parts(tmp_path / "alone", describe_bulk(predictor, options)) as parts:
        assert bulk_here(predictor, paths, parts, options, progress=False) == 8
    assert found == rows(tmp_path / "alone")


def killing(add, cluster, node):
    """Takes rows, and kills a node after the first of them."""

    def take(table):
        if not take.killed:
            take.killed = True
            cluster.remove_node(node, allow_graceful=False)
        return add(table)

    take.killed = False
    return take


@pytest.mark.slow
def test_many_entries_begin_soon_and_need_little_memory(predictor, folder, tmp_path):
    """10,000 entries that are links to a few files."""
    (tmp_path / "links").mkdir()
    with open(tmp_path / "list.txt", "w") as file:
        for k in range(10_000):
            (tmp_path / "links" / f"{k}.mp4").symlink_to(folder / "0.mp4")
            file.write(f"links/{k}.mp4\n")
    start = time.monotonic()
    paths = paths_of([str(tmp_path / "list.txt")], "path")
    with Parts(tmp_path / "rows", ABOUT) as parts:
        assert time.monotonic() - start < 10
        bulk_here(predictor, paths, parts, Options(2), workers=1, progress=False)
    assert len(rows(tmp_path / "rows")) == 10_000
