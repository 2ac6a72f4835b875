"""A checkpoint file in, a checkpoint file in another project's names out."""

from __future__ import annotations

from pathlib import Path

from videonet.checkpoint.files import write_checkpoint
from videonet.checkpoint.projections import with_fused_projections, with_separate_projections
from videonet.checkpoint.read import read_checkpoint
from videonet.checkpoint.translate import State, from_own_names, to_own_names
from videonet.errors import CheckpointError

CARRIED = ("cfg", "class_names")  # what describes the weights and not a training run
STEM = "patch_embed.proj.weight"


def convert_checkpoint(source: str | Path, target: str | Path, to: str) -> tuple[str, int]:
    """Read `source`, recognise its names, write `target` in the names of `to`.

    Only weights are written (for "videonet" also the config and class names): optimiser states
    have no meaning under other names.

    Args:
        to: one of ``CHECKPOINT_NAMES``. "videonet" writes own names with 3D kernels, "pyslowfast"
            the same names with the flat stem of its image models where it is one, "torchvision"
            an MViT, "timm-vit" an image ViT, "videomae" and "transformers-videomae" a VideoMAE,
            each as a plain state dict.

    Returns:
        The dialect of `source` and the number of tensors written.

    Raises:
        CheckpointError: `source` cannot be read, or its model does not exist in `to`.
    """
    content = read_checkpoint(source)
    tensors = to_own_names(content, str(source))
    if to.startswith("transformers"):
        tensors = with_separate_projections(tensors)
    elif tensors.dialect == "pytorchvideo" or to not in ("videonet", "pyslowfast"):
        tensors = with_fused_projections(tensors)
    state = tensors.state
    written: dict
    if to == "videonet":
        carried = {key: content[key] for key in CARRIED if key in content}
        written = {"format": "videonet", **carried, "model_state": state}
    elif to == "pyslowfast":
        written = {"model_state": from_own_names(_flat_stem(state), to)}
    else:
        kind = "image" if _is_image_model(state) else "clip"
        if (kind == "image") != (to == "timm-vit"):
            raise CheckpointError(f"{source} is of {kind}s, which {to} has no model for")
        written = from_own_names(_flat_stem(state), to.replace("-", " "))
    write_checkpoint(target, written)
    return tensors.dialect, len(state)


def _is_image_model(state: State) -> bool:
    return all(kernel.shape[2] == 1 for kernel in state.values() if kernel.dim() == 5)


def _flat_stem(state: State) -> State:
    """An image model's stem is a 2D convolution there."""
    if STEM not in state or not _is_image_model(state):
        return state
    return state | {STEM: state[STEM].squeeze(2)}
