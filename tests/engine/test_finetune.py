"""Frozen layers, a new head, weights of images, and a compiled model."""

import pytest
import torch
from PIL import Image

from tests.engine import subprocess_helpers
from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import newest_checkpoint, saved_checkpoints
from videonet.config import load_config
from videonet.engine.distributed import process
from videonet.engine.finetune import freeze, train_mode
from videonet.engine.multiview import run_multiview_test
from videonet.engine.train import Trainer
from videonet.errors import ConfigError


class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2))

    def layer_groups(self, by="blocks"):
        return [[n for n, _ in self.named_parameters() if n[0] == layer] for layer in "012"]


@pytest.mark.parametrize(
    ("layers", "trained"),
    [(0, "012"), (1, "12"), (2, "2"), (-1, "2"), (-2, "12"), (-3, "012")],
)
def test_layers_are_frozen_from_the_bottom(layers, trained):
    model = Net()
    frozen = freeze(model, layers)
    found = {name[0] for name, p in model.named_parameters() if p.requires_grad}
    assert found == set(trained)
    assert {name[0] for name in frozen} == set("012") - set(trained)


@pytest.mark.parametrize("layers", [3, -4])
def test_a_head_that_would_not_learn_is_refused(layers):
    with pytest.raises(ConfigError, match="has 3 layers .* at most 2"):
        freeze(Net(), layers)


def test_frozen_batch_norms_keep_their_statistics():
    model = Net()
    freeze(model, 2)
    train_mode(model)
    model(torch.randn(8, 2) + 5)
    assert not model[1].running_mean.any() and model[2].running_mean.any()


def run(cfg):
    with process("cpu") as this:
        trainer = Trainer(cfg, this)
        before = {n: w.clone() for n, w in trainer.model.state_dict().items()}
        trainer.run()
    return before, trainer


def test_fine_tuning_keeps_the_frozen_layers_and_starts_a_new_head(tiny, tmp_path):
    _, first = run(tiny("SOLVER.MAX_EPOCH", 1, "OUTPUT_DIR", tmp_path / "first"))
    path = saved_checkpoints(tmp_path / "first")[-1]
    options = ("TRAIN.CHECKPOINT_FILE_PATH", path, "SOLVER.MAX_EPOCH", 1, "SOLVER.EMA_DECAY", 0.9)
    before, tuned = run(tiny(*options, "MODEL.FROZEN_LAYERS", -1, "TRAIN.NEW_HEAD", True))
    top = set(tuned.model.layer_groups()[-1])  # the last norm and the head
    assert {"head.projection.weight", "head.projection.bias"} < top
    for name, weight in tuned.model.state_dict().items():
        pretrained = first.model.state_dict()[name]
        assert torch.equal(weight, before[name]) == (name not in top), name
        assert torch.equal(before[name], pretrained) == (not name.startswith("head.")), name
    assert sum(len(g["params"]) for g in tuned.state.optimizer.param_groups) == len(top)


@pytest.mark.slow
def test_a_compiled_model_trains_alike(tiny, tmp_path):
    options = ("SOLVER.MAX_EPOCH", 1, "MODEL.DROPPATH_RATE", 0.0)
    _, plain = run(tiny(*options, "OUTPUT_DIR", tmp_path / "plain"))
    _, compiled = run(tiny(*options, "MODEL.COMPILE", True, "OUTPUT_DIR", tmp_path / "compiled"))
    expected = plain.model.state_dict()
    found = compiled.model.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=2e-3)


def test_from_images_to_clips_with_the_shipped_recipes(demo_folder, tmp_path):
    """configs/IN1K leaves the weights that configs/K400/…_IN1K starts from."""
    for split in ("train", "val"):
        for k in range(8):
            folder = tmp_path / "images" / split / f"n{k}"
            folder.mkdir(parents=True)
            Image.new("RGB", (48, 36), (30 * k, 100, 200)).save(folder / "a.JPEG")
    small = [
        *("MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", "8", "DATA.TRAIN_CROP_SIZE", "32"),
        *("DATA.TEST_CROP_SIZE", "32", "TRAIN.BATCH_SIZE", "4", "SOLVER.MAX_EPOCH", "1"),
        *("SOLVER.WARMUP_EPOCHS", "0.0", "DATA_LOADER.NUM_WORKERS", "0"),
        *("TENSORBOARD.ENABLE", "False", "TEST.BATCH_SIZE", "10"),
    ]
    data = ["DATA.PATH_TO_DATA_DIR", str(tmp_path / "images")]
    data += ["OUTPUT_DIR", str(tmp_path / "image")]
    images = load_config("IN1K/MVITv2_S.yaml", [*small, *data])
    subprocess_helpers.run(images)
    with process("cpu") as this:
        assert run_multiview_test(images, this)["videos"] == 8
    data = ["DATA.PATH_TO_DATA_DIR", str(demo_folder), "DATA.NUM_FRAMES", "4"]
    data += ["OUTPUT_DIR", str(tmp_path / "clip"), "SOLVER.BASE_LR", "0.0", "AUG.NUM_SAMPLE", "1"]
    data += ["SOLVER.WARMUP_START_LR", "0.0", "SOLVER.COSINE_END_LR", "0.0"]
    data += ["TRAIN.CHECKPOINT_FILE_PATH", images.OUTPUT_DIR, "TRAIN.NEW_HEAD", "True"]
    trainer = subprocess_helpers.run(load_config("K400/MVITv2_S_IN1K.yaml", [*small, *data]))
    image = read_checkpoint(newest_checkpoint(images.OUTPUT_DIR))["model_state"]
    name = "patch_embed.proj.weight"
    clip = trainer.model.state_dict()[name]
    middle = clip.shape[2] // 2
    assert torch.equal(clip[:, :, middle], image[name].reshape(clip[:, :, middle].shape))
    assert clip.count_nonzero() == clip[:, :, middle].count_nonzero()
