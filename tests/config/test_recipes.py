"""The shipped recipes against what the papers state."""

import pytest

from videonet.config import load_config
from videonet.config.checks import get
from videonet.engine.optim import lr_factor

# arXiv 2112.01526, App. B.4; clipping is PySlowFast's.
KINETICS = {
    "SOLVER.OPTIMIZING_METHOD": "adamw", "SOLVER.BASE_LR": 1.6e-3, "SOLVER.BASE_LR_CLIPS": 512,
    "SOLVER.MAX_EPOCH": 200, "SOLVER.WARMUP_EPOCHS": 30.0, "SOLVER.COSINE_AFTER_WARMUP": True,
    "SOLVER.COSINE_END_LR": 1.6e-5, "SOLVER.WEIGHT_DECAY": 0.05, "SOLVER.ZERO_WD_1D_PARAM": True,
    "MVIT.ZERO_DECAY_POS_CLS": True, "SOLVER.CLIP_GRAD_L2NORM": 1.0, "MODEL.DROPOUT_RATE": 0.5,
    "MIXUP.ENABLE": True, "MIXUP.LABEL_SMOOTH_VALUE": 0.1, "MIXUP.ALPHA": 0.8,
    "MIXUP.CUTMIX_ALPHA": 1.0, "MIXUP.PROB": 1.0, "MIXUP.SWITCH_PROB": 0.5, "AUG.RE_PROB": 0.25,
    "AUG.NUM_SAMPLE": 2, "AUG.AA_TYPE": "rand-m7-n4-mstd0.5-inc1",
    "TEST.NUM_ENSEMBLE_VIEWS": 5, "TEST.NUM_SPATIAL_CROPS": 1,
}  # fmt: skip
SOMETHING = {
    "SOLVER.OPTIMIZING_METHOD": "sgd", "SOLVER.MOMENTUM": 0.9, "SOLVER.BASE_LR": 0.02,
    "SOLVER.BASE_LR_CLIPS": 512, "SOLVER.WEIGHT_DECAY": 1e-4, "DATA.RANDOM_FLIP": False,
    "DATA.SAMPLING": "segments", "AUG.NUM_SAMPLE": 1, "TEST.NUM_ENSEMBLE_VIEWS": 1,
    "TEST.NUM_SPATIAL_CROPS": 3,
}  # fmt: skip
FROM_IMAGES = {"SOLVER.BASE_LR": 4.8e-4, "SOLVER.MAX_EPOCH": 100, "SOLVER.WARMUP_EPOCHS": 15.0,
               "SOLVER.COSINE_END_LR": 4.8e-6}  # fmt: skip
# arXiv 2112.01526 and the defaults of its image repository.
IMAGENET = {
    "DATA.NUM_FRAMES": 1, "TRAIN.DATASET": "folder", "TEST.DATASET": "folder",
    "MODEL.NUM_CLASSES": 1000, "SOLVER.OPTIMIZING_METHOD": "adamw", "SOLVER.BASE_LR": 2e-3,
    "SOLVER.BASE_LR_CLIPS": 2048, "SOLVER.MAX_EPOCH": 300, "SOLVER.WARMUP_EPOCHS": 70.0,
    "SOLVER.CLIP_GRAD_L2NORM": 1.0, "MIXUP.ENABLE": True, "AUG.NUM_SAMPLE": 1,
    "AUG.AA_TYPE": "rand-m9-n6-mstd0.5-inc1", "AUG.RE_PROB": 0.25, "TEST.CROP_RATIO": 0.875,
    "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1,
}  # fmt: skip
RECIPES = {
    "IN1K/MVITv2_T.yaml": IMAGENET | {"MODEL.DROPPATH_RATE": 0.1, "SOLVER.WEIGHT_DECAY": 0.05},
    "IN1K/MVITv2_S.yaml": IMAGENET | {"MODEL.DROPPATH_RATE": 0.1, "SOLVER.WEIGHT_DECAY": 0.05},
    "IN1K/MVITv2_B.yaml": IMAGENET | {"MODEL.DROPPATH_RATE": 0.3, "SOLVER.WEIGHT_DECAY": 0.05},
    "IN1K/MVITv2_L.yaml": IMAGENET | {"MODEL.DROPPATH_RATE": 0.5, "SOLVER.WEIGHT_DECAY": 0.1},
    "K400/MVITv1_B_16x4.yaml": KINETICS | {"MODEL.DROPPATH_RATE": 0.2, "DATA.NUM_FRAMES": 16},
    "K400/MVITv1_B_32x3.yaml": KINETICS | {"MODEL.DROPPATH_RATE": 0.2, "DATA.NUM_FRAMES": 32},
    "K400/MVITv2_S.yaml": KINETICS | {"MODEL.DROPPATH_RATE": 0.2, "DATA.SAMPLING_RATE": 4},
    "K400/MVITv2_B.yaml": KINETICS | {"MODEL.DROPPATH_RATE": 0.3, "DATA.SAMPLING_RATE": 3},
    "K400/MVITv2_S_IN1K.yaml": KINETICS | FROM_IMAGES | {"MODEL.DROPPATH_RATE": 0.2},
    "K400/MVITv2_B_IN1K.yaml": KINETICS | FROM_IMAGES | {"MODEL.DROPPATH_RATE": 0.3},
    "K400/MVITv2_L.yaml": {
        "SOLVER.BASE_LR": 1.6e-5, "SOLVER.BASE_LR_CLIPS": 128, "SOLVER.MAX_EPOCH": 30,
        "SOLVER.WEIGHT_DECAY": 1e-8, "MIXUP.PROB": 0.0, "TEST.NUM_ENSEMBLE_VIEWS": 5,
        "TEST.NUM_SPATIAL_CROPS": 3, "DATA.NUM_FRAMES": 40, "DATA.TRAIN_CROP_SIZE": 312,
    },
    "SSv2/MVITv2_S.yaml": SOMETHING | {"MODEL.DROPPATH_RATE": 0.4, "SOLVER.MAX_EPOCH": 100},
    "SSv2/MVITv2_B.yaml": SOMETHING | {"MODEL.DROPPATH_RATE": 0.4, "SOLVER.MAX_EPOCH": 100},
    "SSv2/MVITv2_L.yaml": SOMETHING | {"MODEL.DROPPATH_RATE": 0.75, "SOLVER.MAX_EPOCH": 40},
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_papers(name):
    cfg = load_config(name)
    assert {key: get(cfg, key) for key in RECIPES[name]} == RECIPES[name]


def test_a_step_of_512_clips_has_the_papers_rate():
    """256 videos, two clips of each."""
    cfg = load_config("K400/MVITv2_S.yaml", ["TRAIN.BATCH_SIZE", "256"])
    assert lr_factor(cfg, cfg.TRAIN.BATCH_SIZE * cfg.AUG.NUM_SAMPLE) == 1.0
