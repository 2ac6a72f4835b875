"""videonet weights: the list, one entry, and fetching."""

import pytest

import videonet
from videonet.cli import main
from videonet.errors import CheckpointError, ConfigError


def test_the_list_has_a_line_of_each(capsys):
    main(["weights", "mvit_v1_b.*"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "frames", "size"]
    assert [line.split()[0] for line in lines[1:]] == videonet.list_weights("mvit_v1_b.*")
    (row,) = [line for line in lines if line.startswith("mvit_v1_b.k400 ")]
    assert row.split()[1:] == ["16", "224", "78.4", "400", "Apache-2.0", "manifest", "by", "hand"]


def test_one_name_shows_what_belongs_to_it(capsys):
    main(["weights", "mvit_v2_s.k400"])
    said = capsys.readouterr().out
    assert "url            https://dl.fbaipublicfiles.com/" in said
    assert "mean           [0.45, 0.45, 0.45]" in said and "top1           81.0" in said


def test_what_is_not_there_is_told():
    with pytest.raises(ConfigError, match="no weights .k40., only .*did you mean .k400."):
        main(["weights", "mvit_v2_s.k40"])


def test_fetching_prints_where_the_file_is(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path))
    monkeypatch.setenv("VIDEONET_OFFLINE", "1")
    path = tmp_path / "weights" / "cyclemlp_b1.in1k.pth"
    with pytest.raises(CheckpointError, match="VIDEONET_OFFLINE is set"):
        main(["weights", "--fetch", "cyclemlp_b1.in1k"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    main(["weights", "--fetch", "cyclemlp_b1.in1k"])
    assert capsys.readouterr().out.strip() == str(path)
