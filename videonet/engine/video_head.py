"""Training of a learned attention head over the frozen features of a video's clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from videonet.checkpoint import write_checkpoint
from videonet.config import save_config
from videonet.data.feature_store import VideoFeatures, labels_of
from videonet.engine.metric_logger import MetricLogger, read_log
from videonet.engine.optim import build_optimizer, learning_rate, set_learning_rate
from videonet.engine.plots import plot_learning_curve
from videonet.errors import DataError
from videonet.heads.aggregation import VideoAttentionHead, stack_clips
from videonet.tasks.clip_head import FILE, KEY

logger = logging.getLogger(__name__)


def train_video_head(
    cfg: CfgNode,
    train: Sequence[VideoFeatures],
    val: Sequence[VideoFeatures],
    names: Sequence[str],
) -> dict:
    """Train ``VIDEO_HEAD`` on features, as ``SOLVER`` and ``TRAIN.BATCH_SIZE`` say.

    Writes the head, the configuration, the log and a learning curve to ``OUTPUT_DIR``.

    Args:
        cfg: the configuration.
        train: features with labels.
        val: features with labels.
        names: of the classes.

    Returns:
        ``attention``, the top-1 accuracy in percent on `val`, and ``head``, the path of the file.

    Raises:
        DataError: features without labels, or without what the head's levels need.
    """
    folder = Path(cfg.OUTPUT_DIR)
    torch.manual_seed(cfg.RNG_SEED)
    options = cfg.VIDEO_HEAD
    features, labels = _tensors(train, options.LEVELS, len(names))
    val_features, val_labels = _tensors(val, options.LEVELS, len(names))
    arguments = {
        "dim": features[0].shape[-1],
        "num_classes": len(names),
        "levels": options.LEVELS,
        "hidden": options.HIDDEN,
        "score": options.SCORE,
        "dropout": options.DROPOUT,
    }
    head = VideoAttentionHead(**arguments)
    optimizer = build_optimizer(cfg, head)
    batches = max(1, len(features) // cfg.TRAIN.BATCH_SIZE)
    folder.mkdir(parents=True, exist_ok=True)
    save_config(cfg, folder / "config.yaml")
    log, step = MetricLogger(folder), 0
    bar = tqdm(total=cfg.SOLVER.MAX_EPOCH * batches, desc="head", unit="step")
    for epoch in range(cfg.SOLVER.MAX_EPOCH):
        head.train()
        for index, chosen in enumerate(torch.randperm(len(features)).tensor_split(batches)):
            rate = learning_rate(cfg.SOLVER, epoch + index / batches)
            set_learning_rate(optimizer, rate)
            loss = F.cross_entropy(
                head(*stack_clips([features[i] for i in chosen])), labels[chosen]
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            bar.update()
            if step % cfg.LOG_PERIOD == 0:
                log.write("train", step, epoch=epoch, loss=loss.item(), lr=rate)
        values = evaluate_head(head, val_features, val_labels)
        log.write("val", step, epoch=epoch + 1, **values)
    bar.close()
    log.close()
    plot_learning_curve(read_log(folder / "log.jsonl"), folder / "learning_curve.png")
    content = {"model_state": head.state_dict(), KEY: arguments, "class_names": list(names)}
    write_checkpoint(folder / FILE, content)
    logger.info("head over %d videos: top-1 %.2f on %d", len(train), values["top1"], len(val))
    return {"head": str(folder / FILE), "attention": round(values["top1"], 3)}


@torch.inference_mode()
def evaluate_head(
    head: VideoAttentionHead, features: Sequence[Tensor], labels: Tensor
) -> dict[str, float]:
    """Evaluate a head on videos.

    Args:
        head: is put into evaluation mode.
        features: of each video.
        labels: (M,) classes.

    Returns:
        Loss, top-1 and top-5 accuracy in percent.
    """
    head.eval()
    logits = torch.cat([head(*stack_clips([video])) for video in features])
    best = logits.topk(min(5, logits.shape[1])).indices == labels.unsqueeze(1)
    return {
        "loss": F.cross_entropy(logits, labels).item(),
        "top1": 100 * best[:, 0].float().mean().item(),
        "top5": 100 * best.any(dim=1).float().mean().item(),
    }


def _tensors(
    videos: Sequence[VideoFeatures], levels: int, num_classes: int
) -> tuple[list[Tensor], Tensor]:
    labels = torch.from_numpy(labels_of(list(videos), num_classes))
    arrays = [video.frames if levels == 2 else video.features for video in videos]
    if any(array is None for array in arrays):
        raise DataError("VIDEO_HEAD.LEVELS is 2, which needs features with frames (--frames)")
    return [torch.from_numpy(array) for array in arrays], labels
