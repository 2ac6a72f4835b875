"""What models of all architectures share: the head, groups of layers, recomputed blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videonet.errors import ConfigError
from videonet.heads.classification import ClassificationHead

RunBlock = Callable[..., Any]  # VideoModel.run_block
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class BlockList(nn.ModuleList):
    """Blocks of one stage, run one after the other in the model's way."""

    def forward(self, x: Any, run: RunBlock) -> Any:
        for block in self:
            x = run(block, x)
        return x


def as_clip(clip: Tensor, patch: tuple[int, int]) -> Tensor:
    """An image (B, C, H, W) -> a one-frame clip (B, C, 1, H, W); a clip stays as it is.

    Raises:
        ConfigError: the frames are smaller than one `patch` (height, width).
    """
    clip = clip.unsqueeze(2) if clip.dim() == 4 else clip
    for size, least, name in zip(clip.shape[3:], patch, ("high", "wide"), strict=True):
        if size < least:
            raise ConfigError(
                f"frames are {size} pixels {name}, but one patch of this model needs {least}"
            )
    return clip


def refuse_class_token(model: nn.Module, cls_token: bool | None) -> None:
    """For architectures without a class token.

    Raises:
        ConfigError: one is asked for.
    """
    if cls_token:
        raise ConfigError(f"{type(model).__name__} has no class token: leave out cls_token=True")


def rising_rates(last: float, count: int) -> list[float]:
    """Drop path rates of `count` blocks, rising linearly from 0 to `last`."""
    return [last * i / max(count - 1, 1) for i in range(count)]


def init_linear(module: nn.Module) -> None:
    """Linear layers as in the official transformers, for ``model.apply``.

    Convolutions keep torch's default, which learns motion in far fewer steps than a normal
    distribution of 0.02 in narrow models.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_linear_xavier(module: nn.Module) -> None:
    """Linear layers that keep the size of what they get, for ``model.apply`` (Glorot, Bengio 2010).

    With it the small ViT of the demo leaves chance behind several times sooner.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def linear_initializer(name: str) -> Callable[[nn.Module], None]:
    """What to ``apply`` to a model for ``linear_init="normal"`` or ``"xavier"``."""
    if name not in ("normal", "xavier"):
        raise ConfigError(f"linear_init is {name!r}, expected normal or xavier")
    return init_linear if name == "normal" else init_linear_xavier


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms inside `block` leave their running statistics as they are."""
    norms = [m for m in block.modules() if isinstance(m, BATCH_NORMS)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def recomputed(block: nn.Module, *inputs: Any) -> Any:
    """``block(*inputs)``, run a second time in the backward pass instead of kept in memory.

    Running statistics follow the first run alone.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), statistics_kept(block)

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)


class VideoModel(nn.Module):
    """Base of all architectures.

    A subclass sets ``num_features``, ``head_dropout`` and where it has one ``head_init_scale``,
    calls :meth:`reset_classifier` last in its constructor, and runs its blocks by
    :meth:`run_block`.
    """

    # Beginnings of the last part of a parameter's name.
    undecayed: tuple[str, ...] = ("cls_token", "pos_embed")
    block_names = re.compile(r"(?:.*\.)?blocks\.\d+(?=\.)")
    top_names = ("norm", "head")  # modules behind the last block
    head_init_scale = 1.0
    # The class token of a still clip sees as many copies of every patch as there are frames,
    # which changes the logits; true where a model with a class token makes up for that.
    still_clips_are_exact = False
    grad_checkpointing = False

    def run_block(self, block: nn.Module, *inputs):
        """``block(*inputs)``, its activations recomputed in the backward pass where asked for."""
        if self.grad_checkpointing and self.training:
            return recomputed(block, *inputs)
        return block(*inputs)

    def reset_classifier(self, num_classes: int) -> None:
        """A new, randomly initialised head for `num_classes` classes.

        It has the type and device of the head before it, and the model's mode, training or not.
        """
        before = getattr(self, "head", None)
        self.num_classes = num_classes
        self.head = ClassificationHead(
            self.num_features, num_classes, self.head_dropout, self.head_init_scale
        )
        if before is not None:
            like = next(before.parameters(), next(self.parameters()))
            self.head.to(like.device, like.dtype).train(self.training)

    def no_weight_decay(self) -> set[str]:
        """Names of class tokens and positions."""
        names = [name for name, _ in self.named_parameters()]
        return {name for name in names if name.rpartition(".")[2].startswith(self.undecayed)}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names from input to output: stem, each block, norm and head.

        Whatever lies between two blocks (a downsampling) goes with the block before it.
        """
        stem, top, blocks = [], [], {}
        group = stem
        for name, _ in self.named_parameters():
            if block := self.block_names.match(name):
                group = blocks.setdefault(block[0], [])
            (top if name.partition(".")[0] in self.top_names else group).append(name)
        return [stem, *blocks.values(), top]

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Trade a second forward of each block for its activations' memory."""
        self.grad_checkpointing = enabled
