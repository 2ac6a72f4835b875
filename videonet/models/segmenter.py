"""Semantic segmentation of images and clips: a backbone, a neck and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.necks import Neck, is_plain, make_neck, remove_classifier
from videonet.heads.semantic import FCNHead, SemanticFPNHead, SemanticHead, hrnet_head
from videonet.heads.uper import UPerHead
from videonet.models.base import VideoModel
from videonet.models.stages import StageInfo
from videonet.ops.resize import resize_space

HEADS: dict[str, Callable[..., SemanticHead]] = {
    "uper": UPerHead,
    "semantic_fpn": SemanticFPNHead,
    "fcn": FCNHead,
    "hrnet": hrnet_head,
}


def repeat_frames(x: Tensor, frames: int) -> Tensor:
    """(B, C, T', H, W) -> (B, C, frames, H, W): every frame of a clip gets its map's."""
    count = x.shape[2]
    if count == frames:
        return x
    return x[:, :, torch.arange(frames, device=x.device) * count // frames]


class SemanticSegmenter(nn.Module):
    """Gives every pixel of every frame the logits of its classes.

    The head's logits are resized to the size of the clip bilinearly. Where the backbone strides in
    time, a frame gets the logits of the map's frame that covers it.

    Args:
        backbone: its :meth:`forward_intermediates` gives the maps; it loses its classifier.
        decode_head: on the maps, or on those of the neck.
        neck: on the maps of the backbone; None for none.
        auxiliary_head: a second head on what `decode_head` reads, for a second loss in training.
        indices: numbers of the backbone's maps, see ``forward_intermediates``.
        align_corners: of the last resizing; None for what the head does.

    Attributes:
        num_classes: of the head.
        feature_info: of the backbone.
        parts_on_top, parts_left_out: beginnings of the names of parameters that a checkpoint of a
            classifier does not have, and of those that it alone has.
        classifiers, parts_of_training: beginnings of the names of parameters that depend on the
            classes, and of those that a model may lack.
    """

    parts_on_top: tuple[str, ...] = ("neck.", "decode_head.", "auxiliary_head.")
    classifiers = ("decode_head.conv_seg.", "auxiliary_head.conv_seg.")
    parts_of_training = ("auxiliary_head.",)

    def __init__(
        self,
        backbone: VideoModel,
        decode_head: SemanticHead,
        neck: nn.Module | None = None,
        auxiliary_head: SemanticHead | None = None,
        *,
        indices: int | Sequence[int] | None = None,
        align_corners: bool | None = None,
    ):
        super().__init__()
        self.parts_left_out = remove_classifier(backbone)
        self.backbone, self.neck = backbone, neck
        self.decode_head, self.auxiliary_head = decode_head, auxiliary_head
        self.indices = indices
        self.align_corners = decode_head.align_corners if align_corners is None else align_corners

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.decode_head.num_classes

    @property
    def feature_info(self) -> tuple[StageInfo, ...]:
        """Of each map that the backbone can give."""
        return self.backbone.feature_info

    def forward_maps(self, clip: Tensor) -> list[Tensor]:
        """A clip -> the maps that the heads read, (B, C_i, T', H_i, W_i)."""
        maps = self.backbone.forward_intermediates(clip, self.indices)
        return maps if self.neck is None else self.neck(maps)

    @overload
    def forward(self, clip: Tensor, every_head: Literal[False] = ...) -> Tensor: ...

    @overload
    def forward(self, clip: Tensor, every_head: bool) -> Tensor | list[Tensor]: ...

    def forward(self, clip: Tensor, every_head: bool = False) -> Tensor | list[Tensor]:
        """(B, C, T, H, W), or an image (B, C, H, W), -> logits (B, num_classes, T, H, W).

        Args:
            clip: a batch of clips or images.
            every_head: give those of all heads instead, which training learns from.
        """
        logits = self.forward_heads(clip, auxiliary=every_head)
        return logits if every_head else logits[0]

    def forward_heads(self, clip: Tensor, auxiliary: bool = True) -> list[Tensor]:
        """A clip -> the logits (B, num_classes, T, H, W) of every head.

        Args:
            clip: (B, C, T, H, W), or an image (B, C, H, W).
            auxiliary: False for the first head alone.
        """
        maps = self.forward_maps(clip)
        heads = [self.decode_head]
        if auxiliary and self.auxiliary_head is not None:
            heads.append(self.auxiliary_head)
        return [self._at_size_of(clip, head(maps)) for head in heads]

    def _at_size_of(self, clip: Tensor, logits: Tensor) -> Tensor:
        size = (clip.shape[-2], clip.shape[-1])
        logits = resize_space(logits, size, align_corners=self.align_corners)
        return repeat_frames(logits, clip.shape[2] if clip.dim() == 5 else 1)

    def reset_classifier(self, num_classes: int) -> None:
        """Give the heads new, randomly initialised classifiers.

        Raises:
            ConfigError: less than one class.
        """
        self.decode_head.reset_classifier(num_classes)
        if self.auxiliary_head is not None:
            self.auxiliary_head.reset_classifier(num_classes)

    def no_weight_decay(self) -> set[str]:
        """Names of the backbone's class tokens and positions."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def layer_groups(self, by: str = "blocks") -> list[list[str]]:
        """Parameter names from input to output; neck and heads are in the last group.

        Args:
            by: see :meth:`VideoModel.layer_groups`.
        """
        layers = self.backbone.layer_groups(by)
        groups = [[f"backbone.{name}" for name in group] for group in layers]
        on_top = [name for name, _ in self.named_parameters() if name.startswith(self.parts_on_top)]
        return [*groups[:-1], groups[-1] + on_top]

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Whether training computes the activations of the backbone's blocks twice."""
        self.backbone.set_grad_checkpointing(enabled)


def make_segmenter(
    backbone: VideoModel,
    num_classes: int,
    head: str = "uper",
    *,
    neck: str | None = "auto",
    neck_channels: int = 256,
    indices: int | Sequence[int] | None = None,
    auxiliary: int | None = None,
    align_corners: bool = False,
    norm: str | None = "batch",
    temporal_kernel: int = 1,
    neck_options: dict[str, Any] | None = None,
    head_options: dict[str, Any] | None = None,
) -> SemanticSegmenter:
    """A segmenter on any backbone.

    Args:
        backbone: built by :func:`videonet.create_model`, with ``output_norms`` as published
            segmentations have it.
        num_classes: K.
        head: one of ``HEADS``.
        neck: one of :data:`videonet.heads.necks.NECKS`; None for none; "auto" for a simple pyramid
            on maps of one resolution, a feature pyramid for "semantic_fpn" and none otherwise.
        neck_channels: of the maps that the neck gives.
        indices: numbers of the backbone's maps.
        auxiliary: number of the map that an auxiliary head reads, 2 as published; None for none.
        align_corners: of every bilinear resizing.
        norm: of the heads, see :func:`videonet.heads.conv_norm.make_norm`.
        temporal_kernel: taps along time of the 3×3 convolutions of neck and heads, in a clip; 1
            keeps frames apart.
        neck_options, head_options: other arguments of the neck and of the head.

    Raises:
        ConfigError: an unknown name or option.
    """
    if head not in HEADS:
        raise ConfigError(f"the head is {head!r}, expected one of {', '.join(HEADS)}")
    infos = [backbone.feature_info[number] for number in backbone.stage_numbers(indices)]
    if neck == "auto":
        plain = len(infos) > 1 and is_plain(infos)
        neck = "simple_pyramid" if plain else "fpn" if head == "semantic_fpn" else None
    levels: list[int] = [info.channels for info in infos]
    made: Neck | None = None
    if neck is not None:
        options = {"temporal_kernel": temporal_kernel} | (neck_options or {})
        made = make_neck(neck, infos, neck_channels, **options)
        levels = [neck_channels] * made.num_outs
    common: dict[str, Any] = {
        "align_corners": align_corners,
        "norm": norm,
        "temporal_kernel": temporal_kernel,
    }
    second = None
    if auxiliary is not None:
        second = FCNHead(levels, num_classes, indices=[auxiliary], **common)
    try:
        first = HEADS[head](levels, num_classes, **(common | (head_options or {})))
    except TypeError as error:
        raise ConfigError(f"head {head}: {error}") from error
    return SemanticSegmenter(backbone, first, made, second, indices=indices)
