"""Names of earlier releases still work, and say which ones to use."""

from __future__ import annotations

import importlib
import sys

import pytest

from videonet.inference import Predictor
from videonet.inference import export as exporting


def test_the_package_predict():
    for name in [name for name in sys.modules if name.startswith("videonet.predict")]:
        del sys.modules[name]
    with pytest.warns(FutureWarning, match="import videonet.inference"):
        old = importlib.import_module("videonet.predict")
    assert old.Predictor is Predictor
    assert importlib.import_module("videonet.predict.export").read_pt2 is exporting.read_pt2


def test_from_config(tmp_path):
    with (
        pytest.warns(FutureWarning, match=r"Predictor\.from_checkpoint\(checkpoint, cfg=…\)"),
        pytest.raises(Exception, match="nothing"),
    ):
        Predictor.from_config(checkpoint=tmp_path / "nothing.pyth")
