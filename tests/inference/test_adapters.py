"""Low-rank adapters of the library peft: trained on video files, merged, exported."""

from itertools import cycle, islice

import pytest
import torch
import torch.nn.functional as F

from videonet.config import load_config, model_arguments
from videonet.data.loading.loader import build_loader
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.data.transforms.batch import normalize
from videonet.inference import Predictor
from videonet.inference.export import export_model, read_onnx
from videonet.models import create_model

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.slow
STEPS = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo's clips, 48x48 pixels."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=160, val_clips=16, size=48, num_frames=16, seed=0)
    return folder


@pytest.fixture(params=["MVITv2_XS", "Swin_XS"])
def config(request, folder):
    """The demo's recipe: 8 frames of 48x48 pixels, the small model with its first weights."""
    overrides = ("DATA.PATH_TO_DATA_DIR", folder, "DATA_LOADER.NUM_WORKERS", 0,
                 "TRAIN.BATCH_SIZE", 16, "DEVICE", "cpu")  # fmt: skip
    return load_config(f"DEMO/{request.param}.yaml", [str(value) for value in overrides])


def batches(cfg, split):
    for batch in build_loader(cfg, split):
        yield normalize(batch.clips, cfg.DATA.MEAN, cfg.DATA.STD), batch.targets["labels"]


def train(model, cfg) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for clips, labels in islice(cycle(list(batches(cfg, "train"))), STEPS):
        loss = F.cross_entropy(model(clips), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_trained_merged_and_exported_adapters_give_the_same_numbers(config, tmp_path):
    pytest.importorskip("onnxruntime")
    name, arguments = model_arguments(config)
    torch.manual_seed(0)
    model = create_model(name, **arguments)
    settings = peft.LoraConfig(
        r=8, lora_alpha=16, target_modules="all-linear", modules_to_save=["head"]
    )
    adapted = peft.get_peft_model(model, settings)
    frozen = {n: p.clone() for n, p in adapted.named_parameters() if not p.requires_grad}
    losses = train(adapted, config)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    for path, parameter in adapted.named_parameters():
        if path in frozen:
            assert torch.equal(parameter, frozen[path]), path
        elif "lora_B" in path:
            assert parameter.any(), f"{path} has not learnt"

    clips = torch.cat([clips for clips, _ in batches(config, "val")])
    adapted.eval()
    with torch.no_grad():
        expected = adapted(clips)
        merged = adapted.merge_and_unload()
        scale = expected.abs().max()
        assert (merged(clips) - expected).abs().max() < 1e-5 * scale
    fresh = create_model(name, **arguments).eval()
    fresh.load_state_dict(merged.state_dict())  # nothing of the adapters is left in the names
    predictor = Predictor(fresh, config, [f"class {k}" for k in range(8)])
    export_model(predictor, "onnx", tmp_path / "model.onnx")
    run, _ = read_onnx(tmp_path / "model.onnx")
    assert (run(clips) - expected).abs().max() < 1e-4 * scale
