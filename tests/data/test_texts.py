import codecs
import os

import pytest

from videonet.data.texts import lines_of, read_text
from videonet.errors import DataError
from videonet.terminal import printable

TEXT = "running\r\nj\u00fcmping\r\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
)
def test_marks_and_line_ends_are_no_part_of_the_text(tmp_path, content):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    assert lines_of(read_text(path)) == ["running", "j\u00fcmping"]


def test_only_line_feeds_end_lines():
    assert lines_of("a\u2028b\x0cc\x85d\n\ne\rf") == ["a\u2028b\x0cc\x85d", "", "e", "f"]
    assert lines_of("") == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a\n\u8dd1\u6b65\n".encode("gbk"), "line 2: not UTF-8 .byte 0x"),
        ("a\nb\n".encode("utf-16-le"), "holds zero bytes, as UTF-16 without a mark does"),
        (codecs.BOM_UTF16_LE + b"a", "not UTF-8"),
        (None, "there is no such class names"),
    ],
)
def test_other_encodings_are_refused_in_one_sentence(tmp_path, content, reason):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_text(path, "class names")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(DataError, match="it is no file"):
            read_text(path)


def test_bytes_of_file_names_survive(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"caf\xe9.mp4\n")
    assert os.fsencode(lines_of(read_text(path, names=True))[0]) == b"caf\xe9.mp4"


def test_names_are_shown_without_control_characters():
    assert printable("a\u00e9 b.mp4") == "a\u00e9 b.mp4"
    assert printable("\x1b]0;x\x07\udce9\u2028") == "\\x1b]0;x\\x07\\xe9\\u2028"
