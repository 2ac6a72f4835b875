"""The models that a benchmark compares: of videonet and of other installed libraries."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn

from videonet.benchmark.flops import written_out_attention
from videonet.benchmark.steps import DTYPES, Task, inference_step, training_step
from videonet.errors import ConfigError
from videonet.models import create_model

LIBRARIES = (
    "videonet",
    "reference",
    "torchvision",
    "pytorchvideo",
    "timm",
    "transformers",
    "hiera",
)
GRAMMAR = re.compile(
    r"(?:(?P<library>\w+):)?(?P<model>\w+)(?:@(?P<dtype>\w+))?(?P<compiled>\+compile)?"
)


@dataclass(frozen=True)
class Candidate:
    """One column of a comparison.

    Attributes:
        text: ``[library:]model[@dtype][+compile]``, as it was given.
        library: where the model comes from; "reference" is videonet with the matrix of logits
            written out.
        dtype: of weights and clip in inference, of autocast in training.
    """

    text: str
    library: str
    model: str
    dtype: str = "fp32"
    compiled: bool = False

    def build(self, frames: int, size: int) -> nn.Module:
        """The model with random weights, for clips of `frames` frames of `size` pixels.

        Raises:
            ConfigError: the library is not installed or has no such model.
        """
        try:
            return BUILDERS[self.library](self.model, frames, size)
        except ImportError as error:
            raise ConfigError(f"{self.text}: {self.library} cannot be imported: {error}") from error

    def step(self, model: nn.Module, task: Task) -> Callable[[], object]:
        """What is repeated: a forward pass, or a step of training."""
        return (training_step if task.training else inference_step)(model, self, task)

    def computing(self) -> AbstractContextManager:
        """The context in which its passes run."""
        return written_out_attention() if self.library == "reference" else nullcontext()


def parse_candidate(text: str) -> Candidate:
    """``torchvision:mvit_v2_s@bf16+compile`` and the like; videonet's models need no library."""
    found = GRAMMAR.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is not [library:]model[@dtype][+compile]")
    library, dtype = found["library"] or "videonet", found["dtype"] or "fp32"
    for value, known in ((library, LIBRARIES), (dtype, DTYPES)):
        if value not in known:
            raise ConfigError(f"{text!r}: unknown {value!r}, expected one of {', '.join(known)}")
    return Candidate(text, library, found["model"], dtype, found["compiled"] is not None)


def _videonet(name: str, frames: int, size: int) -> nn.Module:
    return create_model(name, num_frames=frames, crop_size=size)


def _torchvision(name: str, frames: int, size: int) -> nn.Module:
    module = importlib.import_module(f"torchvision.models{'.video' if frames > 1 else ''}")
    return _builder(module, name)()  # its MViTs refuse other clips than 16×224² when they run


def _pytorchvideo(name: str, frames: int, size: int) -> nn.Module:
    hub = importlib.import_module("pytorchvideo.models.hub")
    return _builder(hub, name)(spatial_size=size, temporal_size=frames)


def _timm(name: str, frames: int, size: int) -> nn.Module:
    if frames != 1:
        raise ConfigError(f"timm:{name} takes images: give --frames 1")
    timm = importlib.import_module("timm")
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}")
    fixed = timm.get_pretrained_cfg(name).fixed_input_size  # the others take any, and no argument
    return timm.create_model(name, **({"img_size": size} if fixed else {}))


# Name here -> class, settings that differ from its configuration's defaults.
TRANSFORMERS: dict[str, tuple[str, Mapping[str, int | list[int]]]] = {
    "cvt_13": ("CvtForImageClassification", {}),
    "cvt_21": ("CvtForImageClassification", {"depth": [1, 4, 16]}),
    "cvt_w24": (
        "CvtForImageClassification",
        {"depth": [2, 2, 20], "embed_dim": [192, 768, 1024], "num_heads": [3, 12, 16]},
    ),
    "videomae_s": (
        "VideoMAEForVideoClassification",
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "videomae_b": ("VideoMAEForVideoClassification", {}),
    "videomae_l": (
        "VideoMAEForVideoClassification",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    ),
}


class _Logits(nn.Module):
    """A classifier of transformers that takes (B, C, T, H, W) or images and gives logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        return self.model(clip.transpose(1, 2) if clip.dim() == 5 else clip).logits


def _transformers(name: str, frames: int, size: int) -> nn.Module:
    if name not in TRANSFORMERS:
        raise ConfigError(
            f"transformers:{name} is not known here, only {', '.join(sorted(TRANSFORMERS))}"
        )
    transformers = importlib.import_module("transformers")
    kind, settings = TRANSFORMERS[name]
    for_clips = "Video" in kind
    if for_clips != (frames > 1):
        raise ConfigError(f"transformers:{name} takes {'clips' if for_clips else 'images'} only")
    model = getattr(transformers, kind)
    shape = {"num_frames": frames, "image_size": size} if for_clips else {}
    return _Logits(model(model.config_class(**settings, **shape)))


def _hiera(name: str, frames: int, size: int) -> nn.Module:
    return _builder(importlib.import_module("hiera"), name)()  # the name says which clips it takes


def _builder(module, name: str):
    if not hasattr(module, name):
        raise ConfigError(f"{module.__name__} has no model {name!r}")
    return getattr(module, name)


BUILDERS = {
    "videonet": _videonet,
    "reference": _videonet,
    "torchvision": _torchvision,
    "pytorchvideo": _pytorchvideo,
    "timm": _timm,
    "transformers": _transformers,
    "hiera": _hiera,
}
