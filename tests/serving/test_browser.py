"""The pages in a real browser: Debian's chromium, driven by playwright (pip install playwright)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.conftest import write_colours
from tests.serving.conftest import SLIDING, make_index, make_predictor
from tests.tasks.drawn import CLASSES, SIZE, scene
from videonet.data.datasets.lists import read_list
from videonet.data.masks import decode_masks
from videonet.serving.browsing import Browser
from videonet.serving.searching import IndexSearch

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


# Alpha of the drawing in the middle of each pixel of a picture of some (height, width).
ALPHA = """([rows, columns]) => {
  const canvas = document.querySelector('#marks'), pen = canvas.getContext('2d');
  const scale = Math.min(canvas.width / columns, canvas.height / rows);
  const left = (canvas.width - columns * scale) / 2, top = (canvas.height - rows * scale) / 2;
  const at = (place) => Math.floor((place + 0.5) * scale);
  return Array.from({ length: rows }, (_, y) => Array.from({ length: columns }, (_, x) =>
    pen.getImageData(left + at(x), top + at(y), 1, 1).data[3]));
}"""


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page whose scripts raise nothing and open no dialogue."""
    page, wrong = chromium.new_page(), []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield page
    page.close()
    assert wrong == []


def upload(page, path):
    page.set_input_files("#file", str(path))
    page.wait_for_selector("#work:not([hidden]), #error:not([hidden])")


def test_labels_over_time_and_a_click_that_seeks(page, server, videos):
    page.goto(server.address)
    page.wait_for_selector("#compare-field")
    page.select_option("#compare", "sharp")
    upload(page, videos["change"])
    assert page.locator(".timeline").count() == 2
    width = page.locator(".timeline canvas").first.bounding_box()["width"]
    for place, label in ((0.95, "blue"), (0.05, "red")):
        page.locator(".timeline canvas").first.click(position={"x": width * place, "y": 60})
        page.wait_for_function(
            "time => Math.abs(document.querySelector('#video').currentTime - time) < 0.2",
            arg=3 * place,
        )
        assert page.locator(".panel").last.locator(".bars li span").first.inner_text() == label
    page.locator(".segments button").last.click()
    assert page.locator(".panel").last.locator(".bars li span").first.inner_text() == "blue"
    with page.expect_download() as download:
        page.locator(".downloads a").first.click()
    assert "change.mp4" in Path(download.value.path()).read_text()


def test_an_explanation_lies_on_the_frame(page, server, videos):
    page.goto(server.address)
    upload(page, videos["change"])
    page.click("#explain")
    page.wait_for_selector("#explanation:not([hidden])")
    assert "why red" in page.locator("#explained h2").inner_text()
    assert page.locator("#heat").is_visible()
    page.click("#heat")
    assert not page.locator("#heat").is_visible()


def test_damaged_and_large_files_are_one_sentence(page, server, tmp_path):
    page.goto(server.address)
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 10_000)
    upload(page, tmp_path / "broken.mp4")
    assert page.locator("#error").inner_text().startswith("cannot read broken.mp4: ")
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(500_000_000)
    upload(page, tmp_path / "large.mp4")
    page.wait_for_function("() => document.querySelector('#error').innerText.includes('large.mp4')")
    assert "larger than 2 MB" in page.locator("#error").inner_text()


def test_a_script_in_a_name_stays_text(page, server, tmp_path):
    path = write_colours(tmp_path / "<img src=x onerror=alert(1)>.mp4", [("red", 20)])
    page.goto(server.address)
    upload(page, path)
    assert "<img src=x onerror=alert(1)>.mp4" in page.locator("#facts").inner_text()
    assert page.locator("#facts img").count() == 0


def test_two_users_at_once(chromium, server, videos):
    users = [chromium.new_page() for _ in range(2)]
    for user in users:
        user.goto(server.address)
    for user, name in zip(users, ("red", "blue"), strict=True):
        user.set_input_files("#file", str(videos[name]))
    for user, name in zip(users, ("red", "blue"), strict=True):
        user.wait_for_selector("#work:not([hidden])", timeout=60_000)
        assert user.locator(".panel .bars li span").first.inner_text() == name
        user.close()


def test_the_camera_is_labelled(page, start_server):
    page.goto(start_server({"plain": make_predictor()}).address)
    page.wait_for_selector("#model option", state="attached")
    page.click("#camera-open")
    page.click("#live")
    page.wait_for_selector("#live-log li")
    page.click("#live")
    page.click("#record")
    page.wait_for_timeout(2500)
    page.click("#record")
    page.wait_for_selector("#work:not([hidden])")
    assert "camera.webm" in page.locator("#facts").inner_text()


@pytest.mark.parametrize("place", ["/", "/docs"])
def test_pages_fit_a_phone(place, page, server, videos):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(server.address + place)
    if place == "/":
        upload(page, videos["change"])
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_clips_of_a_list(page, start_server, videos, tmp_path):
    for name, path in videos.items():
        shutil.copy(path, tmp_path / f"{name}.mp4")
    (tmp_path / "val.csv").write_text("red.mp4 0\ngreen.mp4 1\nblue.mp4 0\n")
    head = "path,label,prediction,score,score_of_label\n"
    rows = "red.mp4,red,red,0.9,0.9\ngreen.mp4,green,green,0.8,0.8\nblue.mp4,red,green,0.9,0.1\n"
    (tmp_path / "p.csv").write_text(head + rows)
    listed = read_list(tmp_path / "val.csv", 3)
    browser = Browser(listed, ["red", "green", "blue"], tmp_path / "p.csv")
    server = start_server({"plain": make_predictor()}, browser=browser)
    page.goto(f"{server.address}/data")
    page.wait_for_selector(".clip img")
    assert page.locator(".clip").count() == 3
    page.click("[data-order=suspect]")
    page.wait_for_function("() => document.querySelectorAll('.clip').length == 1")
    assert "blue.mp4" in page.locator(".clip").inner_text()
    page.locator(".frames").click()
    page.wait_for_function("() => document.querySelector('.clip video')?.readyState >= 2")


def test_boxes_and_masks_lie_on_the_frame(page, dense_server, dense_models, shapes):
    page.goto(dense_server.address)
    page.wait_for_selector("#least-field:not([hidden])")
    assert not page.locator("#window-field").is_visible()
    page.select_option("#least", "0.1")
    upload(page, shapes)
    assert page.locator(".timeline").count() == 1 and not page.locator("#explain").is_visible()
    page.wait_for_function("() => document.querySelector('#video').readyState >= 2")
    found = dense_models["objects"](shapes, least_score=0.1)
    assert page.locator(".panel .segments button").count() == len(found.tracks)
    frame = 4
    place = page.locator(".timeline canvas").bounding_box()
    page.locator(".timeline canvas").click(
        position={"x": place["width"] * (frame + 0.5) / found.length, "y": 60}
    )
    page.wait_for_function("() => !document.querySelector('#video').seeking")
    here = [track for track in found.tracks if track.scores[frame] >= 0.1]
    heading = page.locator(".panel h3").first.inner_text()
    assert f": {len(here)} object" in heading
    masks = decode_masks([track.masks[frame] for track in here], SIZE).any(dim=0)
    drawn = page.evaluate(ALPHA, list(SIZE))
    inside = np.array(drawn)[masks.numpy()]
    assert (inside > 0).mean() > 0.98  # what is drawn is smoothed at the borders
    with page.expect_download() as download:
        page.locator(".downloads a").click()
    content = json.loads(Path(download.value.path()).read_text())
    assert len(content["annotations"]) == len(found.tracks)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".panel input").uncheck()
    assert np.array(page.evaluate(ALPHA, list(SIZE))).max() == 0


def test_label_maps_lie_on_a_picture(page, dense_server, dense_models, tmp_path):
    Image.fromarray(scene(5)[0][0]).save(tmp_path / "scene.png")
    page.goto(dense_server.address)
    page.wait_for_selector("#model option", state="attached")
    page.select_option("#model", "maps")
    upload(page, tmp_path / "scene.png")
    labels = dense_models["maps"](tmp_path / "scene.png").label_maps[0].numpy()
    alpha = np.array(page.evaluate(ALPHA, list(SIZE)))
    assert ((alpha > 0) == (labels > 0)).mean() > 0.95
    listed = page.locator(".panel .segments span").all_inner_texts()
    assert {*listed} == {["background", *CLASSES][label] for label in np.unique(labels)}


def test_similar_moments_of_an_index(page, start_server, videos, tmp_path):
    paths = [Path(shutil.copy(videos[name], tmp_path)) for name in ("red", "blue", "change")]
    index = make_index(tmp_path / "index", paths, SLIDING)
    models = {"plain": make_predictor()}
    server = start_server(models, search=IndexSearch(index, models))
    page.goto(server.address)
    page.wait_for_selector("#model option", state="attached")
    upload(page, videos["change"])
    page.wait_for_selector("#similar:not([hidden])")
    page.fill("#from", "1.8")
    page.fill("#to", "2.8")
    page.click("#search")
    page.wait_for_selector("#moments .clip img")
    names = page.locator("#moments .clip .quiet").all_inner_texts()
    assert names[0] in ("blue.mp4", "change.mp4") and len(names) > 5
    assert page.locator("#moments .tag").first.inner_text() == "1.000"
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#moments .frames").first.click()
    page.wait_for_function("() => document.querySelector('#moments video')?.readyState >= 2")
    for path in paths:
        path.unlink()
    page.click("#search")
    page.wait_for_selector("#moments .gone")
    assert "index the videos again" in page.locator("#moments .gone").first.inner_text()
    page.fill("#from", "2.9")
    page.click("#search")
    page.wait_for_selector("#error:not([hidden])")
    assert "it has no frame from 2.9 s to 2.8 s" in page.locator("#error").inner_text()


def test_a_server_without_an_index_offers_no_search(page, server, videos):
    page.goto(server.address)
    upload(page, videos["red"])
    assert not page.locator("#similar").is_visible()
