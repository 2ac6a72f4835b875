"""What the HTTP API answers, beside what the predictor says."""

import base64
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import make_predictor
from videonet.inference.result_files import open_results
from videonet.inference.run import Options, predict_videos
from videonet.inference.sources import Source
from videonet.serving.app import STATIC


def picture_of(address: str) -> np.ndarray:
    content = base64.b64decode(address.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_scores_are_those_of_the_predictor(server, videos):
    for name, path in videos.items():
        answer = server.ask("/api/predict", path.read_bytes(), name=path.name, top_k=3)
        assert answer.status == 200
        expected = make_predictor()(path).top
        (result,) = answer.json["results"]
        assert [(top["label"], top["score"]) for top in result["top"]] == expected
        assert answer.json["video"] == f"{name}.mp4"
        facts = answer.json["facts"]
        assert (facts["frames"], facts["width"], round(facts["duration"], 6)) == (30, 48, 3.0)
        assert result["windows"] == result["segments"] == result["objects"] == []


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_results_are_the_files_that_predict_writes(kind, server, videos, tmp_path, monkeypatch):
    monkeypatch.chdir(videos["change"].parent)
    options = Options(top_k=2, sliding=True, stride=0.3)
    path = tmp_path / f"x.{kind}"
    with open_results(path, None, io.StringIO(), {"top_k": 2}) as writer:
        sources = [Source("change.mp4")]
        assert predict_videos(make_predictor(), sources, writer, options, progress=False) == 0
    answer = server.ask(
        "/api/predict", videos["change"].read_bytes(), name="change.mp4", top_k=2, stride=0.3
    )
    fetched = server.ask(answer.json["results"][0][kind])
    assert fetched.body.decode() == path.read_text()
    assert f"results.{kind}" in fetched.headers["content-disposition"]


def test_segments_and_windows_of_two_models(server, videos):
    answer = server.ask(
        "/api/predict", videos["change"].read_bytes(), model=["plain", "sharp"], sliding="true"
    )
    plain, sharp = answer.json["results"]
    assert (plain["model"], sharp["model"]) == ("plain", "sharp")
    labels = [segment["label"] for segment in sharp["segments"]]
    assert labels == ["red", "blue"]
    assert abs(sharp["segments"][0]["end"] - 1.5) < 0.5
    assert len(plain["windows"]) == len(sharp["windows"]) > 3
    for window in sharp["windows"]:
        assert len(window["scores"]) == 3 and window["start"] < window["end"]
    assert sharp["top"][0]["score"] > plain["top"][0]["score"]


def test_pictures_are_clips_of_one_frame(server):
    file = io.BytesIO()
    Image.new("RGB", (60, 40), (200, 30, 30)).save(file, "PNG")
    answer = server.ask("/api/predict", file.getvalue(), name="x.png", sliding="true")
    assert answer.status == 200 and answer.json["facts"]["is_picture"]
    assert answer.json["results"][0]["top"][0]["label"] == "red"
    explained = server.ask("/api/explain", file.getvalue())
    assert explained.status == 200 and explained.json["label"] == "red"


def test_an_explanation_is_of_the_window_around_a_time(server, videos):
    body = videos["change"].read_bytes()
    for time, label in ((0.2, "red"), (2.9, "blue")):
        found = server.ask("/api/explain", body, time=time).json
        assert found["label"] == label and found["start"] <= time <= found["end"]
        picture = picture_of(found["frames"][0]["picture"]).mean(axis=(0, 1))
        assert picture.argmax() == ("red", "green", "blue").index(label)
        assert picture_of(found["frames"][0]["heat"]).shape == (224, 224, 3)
    wanted = server.ask("/api/explain", body, time=0, label="green", model="sharp").json
    assert (wanted["label"], wanted["model"]) == ("green", "sharp")
    assert server.ask("/api/explain", body, label="grey").error == "plain has no class of this name"


def test_uploads_are_deleted(server, videos):
    server.ask("/api/predict", videos["red"].read_bytes())
    server.ask("/api/predict", b"nothing that is a video")
    assert list(server.service.folder.iterdir()) == []


def test_fifty_at_once_and_none_is_lost(server, videos):
    names = [("red", "green", "blue")[k % 3] for k in range(50)]
    contents = {name: videos[name].read_bytes() for name in set(names)}

    def ask(number: int) -> str:
        answer = server.ask("/api/predict", contents[names[number]], name=f"{number}.mp4")
        assert answer.status == 200 and answer.json["video"] == f"{number}.mp4"
        return answer.json["results"][0]["top"][0]["label"]

    with ThreadPoolExecutor(50) as threads:
        assert list(threads.map(ask, range(50))) == names
    assert list(server.service.folder.iterdir()) == []


def test_a_damaged_upload_beside_a_good_one_costs_the_good_one_nothing(server, videos):
    good, bad = videos["green"].read_bytes(), b"\0" * 100_000

    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda k: server.ask("/api/predict", (good, bad)[k % 2]), range(8))
        )
    assert [answer.status for answer in answers] == [200, 422] * 4


@pytest.mark.parametrize(
    ("parameters", "status", "said"),
    [
        ({"model": "other"}, 404, "there is no model of this name, but plain, sharp"),
        ({"top_k": 0}, 422, "top_k: "),
        ({"stride": 0}, 422, "stride: "),
        ({"stride": "nan"}, 422, "stride: "),
        ({"window": 61}, 422, "window: a window of 61 s is longer than a video may be, 60 s"),
        ({"crops": 2}, 422, "crops: a window has 1 or 3"),
        ({"on": 0.2, "off": 0.6}, 422, "thresholds of segments"),
        ({"smooth": 2}, 422, "odd number of windows"),
        ({"progress": "../x"}, 422, "progress: "),
        ({"url": "http://127.0.0.1/a.mp4"}, 403, "this server fetches no addresses"),
    ],
)
def test_values_that_cannot_be_used(parameters, status, said, server, videos):
    answer = server.ask("/api/predict", videos["red"].read_bytes(), **parameters)
    assert answer.status == status
    assert said in answer.error and "\n" not in answer.error


def test_facts_of_the_server(server):
    info = server.ask("/api/info").json
    assert [model["name"] for model in info["models"]] == ["plain", "sharp"]
    assert info["models"][0]["classes"] == ["red", "green", "blue"]
    assert {model["finds"] for model in info["models"]} == {"labels"}
    assert info["limits"]["max_mb"] == 2 and not info["search"] and info["data"] == ""
    assert server.ask("/api/progress/nobody").json["state"] == "unknown"
    assert server.ask("/api/results/nobody.csv").status == 404
    assert server.ask("/api/clips").status == 404


def test_the_description_names_every_call(server):
    calls = server.ask("/openapi.json").json["paths"]
    assert {"/api/predict", "/api/explain", "/api/search", "/api/info"} <= set(calls)
    assert "/api/moments/{number}/video" not in calls  # this server has no index
    body = calls["/api/predict"]["post"]["requestBody"]["content"]
    assert list(body) == ["application/octet-stream"]
    assert "422" in calls["/api/predict"]["post"]["responses"]


def test_pages_need_nothing_from_other_hosts(server):
    for place in ("/", "/data", "/docs"):
        page = server.ask(place)
        assert (
            page.status == 200 and "default-src 'none'" in page.headers["content-security-policy"]
        )
        for linked in re.findall(r'(?:src|href)="([^"]+)"', page.body.decode()):
            assert linked.startswith("/")
            assert server.ask(linked).status == 200, linked
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|innerHTML|\beval\(", text), file.name
        assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=", text), file.name


def test_modules_import_what_is_there():
    for file in STATIC.glob("*.js"):
        for names, other in re.findall(r'import \{([^}]+)\} from "\./(\S+)"', file.read_text()):
            exported = set(re.findall(r"export (?:async )?(?:function|const|class) (\S+?)[\s(=]",
                                      (STATIC / other).read_text() + " "))  # fmt: skip
            assert {name.strip() for name in names.split(",") if name.strip()} <= exported


def test_elements_that_scripts_ask_for_are_on_their_page():
    pages = {"video": "index", "camera": "index", "data": "data", "docs": "docs"}
    pages |= {"moments": "index"}
    for script, page in pages.items():
        wanted = set(re.findall(r'\$\("([\w-]+)"\)', (STATIC / f"{script}.js").read_text()))
        known = set(re.findall(r'id="([\w-]+)"', (STATIC / f"{page}.html").read_text()))
        assert wanted and wanted <= known, wanted - known


def test_json_lines_of_results_are_json(server, videos):
    answer = server.ask("/api/predict", videos["red"].read_bytes(), name="=1+1.mp4", sliding="true")
    (result,) = answer.json["results"]
    lines = server.ask(result["jsonl"]).body.decode().splitlines()
    assert [json.loads(line)["video"] for line in lines] == ["=1+1.mp4"] * len(lines)
    table = server.ask(result["csv"]).body.decode()
    assert "\n'=1+1.mp4," in table and Path(result["csv"]).suffix == ".csv"
