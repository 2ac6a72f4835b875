"""Whoever changes or watches a layer of a model is heard: no parameter is read past its module."""

import copy
import importlib.util

import pytest
import torch
import torch.nn.utils.parametrizations as parametrizations
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tests.models.families import ARCHITECTURES, small_model, smallest_of
from tests.models.invariants import randomise, relative_error
from videonet.models.cvt import CvT

# The smallest variant of each family, and arguments that take other paths through it.
MODELS = {pattern: (smallest_of(pattern), {}) for pattern in ARCHITECTURES} | {
    "mvit, v1": ("mvit_v1_b", {}),
    "mvit, separate projections": ("mvit_v2_xs", {"separate_qkv": True}),
    "mvit, pooled first": ("mvit_v2_xs", {"pool_first": True}),
    "mvit, windows": ("mvit_v2_xs", {"window_size": (2, 4, 4), "cls_token": False}),
    "hornet, global filters": ("hornet_gf_t", {}),
    "cvt, averages": ("cvt_xs", {"projection": "avg"}),
    "cvt, class token": ("cvt_xs", {"cls_token": True}),
    "mvit, reversible, pooled first": ("rev_mvit", {"pool_first": True, "shortcut": "max"}),
    "vit, cosine attention": ("videomae_b", {"cos_attn": True}),
    "vit, gated MLP": ("dinov2_reg_g", {}),
    "vit, divided": ("vit_xs", {"space_time": "divided"}),
}
LAYERS = (nn.Linear, nn.Conv3d)
SIDE = 32  # pixels: every layer is called, on a few tokens


VARIANTS = [name for name in MODELS if name not in ARCHITECTURES]


@pytest.fixture(
    params=[*ARCHITECTURES, *(pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS)]
)
def model(request, small_pieces):
    """A small model on a CPU that has all fast paths."""
    name, arguments = MODELS[request.param]
    return randomise(small_model(name, crop_size=SIDE, **arguments))


def clip(batch=1):
    return torch.randn(batch, 3, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def layers_of(model, kinds=LAYERS):
    return {path: m for path, m in model.named_modules() if isinstance(m, kinds)}


def replace(model, path, module):
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def output(model):
    with torch.no_grad():
        return model.eval()(clip())


@pytest.mark.parametrize("training", [False, True])
def test_every_module_is_called(model, training):
    containers = (nn.ModuleList, nn.ModuleDict)
    modules = {p: m for p, m in model.named_modules() if type(m) not in containers}
    before, after, backward = [], [], []
    for path, module in modules.items():
        module.register_forward_pre_hook(lambda m, i, p=path: before.append(p))
        module.register_forward_hook(lambda m, i, o, p=path: after.append(p))
        if isinstance(module, LAYERS):
            module.register_full_backward_hook(lambda m, i, o, p=path: backward.append(p))
    model.train(training)(clip(2)).sum().backward()
    assert set(before) == set(after) == set(modules)
    assert set(backward) == set(layers_of(model))


def test_hooks_of_all_modules_are_called(model):
    seen = []
    handle = register_module_forward_hook(lambda module, inputs, output: seen.append(module))
    try:
        output(model)
    finally:
        handle.remove()
    assert {id(m) for m in layers_of(model).values()} <= {id(m) for m in seen}


def unread_queries(model):
    """Where the head of a CvT reads the class token, its last block's other queries are unread."""
    if not isinstance(model, CvT) or model.stages[-1].cls_token is None:
        return ()
    last = model.stages[-1].blocks[-1].attn.conv_proj_q
    return tuple(path for path, module in model.named_modules() if module is last.conv)


def test_what_hooks_return_is_used(model):
    before = output(model)
    for i, (path, layer) in enumerate(layers_of(model).items()):
        if i % 2:
            handle = layer.register_forward_hook(lambda m, i, o: torch.zeros_like(o))
        else:
            handle = layer.register_forward_pre_hook(lambda m, i: (torch.zeros_like(i[0]),))
        assert path in unread_queries(model) or not torch.equal(output(model), before), path
        handle.remove()
    torch.testing.assert_close(output(model), before)


def test_what_backward_hooks_return_is_used(model):
    """Without the gradients to their inputs, only what lies behind the last layers learns."""
    for layer in layers_of(model).values():
        layer.register_full_backward_hook(
            lambda m, grads, of_output: tuple(None if g is None else 0 * g for g in grads)
        )
    probe = clip().requires_grad_()
    model(probe).square().sum().backward()
    reached = {p for p, layer in layers_of(model).items() if layer.weight.grad.any()}
    assert reached == {"head.projection"} and not probe.grad.any()


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


CHANGES = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.4),
    "parametrised": lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
    "weight norm": parametrizations.weight_norm,
    "weight norm by hooks": torch.nn.utils.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm by hooks": torch.nn.utils.spectral_norm,
}


def settled(layer):
    """The layer's weight as it would be made before the next call."""
    for hook in layer._forward_pre_hooks.values():
        hook(layer, ())
    return layer.weight.detach().clone()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_are_made_before_each_call(model, change):
    fixed, start = copy.deepcopy(model), output(model)
    for layer in layers_of(model).values():
        CHANGES[change](layer)
    # As after a step of training: what the weights are made of has changed.
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight" in name and parameter.dim() > 1:
                parameter.mul_(1.5)
        for path, layer in layers_of(model).items():
            fixed.get_submodule(path).weight.copy_(settled(layer))
        for name, parameter in fixed.named_parameters():
            if not any(name.startswith(f"{path}.") for path in layers_of(model)):
                parameter.copy_(model.get_parameter(name))
    found = output(model)
    assert relative_error(found, output(fixed)) < 1e-4
    assert not torch.equal(found, start)
    model.train()
    for _ in range(2):  # the graph is made anew each time
        model(clip(2)).square().mean().backward()


def test_a_subclass_and_an_identity_in_a_layers_place(model):
    before = output(model)
    for path, layer in layers_of(model, nn.Linear).items():
        twice = Twice(layer.in_features, layer.out_features, bias=layer.bias is not None)
        twice.load_state_dict(layer.state_dict())
        replace(model, path, twice)
        assert not torch.equal(output(model), before), path
        if layer.in_features == layer.out_features:
            replace(model, path, nn.Identity())
            assert not torch.equal(output(model), before), path
        replace(model, path, layer)


def test_a_layer_whose_forward_is_replaced(model):
    before = output(model)
    for path, layer in layers_of(model, nn.Linear).items():
        layer.forward = lambda x, layer=layer: 2 * nn.Linear.forward(layer, x)
        assert not torch.equal(output(model), before), path
        del layer.forward


@pytest.mark.parametrize(
    ("owner", "name"),
    [(nn.Linear, "forward"), (nn.Module, "__call__"), (torch.nn.functional, "linear")],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_what_is_put_in_the_place_of_torchs_own_is_used(model, monkeypatch, owner, name):
    """As profilers, quantisers and others do it for all layers at once."""
    own, layers = getattr(owner, name), layers_of(model, nn.Linear)
    weights = {layer.weight.data_ptr() for layer in layers.values()}
    seen = set()

    def counting(first, second, *rest, **options):
        weight = second if name == "linear" else getattr(first, "weight", None)
        if isinstance(weight, torch.Tensor):
            seen.add(weight.data_ptr())
        return own(first, second, *rest, **options)

    monkeypatch.setattr(owner, name, counting)
    output(model)
    assert weights <= seen


def batch_norms_behind(model):
    """Pairs of paths: a convolution and the batch norm that its output goes to."""
    convolutions, pairs, handles = {}, [], []
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            hook = lambda m, i, o, p=path: convolutions.update({o.data_ptr(): p})  # noqa: E731
            handles.append(module.register_forward_hook(hook))
        elif isinstance(module, nn.BatchNorm3d):
            hook = lambda m, i, p=path: pairs.append((convolutions[i[0].data_ptr()], p))  # noqa: E731
            handles.append(module.register_forward_pre_hook(hook))
    output(model)
    for handle in handles:
        handle.remove()
    return pairs


@pytest.mark.parametrize("bias", [False, True])
def test_batch_norms_fused_into_convolutions(model, bias):
    norms = layers_of(model, nn.BatchNorm3d)
    if not norms:
        pytest.skip("it has no batch norms")
    before = output(model)
    pairs = batch_norms_behind(model)
    assert {norm for _, norm in pairs} == set(norms)
    for conv, norm in pairs:
        fused = fuse_conv_bn_eval(model.get_submodule(conv), model.get_submodule(norm))
        assert fused.bias is not None
        replace(model, conv, fused)
        replace(model, norm, nn.Identity())
    assert relative_error(output(model), before) < 1e-4


def test_dynamic_quantisation(model):
    quantize = getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)
    if quantize is None:
        pytest.skip("this torch has no quantize_dynamic")
    before, layers = output(model), layers_of(model, nn.Linear)
    quantised = quantize(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    assert not layers_of(quantised, nn.Linear)  # all of them are replaced
    assert 0 < relative_error(output(quantised), before) < 0.2
    assert len(layers) > 0


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
def test_torchao_int8(model):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    before = output(model)
    quantize_(model, Int8WeightOnlyConfig())
    assert all(type(m.weight) is not nn.Parameter for m in layers_of(model, nn.Linear).values())
    assert 0 < relative_error(output(model), before) < 0.2


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
def test_lora_by_peft(model):
    import peft

    before, plain = output(model), copy.deepcopy(model)
    targets = [p for p in layers_of(model, nn.Linear) if not p.startswith("head")]
    if not targets:
        pytest.skip("it has no linear layers but the head")
    config = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["head"])
    adapted = peft.get_peft_model(model, config)
    torch.testing.assert_close(output(adapted), before, rtol=1e-4, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    trained = [p for n, p in adapted.named_parameters() if "lora_B" in n]
    assert len(trained) == len(targets)
    with torch.no_grad():
        for parameter in trained:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    adapted.train()(clip(2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in trained)
    found = output(adapted)
    assert relative_error(found, before) > 1e-3
    merged = adapted.merge_and_unload()
    assert relative_error(output(merged), found) < 1e-4
    assert type(merged) is type(plain)
    assert sorted(merged.state_dict()) == sorted(plain.state_dict())
