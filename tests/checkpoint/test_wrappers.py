"""Names and shapes decide whose weights they are, under whatever wrappers and trainers put them."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from videonet.checkpoint import load_checkpoint, load_trained
from videonet.errors import CheckpointError
from videonet.models import create_model, list_models

SMALLEST = list_models("*_xs")


def build(name="mvit_v2_xs", seed=0):
    torch.manual_seed(seed)
    model = create_model(name, num_classes=5)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.01)
    return model


@pytest.fixture(scope="module")
def models():
    """The small model of every family, and its weights."""
    return {name: build(name) for name in SMALLEST}


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def in_blocks(wrapper):
    """A function that puts a wrapper's name behind the number of each block."""

    def rename(name):
        parts = name.split(".")
        numbers = [i for i, part in enumerate(parts[:-2]) if part.isdigit()]
        at = numbers[0] + 1 if numbers else 0
        return ".".join([*parts[:at], *([wrapper] if at else []), *parts[at:]])

    return lambda state: {rename(name): value for name, value in state.items()}


def noise(state):
    return {n: torch.randn_like(t) if t.is_floating_point() else t for n, t in state.items()}


WRAPPED = {
    "plain": lambda s: s,
    **{
        prefix: lambda s, prefix=prefix: under(prefix, s)
        for prefix in (
            *("module.", "_orig_mod.", "model.", "backbone.", "net.", "_forward_module."),
            *("_orig_mod.module.", "module._orig_mod.", "model.module.net.", "module.module."),
            *("model.backbone.", "a.b.c.", "video_model.encoder."),
        )
    },
    "compiled blocks": in_blocks("_orig_mod"),
    "FSDP's blocks": in_blocks("_fsdp_wrapped_module._checkpoint_wrapped_module"),
    "model in blocks": in_blocks("model"),
    "compiled blocks of a trainer": lambda s: under("model.", in_blocks("_orig_mod")(s)),
    "a loss": lambda s: s | {"criterion.weight": torch.ones(3)},
    "a loss of a trainer": lambda s: under("model.", s) | {"loss_fn.log_sigma": torch.ones(1)},
    "a loss in front of the model's prefix": lambda s: (
        under("module.net.", s) | {"module.loss.weight": torch.ones(3)}
    ),
    "a projector of a student": lambda s: (
        under("student.backbone.", s) | {"student.projector.0.weight": torch.ones(3, 3)}
    ),
    "a projector under DDP": lambda s: (
        under("module.backbone.", s) | {"module.projector.0.weight": torch.ones(3, 3)}
    ),
    "a student of DINO": lambda s: (
        under("module.backbone.", s)
        | {f"module.head.last_layer.weight_{k}": torch.ones(9, 1) for k in "gv"}
    ),
    "averages without dots": lambda s: (
        under("model.", s)
        | {f"model_ema.{n.replace('.', '')}": t for n, t in list(noise(s).items())[-4:]}
        | {"model_ema.decay": torch.ones(1), "model_ema.num_updates": torch.ones(1)}
    ),
    "a head of a distillation": lambda s: s | {"head_dist.weight": torch.ones(5, 9)},
    "the decoder of a pre-training": lambda s: (
        s | {"mask_token": torch.ones(1, 1, 9), "decoder_embed.weight": torch.ones(9, 9)}
    ),
    "an encoder and a decoder": lambda s: (
        under("encoder.", s)
        | under("decoder.", {n: t[:1] for n, t in s.items() if n.startswith("blocks.") and t.dim()})
        | {"encoder_to_decoder.weight": torch.ones(9, 9)}
    ),
    "an encoder and a decoder of a trainer": lambda s: (
        under("net.encoder.", s)
        | under("net.decoder.", {n: t for n, t in s.items() if n.startswith("blocks.")})
        | {"net.mask_token": torch.ones(1, 1, 9)}
    ),
    "what pixels and classes weigh": lambda s: (
        s | {"pixel_mean": torch.ones(3), "class_weights": torch.ones(5)}
    ),
    "averages": lambda s: under("module.", s) | {"n_averaged": torch.tensor(3)},
    "a model and its average": lambda s: under("model.", s) | under("ema_model.", noise(s)),
    "a model at the top and its average": lambda s: s | under("ema.module.", noise(s)),
    "a student and a teacher": lambda s: under("student.", s) | under("teacher.", noise(s)),
    "the same tensors twice": lambda s: under("model.", s) | under("module.", s),
}


EVERYWHERE = ("_orig_mod.module.", "net.", "compiled blocks", "a student and a teacher")
CASES = [
    (family, wrap)
    for family in SMALLEST
    for wrap in (WRAPPED if family == "mvit_v2_xs" else EVERYWHERE)
]


@pytest.mark.parametrize(("family", "wrap"), CASES)
def test_wrapped_names_give_exactly_these_weights(models, family, wrap):
    state = models[family].state_dict()
    saved = WRAPPED[wrap](state)
    model = build(family, seed=1)
    report = load_checkpoint(model, {"state_dict": saved})
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert {entry.name for entry in report.source} == saved.keys()
    if "decoder" in wrap:
        assert not report.unexpected
    left = saved.keys() - set(report.used)
    assert left == set(report.dropped) | set(report.unexpected)
    assert all(name in str(report) for name in report.unexpected)


@pytest.mark.parametrize("family", SMALLEST)
def test_own_weights_with_class_names_are_of_this_project(models, family):
    model = build(family, seed=1)
    content = {"model_state": models[family].state_dict(), "class_names": list("abcde")}
    assert load_trained(model, content).dialect == "videonet"


@pytest.mark.parametrize("family", SMALLEST)
def test_batch_norms_without_counters_count_from_zero(models, family):
    state = models[family].state_dict()
    saved = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    model = build(family, seed=1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_batches_tracked.fill_(7)
    report = load_checkpoint(model, saved)
    assert not report.missing and not report.reinitialised
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved.get(name, torch.tensor(0)))


def test_a_batch_norm_without_statistics_is_missing(models):
    state = models["hrnet_xs"].state_dict()
    saved = {n: t for n, t in state.items() if not n.startswith("bn1.")}
    with pytest.raises(CheckpointError, match="5 missing"):
        load_checkpoint(build("hrnet_xs"), saved)


TWO_MODELS = {
    "two encoders": lambda s: under("encoder_q.", s) | under("encoder_k.", noise(s)),
    "two under wrappers": lambda s: under("model.", s) | under("module.", noise(s)),
}
UNUSABLE = {
    "flattened": (lambda s: {"_flat_param": torch.ones(9)} | s, "flattened by FSDP"),
    "LoRA": (lambda s: s | {"blocks.0.x.lora_A.default.weight": torch.ones(2)}, "merge them"),
    "pruned": (lambda s: s | {"blocks.0.x.weight_orig": torch.ones(2)}, r"prune\.remove"),
    "parametrised": (
        lambda s: s | {"blocks.0.x.parametrizations.weight.original0": torch.ones(2)},
        "remove_parametrizations",
    ),
    "empty": (lambda s: {n: torch.zeros(0) for n in s}, "zero_to_fp32"),
    "sparse": (lambda s: {n: t.to_sparse() for n, t in s.items() if t.dim() == 2}, "sparse"),
    "meta": (lambda s: {n: t.to("meta") for n, t in s.items()}, "no values"),
    "integers": (
        lambda s: {n: (100 * t).to(torch.int8) for n, t in s.items()},
        r"is of torch\.int8, expected floating-point numbers",
    ),
    "complex numbers": (
        lambda s: {n: t.to(torch.complex64) for n, t in s.items()},
        r"is of torch\.complex64, expected floating-point numbers",
    ),
    "not finite": (lambda s: {n: t / 0 for n, t in s.items()}, "values that are not finite"),
    "arrays": (lambda s: {n: t.numpy() for n, t in s.items()}, "cls_token|weight is a ndarray"),
    "arrays of a model": (
        lambda s: {"model": {n: t.numpy() for n, t in s.items()}, "epoch": 3},
        r"patch_embed\.proj\.weight is a ndarray, expected a tensor",
    ),
    "an optimiser": (
        lambda s: torch.optim.AdamW([nn.Parameter(t) for t in s.values()]).state_dict(),
        "state of an optimiser alone",
    ),
    "numbers for names": (lambda s: dict(enumerate(s.values())), "called 0, expected text"),
    "a part of the body": (lambda s: s | {"fc_norm.weight": torch.ones(3)}, r"fc_norm\.weight"),
    "within a block": (lambda s: s | {"blocks.0.x.weight": torch.ones(3)}, "1 unexpected"),
}


@pytest.mark.parametrize("kind", [*TWO_MODELS, *UNUSABLE])
def test_what_cannot_be_used_is_refused_in_one_sentence(models, kind):
    make, message = UNUSABLE.get(kind) or (TWO_MODELS[kind], "two tensors|2 models")
    model = build(seed=1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(model, make(models["mvit_v2_xs"].state_dict()))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the checkpoint is None, expected a path"),
        ("", "the checkpoint is '', expected a path"),
        ([{"a": torch.ones(2)}], "the checkpoint is a list, expected a path"),
        (b"x.pth", "the checkpoint is a bytes"),
        (nn.Linear(2, 2), r"the checkpoint is a Linear, .* give its state_dict\(\)"),
        ("x" * 5000, "there is no checkpoint of the name"),
    ],
    ids=["nothing", "no name", "list", "bytes", "module", "long name"],
)
def test_what_is_no_checkpoint_is_named(source, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(build(), source)
    assert "\n" not in str(caught.value)


def test_numbers_too_large_for_the_type_of_the_model_are_refused(models):
    state = dict(models["mvit_v2_xs"].state_dict())
    state["norm.bias"] = torch.full_like(state["norm.bias"], 1e6)
    load_checkpoint(build(), state)
    with pytest.raises(CheckpointError, match=r"norm\.bias has values .* in torch\.float16"):
        load_checkpoint(build().half(), state)


def compiled_blocks(model):
    for parent in list(model.modules()):
        if isinstance(parent, nn.ModuleList):
            for index, block in enumerate(parent):
                parent[index] = torch.compile(block)
            return model
    return model


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A process group of this process alone."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(model):
    if sys.platform == "win32":
        pytest.skip("fully_shard needs gloo's reduce-scatter")
    fully_shard = pytest.importorskip("torch.distributed.fsdp").fully_shard
    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


TARGETS = {
    "compiled": torch.compile,
    "compiled blocks": compiled_blocks,
    "DataParallel": nn.DataParallel,
    "DataParallel of a compiled model": lambda model: nn.DataParallel(torch.compile(model)),
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "fully_shard": sharded,
}


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("frames", [8, 1], ids=["clips", "image"])
def test_a_wrapped_model_is_filled(kind, frames):
    torch.manual_seed(0)
    source = create_model("mvit_v2_xs", num_classes=5, num_frames=frames).state_dict()
    wanted = build(seed=1)
    load_checkpoint(wanted, source)
    model = TARGETS[kind](build(seed=1))
    report = load_checkpoint(model, source)
    assert [entry.name for entry in report.target] == list(wanted.state_dict())
    for tensor, value in zip(
        model.state_dict().values(), wanted.state_dict().values(), strict=True
    ):
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        assert torch.equal(whole, value)


def quantised(model):
    quantize = getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)
    if quantize is None:
        pytest.skip("this torch has no quantize_dynamic")
    return quantize(model, {nn.Linear}, dtype=torch.qint8)


def quantised_by_torchao(model):
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization")
@pytest.mark.parametrize("quantise", [quantised, quantised_by_torchao])
def test_a_quantised_model_is_refused(models, quantise):
    model = quantise(build(seed=1))
    before = model.cls_token.clone()
    with pytest.raises(CheckpointError, match="quantised layers .*; load before quantising"):
        load_checkpoint(model, models["mvit_v2_xs"].state_dict())
    assert torch.equal(model.cls_token, before)


@pytest.mark.parametrize("model", [None, [], nn.Linear], ids=["nothing", "list", "class"])
def test_what_is_no_model_is_named(models, model):
    with pytest.raises(CheckpointError, match="nothing can be loaded into .*, expected a model"):
        load_checkpoint(model, models["mvit_v2_xs"].state_dict())


def test_a_model_without_memory_is_refused(models):
    with torch.device("meta"):
        model = create_model("mvit_v2_xs", num_classes=5)
    with pytest.raises(CheckpointError, match="no memory"):
        load_checkpoint(model, models["mvit_v2_xs"].state_dict())


def test_a_model_of_the_first_fsdp_is_refused(models):
    class FullyShardedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(CheckpointError, match="load before wrapping"):
        load_checkpoint(FullyShardedDataParallel(build()), models["mvit_v2_xs"].state_dict())


class Holder(nn.Module):
    """As a LightningModule: models beside parameters of its own."""

    def __init__(self, **models):
        super().__init__()
        self.metric = nn.Linear(2, 2)
        for name, model in models.items():
            self.add_module(name, model)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_module_that_holds_the_model(name, models):
    inner = build(name, seed=1)
    before = torch.nn.Linear(2, 2).state_dict()
    holder = Holder(net=nn.Sequential(inner))
    holder.metric.load_state_dict(before)
    report = load_checkpoint(holder, models[name].state_dict())
    assert sorted(report.loaded) == sorted(inner.state_dict())
    for key, value in models[name].state_dict().items():
        assert torch.equal(inner.state_dict()[key], value), key
    assert torch.equal(holder.metric.weight, before["weight"])


def test_several_models_in_one_module_are_named(models):
    state = models["mvit_v2_xs"].state_dict()
    pair = Holder(student=build(), teacher=build())
    with pytest.raises(CheckpointError, match="holds 2 models, student and teacher: load into one"):
        load_checkpoint(pair, state)


def test_adapters_of_peft_are_named(models):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(build(), peft.LoraConfig(target_modules="all-linear"))
    with pytest.raises(CheckpointError, match="PeftModel has adapters of peft .*before get_peft"):
        load_checkpoint(adapted, models["mvit_v2_xs"].state_dict())
