"""Every family on a device, in each precision and compiled, against the CPU's fp32.

Tolerances are relative: logits to their largest value, gradients to the norm of all gradients.
Twice to four times what bf16, fp16 and another order of sums cost on CPUs.
"""

import copy

import pytest
import torch
import torch.nn.functional as F

import videonet
from tests.models.invariants import randomise, relative_error

pytestmark = pytest.mark.cuda

SMALL = ["asmlp_xs", "cvt_xs", "cyclemlp_xs", "dilateformer_xs", "hiera_xs", "hornet_xs",
         "hrnet_xs", "mvit_v2_xs", "swin_xs", "vit_xs", "vjepa2_xs"]  # fmt: skip
PUBLISHED = ["asmlp_t", "cvt_13", "cyclemlp_b2", "dilateformer_t", "hiera_t", "hornet_t",
             "hornet_gf_t", "hrnet_w18", "mvit_v1_b", "mvit_v2_s", "swin_t", "vit_b"]  # fmt: skip
LOGITS = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}
GRADIENTS = {torch.float32: 1e-3, torch.bfloat16: 2e-1, torch.float16: 1e-1}


@pytest.fixture(autouse=True)
def without_tf32():
    """TF32 products keep ten bits, which is not fp32."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def step(model, clip, autocast=None, scale=1.0, compiled=False):
    """Logits and gradients of one training step, on the CPU in fp32."""
    forward = torch.compile(model) if compiled else model
    device = clip.device.type
    with torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None):
        logits = forward(clip)
        loss = F.cross_entropy(logits.float(), torch.arange(len(clip), device=clip.device))
    (loss * scale).backward()
    gradients = {n: p.grad.float().cpu() / scale for n, p in model.named_parameters()}
    return logits.detach().float().cpu(), gradients


def assert_near(found, expected, dtype):
    (logits, gradients), (wanted, references) = found, expected
    assert relative_error(logits, wanted) < LOGITS[dtype]
    total = torch.stack([g.norm() for g in references.values()]).norm()
    errors = {n: ((gradients[n] - g).norm() / total).item() for n, g in references.items()}
    worst = max(errors, key=errors.get)
    assert errors[worst] < GRADIENTS[dtype], worst


def drill(name, **arguments):
    """A model whose every parameter matters, without chance, and a copy of it."""
    torch.manual_seed(0)
    arguments = {"num_classes": 5, "drop_path_rate": 0.0} | arguments
    return randomise(videonet.create_model(name, **arguments)).train()


def clip_for(batch, frames, side):
    return torch.randn(batch, 3, frames, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SMALL)
def test_a_training_step_is_the_cpus(name, dtype, device):
    model, clip = drill(name), clip_for(2, 8, 48)
    there = copy.deepcopy(model).to(device)
    expected = step(model, clip)
    scale = 2.0**10 if dtype is torch.float16 else 1.0
    found = step(there, clip.to(device), autocast=dtype, scale=scale)
    assert_near(found, expected, dtype or torch.float32)


@pytest.mark.parametrize("name", SMALL)
def test_a_scaler_finds_its_scale_in_fp16(name, device):
    torch.manual_seed(0)
    model = videonet.create_model(name, num_classes=5).to(device).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(device.type)
    clip, labels = clip_for(2, 8, 48).to(device), torch.arange(2, device=device)
    for _ in range(8):
        with torch.autocast(device.type, torch.float16):
            loss = F.cross_entropy(model(clip).float(), labels)
        assert torch.isfinite(loss)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() >= 2.0**10
    assert any(not torch.equal(before[n], p) for n, p in model.named_parameters())


@pytest.mark.parametrize("name", SMALL)
def test_recomputation_changes_no_gradient(name, device):
    model, clip = drill(name), clip_for(2, 8, 48).to(device)
    for module in model.modules():  # running statistics would be updated twice
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    plain, again = model.to(device), copy.deepcopy(model).to(device)
    again.set_grad_checkpointing(True)
    assert_near(
        step(again, clip, torch.bfloat16), step(plain, clip, torch.bfloat16), torch.bfloat16
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SMALL)
def test_weights_in_half_precision(name, dtype, device):
    model, clip = drill(name).eval(), clip_for(2, 8, 48)
    there = copy.deepcopy(model).to(device, dtype)
    with torch.inference_mode():
        found, expected = there(clip.to(device, dtype)), model(clip)
    assert found.dtype is dtype
    assert relative_error(found.float().cpu(), expected) < LOGITS[dtype]


@pytest.mark.parametrize("name", SMALL)
def test_compiled(name, device):
    model, clip = drill(name), clip_for(2, 8, 48)
    there = copy.deepcopy(model).to(device)
    expected = step(model, clip)
    assert_near(step(there, clip.to(device), compiled=True), expected, torch.float32)


@pytest.mark.parametrize(
    "name, frames", [(name, 16) for name in PUBLISHED] + [("mvit_v2_s", 1), ("swin_t", 1)]
)
def test_a_published_size_in_fp32_and_bf16(name, frames, device):
    model, clip = drill(name, num_frames=frames), clip_for(1, frames, 224)
    there = copy.deepcopy(model).to(device)
    expected = step(model, clip)
    for dtype in (None, torch.bfloat16):
        there.zero_grad()
        found = step(there, clip.to(device), autocast=dtype)
        assert_near(found, expected, dtype or torch.float32)
