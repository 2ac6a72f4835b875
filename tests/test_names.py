"""Names of files that are made to harm, in logs, messages, tables and pictures."""

import csv
import io
import logging
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from videonet.data.tables import rows_as_text, text_of, write_table
from videonet.errors import DataError, run_tool
from videonet.figures import save_figure
from videonet.files import replacing_text
from videonet.terminal import PrintableFormatter, start_logging

HOSTILE = "z\x1b]0;PWN\x07\u202e\r\n2026 INFO all well\udcff.mp4"


def test_logs_show_names_in_one_line():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("videonet.test_names")
    logger.addHandler(handler)
    logger.propagate = False
    logger.warning("%s and %s", HOSTILE, Path("a\nb"))
    logger.warning("%s", DataError(HOSTILE))
    logger.warning(f"{HOSTILE}")
    logger.warning("two\nlines of %d", 3)
    logger.removeHandler(handler)
    said = stream.getvalue()
    assert "\x1b" not in said and "\x07" not in said and "\u202e" not in said and "\r" not in said
    lines = said.split("\n")
    assert lines[0].startswith("WARNING z\\x1b]0;PWN\\x07\\u202e\\x0d\\x0a2026 INFO")
    assert lines[0].endswith("a\\x0ab") and lines[1].startswith("WARNING z")
    assert lines[-3:] == ["WARNING two", "lines of 3", ""]


def test_the_log_of_a_run_is_written_so(tmp_path):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        start_logging(tmp_path)
        logging.getLogger("videonet").info("%s", HOSTILE)
    finally:
        root.handlers[:], _ = before[0], root.setLevel(before[1])
    text = (tmp_path / "log.txt").read_text()
    assert len(text.splitlines()) == 1 and "\\x1b]0;PWN" in text


def test_an_error_is_one_line(capsys):
    def main() -> None:
        raise DataError(f"{HOSTILE}: no")

    with pytest.raises(SystemExit) as stopped:
        run_tool(main)
    said = capsys.readouterr().err
    assert stopped.value.code == 1 and said.count("\n") == 1 and "\x1b" not in said


def test_errors_of_the_system_are_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_tool(lambda: Path("/dev/full").write_text("x" * 2**20))
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: No space left on device\n"
    with pytest.raises(SystemExit) as stopped:
        run_tool(lambda: Path("/nowhere/x\x1b").read_text())
    assert capsys.readouterr().err == "error: /nowhere/x\\x1b: No such file or directory\n"


def test_a_dollar_begins_no_formula(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.set_title(r"$\frac{a.mp4")
    axes.barh([0, 1], [1, 2])
    axes.set_yticks([0, 1], [r"$\x{", "z\x1b"])
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_the_longest_name_can_be_written(tmp_path):
    for name in ("x" * 255, "\u00e4" * 127, "=" * 250 + ".csv"):
        write_table(tmp_path / name, ["a"], [["=1"]])
        assert (tmp_path / name).read_text() == "a\n'=1\n"
    with replacing_text(tmp_path / "b\udcff.txt") as file:
        file.write("b\udcff")
    assert (tmp_path / "b\udcff.txt").read_bytes() == b"b\xff"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_no_cell_is_a_formula_wherever_a_program_ends_cells(mark):
    for name in ("=1", "a;=1+1.mp4", ";@a", "a\t=1", "a\r=1", "a\n=1", "'=1", '"=1', "a,=1"):
        line = rows_as_text([[name, "label", 0.5]])
        row = next(csv.reader(io.StringIO(line, newline=""), delimiter=mark))
        assert not [cell for cell in row if cell.startswith(tuple("=+-@\t\r\n"))], name
        if mark == ",":
            assert text_of(row[0]) == name
