"""Configs written for PySlowFast: its keys, its lists, and the models they describe."""

import json
import logging
import math

import pytest
import torch
import yaml

from videonet.config import load_config, model_arguments
from videonet.errors import ConfigError
from videonet.models import create_model

# The keys of a published MViTv2 config at the size of a toy, in PySlowFast's notation.
VIDEO = """
TRAIN: {ENABLE: True, DATASET: ssv2, BATCH_SIZE: 16, CHECKPOINT_TYPE: pytorch,
  CHECKPOINT_EPOCH_RESET: True, CHECKPOINT_IN_INIT: True}
DATA:
  DECODING_BACKEND: torchvision
  NUM_FRAMES: 8
  TRAIN_CROP_SIZE: 64
  TEST_CROP_SIZE: 64
  INPUT_CHANNEL_NUM: [3]
  REVERSE_INPUT_CHANNEL: True
  USE_OFFSET_SAMPLING: True
MVIT:
  ZERO_DECAY_POS_CLS: False
  USE_ABS_POS: False
  REL_POS_SPATIAL: True
  REL_POS_TEMPORAL: True
  DEPTH: 4
  EMBED_DIM: 12
  PATCH_KERNEL: (3, 7, 7)
  PATCH_STRIDE: (2, 4, 4)
  PATCH_PADDING: (1, 3, 3)
  DROPPATH_RATE: 0.4
  NORM: "layernorm"
  MODE: "conv"
  DIM_MUL: [[1, 2.0], [3, 2.0]]
  HEAD_MUL: [[1, 2.0], [3, 2.0]]
  POOL_KVQ_KERNEL: [3, 3, 3]
  POOL_KV_STRIDE_ADAPTIVE: [1, 8, 8]
  POOL_Q_STRIDE: [[0, 1, 1, 1], [1, 1, 2, 2], [2, 1, 1, 1], [3, 1, 2, 2]]
  DIM_MUL_IN_ATT: True
  RESIDUAL_POOLING: True
AUG: {ENABLE: True, AA_TYPE: rand-m7-n4-mstd0.5-inc1, RE_SPLIT: False}
BN: {USE_PRECISE_STATS: False, NUM_BATCHES_PRECISE: 200}
SOLVER: {BASE_LR_SCALE_NUM_SHARDS: True, COSINE_END_LR: 1e-6, OPTIMIZING_METHOD: mt_adamw}
MODEL: {NUM_CLASSES: 9, ARCH: mvit, MODEL_NAME: MViT, LOSS_FUNC: soft_cross_entropy}
DATA_LOADER: {NUM_WORKERS: 2, PIN_MEMORY: True, ENABLE_MULTI_THREAD_DECODE: True}
NUM_GPUS: 8
NUM_SHARDS: 1
RNG_SEED: 0
OUTPUT_DIR: .
PREFETCH: {NUM_LOADERS: 3}
"""

IMAGE = """
DATA: {NUM_FRAMES: 8, TRAIN_CROP_SIZE: 64, TEST_CROP_SIZE: 64, INPUT_CHANNEL_NUM: [3]}
MVIT:
  PATCH_2D: True
  PATCH_KERNEL: [7, 7]
  PATCH_STRIDE: [4, 4]
  PATCH_PADDING: [3, 3]
  CLS_EMBED_ON: False
  DEPTH: 2
  POOL_KV_STRIDE: [[0, 1, 4, 4], [1, 1, 2, 2]]
  POOL_Q_STRIDE: [[1, 1, 2, 2]]
MODEL: {MODEL_NAME: MViT, ARCH: 2d}
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text: str, *overrides: str):
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load_text


def test_a_video_config_gives_the_arguments_of_its_model(load):
    name, arguments = model_arguments(load(VIDEO))
    assert name == "mvit"
    assert arguments == {
        "num_classes": 9,
        "num_frames": 8,
        "crop_size": 64,
        "in_channels": 3,
        "head_dropout": 0.5,
        "drop_path_rate": 0.4,
        "dropout": 0.0,
        "depth": 4,
        "embed_dim": 12,
        "num_heads": 1,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "patch_kernel": (3, 7, 7),
        "patch_stride": (2, 4, 4),
        "patch_padding": (1, 3, 3),
        "dim_mul": {1: 2.0, 3: 2.0},
        "head_mul": {1: 2.0, 3: 2.0},
        "pool_q_stride": {0: (1, 1, 1), 1: (1, 2, 2), 2: (1, 1, 1), 3: (1, 2, 2)},
        "pool_kv_stride": None,
        "pool_kv_stride_adaptive": (1, 8, 8),
        "pool_kernel": (3, 3, 3),
        "pool_mode": "conv",
        "pool_first": False,
        "separate_qkv": False,
        "cls_token": True,
        "use_abs_pos": False,
        "sep_pos_embed": False,
        "rel_pos_spatial": True,
        "rel_pos_temporal": True,
        "rel_pos_zero_init": False,
        "residual_pooling": True,
        "dim_mul_in_att": True,
        "norm_stem": False,
        "mean_pooling": False,
        "head_init_scale": 1.0,
    }


def test_an_image_config_gives_a_one_frame_model(load):
    _, arguments = model_arguments(load(IMAGE))
    assert arguments["num_frames"] == 1
    assert arguments["patch_kernel"] == (1, 7, 7)
    assert arguments["patch_stride"] == (1, 4, 4)
    assert arguments["patch_padding"] == (0, 3, 3)
    assert arguments["pool_kv_stride"] == {0: (1, 4, 4), 1: (1, 2, 2)}
    assert arguments["pool_kv_stride_adaptive"] is None
    assert arguments["pool_kernel"] is None
    assert arguments["cls_token"] is False


def shapes(name, arguments):
    with torch.device("meta"):
        model = create_model(name, **arguments)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_a_description_of_a_published_model_builds_that_model(load):
    """MViTv2-S (arXiv 2112.01526, Tab. 1) by its strides, and by its name."""
    strides = [[i, 1, 2, 2] if i in (1, 3, 14) else [i, 1, 1, 1] for i in range(16)]
    growth = "[[1, 2.0], [3, 2.0], [14, 2.0]]"
    overrides = ["DATA.NUM_FRAMES", "16", "DATA.TRAIN_CROP_SIZE", "224", "MVIT.DEPTH", "16"]
    overrides += ["MVIT.EMBED_DIM", "96", "MVIT.DIM_MUL", growth, "MVIT.HEAD_MUL", growth]
    cfg = load(VIDEO, *overrides, "MVIT.POOL_Q_STRIDE", str(strides))
    named = {"num_classes": 9, "num_frames": 16, "crop_size": 224}
    assert shapes(*model_arguments(cfg)) == shapes("mvit_v2_s", named)


def test_the_reference_configs_build_models_of_the_official_size(load, shared_dir):
    records = [json.loads(path.read_text()) for path in shared_dir.glob("reference/mvit/*.json")]
    records = [record for record in records if "SlowFast" in record["official"]["repo"]]
    assert records
    for record in records:
        config = record["constructor"]["cfg_overrides"]
        config["MODEL"]["MODEL_NAME"] = "MViT"
        found = shapes(*model_arguments(load(yaml.safe_dump(config))))
        size = sum(math.prod(shape) for shape in found.values())
        assert size == record["num_parameters"], record["variant"]


def test_values_that_are_other_words_for_ours(load):
    cfg = load(VIDEO)
    assert cfg.DATA.DECODING_BACKEND == "auto"
    assert cfg.SOLVER.OPTIMIZING_METHOD == "adamw"
    assert cfg.DEVICE == "auto"
    assert load(VIDEO, "NUM_GPUS", "0").DEVICE == "cpu"
    assert load(VIDEO, "DATA.ENSEMBLE_METHOD", "max").TEST.ENSEMBLE == "max"
    with pytest.raises(ConfigError, match="ENSEMBLE_METHOD"):
        load(VIDEO, "DATA.ENSEMBLE_METHOD", "max", "TEST.ENSEMBLE", "logits")


def test_keys_without_effect_are_logged_and_left_out(load, caplog):
    with caplog.at_level(logging.INFO, logger="videonet.config"):
        cfg = load(VIDEO)
    assert "DATA.REVERSE_INPUT_CHANNEL" in caplog.text and "PREFETCH.NUM_LOADERS" in caplog.text
    assert "PREFETCH" not in cfg and "REVERSE_INPUT_CHANNEL" not in cfg.DATA


@pytest.mark.parametrize(
    ("key", "default", "other"),
    [
        ("DATA.MULTI_LABEL", "False", "True"),
        ("DATA.TRAIN_JITTER_FPS", "0.0", "1.5"),
        ("AUG.RE_SPLIT", "False", "True"),
        ("MVIT.NORM", "layernorm", "batchnorm"),
        ("BN.NUM_SPLITS", "1", "2"),
        ("SOLVER.LARS_ON", "False", "True"),
    ],
)
def test_a_key_that_is_not_implemented_stays_at_its_default(key, default, other, load):
    assert load(VIDEO, key, default) == load(VIDEO)
    with pytest.raises(ConfigError, match=rf"^{key} in the overrides is .*does not implement"):
        load(VIDEO, key, other)


@pytest.mark.parametrize(
    "setting",
    [
        *("RESNET.ZERO_INIT_FINAL_BN True", "NONLOCAL.INSTANTIATION softmax", "X3D.DIM_C1 24"),
        *("SLOWFAST.ALPHA 4", "CONTRASTIVE.MEM_TYPE 2d", "MASK.HEAD_TYPE separate_xformer"),
        *("DETECTION.ALIGNED False", "AVA.TRAIN_PREDICT_BOX_LISTS None", "DEMO.WEBCAM 0"),
        *("MULTIGRID.LONG_CYCLE_FACTORS []", "TENSORBOARD.MODEL_VIS.GRAD_CAM.ENABLE False"),
        *("BN.NORM_TYPE sync_batchnorm", "BN.NUM_SYNC_DEVICES 8"),
        *("TRAIN.CHECKPOINT_TYPE caffe2", "SOLVER.STEPS [0,30]", "TASK ssl_eval"),
        *("MODEL.FC_INIT_STD 0.02", "AUG.MASK_RATIO 0.9", "TRAIN.KILL_LOSS_EXPLOSION_FACTOR 2.0"),
    ],
)
def test_side_keys_of_what_is_not_used_are_logged_and_passed_over(setting, load, caplog):
    key, value = setting.split()
    with caplog.at_level(logging.INFO, logger="videonet.config"):
        assert load(VIDEO, key, value) == load(VIDEO)
    assert f"{key} in the overrides has no effect" in caplog.text


SIDE_KEYS = """
RESNET: {ZERO_INIT_FINAL_BN: True, DEPTH: 101}
NONLOCAL: {INSTANTIATION: softmax}
SOLVER: {LR_POLICY: steps_with_relative_lrs, LRS: [1, 0.1], STEPS: [0, 9], MAX_EPOCH: 20}
BN: {USE_PRECISE_STATS: True, NORM_TYPE: sub_batchnorm, NUM_SPLITS: 4}
TEST: {DATASET: kinetics, NUM_TEMPORAL_CLIPS: [5, 10]}
AVA: {FRAME_DIR: }
UNKNOWN: {KEY: 1}
"""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        *(
            (f"MODEL: {{MODEL_NAME: {name}}}", said)
            for name, said in (
                *(("SlowFast", "SlowFast"), ("PTVSlowFast", "SlowFast"), ("X3D", "X3D")),
                *(("ResNet", "A ResNet for clips"), ("PTVResNet", "A ResNet"), ("PTVX3D", "X3D")),
                *(
                    ("PTVCSN", "CSN"),
                    ("PTVR2plus1D", r"R\(2\+1\)D"),
                    ("AVSlowFast", "The model AV"),
                ),
                *(("ContrastiveModel", "Contrastive"), ("MaskMViT", "Masked pre-training")),
            )
        ),
        ("DETECTION: {ENABLE: True}", "AVA detection"),
        ("TRAIN: {DATASET: ava}", "AVA detection"),
        ("TRAIN: {DATASET: charades}", "The form of the Charades lists"),
        ("TASK: ssl", "Self-supervised pre-training"),
        ("MASK: {ENABLE: True}", "Masked pre-training"),
        *(
            (f"MODEL: {{ARCH: {arch}}}", said)  # older files have no other name
            for arch, said in (("slowfast", "SlowFast"), ("c2d", "A ResNet for"), ("x3d", "X3D"))
        ),
        ("MULTIGRID: {LONG_CYCLE: True}", "Multigrid training"),
        ("DEMO: {ENABLE: True}", "PySlowFast's demo"),
    ],
)
def test_the_first_sentence_says_what_is_not_here(asked, said, load):
    """Whatever other keys stand beside it."""
    with pytest.raises(ConfigError, match=rf"^{said}.* is not in videonet \(.*x.yaml:1"):
        load(asked + SIDE_KEYS)


@pytest.mark.parametrize("theirs", ["MODEL_NAME: SlowFast", "ARCH: i3d"])
def test_a_name_of_ours_needs_no_model_of_theirs(theirs, load):
    cfg = load(f"MODEL: {{{theirs}}}", "MODEL.NAME", "swin_xs")
    assert model_arguments(cfg)[0] == "swin_xs"
    assert model_arguments(load("MODEL: {ARCH: 2d}", "MODEL.MODEL_NAME", "MViT"))[0] == "mvit"


@pytest.mark.parametrize(
    ("theirs", "ours"), [("ptvkinetics", "kinetics"), ("ptvssv2", "ssv2"), ("imagenet", "folder")]
)
def test_data_sets_by_the_names_of_pyslowfast(theirs, ours, load):
    cfg = load(VIDEO, "TRAIN.DATASET", theirs, "TEST.DATASET", theirs)
    assert (ours, ours) == (cfg.TRAIN.DATASET, cfg.TEST.DATASET)


def test_images_are_cropped_as_pyslowfast_does_it(load):
    image = IMAGE + "TRAIN: {DATASET: imagenet}\nTEST: {DATASET: imagenet}\n"
    cfg = load(image)
    assert cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE == [0.08, 1.0]
    assert (*(0.875, 1, 1),) == (
        cfg.TEST.CROP_RATIO,
        cfg.TEST.NUM_ENSEMBLE_VIEWS,
        cfg.TEST.NUM_SPATIAL_CROPS,
    )
    cfg = load(image, "TEST.NUM_SPATIAL_CROPS", "3", "DATA.IN_VAL_CROP_RATIO", "1.0")
    assert (cfg.TEST.CROP_RATIO, cfg.TEST.NUM_SPATIAL_CROPS) == (1.0, 3)


def test_pytorchvideos_mvit_is_the_same_model(load):
    other = load(VIDEO, "MODEL.MODEL_NAME", "PTVMViT")
    assert model_arguments(other) == model_arguments(load(VIDEO))


def test_of_several_numbers_of_clips_the_largest_is_tested(load, caplog):
    with caplog.at_level(logging.INFO, logger="videonet.config"):
        cfg = load(VIDEO, "TEST.NUM_TEMPORAL_CLIPS", "[5, 7, 11]")
    assert cfg.TEST.NUM_ENSEMBLE_VIEWS == 11 and "NUM_ENSEMBLE_VIEWS is 11" in caplog.text
    cfg = load(VIDEO, "TEST.NUM_TEMPORAL_CLIPS", "[5]", "TEST.NUM_ENSEMBLE_VIEWS", "3")
    assert cfg.TEST.NUM_ENSEMBLE_VIEWS == 3


def test_the_last_of_two_different_values_is_used_as_in_pyslowfast(load, caplog):
    cfg = load(VIDEO.replace("  DEPTH: 4\n", "  DEPTH: 3\n  MODE: max\n  DEPTH: 4\n"))
    assert cfg.MVIT.DEPTH == 4
    assert "MVIT.DEPTH is 4 here and 3" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("POOL_Q_STRIDE", "[[4, 1, 2, 2]]", "below MVIT.DEPTH 4"),
        ("POOL_Q_STRIDE", "[[1, 2, 2]]", r"\[block, t, h, w\]"),
        ("POOL_Q_STRIDE", "[[1, 1, 0, 2]]", r"\[block, t, h, w\]"),
        ("POOL_Q_STRIDE", "[1, 1, 2, 2]", r"\[block, t, h, w\]"),
        ("DIM_MUL", "[[1]]", r"\[block, factor\]"),
        ("HEAD_MUL", "[[9, 2.0]]", "up to MVIT.DEPTH 4"),
        ("POOL_KVQ_KERNEL", "[3, 3]", "three whole numbers"),
        ("PATCH_KERNEL", "[7, 7]", "PATCH_2D False it must be 3"),
        ("PATCH_2D", "True", "PATCH_2D True it must be 2"),
    ],
)
def test_a_description_that_makes_no_model(key, value, words, load):
    with pytest.raises(ConfigError, match=rf"MVIT\.\w+ .*{words}"):
        load(VIDEO, f"MVIT.{key}", value)


def test_a_name_fixes_the_architecture():
    named = ["MODEL.NAME", "mvit_v2_s", "DATA.NUM_FRAMES", "16", "MVIT.DROPPATH_RATE", "0.25"]
    name, arguments = model_arguments(load_config(None, named))
    assert name == "mvit_v2_s"
    assert arguments == {
        "num_classes": 400,
        "num_frames": 16,
        "crop_size": 224,
        "in_channels": 3,
        "head_dropout": 0.5,
        "drop_path_rate": 0.25,
        "dropout": 0.0,
    }
    load_config(None, [*named, "MVIT.DEPTH", "16"])  # the default is no contradiction
    message = "MVIT.DEPTH is 24, but MODEL.NAME mvit_v2_s fixes the architecture; remove one"
    with pytest.raises(ConfigError, match=message):
        load_config(None, [*named, "MVIT.DEPTH", "24"])


def test_a_config_names_a_model():
    with pytest.raises(ConfigError, match="no model is given: set MODEL.NAME"):
        load_config(None)
