"""Names of classes decide: how many there are, in which order, and as labels in lists."""

from __future__ import annotations

import pytest

from videonet.config import load_config
from videonet.data.datasets.classes import class_names, known_classes, refuse_single_class
from videonet.data.datasets.lists import read_list
from videonet.data.loading.build import read_videos
from videonet.errors import DataError

CLASSES = ["walk", "eat", "play guitar"]  # not in alphabetical order


@pytest.fixture
def data(tmp_path):
    """The same videos as lists of numbers, lists of names, and folders."""
    for split in ("train", "val"):
        lines = {"numbers": [], "names": []}
        for number, name in enumerate(CLASSES):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            (folder / "a.mp4").write_bytes(b"")
            lines["numbers"].append(f"{split}/{name}/a.mp4 {number}\n")
            lines["names"].append(f"{split}/{name}/a.mp4,{name}\n")
        (tmp_path / f"{split}.csv").write_text("".join(lines["numbers"]))
        (tmp_path / f"{split}_names.csv").write_text("".join(lines["names"]))
    return tmp_path


def config(folder, *overrides):
    base = ("MODEL.NAME", "mvit_v2_xs", "DATA.PATH_TO_DATA_DIR", folder)
    return load_config(None, [str(item) for item in (*base, *overrides)])


FORMS = {
    "numbers": (),
    "names": ("DATA.TRAIN_LIST", "train_names.csv", "DATA.VAL_LIST", "val_names.csv"),
    "folders": ("TRAIN.DATASET", "folder", "TEST.DATASET", "folder"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_file_of_names_gives_every_form_the_same_numbers(data, form, split):
    (data / "classes.txt").write_text("\n".join(CLASSES))
    cfg = config(data, *FORMS[form])
    assert class_names(cfg, split) == CLASSES
    videos = read_videos(cfg, split)
    for path, label in zip(videos.paths, videos.labels.tolist(), strict=True):
        assert f"/{CLASSES[label]}/" in path


@pytest.mark.parametrize("form", FORMS)
def test_classes_are_counted_where_nobody_names_them(data, form):
    cfg = config(data, *FORMS[form])
    assert known_classes(cfg).MODEL.NUM_CLASSES == 3
    names = ["0", "1", "2"] if form == "numbers" else sorted(CLASSES)
    assert class_names(cfg) == names
    videos = read_videos(cfg, "train")
    if form != "numbers":
        for path, label in zip(videos.paths, videos.labels.tolist(), strict=True):
            assert f"/{names[label]}/" in path


def test_the_validation_counts_too(data):
    (data / "val.csv").write_text("val/eat/a.mp4 6\n")
    assert known_classes(config(data)).MODEL.NUM_CLASSES == 7


def test_another_number_of_classes_is_refused(data):
    (data / "classes.txt").write_text("\n".join(CLASSES))
    with pytest.raises(DataError, match=r"classes\.txt names 3 classes.*NUM_CLASSES is 4"):
        class_names(config(data, "MODEL.NUM_CLASSES", 4))


def test_titles_of_folders_keep_the_order_of_the_folders(data):
    (data / "classes.txt").write_text("Eating\nPlaying the guitar\nWalking\n")
    cfg = config(data, *FORMS["folders"])
    assert class_names(cfg) == ["Eating", "Playing the guitar", "Walking"]
    assert [path.split("/")[-2] for path in read_videos(cfg, "val").paths] == sorted(CLASSES)
    assert read_videos(cfg, "val").labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("walk\neat\nrun\n", "does not name the class 'play guitar'"),
        ("walk\neat\nwalk\n", "names the class 'walk' twice"),
        ("\n \n", "names no classes"),
    ],
)
def test_files_of_names_that_cannot_be_used(data, text, message):
    (data / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_videos(config(data, *FORMS["folders"]), "train")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("99999999999", "99,999,999,999 is the largest label"),
        ("9" * 5000, "no number that a class"),
    ],
)
def test_a_label_that_no_data_set_has(tmp_path, label, message):
    (tmp_path / "train.csv").write_text(f"a.mp4 0\nb.mp4 {label}\n")
    cfg = load_config(None, ["MODEL.NAME", "mvit_v2_xs", "DATA.PATH_TO_DATA_DIR", str(tmp_path)])
    with pytest.raises(DataError, match=f"train.csv.*{message}"):
        class_names(cfg)


def test_one_class_is_nothing_to_learn(data):
    with pytest.raises(DataError, match="nothing to learn"):
        refuse_single_class(config(data, "MODEL.NUM_CLASSES", 1))
    labels = ("TRAIN.DATASET", "multilabel", "MODEL.LOSS_FUNC", "bce_logit")
    refuse_single_class(config(data, "MODEL.NUM_CLASSES", 1, *labels))


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "my clip, two.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "v1").mkdir()
    return tmp_path


def listed(folder, text, **options):
    (folder / "list.csv").write_text(text)
    return read_list(folder / "list.csv", 3, names=CLASSES, **options)


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 play guitar\nmy clip, two.mp4 eat\n",
        "a.mp4\tplay guitar\nmy clip, two.mp4\teat\n",
        'a.mp4,play guitar\n"my clip, two.mp4",eat\n',
        'path,label\na.mp4,"play guitar"\n"my clip, two.mp4",eat\n',
        "a.mp4 play guitar\nmy clip, two.mp4 1\n",
    ],
)
def test_names_are_labels(folder, text):
    videos = listed(folder, text)
    assert list(videos.paths) == [str(folder / "a.mp4"), str(folder / "my clip, two.mp4")]
    assert videos.labels.tolist() == [2, 1]


def test_a_folder_of_frames_with_a_name_is_no_header(folder):
    assert len(listed(folder, "v1 eat\na.mp4 walk\n")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 play guitar,eat\nb.mp4 walk\n",
        "a.mp4\teat\tplay guitar\nb.mp4\twalk\n",
        'a.mp4,"eat,play guitar"\nb.mp4,walk\n',
        'a.mp4 "eat; play guitar"\nb.mp4 0\n',
    ],
)
def test_several_names_are_labels(folder, text):
    videos = listed(folder, text, multi_label=True)
    assert list(videos.paths) == [str(folder / "a.mp4"), str(folder / "b.mp4")]
    assert [videos.classes_of(k) for k in range(2)] == [[1, 2], [0]]


def test_an_unknown_name_names_file_and_line(folder):
    with pytest.raises(DataError, match=r"list\.csv, line 2: the label 'cook' is not an integer"):
        listed(folder, "a.mp4 eat\nb.mp4 cook\n")


def test_a_name_in_other_letters_is_told(folder):
    with pytest.raises(DataError, match="no name of a class; did you mean 'play guitar'"):
        listed(folder, "a.mp4,eat\nb.mp4,Play Guitar\n", separator=",")


@pytest.mark.parametrize("split", ["val", "test"])
def test_numbers_beside_a_training_list_of_names_are_refused(data, split):
    cfg = config(data, "DATA.TRAIN_LIST", "train_names.csv", "DATA.VAL_LIST", "val.csv")
    with pytest.raises(DataError, match=r"val\.csv, line 1: .* is a number, but .* are names"):
        read_videos(cfg, split)
    (data / "classes.txt").write_text("\n".join(CLASSES))
    assert read_videos(cfg, split).labels.tolist() == [0, 1, 2]


def test_a_number_among_the_names_of_a_training_list_is_refused(data):
    with (data / "train_names.csv").open("a") as file:
        file.write("train/eat/a.mp4,1\n")
    cfg = config(data, *FORMS["names"], "DATA.PATH_LABEL_SEPARATOR", ",")
    with pytest.raises(DataError, match=r"train_names\.csv, line 4: .* is a number"):
        read_videos(cfg, "train")


def test_several_names_are_counted(folder):
    (folder / "train.csv").write_text("a.mp4,eat,walk\nb.mp4,run\n")
    labels = ("TRAIN.DATASET", "multilabel", "MODEL.LOSS_FUNC", "bce_logit")
    cfg = config(folder, *labels)
    assert class_names(cfg) == ["eat", "run", "walk"]
    assert [read_videos(cfg, "train").classes_of(k) for k in range(2)] == [[0, 2], [1]]
