"""Models with all that belongs to them: published ones by name, folders, and the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from videonet.checkpoint import write_checkpoint
from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.checkpoint.download import OFFLINE, is_offline
from videonet.checkpoint.hub import HUB, HUB_OFFLINE, REPOSITORY, huggingface_hub
from videonet.checkpoint.parts import CONFIG, FORMAT
from videonet.config import load_config, load_config_text
from videonet.config.arguments import without_nodes
from videonet.errors import CheckpointError, ConfigError
from videonet.files import make_folder, replacing, replacing_text
from videonet.inference.model_card import Described, text_of
from videonet.models.weights import Weights, get_weights, is_name, read_weights

WEIGHTS = "model.safetensors"
CARD = "README.md"
CONFUSION = "confusion.png"

# Keys of a saved configuration: what a prediction depends on, and no place of this machine.
_DATA = (
    *("NUM_FRAMES", "SAMPLING_RATE", "SAMPLING", "SHORT_VIDEO", "TARGET_FPS", "FRAMES_FPS"),
    *("MEAN", "STD", "TRAIN_CROP_SIZE", "TEST_CROP_SIZE"),
)
_TEST = (
    *("DATASET", "BATCH_SIZE", "NUM_ENSEMBLE_VIEWS", "NUM_SPATIAL_CROPS", "CROP_RATIO"),
    *("INTERPOLATION", "ENSEMBLE"),
)
_KEPT: dict[str, Sequence[str]] = {
    "MODEL": (
        *("NAME", "MODEL_NAME", "NUM_CLASSES", "TASK", "LOSS_FUNC", "DROPOUT_RATE"),
        *("DROPPATH_RATE", "ARGUMENTS", "HEAD", "HEAD_ARGUMENTS"),
    ),
    "DATA": _DATA,
    "TRAIN": ("DATASET", "MIXED_PRECISION"),  # in what half the machine offers
    "TEST": _TEST,
}


def read_pretrained(
    source: str | Path, cfg: str | Path | None, overrides: Sequence[str]
) -> tuple[Mapping, CfgNode, str]:
    """A model's weights and configuration.

    Args:
        source: see :meth:`videonet.Predictor.from_pretrained`.
        cfg: YAML file; None for the configuration that belongs to the weights.
        overrides: ``KEY VALUE`` pairs on top of it.

    Returns:
        What the checkpoint holds, the configuration, and what messages call the checkpoint.

    Raises:
        ConfigError, CheckpointError: they cannot be used.
    """
    if is_name(source):
        weights = get_weights(str(source))
        if not weights.num_classes:
            raise ConfigError(
                f"{source} is without a classifier: create_model({weights.model!r}, "
                f"weights={weights.tag!r}) gives its backbone"
            )
        text, content, name = yaml.safe_dump(config_of(weights)), read_weights(source), str(source)
    else:
        path = newest_checkpoint(source)
        content, name = read_weights(path), str(path)
        text = content["cfg"] if isinstance(content.get("cfg"), str) else ""
    if cfg is not None:
        return content, load_config(cfg, overrides), name
    if not text:
        raise ConfigError(f"{name} holds no configuration: give one with --cfg")
    return content, load_config_text(text, overrides, name=f"{name} (cfg)"), name


def config_of(weights: Weights) -> dict[str, Any]:
    """The configuration to predict with published weights, by groups of keys.

    Args:
        weights: see :func:`videonet.get_weights`. Where no views are published it is one, the
            middle of the video.
    """
    arguments = {key: value for key, value in weights.arguments.items() if key != "num_frames"}
    size = arguments.pop("crop_size", weights.size)
    clips, crops = weights.views or (1, 1)
    return {
        "MODEL": {
            "NAME": weights.model,
            "NUM_CLASSES": weights.num_classes,
            "ARGUMENTS": arguments,
            "DROPOUT_RATE": 0.0,
        },
        "DATA": {
            "NUM_FRAMES": weights.num_frames,
            "SAMPLING_RATE": weights.stride,
            "SAMPLING": weights.sampling,
            "TARGET_FPS": weights.target_fps,
            "MEAN": list(weights.mean),
            "STD": list(weights.std),
            "TRAIN_CROP_SIZE": size,
            "TEST_CROP_SIZE": weights.size,
        },
        "TRAIN": {"ENABLE": False},
        "TEST": {
            "CROP_RATIO": weights.size / (weights.short_side or weights.size),
            "INTERPOLATION": weights.interpolation,
            "NUM_ENSEMBLE_VIEWS": clips,
            "NUM_SPATIAL_CROPS": crops,
        },
    }


def save(model: Described, folder: str | Path, *, licence: str = "") -> Path:
    """Write a model's folder; see :meth:`videonet.Predictor.save_pretrained`."""
    folder = Path(folder)
    make_folder(folder)
    run = run_of(model.origin)
    picture = run / CONFUSION if run is not None and (run / CONFUSION).is_file() else None
    card = text_of(model, run, folder.absolute().name, licence, CONFUSION if picture else "")
    config = {
        "format": FORMAT,
        "config": saved_config(model.cfg, len(model.class_names)),
        "class_names": list(model.class_names),
    }
    state = {name: tensor.contiguous() for name, tensor in model.model.state_dict().items()}
    write_checkpoint(folder / WEIGHTS, {"model_state": state})
    if picture is not None:
        with replacing(folder / CONFUSION) as temporary:
            shutil.copyfile(picture, temporary)
    with replacing_text(folder / CARD) as file:
        file.write(card)
    with replacing_text(folder / CONFIG) as file:  # last: without it the folder is no model
        file.write(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return folder


def saved_config(cfg: CfgNode, num_classes: int) -> dict[str, Any]:
    """The keys of a configuration that a prediction depends on, by groups; JSON.

    Args:
        cfg: a complete configuration.
        num_classes: outputs of the model.
    """
    kept = {
        group: {key: without_nodes(cfg[group][key]) for key in keys}
        for group, keys in _KEPT.items()
    }
    kept["MODEL"]["NUM_CLASSES"] = num_classes
    kept["TRAIN"]["ENABLE"] = False
    if not cfg.MODEL.NAME or cfg.MODEL.NAME == "mvit":
        kept["MVIT"] = without_nodes(cfg.MVIT)
    else:
        kept["MVIT"] = {"DROPOUT_RATE": cfg.MVIT.DROPOUT_RATE}
    return json.loads(json.dumps(kept))


def run_of(origin: str) -> Path | None:
    """The folder of the run, or the saved folder, that a checkpoint lies in, if it is there."""
    path = Path(origin)
    for folder in (path, path.parent.parent):
        if origin and (folder / "config.yaml").is_file():
            return folder
    return None


def push(
    model: Described,
    repository: str,
    folder: str | Path,
    *,
    private: bool | None,
    token: str | None,
    licence: str,
) -> str:
    """Write a model's folder and send it; see :meth:`videonet.Predictor.push_to_hub`."""
    repository = repository.removeprefix(HUB)
    if not REPOSITORY.fullmatch(repository) or "@" in repository:
        raise ConfigError(f"{repository!r} is no repository of the hub: expected OWNER/NAME")
    offline = next((word for word in (OFFLINE, HUB_OFFLINE) if is_offline(word)), "")
    if offline:
        raise CheckpointError(f"cannot send {repository} to the hub: {offline} is set")
    api = huggingface_hub().HfApi(token=token)
    place = Path(folder) / repository.rpartition("/")[2]
    save(model, place, licence=licence)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=place, commit_message="Upload of videonet"
        )
    except Exception as error:  # of HTTP, of the hub's own: all mean "not sent"
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"cannot send {repository} to the hub: {first}") from error
    return str(done)
