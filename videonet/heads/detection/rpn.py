"""Region proposal network (arXiv 1506.01497): where objects may be, in every frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from videonet.heads.conv_norm import ConvNorm
from videonet.heads.detection.anchors import Anchors
from videonet.heads.detection.boxes import are_usable, box_loss, decode_boxes
from videonet.heads.detection.conventions import Weights
from videonet.heads.detection.frames import Frames
from videonet.heads.detection.matching import POSITIVE, match_boxes, sample_boxes
from videonet.heads.detection.region_heads import zero_bias
from videonet.ops.conv import FastConv3d

DELTA_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)


class RPN(nn.Module):
    """Proposes boxes on the maps of a pyramid, one head for all levels.

    Args:
        channels: of every map.
        anchors: of the levels.
        num_convs: 3×3 convolutions before the predictions.
        norm: behind each of them, see :func:`videonet.heads.conv_norm.make_norm`.
        before_nms: proposals that are kept of each level, in training and at test.
        after_nms: proposals that are kept of each frame, in training and at test.
        nms_threshold: IoU above which the worse one of two boxes of a level is dropped.
        match_thresholds: IoU from which on an anchor is positive, and below which it is negative.
        num_sampled: anchors that are learnt from, for each frame or clip.
        positive_fraction: the greatest share of positive ones among them.
        sample_per: "frame", or "clip" for as many in all frames of a clip together.
    """

    def __init__(
        self,
        channels: int,
        anchors: Anchors,
        *,
        num_convs: int = 1,
        norm: str | None = None,
        before_nms: tuple[int, int] = (2000, 1000),
        after_nms: tuple[int, int] = (1000, 1000),
        nms_threshold: float = 0.7,
        match_thresholds: tuple[float, float] = (0.7, 0.3),
        num_sampled: int = 256,
        positive_fraction: float = 0.5,
        sample_per: str = "frame",
    ):
        super().__init__()
        self.anchors, self.rules = anchors, anchors.rules
        self.before_nms, self.after_nms = before_nms, after_nms
        self.nms_threshold, self.match_thresholds = nms_threshold, match_thresholds
        self.num_sampled, self.positive_fraction = num_sampled, positive_fraction
        self.sample_per = sample_per
        convs = [ConvNorm(channels, channels, 3, norm=norm, relu=True) for _ in range(num_convs)]
        self.convs = nn.ModuleList(convs)
        self.objectness = FastConv3d(channels, anchors.per_cell, 1)
        self.deltas = FastConv3d(channels, 4 * anchors.per_cell, 1)
        for conv in (*(c.conv for c in convs), self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            zero_bias(conv)

    def forward(
        self, maps: Sequence[Tensor], frames: Frames
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Propose boxes, and learn where there is ground truth.

        Args:
            maps: (B, C, T, H_i, W_i) of every level.
            frames: that the maps are of.

        Returns:
            Boxes (N, 4) of every frame, the best first, without gradient; and in training
            "loss_objectness" and "loss_rpn_box_reg".
        """
        logits, deltas = self.predict(maps)
        sizes = [(x.shape[3], x.shape[4]) for x in maps]
        anchors = self.anchors.of_maps(sizes, frames.padded, maps[0].device)
        proposals = self.select(
            [x.detach() for x in logits], [x.detach() for x in deltas], anchors, frames
        )
        if frames.targets is None:
            return proposals, {}
        losses = self.losses(
            torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), frames
        )
        return proposals, losses

    def predict(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (F, H_i*W_i*A) and deltas (F, H_i*W_i*A, 4) of every level, F = B*T frames."""
        logits, deltas = [], []
        for x in maps:
            for conv in self.convs:
                x = conv(x)
            # (B, A, T, H, W) -> (F, H*W*A)
            objectness = self.objectness(x).permute(0, 2, 3, 4, 1).flatten(2).flatten(0, 1)
            shifts = self.deltas(x).permute(0, 2, 3, 4, 1).flatten(2).flatten(0, 1)
            logits.append(objectness.float())
            deltas.append(shifts.unflatten(1, (-1, 4)).float())
        return logits, deltas

    def select(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        frames: Frames,
    ) -> list[Tensor]:
        """The best boxes of every frame after NMS within each level."""
        mode = 0 if self.training else 1
        boxes, scores, levels = [], [], []
        for level, (objectness, shifts, of_level) in enumerate(
            zip(logits, deltas, anchors, strict=True)
        ):
            number = min(self.before_nms[mode], objectness.shape[1])
            best, places = objectness.topk(number, dim=1)  # (F, number)
            shifts = shifts.gather(1, places[..., None].expand(-1, -1, 4))
            decoded = decode_boxes(
                shifts.reshape(-1, 1, 4),
                of_level[places].reshape(-1, 4),
                DELTA_WEIGHTS,
                self.rules.clamp_shrinking,
            )
            boxes.append(decoded.reshape(*places.shape, 4))
            scores.append(best)
            levels.append(torch.full_like(places, level))
        rows = zip(
            torch.cat(boxes, dim=1),
            torch.cat(scores, dim=1),
            torch.cat(levels, dim=1),
            frames.sizes,
            strict=True,
        )
        return [self._without_overlaps(*row, most=self.after_nms[mode]) for row in rows]

    def _without_overlaps(
        self, boxes: Tensor, scores: Tensor, levels: Tensor, size: tuple[int, int], most: int
    ) -> Tensor:
        """Usable boxes (N, 4) of one frame within it, the best first."""
        boxes = clip_boxes_to_image(boxes, size)
        usable = are_usable(boxes, self.rules.min_proposal_side) & scores.isfinite()
        boxes, scores, levels = boxes[usable], scores[usable], levels[usable]
        ranks = scores.sigmoid() if self.rules.rank_by_probability else scores
        return boxes[batched_nms(boxes, ranks, levels, self.nms_threshold)[:most]]

    def losses(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, frames: Frames
    ) -> dict[str, Tensor]:
        """Losses of the annotated frames.

        Args:
            logits: (F, N).
            deltas: (F, N, 4).
            anchors: (N, 4).
        """
        annotated = frames.annotated()
        matched, labels = self._match(anchors, frames)
        objectness, regression, count = logits.sum() * 0, deltas.sum() * 0, 0
        for group in frames.groups(self.sample_per):
            drawn = sample_boxes(
                [labels[n] for n in group], self.num_sampled, self.positive_fraction
            )
            count += sum(map(len, drawn)) if self.rules.rpn_loss_over_sampled else self.num_sampled
            for n, places in zip(group, drawn, strict=True):
                truth = labels[n][places]
                objectness = objectness + F.binary_cross_entropy_with_logits(
                    logits[n][places], truth.to(logits.dtype), reduction="sum"
                )
                places = places[truth == POSITIVE]
                regression = regression + box_loss(
                    self.rules.rpn_box_loss,
                    deltas[n][places],
                    anchors[places],
                    annotated[n].boxes[matched[n][places]],
                    DELTA_WEIGHTS,
                    self.rules.clamp_shrinking,
                )
        return {
            "loss_objectness": objectness / max(count, 1),
            "loss_rpn_box_reg": regression / max(count, 1),
        }

    @torch.no_grad()
    def _match(
        self, anchors: Tensor, frames: Frames
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """For every annotated frame the ground truth of each anchor, and its label."""
        high, low = self.match_thresholds
        matched, labels = {}, {}
        for number, target in frames.annotated().items():
            matched[number], labels[number] = match_boxes(
                target.boxes,
                anchors,
                high,
                low,
                low_quality=True,
                to_best=self.rules.low_quality_to_best,
                least=self.rules.least_low_quality,
            )
        return matched, labels
