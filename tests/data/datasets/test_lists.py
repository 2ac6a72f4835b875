import os
import time

import numpy as np
import pytest

from videonet.data.datasets.arrays import MultiHot, PathArray
from videonet.data.datasets.lists import read_list
from videonet.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "my clip, two.mp4"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def listed(folder, text, num_classes=5, **options):
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return read_list(folder / "list.csv", num_classes, **options)


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 3\nb.mp4 0\n",
        "a.mp4 3\r\n\r\nb.mp4 0",
        "a.mp4,3\nb.mp4,0\n",
        "a.mp4\t3\nb.mp4\t0\n",
        "\ufeffpath label\na.mp4 3\nb.mp4 0\n",
        "path,label\na.mp4, 3\nb.mp4 ,0\n",
        "\"a.mp4\" 3\n'b.mp4' 0\n",
        '"a.mp4",3\n"b.mp4",0\n',
        '"path","label"\n"a.mp4","3"\n"b.mp4","0"\n',
        "'a.mp4'\t'3'\n'b.mp4'\t'0'\n",
    ],
)
def test_the_ways_to_write_a_list(folder, text):
    videos = listed(folder, text)
    assert list(videos.paths) == [str(folder / "a.mp4"), str(folder / "b.mp4")]
    assert videos.labels.tolist() == [3, 0] and len(videos) == 2
    assert videos.name == str(folder / "list.csv")


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_paths_with_spaces_and_commas(folder, separator, quote):
    videos = listed(folder, f"{quote}my clip, two.mp4{quote}{separator}1\n")
    assert list(videos.paths) == [str(folder / "my clip, two.mp4")]


def test_the_separator_of_the_config_is_tried_first(folder):
    assert list(listed(folder, "a.mp4|2\n", separator="|").labels) == [2]


def test_relative_paths_start_at_the_prefix(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.csv").write_text(f"a.mp4 1\n{folder / 'b.mp4'} 2\n")
    videos = read_list(tmp_path / "lists" / "train.csv", 5, prefix=str(folder))
    assert list(videos.paths) == [str(folder / "a.mp4"), str(folder / "b.mp4")]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["the list is empty", "path label"]),
        ("\n \n", ["the list is empty"]),
        ("path label\n", ["the list is empty"]),
        ("a.mp4 1\nb.mp4\n", ["line 2", "no label in 'b.mp4'", "path label"]),
        ("a.mp4 1\nb.mp4 cat\n", ["line 2", "'cat' is not an integer"]),
        ("a.mp4 1\nb.mp4 1.5\n", ["line 2", "'1.5' is not an integer"]),
        ("a.mp4 1\n\nb.mp4 5\n", ["line 3", "label 5", "0 … 4", "MODEL.NUM_CLASSES is 5"]),
        ("a.mp4 -1\n", ["line 1", "label -1"]),
        (f"a.mp4 {'9' * 5000}\n", ["line 1", "99…' is no number that a class has"]),
        ("a.mp4 1\nno.mp4 1\nx/no.mp4 2\n", ["line 2", "no.mp4", "2 of 3 videos are missing"]),
    ],
)
def test_errors_name_file_and_line(folder, text, parts):
    with pytest.raises(DataError) as caught:
        listed(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "list.csv")) and "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_list(folder):
    with pytest.raises(DataError, match="none.csv: there is no such list"):
        read_list(folder / "none.csv", 5)


def test_path_array_is_a_sequence_of_strings():
    names = ["a", "", "über/ä b.mp4", "c"]
    array = PathArray(names)
    assert list(array) == names and len(array) == 4 and array[-1] == "c"
    assert array[1:3] == names[1:3] and array[::-2] == names[::-2] and array[7:] == []
    with pytest.raises(IndexError):
        array[4]


def test_label_sets_are_a_sequence_of_rows():
    labels = MultiHot([[0, 2], [], [1]], 3)
    rows = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert [row.tolist() for row in labels] == rows and labels[-1].tolist() == rows[-1]
    assert [row.tolist() for row in labels[1:]] == rows[1:] and labels.labels(-3) == [0, 2]


@pytest.mark.parametrize(
    "text",
    [
        'a.mp4 3 1\nb.mp4 0\n"my clip, two.mp4" 4 2 3\n',
        "a.mp4 1,3\nb.mp4 0\nmy clip, two.mp4 2,3,4\n",
        'a.mp4 "3,1"\nb.mp4 "0"\n"my clip, two.mp4" "4,3,2"\n',
        'path,labels\na.mp4,3,1\nb.mp4,0\n"my clip, two.mp4",2,3,4\n',
        "a.mp4\t3\t1\t3\nb.mp4\t0\nmy clip, two.mp4\t4\t3\t2\n",
        '"a.mp4","3","1"\n"b.mp4","0"\n"my clip, two.mp4","2","3","4"\n',
    ],
)
def test_several_labels_a_line(folder, text):
    videos = listed(folder, text, multi_label=True)
    assert list(videos.paths) == [
        str(folder / name) for name in ("a.mp4", "b.mp4", "my clip, two.mp4")
    ]
    assert videos.is_multi_label and len(videos) == 3
    assert [videos.classes_of(k) for k in range(3)] == [[1, 3], [0], [2, 3, 4]]
    assert videos.labels[0].tolist() == [0, 1, 0, 1, 0] and videos.labels[0].dtype == np.float32


def test_a_video_without_any_of_the_classes(folder):
    videos = listed(folder, 'a.mp4 1\nb.mp4 ""\n', multi_label=True)
    assert videos.labels[1].tolist() == [0] * 5


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.mp4 1\nb.mp4\n", ["line 2", "no labels in 'b.mp4'"]),
        ("a.mp4 1 cat\n", ["line 1", "no labels"]),
        ("a.mp4 1 5\n", ["line 1", "label 5", "0 … 4"]),
        ("a.mp4 1 -2\n", ["line 1", "label -2"]),
    ],
)
def test_errors_of_several_labels(folder, text, parts):
    with pytest.raises(DataError) as caught:
        listed(folder, text, multi_label=True)
    assert all(part in str(caught.value) for part in parts)


def test_a_folder_of_frames_is_a_video(folder):
    (folder / "frames").mkdir()
    assert list(listed(folder, "frames 2\n").paths) == [str(folder / "frames")]
    assert list(listed(folder, "frames/ 2\n").paths) == [str(folder / "frames") + "/"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_that_are_marked_are_read(folder, encoding):
    (folder / "list.csv").write_bytes("a.mp4 3\r\nb.mp4 0\r\n".encode(encoding))
    assert read_list(folder / "list.csv", 5).labels.tolist() == [3, 0]


def test_names_that_are_no_utf8_and_names_with_odd_line_ends(folder):
    names = [b"caf\xe9.mp4", "a\u2028b.mp4".encode(), b"c\x0cd.mp4"]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(b"")
    (folder / "list.csv").write_bytes(b"".join(b"%b 1\n" % name for name in names))
    paths = list(read_list(folder / "list.csv", 5).paths)
    assert [os.fsencode(os.path.basename(path)) for path in paths] == names


def test_a_long_line_takes_no_longer_than_its_length(folder):
    start = time.process_time()
    with pytest.raises(DataError, match="line 1: no labels"):
        listed(folder, "a.mp4 " + "1 " * 50_000 + "x", multi_label=True)
    assert time.process_time() - start < 5  # a search that grows squarely takes minutes


@pytest.mark.parametrize("name", ["videos/a.mp4", "other.mp4"])
def test_a_missing_video_says_where_relative_paths_start(name, tmp_path, monkeypatch):
    """Lists of PySlowFast may be relative to the working folder."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "train.csv"
    path.write_text(f"{name} 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match="relative paths start at .*lists, or at DATA.PATH_PREFIX"
    ) as said:
        read_list(path, 2)
    found = "from the working folder it exists: set DATA.PATH_PREFIX to ."
    assert (found in str(said.value)) == (name == "videos/a.mp4")
    if name == "videos/a.mp4":
        assert len(read_list(path, 2, prefix=".")) == 1
