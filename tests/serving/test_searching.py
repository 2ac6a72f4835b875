"""The nearest moments of an index by the API, beside what the index itself says."""

import shutil

import pytest

from tests.serving.conftest import SLIDING, make_index, make_predictor
from tests.serving.test_api import picture_of
from videonet.commands.serve import main
from videonet.errors import ConfigError, DataError
from videonet.inference.run import Options
from videonet.serving import decoding
from videonet.serving.searching import IndexSearch, shown_names


@pytest.fixture(scope="module")
def searching(start_server, index):
    models = {"sharp": make_predictor(3.0), "plain": make_predictor()}
    return start_server(models, search=IndexSearch(index, models), limits={"max_windows": 5})


@pytest.mark.parametrize("room", [2**25, 1], ids=["one step", "steps of a window"])
def test_moments_are_those_of_the_index(room, searching, index, videos, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", room)
    body = videos["change"].read_bytes()
    answer = searching.ask("/api/search", body, start=1.7, end=2.9, count=4)
    assert answer.status == 200, answer.body
    expected = index.nearest(videos["change"], make_predictor(), start=1.7, end=2.9, count=4)
    assert len(answer.json) == 4
    for found, moment in zip(answer.json, expected, strict=True):
        assert found["video"] == moment.video.rpartition("/")[2]
        assert index.videos[found["number"]] == moment.video
        assert (found["start"], found["end"]) == pytest.approx((moment.start, moment.end))
        assert found["similarity"] == pytest.approx(moment.score, abs=1e-5)
        assert found["error"] == ""
        assert picture_of(found["picture"]).mean(axis=(0, 1)).argmax() == 2  # blue
    assert {found["video"] for found in answer.json} == {"blue.mp4", "change.mp4"}


def test_an_index_of_the_views_of_testing(start_server, videos, tmp_path):
    index = make_index(tmp_path, [videos["green"], videos["blue"]], Options())
    models = {"plain": make_predictor()}
    server = start_server(models, search=IndexSearch(index, models))
    (found,) = server.ask("/api/search", videos["green"].read_bytes(), count=1).json
    (moment,) = index.nearest(videos["green"], make_predictor(), count=1)
    assert found["video"] == "green.mp4"
    assert found["similarity"] == pytest.approx(moment.score, abs=1e-5)


def test_videos_of_the_index_alone_are_shown(searching, index, videos):
    assert searching.ask("/api/info").json["search"]
    assert "/api/moments/{number}/video" in searching.ask("/openapi.json").json["paths"]
    number = index.videos.index(str(videos["red"]))
    answer = searching.ask(f"/api/moments/{number}/video")
    assert answer.body == videos["red"].read_bytes()
    assert answer.headers["content-type"] == "video/mp4"
    count = len(index.videos)
    assert searching.ask(f"/api/moments/{count}/video").error == (
        f"the index has {count} videos, no number {count}"
    )
    for place in ("-1", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "red.mp4"):
        assert searching.ask(f"/api/moments/{place}/video").status in (404, 422)


def test_a_video_that_is_gone_is_one_sentence(start_server, videos, tmp_path):
    kept, gone, broken = (tmp_path / name for name in ("kept.mp4", "gone.mp4", "broken.mp4"))
    for path in (kept, gone, broken):
        shutil.copy(videos["red"], path)
    index = make_index(tmp_path / "index", [kept, gone, broken], SLIDING)
    gone.unlink()
    broken.write_bytes(b"\0" * 1000)
    models = {"plain": make_predictor()}
    server = start_server(models, search=IndexSearch(index, models))
    found = server.ask("/api/search", videos["red"].read_bytes(), count=100, end=1.0).json
    said = {one["video"]: (bool(one["picture"]), one["error"]) for one in found}
    sentence = "gone.mp4 is not where the index has it any more: index the videos again"
    assert said["kept.mp4"] == (True, "") and said["gone.mp4"] == (False, sentence)
    assert not said["broken.mp4"][0]
    assert said["broken.mp4"][1].startswith("cannot read broken.mp4: ")
    answer = server.ask(f"/api/moments/{index.videos.index(str(gone))}/video")
    assert (answer.status, answer.error) == (404, sentence)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"start": 50}, "cannot read x.mp4: it has no frame from 50 s to its end, it lasts 3.00 s"),
        ({"start": 2, "end": 1}, "it has no frame from 2 s to 1 s"),
        ({}, "more than 5, the limit of this server"),
        ({"count": 0}, "count: "),
    ],
)
def test_stretches_that_cannot_be_searched(parameters, said, searching, videos):
    answer = searching.ask("/api/search", videos["red"].read_bytes(), name="x.mp4", **parameters)
    assert answer.status == 422
    assert said in answer.error and "\n" not in answer.error


def test_what_a_server_without_an_index_says(server, videos):
    answer = server.ask("/api/search", videos["red"].read_bytes())
    assert answer.status == 404
    assert answer.error == "this server has no index to search: start it with --index"


def test_the_model_of_an_index_is_found_among_others(index):
    models = {"sharp": make_predictor(3.0), "plain": make_predictor()}
    assert IndexSearch(index, models).model == "plain"
    with pytest.raises(ConfigError, match="with other weights than"):
        IndexSearch(index, {"sharp": make_predictor(3.0)})
    with pytest.raises(
        ConfigError, match="searched with the model that made it: give --checkpoint"
    ):
        IndexSearch(index, {})


def test_the_command_is_given_a_model_or_an_index(index, dense_models, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "give --checkpoint, or --index" in capsys.readouterr().err
    words = ["--port", "0", "--checkpoint", dense_models["objects"].origin, "--index"]
    with pytest.raises(ConfigError, match="is searched with the model that made it"):
        main([*words, str(index.folder)])
    with pytest.raises(DataError, match=r"features\.json"):
        main([*words, str(tmp_path)])


def test_names_of_videos_are_without_the_folder_that_they_share():
    assert shown_names(["/a/b/x.mp4", "/a/b/c/y.mp4"]) == ["x.mp4", "c/y.mp4"]
    assert shown_names(["/a/b/x.mp4", "https://h/y.mp4?key=1"]) == ["x.mp4", "https://h/y.mp4"]
