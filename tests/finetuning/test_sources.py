"""Folders and lists as people have them, and one sentence for those that cannot be used."""

import os
from pathlib import Path

import pytest

from videonet.errors import DataError
from videonet.finetuning.sources import find_labelled


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names(found) -> list[tuple[str, str]]:
    place = Path(found.place)
    place = place if place.is_dir() else place.parent
    pairs = zip(found.paths, found.labels, strict=True)
    return [(os.path.relpath(path, place), found.classes[label]) for path, label in pairs]


def test_a_folder_per_class_with_what_else_lies_there(tmp_path):
    touch(tmp_path, "b/1.mp4", "b/sub/2.MOV", "a/3.avi", "a/notes.txt", "a/.hidden.mp4", "4.mp4")
    touch(tmp_path, "a/frames/1.jpg", "a/frames/2.jpg", "a/cover.jpg")
    (tmp_path / "empty").mkdir()
    found = find_labelled(tmp_path)
    assert set(names(found)) == {
        *(("a/3.avi", "a"), ("a/frames", "a"), ("b/1.mp4", "b"), ("b/sub/2.MOV", "b")),
    }
    left = {os.path.relpath(path, tmp_path) for path, _ in found.left_out if os.path.isabs(path)}
    assert left == {"a/notes.txt", "a/cover.jpg", "4.mp4"}
    assert ("empty", "the class has no video that can be used") in found.left_out


def test_folders_that_lead_in_circles_and_links(tmp_path):
    touch(tmp_path, "data/a/1.mp4", "data/b/2.mp4", "elsewhere/3.mp4")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data/a")
    (tmp_path / "data/b/3.mp4").symlink_to(tmp_path / "elsewhere/3.mp4")
    assert len(find_labelled(tmp_path / "data").paths) == 3


def test_data_that_are_divided_stay_so(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/a/3.mp4", "test/b/4.mp4")
    found = find_labelled(tmp_path)
    assert found.splits == ["train", "train", "val", "val"] or sorted(found.splits) == [
        *("train", "train", "val", "val")
    ]
    held = {
        path for (path, _), part in zip(names(found), found.splits, strict=True) if part == "val"
    }
    assert held == {"test/a/3.mp4", "test/b/4.mp4"}


def test_pictures_right_in_a_class_are_pictures(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.png")
    assert len(find_labelled(tmp_path).paths) == 3


def test_classes_with_hostile_names_stay_apart(tmp_path):
    touch(tmp_path, "a\x1b[2J/1.mp4", "<script>/2.mp4", "c\nd/3.mp4")
    found = find_labelled(tmp_path)
    assert found.classes == ["<script>", "a\\x1b[2J"]
    assert any(why == "has a line's end in its name" for _, why in found.left_out)


def test_a_table_with_named_columns(tmp_path):
    touch(tmp_path, "v/1.mp4", "v/2.mp4", "v/3 x.mp4")
    rows = (
        "gloss;file;signer;subset\nhi;v/1.mp4;7;train\nbye;v/2.mp4;8;test\nhi;v/3 x.mp4;7;train\n"
    )
    (tmp_path / "meta.csv").write_text(rows)
    found = find_labelled(tmp_path / "meta.csv", {"label": "gloss"})
    assert found.classes == ["bye", "hi"] and found.labels == [1, 0, 1]
    assert (found.column, found.groups) == ("signer", ["7", "8", "7"])
    assert found.splits == ["train", "val", "train"]
    with pytest.raises(DataError, match="no column 'person', only gloss, file"):
        find_labelled(tmp_path / "meta.csv", {"label": "gloss", "group": "person"})
    with pytest.raises(DataError, match="names no column of paths and labels"):
        find_labelled(tmp_path / "meta.csv", {"group": "signer"})


def test_a_plain_list(tmp_path):
    touch(tmp_path, "1.mp4", "2.mp4")
    (tmp_path / "list.csv").write_text("1.mp4 wave\n2.mp4 jump up\n")
    assert names(find_labelled(tmp_path / "list.csv")) == [("1.mp4", "wave"), ("2.mp4", "jump up")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "holds no folders, expected one per class"),
        (["1.mp4", "2.mp4"], "holds videos, but no folders"),
        (["a/x.txt", "b/y.pdf"], "there is no video in it"),
        (["a/1.mp4", "a/2.mp4"], "all 2 videos are of the class 'a', so there is nothing"),
        (["a/1.mp4", "b/y.txt"], "of the class 'a'"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(files, said, tmp_path):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=said) as caught:
        find_labelled(tmp_path)
    assert "\n" not in str(caught.value)


def test_lists_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="there is no such folder or list"):
        find_labelled(tmp_path / "none")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        find_labelled(tmp_path / "empty.csv")
    (tmp_path / "ragged.csv").write_text("path,label\na.mp4\n")
    with pytest.raises(DataError, match="row 2: 1 cells, but 2"):
        find_labelled(tmp_path / "ragged.csv")
    (tmp_path / "gone.csv").write_text("path,label\na.mp4,x\nb.mp4,y\n")
    with pytest.raises(DataError, match="there is no video"):
        find_labelled(tmp_path / "gone.csv")
