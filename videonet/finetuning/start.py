"""What there is to start from: the machine, weights on it, and how fast a model trains here."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from fvcore.common.config import CfgNode

from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.config import load_config_text
from videonet.config.arguments import model_arguments, without_nodes
from videonet.devices import autocast_dtype, select_device
from videonet.engine.finetune import freeze, train_mode
from videonet.engine.stacked import StackedProbes
from videonet.errors import CheckpointError, ConfigError
from videonet.finetuning.choices import Machine, StartingWeights
from videonet.finetuning.features import head_arguments
from videonet.finetuning.probe_plan import ProbeSpeed
from videonet.heads.attentive import AttentiveProbe
from videonet.inference.pretrained import config_of, read_pretrained, saved_config
from videonet.models import create_model, list_models
from videonet.models.arguments import constructor_hints
from videonet.models.base import VideoModel
from videonet.models.registry import architecture_of
from videonet.models.weights import (
    PERMISSIVE,
    Weights,
    all_weights,
    cached_weights,
    get_weights,
    is_name,
    load_weights,
)

logger = logging.getLogger(__name__)

MEASURED = 1.0  # seconds that steps are measured for, at least
CLIPS = 2  # of a measured step
COPIES = 7  # of the attentive classifier


def this_machine(device: str) -> Machine:
    """The device that ``DEVICE`` names, and the cores that this process may use.

    Raises:
        ConfigError: torch finds no such device.
    """
    chosen = select_device(device)
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    if chosen.type != "cuda":
        return Machine(chosen.type, cores=cores)
    facts = torch.cuda.get_device_properties(chosen)
    return Machine("cuda", facts.name, facts.total_memory / 2**30, cores)


def find_weights(asked: str, overrides: Sequence[str] = ()) -> list[StartingWeights]:
    """The weights that a training may start from.

    Args:
        asked: a name, a run, a saved model or a checkpoint; "none" for no weights; empty for those
            in the cache whose licence allows everything.
        overrides: ``KEY VALUE`` pairs, which say what model a bare checkpoint is of.

    Raises:
        ConfigError, CheckpointError: what is asked for cannot be used.
    """
    if asked == "none":
        return []
    if not asked:
        models = set(list_models())
        return [
            _published(weights, given=False)
            for weights in cached_weights()
            if weights.model in models and weights.licence in PERMISSIVE
        ]
    if is_name(asked):
        return [_published(get_weights(asked), given=True)]
    return [_own(asked, overrides)]


def _published(weights: Weights, *, given: bool) -> StartingWeights:
    config = config_of(weights)
    arguments = weights.arguments
    if weights.num_frames == 1:  # of images, which go into a model for clips
        arguments = {**arguments, **weights.clip_arguments}
    own = {k: v for k, v in arguments.items() if k not in ("num_frames", "crop_size")}
    model = {"NAME": weights.model, "ARGUMENTS": own}
    data = {key: config["DATA"][key] for key in ("MEAN", "STD")}
    test = {key: config["TEST"][key] for key in ("CROP_RATIO", "INTERPOLATION")}
    return StartingWeights(
        weights.name,
        weights.model,
        weights.num_frames,
        weights.size,
        weights.stride,
        weights.target_fps,
        weights.sampling,
        weights.trained_on,
        {"MODEL": model, "DATA": data, "TEST": test},
        given,
    )


def _own(source: str, overrides: Sequence[str]) -> StartingWeights:
    """A run, a folder or a checkpoint, with the configuration that is in it, or a bare one."""
    if not Path(source).exists() and "://" not in source and ":" not in source:
        raise CheckpointError(
            f"--weights {source}: there is no such file or folder, and videonet weights lists no "
            "such name"
        )
    try:
        content, cfg, _ = read_pretrained(source, None, [])
    except ConfigError as error:
        if "MODEL.NAME" in overrides[::2]:
            return _bare(source, overrides)
        raise ConfigError(
            f"{error}; of a checkpoint without one, say which model it is of: MODEL.NAME NAME at "
            "the end of the command (videonet.list_models() has the names)"
        ) from None
    del content
    groups = saved_config(cfg, 0)
    config = {
        "MODEL": {k: groups["MODEL"][k] for k in ("NAME", "MODEL_NAME", "ARGUMENTS")},
        "MVIT": groups["MVIT"],
        "DATA": {k: groups["DATA"][k] for k in ("MEAN", "STD")},
        "TEST": {k: groups["TEST"][k] for k in ("CROP_RATIO", "INTERPOLATION")},
    }
    data = cfg.DATA
    return StartingWeights(
        os.path.abspath(newest_checkpoint(source)) if Path(source).exists() else source,
        model_arguments(cfg)[0],
        data.NUM_FRAMES,
        data.TRAIN_CROP_SIZE,
        data.SAMPLING_RATE,
        float(data.TARGET_FPS),
        data.SAMPLING if data.SAMPLING != "auto" else "dense",
        f"what {Path(source).name} was trained on",
        config,
        given=True,
    )


def _bare(source: str, overrides: Sequence[str]) -> StartingWeights:
    """A checkpoint of tensors alone, of the model that overrides describe: of images or videos."""
    cfg = config_from({}, overrides)
    name, arguments = model_arguments(cfg)
    own = without_nodes(cfg.MODEL.ARGUMENTS)
    place = os.path.abspath(source) if Path(source).exists() else source
    images = _loads_as_image(name, own, place)
    alike = (w for w in all_weights().values() if w.model == name and (w.num_frames == 1) == images)
    known = next(alike, None)  # what is published for this model says how pixels are scaled
    config: dict[str, Any] = {"MODEL": {"NAME": name, "ARGUMENTS": own}}
    if known is not None:
        config["DATA"] = {"MEAN": list(known.mean), "STD": list(known.std)}
        config["TEST"] = {"INTERPOLATION": known.interpolation}
    config["TRAIN"] = {"NEW_HEAD": True}  # tensors alone do not name their classes
    return StartingWeights(
        place,
        name,
        1 if images else arguments["num_frames"],
        arguments["crop_size"] if "DATA.TRAIN_CROP_SIZE" in overrides[::2] or known is None
        else known.size,
        trained_on="images" if images else "videos",
        config=config,
        given=True,
    )  # fmt: skip


def _loads_as_image(name: str, arguments: Mapping[str, Any], source: str) -> bool:
    """Whether a checkpoint fills the model of images; one of clips has more tensors or taps."""
    of_clips = ("tubelet_frames", "space_time")
    kept = {key: value for key, value in arguments.items() if key not in of_clips}
    model = create_model(name, **kept | {"num_classes": 0, "num_frames": 1})
    try:
        load_weights(model, source, new_head=True)
    except CheckpointError as error:
        logger.info("%s is taken for weights of clips: %s", source, error)
        return False
    return True


def divides(weights: StartingWeights) -> bool:
    """Whether a model can look within the frames of a clip alone (``space_time: space``)."""
    arguments = {**weights.config.get("MODEL", {}).get("ARGUMENTS", {}), "space_time": "joint"}
    hints = constructor_hints(architecture_of(weights.model))
    if not {"space_time", "tubelet_frames"} <= hints.keys():
        return False
    with torch.device("meta"):  # nothing is computed: the model is asked what it can
        return bool(create_model(weights.model, **arguments).works_on_parts)


def probe_speed(cfg: CfgNode, num_classes: int) -> ProbeSpeed:
    """How fast the features of a clip are computed, and a classifier on them trained, measured.

    Args:
        cfg: a complete configuration.
        num_classes: of the classifier.
    """
    device = select_device(cfg.DEVICE)
    name, arguments = model_arguments(cfg)
    model = create_model(name, **arguments | {"num_classes": 0}).eval()
    if not isinstance(model, VideoModel):
        raise ConfigError(f"{name} is no model for videos")
    head = head_arguments(model, cfg)["attentive"]
    model.to(device)
    data, dtype = cfg.DATA, autocast_dtype(cfg, device)
    clips = torch.randn(
        CLIPS, 3, data.NUM_FRAMES, data.TEST_CROP_SIZE, data.TEST_CROP_SIZE, device=device
    )

    @torch.inference_mode()
    def features() -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return model.tokens_of(model.forward_features(clips))

    count, width = features().shape[1:]
    probe = AttentiveProbe(width, num_classes, dropout=cfg.PROBE.DROPOUT, **head)
    copies = StackedProbes(probe, COPIES)
    tokens = torch.randn(CLIPS, count, width)
    return ProbeSpeed(
        _seconds(features, device) / CLIPS,
        count,
        width,
        _seconds(lambda: copies(tokens).square().mean().backward(), torch.device("cpu"))
        / (CLIPS * COPIES),
        model.feature_info[-1].strides[1],
    )


def config_from(groups: Mapping[str, Any], overrides: Sequence[str]) -> CfgNode:
    """A complete configuration of groups of keys, changed by ``KEY VALUE`` pairs.

    Raises:
        ConfigError: a key or a value cannot be used.
    """
    text = yaml.safe_dump(dict(groups), allow_unicode=True)
    return load_config_text(text, overrides, name="the chosen configuration")


def seconds_per_clip(cfg: CfgNode, num_classes: int) -> float:
    """How long a training clip takes here, measured with random clips.

    Args:
        cfg: a complete configuration.
        num_classes: outputs of the model.
    """
    device = select_device(cfg.DEVICE)
    name, arguments = model_arguments(cfg)
    model = create_model(name, **arguments | {"num_classes": num_classes}).to(device)
    if not isinstance(model, VideoModel):
        raise ConfigError(f"{name} is no model for videos")
    if cfg.MODEL.FROZEN_LAYERS:
        freeze(model, cfg.MODEL.FROZEN_LAYERS)
    train_mode(model)
    data, dtype = cfg.DATA, autocast_dtype(cfg, device)
    shape = (CLIPS, 3, data.NUM_FRAMES, data.TRAIN_CROP_SIZE, data.TRAIN_CROP_SIZE)
    clips = torch.randn(shape, device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            outputs = model(clips)
        outputs.float().square().mean().backward()

    return _seconds(step, device) / CLIPS


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    """How long a step takes, after a first one that prepares."""

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    step()
    start, steps = finished(), 0
    while not steps or (finished() - start < MEASURED and steps < 50):
        step()
        steps += 1
    return (finished() - start) / steps
