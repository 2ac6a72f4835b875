import json

import pytest

from videonet.benchmark import data
from videonet.benchmark.arguments import add_data
from videonet.commands.arguments import new_parser, parse
from videonet.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from videonet.data.preparing.synthetic import write_demo_dataset

    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=12, val_clips=4, size=64, num_frames=16, seed=0)
    return folder


def arguments(folder, *options):
    parser = new_parser("", None, overrides=True)
    add_data(parser)
    overrides = [
        *("DATA.PATH_TO_DATA_DIR", str(folder), "MODEL.NUM_CLASSES", "8", "TRAIN.BATCH_SIZE", "4"),
        *("DATA.NUM_FRAMES", "4", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"),
        *("DATA.TRAIN_JITTER_SCALES", "[36, 40]"),
    ]
    return parse(parser, [*options, *overrides])


def test_all_candidates_deliver_all_clips(folder, tmp_path):
    pytest.importorskip("decord")
    output = tmp_path / "result.json"
    options = ("--workers", "1", "--rounds", "1", "--output", str(output), "--needed", "1e-6")
    text = data.run(arguments(folder, *options))
    result = json.loads(output.read_text())
    assert set(result["clips_per_second"]) == {"videonet", "decord", "pytorchvideo"}
    assert all(len(rates) == 1 and rates[0] > 0 for rates in result["clips_per_second"].values())
    assert result["videos"] == 12 and result["clips_per_video"] == 2
    assert set(result["milliseconds_per_clip"]) == set(data.STAGES)
    assert all(cost > 0 for cost in result["milliseconds_per_clip"].values())
    assert result["verdict"] == "fed" and "verdict: fed" in text
    assert "pytorchvideo" in text and "x as fast" in text


@pytest.mark.parametrize(
    ("decode", "augment", "needed", "expected"),
    [
        (5.0, 1.0, None, "decode-bound"),
        (1.0, 5.0, None, "augmentation-bound"),
        (1.0, 5.0, 9.0, "fed"),
        (5.0, 1.0, 11.0, "decode-bound"),
    ],
)
def test_verdict(decode, augment, needed, expected):
    costs = dict.fromkeys(data.STAGES, 0.1) | {"decode": decode, "augment": augment}
    result = {"clips_per_second": {"videonet": [9.0, 10.0, 12.0]}, "milliseconds_per_clip": costs}
    assert data.verdict(result, needed) == expected


def test_at_least_one_process(folder):
    with pytest.raises(ConfigError, match="workers is 0"):
        data.run(arguments(folder, "--workers", "0"))


def test_what_a_process_delivers_and_a_model_needs():
    result = {"clips_per_second": {"videonet": [9.0, 10.0, 12.0]}, "workers": 4}
    assert data.supply(result) == "a process delivers 2.50 clips/s"
    assert "2.50 clips/s: 51 clips/s take 21 processes" in data.supply(result, 51)
