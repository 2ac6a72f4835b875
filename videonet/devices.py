"""Where a model computes, and in which precision: the same in training and in prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.data.transforms.batch import normalize
from videonet.errors import ConfigError
from videonet.ops.kernels.replay import CudaGraphs, Outputs, Replays

HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that ``DEVICE`` names.

    Args:
        name: ``"auto"`` for CUDA where there is one, else the CPU; or a device as torch names it.
        local_rank: the CUDA device of this process where `name` gives no number.

    Returns:
        The device; one of CUDA is made the current one.

    Raises:
        ConfigError: torch finds no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"DEVICE is {name}, but torch finds no CUDA device here")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def autocast_dtype(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """The precision of autocast under ``TRAIN.MIXED_PRECISION``.

    ``TRAIN.HALF_PRECISION: auto`` is bf16 where the GPU has it, else fp16, and full precision on
    other devices, where half is seldom faster.

    Returns:
        A half precision, or None for full precision.
    """
    if not cfg.TRAIN.MIXED_PRECISION:
        return None
    if cfg.TRAIN.HALF_PRECISION in HALF_PRECISIONS:
        return HALF_PRECISIONS[cfg.TRAIN.HALF_PRECISION]
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device, without waiting for what the device computes."""
    if device.type == "cuda" and not torch.compiler.is_compiling():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def replays_for(cfg: CfgNode, device: torch.device) -> Replays | None:
    """CUDA graphs for the calls of a model in testing and prediction; None where there are none."""
    if device.type != "cuda" or not cfg.TEST.CUDA_GRAPHS:
        return None
    return Replays(CudaGraphs(device))


@torch.inference_mode()
def apply_to_clips(
    function: Callable[[Tensor], Tensor | Outputs],
    clips: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    max_clips: int,
    dtype: torch.dtype | None = None,
    replays: Replays | None = None,
    model: nn.Module | None = None,
) -> Outputs:
    """The outputs of a model, or of a part of it, for uint8 clips.

    Args:
        function: maps normalised clips (n, 3, T, H, W) to a tensor (n, …), or to several.
        clips: uint8 (N, 3, T, H, W), on any device.
        mean: of the three channels, for normalisation.
        std: of the three channels.
        device: where `function` computes.
        max_clips: the number of clips on the device at a time.
        dtype: the precision of autocast; None for full precision.
        replays: for shapes that repeat; needs `model`, and a `function` that is the same object,
            or an equal one, in every call.
        model: that `function` computes with.

    Returns:
        float32 (N, …) on the CPU, one tensor for each of the function's.
    """

    def run(part: Tensor) -> Outputs:
        part = normalize(part.to(device, non_blocking=True), mean, std)
        # Weights that a graph has cast must not serve anybody else.
        with torch.autocast(
            device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=replays is None
        ):
            found = function(part)
        return (found,) if isinstance(found, Tensor) else found

    outputs: list[list[Tensor]] = []
    for part in clips.split(max_clips):
        if replays is None or model is None:
            found = run(part)
        else:
            found = replays(run, model, part, (function, tuple(mean), tuple(std), dtype))
        outputs.append([tensor.float().cpu() for tensor in found])
    return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))
