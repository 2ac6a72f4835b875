"""What every family's tests check: recorded numbers, peers' numbers, the static-clip law."""

import json

import torch
from safetensors.torch import load_file

from videonet.checkpoint import load_checkpoint
from videonet.checkpoint.translate import to_own_names

TOLERANCE = 1e-4


def relative_error(found, expected):
    """Greatest absolute error in units of the expected tensor's greatest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def randomise(model, seed=0):
    """Weights far from zero everywhere, so that no term hides; the model in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1 and name.endswith("weight"):  # norms
                parameter.copy_(1 + 0.25 * noise)
            elif parameter.dim() < 2 or "pos" in name or "cls" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
        for name, buffer in model.named_buffers():  # of batch norms
            noise = torch.randn(buffer.shape, generator=generator)
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * noise)
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.2 * noise.tanh())
    return model.eval()


def read_record(path):
    """A reference: its description, its tensors, and the official state dict among them."""
    tensors = load_file(path.with_suffix(".safetensors"))
    state = {
        name.removeprefix("param:"): tensor
        for name, tensor in tensors.items()
        if name.startswith("param:")
    }
    return json.loads(path.with_suffix(".json").read_text()), tensors, state


def assert_everything_loaded(report, model, state, ignored=()):
    """Every tensor here is loaded unchanged, every one there is used but for `ignored` ones."""
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert sorted(report.used) == sorted(name for name in state if not name.endswith(ignored))
    assert not report.unexpected


def module_outputs(model, modules):
    """A dictionary that fills with outputs as `model` runs: key -> output of that module."""
    found = {}
    for key, module in modules.items():

        def keep(module, inputs, output, key=key):
            found[key] = output[0] if isinstance(output, tuple) else output

        model.get_submodule(module).register_forward_hook(keep)
    return found


def assert_same_as_recorded(model, record, tensors, rename=lambda name: name, convert=None):
    """Logits and every feature of a record.

    Args:
        rename: name of an official module -> its name here.
        convert: (output of our module, recorded tensor) -> ours in the layout of the record.
    """
    modules = {key: rename(feature["module"]) for key, feature in record["features"].items()}
    found = module_outputs(model, modules)
    with torch.no_grad():
        logits = model.eval()(tensors["input"])
    assert set(found) == set(record["features"])
    for name, value in {**found, "output": logits}.items():
        expected = tensors[name]
        if convert is not None and name != "output":
            value = convert(value, expected)
        assert value.shape == expected.shape, name
        error = relative_error(value, expected)
        assert error <= TOLERANCE, f"{name}: {error:.1e}"


def assert_same_logits(model, peer, shape, dialect, ignored=()):
    """Another library's model with random weights: all load, and the logits are the same."""
    report = load_checkpoint(model, randomise(peer).state_dict())
    assert report.dialect == dialect
    assert_everything_loaded(report, model, peer.state_dict(), ignored)
    clip = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = peer(clip), model.eval()(clip)
    error = relative_error(found, expected)
    assert error <= TOLERANCE, f"{error:.1e}"


class Logits(torch.nn.Module):
    """A model of transformers that takes our clips and images and returns its logits alone.

    Its parameters keep their names.
    """

    def __init__(self, model):
        super().__init__()
        self.inner = [model]  # not a submodule, so that no prefix is added
        for name, module in model.named_children():
            self.add_module(name, module)

    def forward(self, clip):
        return self.inner[0].eval()(clip.transpose(1, 2) if clip.dim() == 5 else clip).logits


def still_clip_logits(image, video, frames, size, seed=0, **loading):
    """Logits of two random pictures and of two clips that repeat them, and the load report.

    Args:
        image: an image model; it gets random weights, which `video` inherits by inflation.
        size: (height, width) in pixels.
    """
    report = load_checkpoint(video.eval(), randomise(image, seed).state_dict(), **loading)
    pictures = torch.randn(2, 3, 1, *size, generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        return image(pictures), video(pictures.expand(-1, -1, frames, -1, -1)), report


def assert_still_clips_are_images(image, video, frames, size, seed=0):
    """The static-clip law; returns the load report."""
    expected, found, report = still_clip_logits(image, video, frames, size, seed)
    error = relative_error(found, expected)
    assert error <= TOLERANCE, f"{error:.1e} with {frames} frames of {size}"
    return report


def assert_temporal_parameters_learn(video, frames, size, names):
    """After inflation, the gradient of the first step reaches every parameter of `names`."""
    clip = torch.randn(2, 3, frames, *size, generator=torch.Generator().manual_seed(2))
    video.train()(clip).square().sum().backward()
    parameters = dict(video.named_parameters())
    assert names
    for name in names:
        gradient = parameters[name].grad
        assert gradient is not None and gradient.abs().sum() > 0, name


def published_shapes(manifest):
    """A manifest's parameters under own names, kernels 3D: name -> shape as a list."""
    state = {name: torch.empty(shape, device="meta") for name, shape in manifest["parameters"]}
    return {name: list(t.shape) for name, t in to_own_names(state, "the manifest").state.items()}
