"""The report about a machine, whole and with something missing."""

import sys

from videonet import environment


def test_report_of_this_machine(capsys):
    assert environment.main([]) == 0
    said = capsys.readouterr().out
    for subject in ("python", "videonet", "torch", "cpu", "cuda", "decoder pyav", "model"):
        assert f"\n{subject} " in f"\n{said}", subject
    assert "logits (1, 2) come out" in said and "reads H.264" in said


def test_what_is_missing_is_named_with_its_consequence(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "fvcore", None)
    found = {finding.subject: finding for finding in environment._versions()}
    assert "WANDB.ENABLE cannot be used" in found["wandb"].problem and not found["wandb"].fatal
    assert "fvcore is needed everywhere" in found["fvcore"].problem and found["fvcore"].fatal


def test_a_machine_without_a_working_decoder_fails(monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise OSError("libavcodec.so is missing\nsecond line")

    monkeypatch.setattr("videonet.data.decode.open_video", broken)
    assert environment.main([]) == 1
    said = capsys.readouterr().out
    assert "decoder decord     does not work" in said and "no video can be read" in said
    assert "optional: libavcodec.so is missing" in said
    assert "will not work: no video can be read" in said
    assert "libavcodec.so is missing" in said and "second line" not in said
