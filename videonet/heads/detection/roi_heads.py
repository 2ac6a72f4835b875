"""From proposals to detections: Fast and Mask R-CNN in one stage, Cascade R-CNN in several.

arXiv 1504.08083, 1703.06870 and 1712.00726. A stage has a box head of its own, and takes the boxes
of the stage before; one stage is Mask R-CNN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from videonet.errors import ConfigError
from videonet.heads.detection.boxes import are_usable, box_loss, decode_boxes
from videonet.heads.detection.conventions import Conventions, find_conventions
from videonet.heads.detection.frames import Detections, Frames, FrameTarget
from videonet.heads.detection.mask_targets import cut_masks, mask_loss
from videonet.heads.detection.matching import POSITIVE, match_boxes, sample_boxes
from videonet.heads.detection.pooling import RoIPooler
from videonet.heads.detection.region_heads import BoxHead, MaskHead


@dataclass
class Regions:
    """Boxes of one frame with what they should become.

    Attributes:
        boxes: (N, 4).
        labels: true classes (N,), K for the background.
        matched: numbers of the ground truth (N,), without meaning for the background.
        is_truth: whether the box is a ground-truth box itself (N,).
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    is_truth: Tensor

    def select(self, which: Tensor) -> Regions:
        """Some of them: indices, or booleans (N,)."""
        return Regions(
            self.boxes[which], self.labels[which], self.matched[which], self.is_truth[which]
        )


class RoIHeads(nn.Module):
    """Classes, boxes and masks of proposals.

    Args:
        channels: of the maps.
        num_classes: K, without the background.
        strides: of the levels that regions are pooled from: the first ones of a pyramid.
        rules: see :class:`Conventions`, or the name of a preset.
        stages: 1, or more for a cascade.
        box_size, mask_size: cells per side of pooled regions.
        box_convs, box_fcs, class_agnostic: see :class:`BoxHead`.
        box_norm: of its convolutions.
        masks: whether there are mask heads.
        mask_convs, mask_deconv: see :class:`MaskHead`.
        mask_norm: of its convolutions.
        match_thresholds: for each stage the IoU from which on a region is positive.
        num_sampled: regions that are learnt from, for each frame or clip.
        positive_fraction: the greatest share of positive ones among them.
        sample_per: "frame", or "clip" for as many in all frames of a clip together.
        append_truth: whether ground-truth boxes join the proposals in training.
        score_threshold: detections of lower scores are dropped.
        nms_threshold: IoU above which the worse one of two boxes of a class is dropped.
        most: detections that are kept of each frame.

    Raises:
        ConfigError: thresholds, weights or a norm that do not go with the rest.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        strides: Sequence[int],
        rules: str | Conventions = "detectron2",
        *,
        stages: int = 1,
        box_size: int = 7,
        box_convs: Sequence[int] = (),
        box_fcs: Sequence[int] = (1024, 1024),
        box_norm: str | None = None,
        class_agnostic: bool = False,
        masks: bool = True,
        mask_size: int = 14,
        mask_convs: Sequence[int] = (256, 256, 256, 256),
        mask_deconv: int = 256,
        mask_norm: str | None = None,
        match_thresholds: Sequence[float] = (0.5, 0.6, 0.7),
        num_sampled: int = 512,
        positive_fraction: float = 0.25,
        sample_per: str = "frame",
        append_truth: bool = True,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        most: int = 100,
    ):
        super().__init__()
        self.rules = find_conventions(rules)
        few = min(len(match_thresholds), len(self.rules.delta_weights))
        if not 1 <= stages <= min(few, len(self.rules.stage_loss_weights)):
            raise ConfigError(
                f"there are {stages} stages, but thresholds and weights for {few} of them"
            )
        self.num_classes, self.stages = num_classes, stages
        self.match_thresholds, self.num_sampled = tuple(match_thresholds), num_sampled
        self.positive_fraction, self.sample_per = positive_fraction, sample_per
        self.append_truth, self.score_threshold = append_truth, score_threshold
        self.nms_threshold, self.most = nms_threshold, most
        self.box_pooler = RoIPooler(box_size, strides, self.rules)
        self.mask_pooler = RoIPooler(mask_size, strides, self.rules)
        self.box_heads = nn.ModuleList(
            BoxHead(
                channels,
                num_classes,
                size=box_size,
                conv_dims=box_convs,
                fc_dims=box_fcs,
                norm=box_norm,
                class_agnostic=class_agnostic,
                background_first=self.rules.background_first,
            )
            for _ in range(stages)
        )
        self.mask_heads = nn.ModuleList(
            MaskHead(
                channels,
                num_classes,
                conv_dims=mask_convs,
                deconv_dim=mask_deconv,
                norm=mask_norm,
                background_first=self.rules.background_first,
            )
            for _ in range((stages if self.rules.mask_head_per_stage else 1) if masks else 0)
        )

    def reset_classes(self, num_classes: int) -> None:
        """Make new layers for `num_classes` classes wherever there is a row for each class."""
        self.num_classes = num_classes
        for head in (*self.box_heads, *self.mask_heads):
            like = next(head.parameters())
            head.reset_classes(num_classes)
            head.to(like.device, like.dtype)

    def run_stage(
        self, stage: int, maps: Sequence[Tensor], boxes: Sequence[Tensor], frames: Frames
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, K + 1) and deltas (N, K or 1, 4) of the boxes of all frames, by one head."""
        pooled = self.box_pooler(maps, boxes, frames)
        if self.rules.divide_gradients and self.stages > 1 and pooled.requires_grad:
            pooled.register_hook(lambda gradient: gradient / self.stages)
        return self.box_heads[stage](pooled)

    def decode(self, stage: int, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (N, K or 1, 4) of deltas from boxes (N, 4), not clipped."""
        weights = self.rules.delta_weights[stage]
        return decode_boxes(deltas, boxes, weights, self.rules.clamp_shrinking)

    @torch.no_grad()
    def refine(
        self,
        stage: int,
        logits: Tensor,
        deltas: Tensor,
        boxes: Sequence[Tensor],
        frames: Frames,
        labels: Tensor | None = None,
    ) -> list[Tensor]:
        """The boxes that the next stage takes, of every frame.

        Where boxes are of classes, that of the true class is taken, of background and at test
        that of the best class.

        Args:
            labels: true classes (N,) in training.
        """
        decoded = self.decode(stage, deltas, torch.cat(list(boxes)))
        if decoded.shape[1] > 1:
            best = logits[:, :-1].argmax(dim=1)
            if labels is not None:
                best = torch.where(labels < self.num_classes, labels, best)
            decoded = decoded[torch.arange(len(decoded), device=decoded.device), best]
        parts = decoded.reshape(-1, 4).split([len(of_frame) for of_frame in boxes])
        return [clip_boxes_to_image(b, s) for b, s in zip(parts, frames.sizes, strict=True)]

    def forward(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        frames: Frames,
        embed: bool = False,
    ) -> tuple[list[Detections], dict[str, Tensor]]:
        """Learn from proposals where there is ground truth, else detect.

        Args:
            maps: (B, C, T, H_i, W_i) of the levels that regions are pooled from.
            proposals: boxes (N_f, 4) of every frame f.
            frames: that the maps are of.
            embed: whether detections carry embeddings.

        Returns:
            Detections of every frame, masks within the boxes; and losses: "loss_classifier",
            "loss_box_reg" and "loss_mask", in a cascade for each stage with "_stage0" and so on.
            One of the two is empty.
        """
        if frames.targets is None:
            return self.detect(maps, proposals, frames, embed), {}
        return [], self.losses(maps, proposals, frames)

    def losses(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], frames: Frames
    ) -> dict[str, Tensor]:
        """The losses of every stage."""
        losses: dict[str, Tensor] = {}
        regions = self._regions(0, proposals, frames, sample=True)
        for stage in range(self.stages):
            boxes = [region.boxes for region in regions]
            logits, deltas = self.run_stage(stage, maps, boxes, frames)
            suffix = f"_stage{stage}" if self.stages > 1 else ""
            weight = self.rules.stage_loss_weights[stage]
            classes, places = self._box_losses(stage, logits, deltas, regions, frames)
            losses[f"loss_classifier{suffix}"] = weight * classes
            losses[f"loss_box_reg{suffix}"] = weight * places
            if stage < len(self.mask_heads):
                suffix = f"_stage{stage}" if len(self.mask_heads) > 1 else ""
                losses[f"loss_mask{suffix}"] = weight * self._mask_loss(
                    stage, maps, regions, frames
                )
            if stage + 1 < self.stages:
                labels = torch.cat([region.labels for region in regions])
                refined = self.refine(stage, logits, deltas, boxes, frames, labels)
                if self.rules.resample:
                    refined = [b[~r.is_truth] for b, r in zip(refined, regions, strict=True)]
                refined = [b[are_usable(b)] for b in refined]
                regions = self._regions(stage + 1, refined, frames, self.rules.resample)
        return losses

    @torch.no_grad()
    def _regions(
        self, stage: int, boxes: Sequence[Tensor], frames: Frames, sample: bool
    ) -> list[Regions]:
        """Boxes of every frame with their ground truth; none of frames without annotation."""
        annotated = frames.annotated()
        regions = [
            self._labelled(stage, of_frame, annotated.get(number), sample and self.append_truth)
            for number, of_frame in enumerate(boxes)
        ]
        for group in frames.groups(self.sample_per) if sample else ():
            positive = [(regions[n].labels < self.num_classes).long() for n in group]
            drawn = sample_boxes(positive, self.num_sampled, self.positive_fraction)
            for number, places in zip(group, drawn, strict=True):
                regions[number] = regions[number].select(places)
        return regions

    def _labelled(
        self, stage: int, boxes: Tensor, target: FrameTarget | None, append: bool
    ) -> Regions:
        if target is None:
            nothing = torch.zeros(0, dtype=torch.int64, device=boxes.device)
            return Regions(boxes[:0], nothing, nothing, nothing.bool())
        count = len(boxes)
        if append:
            boxes = torch.cat((boxes, target.boxes.to(boxes)))
        threshold = self.match_thresholds[stage]
        matched, labels = match_boxes(target.boxes, boxes, threshold, threshold)
        classes = torch.full_like(matched, self.num_classes)
        positive = labels == POSITIVE
        classes[positive] = target.labels[matched[positive]].to(classes)
        is_truth = torch.arange(len(boxes), device=boxes.device) >= count
        return Regions(boxes, classes, matched, is_truth)

    def _box_losses(
        self,
        stage: int,
        logits: Tensor,
        deltas: Tensor,
        regions: Sequence[Regions],
        frames: Frames,
    ) -> tuple[Tensor, Tensor]:
        labels = torch.cat([region.labels for region in regions])
        if not len(labels):
            return logits.sum() * 0, deltas.sum() * 0
        classes = F.cross_entropy(logits, labels)
        boxes = torch.cat([region.boxes for region in regions])
        positive = torch.where(labels < self.num_classes)[0]
        truth = torch.cat(
            [
                frames.annotated()[number].boxes[region.matched[region.labels < self.num_classes]]
                for number, region in enumerate(regions)
                if len(region.boxes)
            ]
        )
        rows = labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        loss = box_loss(
            self.rules.box_loss,
            deltas[positive, rows],
            boxes[positive],
            truth,
            self.rules.delta_weights[stage],
            self.rules.clamp_shrinking,
        )
        return classes, loss / len(labels)

    def _mask_loss(
        self, stage: int, maps: Sequence[Tensor], regions: Sequence[Regions], frames: Frames
    ) -> Tensor:
        """The loss of the masks of positive regions in the frames that have masks."""
        head, annotated = self.mask_heads[stage], frames.annotated()
        boxes, labels, targets = [], [], []
        for number, region in enumerate(regions):
            target = annotated.get(number)
            masks = None if target is None else target.masks
            positive = region.labels < self.num_classes
            region = region.select(positive if masks is not None else torch.zeros_like(positive))
            boxes.append(region.boxes)
            labels.append(region.labels)
            if masks is not None:
                size = 2 * self.mask_pooler.size
                targets.append(cut_masks(masks, region.matched, region.boxes, size, self.rules))
        logits = head(self.mask_pooler(maps, boxes, frames))
        if not targets:
            return logits.sum() * 0
        return mask_loss(logits, torch.cat(targets), torch.cat(labels))

    def detect(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        frames: Frames,
        embed: bool = False,
    ) -> list[Detections]:
        """Detections of every frame, masks as probabilities within the boxes."""
        boxes, totals = list(proposals), list[Tensor]()
        for stage in range(self.stages):
            logits, deltas = self.run_stage(stage, maps, boxes, frames)
            totals.append(logits if self.rules.average_logits else logits.softmax(dim=1))
            if stage + 1 < self.stages:
                boxes = self.refine(stage, logits, deltas, boxes, frames)
        scores = torch.stack(totals).mean(dim=0)
        scores = scores.softmax(dim=1) if self.rules.average_logits else scores
        counts = [len(of_frame) for of_frame in boxes]
        decoded = self.decode(self.stages - 1, deltas, torch.cat(boxes)).split(counts)
        found = [
            self._best(of_frame, of_boxes, size)
            for of_frame, of_boxes, size in zip(
                scores.split(counts), decoded, frames.sizes, strict=True
            )
        ]
        self._add_masks(found, maps, frames)
        if embed:
            pooled = self.box_pooler(maps, [one.boxes for one in found], frames)
            parts = pooled.mean(dim=(2, 3, 4)).split([len(one) for one in found])
            for one, embeddings in zip(found, parts, strict=True):
                one.embeddings = embeddings
        return found

    def _best(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        """Detections of one frame: threshold, NMS within each class, the best ones.

        Args:
            scores: (N, K + 1).
            boxes: (N, K or 1, 4).
            size: of the frame.
        """
        scores = scores[:, :-1]  # without the background
        boxes = clip_boxes_to_image(boxes, size)
        rows, labels = torch.where(scores > self.score_threshold)
        scores = scores[rows, labels]
        boxes = boxes[rows, labels if boxes.shape[1] > 1 else torch.zeros_like(labels)]
        usable = are_usable(boxes, self.rules.min_detection_side) & scores.isfinite()
        boxes, scores, labels = boxes[usable], scores[usable], labels[usable]
        keep = batched_nms(boxes, scores, labels, self.nms_threshold)[: self.most]
        return Detections(boxes[keep], scores[keep], labels[keep])

    def _add_masks(
        self, found: Sequence[Detections], maps: Sequence[Tensor], frames: Frames
    ) -> None:
        """Masks of the predicted classes, averaged over the mask heads."""
        if not self.mask_heads:
            return
        pooled = self.mask_pooler(maps, [one.boxes for one in found], frames)
        labels = torch.cat([one.labels for one in found])
        rows = torch.arange(len(labels), device=labels.device)
        masks = [head(pooled)[rows, labels].sigmoid() for head in self.mask_heads]
        parts = torch.stack(masks).mean(dim=0).split([len(one) for one in found])
        for one, of_frame in zip(found, parts, strict=True):
            one.masks = of_frame
