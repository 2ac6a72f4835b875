"""What is imported: a package that is imported, or asked for help, need not wait for torch."""

import subprocess
import sys

import pytest
import torch

from tests.inference.conftest import write_colours, write_model
from videonet.cli import VERBS
from videonet.config import load_config

HEAVY = ("torch", "torchvision", "matplotlib", "tensorboard", "torchmetrics", "av", "numpy")


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, videonet; print(*[m for m in {HEAVY} if m in sys.modules])"
    assert run(code) == []


def test_help_of_every_verb_imports_nothing_heavy():
    """One process asks all of them, and says behind which verb what was there."""
    code = f"""
import contextlib, io, sys
from videonet.cli import main
for verb in {list(VERBS)}:
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        main([verb, "--help"])
    assert text.getvalue().startswith("usage: videonet " + verb), (verb, text.getvalue())
    print(*[f"{{verb}}:{{m}}" for m in {HEAVY} if m in sys.modules])
"""
    assert run(code) == []


def test_models_and_predictors_need_no_plots_logs_or_metrics():
    late = ("matplotlib", "tensorboard", "torchmetrics")
    code = f"""
import sys, videonet
videonet.create_model, videonet.load_checkpoint, videonet.Predictor
print(*[m for m in {late} if m in sys.modules])
"""
    assert run(code) == []


def test_classification_needs_no_torchvision(tmp_path):
    """Its import, with the compiler and Triton that it brings, takes a third of a start."""
    late = ["torchvision", "torch.distributed.checkpoint"]
    if torch.torch_version.TorchVersion(torch.__version__) >= (2, 14):  # vmap of 2.6 imports it
        late += ["torch._dynamo", "triton"]
    video = write_colours(tmp_path / "a.mp4", [("red", 12)], size=(96, 72))
    overrides = {
        "DATA.NUM_FRAMES": 4,
        "DATA.SAMPLING": "dense",
        "DATA.TEST_CROP_SIZE": 32,
        "TEST.CROP_RATIO": 0.875,
        "MODEL.NUM_CLASSES": 3,
        "DEVICE": "cpu",
    }
    words = [str(part) for pair in overrides.items() for part in pair]
    model = write_model(load_config("DEMO/MVITv2_XS.yaml", words), tmp_path / "a.pyth")
    code = f"""
import sys
import videonet.inference.decoding

def check(what):
    print(*[f"{{what}}:{{m}}" for m in {late} if m in sys.modules])

check("workers")
import torch, videonet
for name in videonet.list_models("*_xs"):
    model = videonet.create_model(name, num_classes=3, num_frames=4, crop_size=64).eval()
    with torch.inference_mode():
        model(torch.zeros(1, 3, 4, 64, 64))
    check(name)
predictor = videonet.Predictor.from_checkpoint({str(model)!r})
assert predictor({str(video)!r}).scores.shape == (3,)
check("views")
assert [*predictor.windows({str(video)!r})]
check("windows")
from videonet.cli import main
output = {str(tmp_path / "features")!r}
main(["features", {str(video)!r}, "--checkpoint", {str(model)!r}, "--output", output])
check("features")
"""
    assert run(code) == []


def test_the_package_has_what_it_names():
    import videonet

    assert set(videonet.__all__) <= set(dir(videonet))
    for name in videonet.__all__:
        assert getattr(videonet, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = videonet.nothing


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--version"], 0, "videonet "),
        (["--help"], 0, "benchmark"),
        ([], 2, "VERB"),
        (["predicts"], 2, "invalid choice: 'predicts'"),
        (["probe", "--train", "x"], 2, "videonet probe: error: --train and --val go together"),
    ],
)
def test_the_console_command(words, code, said, capsys):
    from videonet.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(words)
    captured = capsys.readouterr()
    assert stopped.value.code == code and said in captured.out + captured.err
