"""A detector: a backbone, a neck, proposals and RoI heads, for images and clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from videonet.errors import ConfigError, DataError, ScoreError
from videonet.heads.detection.anchors import Size
from videonet.heads.detection.batches import (
    Clip,
    Target,
    frames_of_clips,
    gather_targets,
    pad_clips,
    step_of_frame,
)
from videonet.heads.detection.boxes import are_usable
from videonet.heads.detection.frames import Detections, Frames
from videonet.heads.detection.linking import Linker
from videonet.heads.detection.pasting import paste_masks, paste_run_lengths
from videonet.heads.detection.roi_heads import RoIHeads
from videonet.heads.detection.rpn import RPN
from videonet.heads.necks import remove_classifier

OF_CLASSES = ("scores", "deltas")  # layers of a box head
MASKS = ("bitmaps", "run_lengths", "regions", "none")


class Detector(nn.Module):
    """Faster, Mask or Cascade R-CNN on the maps of any backbone, frame by frame.

    An image is a one-frame clip. A clip has detections in every frame; one that the backbone
    joins with others into a step of its maps shares theirs, see
    :func:`videonet.heads.detection.batches.frame_of_step`.

    Args:
        backbone: has ``forward_intermediates`` and ``feature_info`` as the models of
            ``videonet.create_model`` have; it loses its classifier.
        neck: stage maps -> the maps of a pyramid, high resolution first; None where the stage
            maps are the pyramid.
        rpn: on all maps of the pyramid.
        roi_heads: on as many of its first maps as `roi_heads` has strides for.
        indices: of the stage maps that are used, see ``forward_intermediates``; None for all.
        temporal_stride: frames of a clip from one step of the maps to the next; None for that of
            ``feature_info``.
        pad_multiple: height and width of a batch are padded to multiples of it.
        pad_square: they are at least so many pixels, as ViTDet's are 1024.

    Attributes:
        parts_on_top, parts_left_out: beginnings of the names of parameters that a checkpoint of a
            classifier does not have, and of those that it alone has.
    """

    parts_on_top = ("neck.", "rpn.", "roi_heads.")
    backbone: Any  # a model of videonet, which this room knows nothing of

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module | None,
        rpn: RPN,
        roi_heads: RoIHeads,
        *,
        indices: Sequence[int] | None = None,
        temporal_stride: int | None = None,
        pad_multiple: int = 32,
        pad_square: int = 0,
    ):
        super().__init__()
        self.backbone, self.neck, self.rpn, self.roi_heads = backbone, neck, rpn, roi_heads
        self.indices = indices
        self.pad_multiple, self.pad_square = pad_multiple, pad_square
        self.temporal_stride = temporal_stride or _temporal_stride(backbone)
        self.parts_left_out = remove_classifier(backbone)

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Beginnings of the names of parameters that depend on the classes."""
        heads = self.roi_heads
        boxes = [f"box_heads.{n}.{part}." for n in range(heads.stages) for part in OF_CLASSES]
        masks = [f"mask_heads.{n}.logits." for n in range(len(heads.mask_heads))]
        return tuple(f"roi_heads.{name}" for name in (*boxes, *masks))

    @property
    def num_classes(self) -> int:
        """Number of classes, without the background."""
        return self.roi_heads.num_classes

    def forward(
        self,
        clips: Tensor | Sequence[Clip],
        targets: Sequence[Target | Sequence[Target | None] | None] | None = None,
        *,
        masks: str = "bitmaps",
        output_sizes: Sequence[Size] | None = None,
        linker: Linker | None = None,
        strict: bool = False,
    ) -> Any:
        """Losses in training mode, detections in evaluation.

        Args:
            clips: (B, C, T, H, W), images (B, C, H, W), or a list of images (C, H, W), clips
                (C, T, H, W) and lists of frames, of several sizes. Normalised as the backbone
                was trained; the padding is zeros.
            targets: in training, for every clip a list of its frames' targets: "boxes" (N, 4) as
                (x1, y1, x2, y2) in pixels, "labels" (N,) from 0, and "masks" (N, H, W) where there
                are masks; None for a frame that is not annotated. For an image its target alone.
            masks: "bitmaps" or "run_lengths" of whole frames, "regions" for the probabilities
                within the boxes, or "none".
            output_sizes: (height, width) of every clip that boxes and masks are given in; None
                for the size that the clip has here.
            linker: gives detections of a clip ``instance_ids`` over its frames.
            strict: in evaluation, refuse maps that are not finite, in which nothing is found.

        Returns:
            In training a dictionary of losses. Else for every clip a list of the
            :class:`Detections` in each of its T frames.

        Raises:
            DataError: clips or targets that cannot be used.
            ConfigError: an unknown kind of masks.
            ScoreError: maps that are not finite, with `strict`.
        """
        if masks not in MASKS:
            raise ConfigError(f"masks are {masks!r}, expected one of {', '.join(MASKS)}")
        batch, sizes = pad_clips(clips, self.pad_multiple, self.pad_square)
        padded, length = (batch.shape[3], batch.shape[4]), batch.shape[2]
        pyramid = self.features(batch)
        steps = pyramid[0].shape[2]
        if self.training:
            if targets is None:
                raise DataError("a detector in training mode needs targets")
            truth = gather_targets(
                targets,
                sizes,
                length,
                self.temporal_stride,
                steps,
                self.num_classes,
                batch.device,
            )
            return self.losses(pyramid, frames_of_clips(sizes, padded, steps, truth))
        frames = frames_of_clips(sizes, padded, steps)
        if strict and not all(bool(level.isfinite().all()) for level in pyramid):
            raise ScoreError(
                "the maps of a detector are not finite: its weights are not, or its numbers "
                f"are too large for {pyramid[0].dtype}"
            )
        found = self.detect(pyramid, frames, embed=linker is not None)
        found = [
            self._finish(one, size, (output_sizes or sizes)[number // steps], masks)
            for number, (one, size) in enumerate(zip(found, frames.sizes, strict=True))
        ]
        return self._by_clip(found, len(sizes), steps, length, linker)

    def features(self, batch: Tensor) -> list[Tensor]:
        """The pyramid of clips (B, C, T, H, W): maps (B, C', T', H', W'), high resolution first."""
        maps = self.backbone.forward_intermediates(batch, self.indices)
        return list(maps) if self.neck is None else list(self.neck(maps))

    def losses(self, pyramid: Sequence[Tensor], frames: Frames) -> dict[str, Tensor]:
        """All losses, of frames with ground truth."""
        proposals, losses = self.rpn(pyramid, frames)
        _, more = self.roi_heads(self._pooled_levels(pyramid), proposals, frames)
        return losses | more

    def detect(
        self, pyramid: Sequence[Tensor], frames: Frames, embed: bool = False
    ) -> list[Detections]:
        """Detections of every frame in pixels of the batch, masks within the boxes."""
        proposals, _ = self.rpn(pyramid, frames)
        return self.roi_heads.detect(self._pooled_levels(pyramid), proposals, frames, embed)

    def _pooled_levels(self, pyramid: Sequence[Tensor]) -> Sequence[Tensor]:
        return pyramid[: len(self.roi_heads.box_pooler.strides)]

    def _finish(self, found: Detections, size: Size, wanted: Size, masks: str) -> Detections:
        """Boxes and masks in the size that is wanted, without boxes that have no area there."""
        scale = found.boxes.new_tensor((wanted[1] / size[1], wanted[0] / size[0]))
        found.boxes = clip_boxes_to_image(found.boxes * scale.repeat(2), wanted)
        found = found.select(are_usable(found.boxes))
        if masks == "none" or not isinstance(found.masks, Tensor):
            found.masks = None
            return found
        by_sampling = self.roi_heads.rules.paste_by_sampling
        if masks == "bitmaps":
            found.masks = paste_masks(found.masks, found.boxes, wanted, by_sampling=by_sampling)
        elif masks == "run_lengths":
            found.masks = paste_run_lengths(
                found.masks, found.boxes, wanted, by_sampling=by_sampling
            )
        return found

    def _by_clip(
        self,
        found: Sequence[Detections],
        count: int,
        steps: int,
        length: int,
        linker: Linker | None,
    ) -> list[list[Detections]]:
        clips = [list(found[number * steps : (number + 1) * steps]) for number in range(count)]
        if linker is not None:
            clips = [linker.link(clip) for clip in clips]
        places = [step_of_frame(t, self.temporal_stride, steps) for t in range(length)]
        return [[clip[place] for place in places] for clip in clips]

    def reset_classifier(self, num_classes: int) -> None:
        """Replace whatever has a row for each class by new layers.

        Raises:
            ConfigError: fewer than 1 class.
        """
        if num_classes < 1:
            raise ConfigError(f"a detector has {num_classes} classes, expected 1 or more")
        self.roi_heads.reset_classes(num_classes)

    def no_weight_decay(self) -> set[str]:
        """Names of the backbone's class tokens and positions."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def layer_groups(self, by: str = "blocks") -> list[list[str]]:
        """Parameter names from input to output; neck and heads are in the last group.

        Args:
            by: see the backbone's method of this name.
        """
        layers = self.backbone.layer_groups(by)
        groups = [[f"backbone.{name}" for name in group] for group in layers]
        rest = [n for n, _ in self.named_parameters() if not n.startswith("backbone.")]
        return [*groups[:-1], groups[-1] + rest]

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Whether training computes the backbone's activations twice, to save their memory."""
        self.backbone.set_grad_checkpointing(enabled)


def _temporal_stride(backbone: nn.Module) -> int:
    infos = getattr(backbone, "feature_info", None)
    return infos[0].strides[0] if infos else 1
