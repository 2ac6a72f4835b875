import json
from pathlib import Path

import pytest

from videonet.data.datasets.ssv2 import find_file, read_labels, read_ssv2
from videonet.errors import DataError

LABELS = {
    "Holding something": "0",
    "Pushing something from left to right": "1",
    "Showing that something is empty": "2",
}
TRAIN = [
    {
        "id": "78687",
        "label": "holding potato",
        "template": "Holding [something]",
        "placeholders": ["potato"],
    },
    {
        "id": "42326",
        "label": "pushing a cup from left to right",
        "template": "Pushing [something] from left to right",
        "placeholders": ["a cup"],
    },
    {"id": "7", "template": "Showing that [something] is empty"},
]


@pytest.fixture
def folder(tmp_path):
    """The data set as its two downloads unpack."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "20bn-something-something-v2").mkdir()
    for entry in TRAIN:
        (tmp_path / "20bn-something-something-v2" / f"{entry['id']}.webm").write_bytes(b"")
    write(tmp_path / "labels" / "labels.json", LABELS)
    write(tmp_path / "labels" / "train.json", TRAIN)
    write(tmp_path / "labels" / "validation.json", TRAIN[:1])
    write(tmp_path / "labels" / "test.json", [{"id": "7"}])
    answers = "7;Showing that [something] is empty\n78687;Holding something\n"
    (tmp_path / "labels" / "test-answers.csv").write_text(answers)
    return tmp_path


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_as_distributed(folder):
    assert find_file(folder, "train") == folder / "labels" / "train.json"
    videos = read_ssv2(folder / "labels" / "train.json", 3)
    root = folder / "20bn-something-something-v2"
    assert list(videos.paths) == [str(root / f"{name}.webm") for name in ("78687", "42326", "7")]
    assert videos.labels.tolist() == [0, 1, 2] and videos.root == str(root)
    assert read_labels(folder / "labels" / "labels.json") == list(LABELS)


def test_test_answers(folder):
    videos = read_ssv2(folder / "labels" / "test-answers.csv", 3)
    assert [Path(path).name for path in videos.paths] == ["7.webm", "78687.webm"]
    assert videos.labels.tolist() == [2, 0]


def test_the_names_of_older_downloads_and_frame_folders(folder, tmp_path):
    old = tmp_path / "old"
    (old / "frames" / "7").mkdir(parents=True)
    write(old / "something-something-v2-labels.json", LABELS)
    write(old / "something-something-v2-validation.json", TRAIN[2:])
    path = find_file(old, "val")
    videos = read_ssv2(path, 3, prefix=str(old / "frames"))
    assert list(videos.paths) == [str(old / "frames" / "7")] and videos.labels.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("train.json", "[{]", ["train.json, line 1", "expected JSON"]),
        ("train.json", "[" * 100_000, ["no JSON that can be read"]),
        ("train.json", f"[{'9' * 5000}]", ["no JSON that can be read"]),
        ("train.json", {"a": 1}, ["holds a dict", "expected a list"]),
        ("train.json", [], ["the list is empty"]),
        ("train.json", [{"label": "x"}], ["entry 0", "no 'id'"]),
        ("train.json", [TRAIN[0], {"id": "7"}], ["entry 1", "no 'template' for video 7"]),
        ("train.json", [{"id": "7", "template": "Eating [x]"}], ["entry 0", "'Eating [x]'"]),
        ("train.json", [{"id": "8", "template": "Holding [x]"}], ["entry 0", "'Holding [x]'"]),
        (
            "train.json",
            [TRAIN[0], {"id": "8", "template": "Holding [something]"}],
            ["entry 1", "8.webm", "1 of 2 videos are missing"],
        ),
        ("labels.json", {"Holding something": "1"}, ["labels.json", "not 0 … 0"]),
        ("labels.json", {"Holding something": "x"}, ["labels.json", "not an integer"]),
        ("labels.json", {"Holding something": "0"}, ["1 classes", "MODEL.NUM_CLASSES is 3"]),
    ],
)
def test_errors_name_file_and_entry(folder, name, content, parts):
    write(folder / "labels" / name, content)
    with pytest.raises(DataError) as caught:
        read_ssv2(folder / "labels" / "train.json", 3)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_test_json_has_no_labels(folder):
    with pytest.raises(DataError, match="entry 0: there is no 'template'.*test-answers.csv"):
        read_ssv2(folder / "labels" / "test.json", 3)


def test_without_labels_json(folder):
    (folder / "labels" / "labels.json").unlink()
    with pytest.raises(DataError, match="there is no labels.json"):
        read_ssv2(folder / "labels" / "train.json", 3)


def test_a_line_of_the_answers(folder):
    (folder / "labels" / "test-answers.csv").write_text("7 Holding something\n")
    with pytest.raises(DataError, match="test-answers.csv, line 1: .* 'id;template'"):
        read_ssv2(folder / "labels" / "test-answers.csv", 3)
