"""Every key that videonet reads, with its default.

The groups and keys of PySlowFast keep their names, defaults and meanings; the keys that PySlowFast
does not have are marked ``videonet:``. Sizes are in pixels, learning rates per step, and a clip
is one view of a video.
"""

from __future__ import annotations

import copy
from typing import Any

from fvcore.common.config import CfgNode

DATA: dict[str, Any] = {
    # Folder that holds the list files (train.csv, val.csv, test.csv).
    "PATH_TO_DATA_DIR": "",
    # Folder that relative video paths start from; empty: the folder of the list file.
    "PATH_PREFIX": "",
    # Text between path and label on a line of a list.
    "PATH_LABEL_SEPARATOR": " ",
    # videonet: list file of the training videos, below PATH_TO_DATA_DIR (ssv2: train.json where
    # it does not exist; folder: the folder of the classes, train where it does not exist).
    "TRAIN_LIST": "train.csv",
    # videonet: the same of the validation videos (ssv2: validation.json; folder: val).
    "VAL_LIST": "val.csv",
    # videonet: the same of the test videos; empty: test.csv (folder: test) where it exists, else
    # the validation videos.
    "TEST_LIST": "",
    # videonet: text file with one class name a line, in the order of the labels.
    "CLASS_NAMES": "",
    # videonet: largest share of unreadable videos before the run stops, 0 to 1.
    "MAX_BAD_SHARE": 0.05,
    # videonet: temporal sampling, auto (dense for kinetics, segments for ssv2), dense or segments.
    "SAMPLING": "auto",
    # videonet: a video shorter than its clip repeats its last frame (repeat_last) or loops (loop).
    "SHORT_VIDEO": "repeat_last",
    # Frames per clip.
    "NUM_FRAMES": 8,
    # Distance between two frames of a clip, in frames at TARGET_FPS.
    "SAMPLING_RATE": 8,
    # Frame rate, in frames per second, that SAMPLING_RATE counts in.
    "TARGET_FPS": 30.0,
    # videonet: frame rate, in frames per second, of videos that are folders of pictures.
    "FRAMES_FPS": 30.0,
    # Mean of the pixels per channel (RGB), with pixels in 0 to 1.
    "MEAN": [0.45, 0.45, 0.45],
    # Standard deviation of the pixels per channel (RGB), with pixels in 0 to 1.
    "STD": [0.225, 0.225, 0.225],
    # Channels per pathway; only the first counts and it is 3 (RGB).
    "INPUT_CHANNEL_NUM": [3, 3],
    # Range of the short side, in pixels, that a training clip is resized to before its crop.
    "TRAIN_JITTER_SCALES": [256, 320],
    # Range of the crop's share of the frame area; where given, TRAIN_JITTER_SCALES is not used.
    "TRAIN_JITTER_SCALES_RELATIVE": [],
    # Range of the relative crop's width over height; empty: 3/4 to 4/3.
    "TRAIN_JITTER_ASPECT_RELATIVE": [],
    # Side of the square training and validation crop, in pixels.
    "TRAIN_CROP_SIZE": 224,
    # Side of the square test crop, in pixels.
    "TEST_CROP_SIZE": 256,
    # Draw the jitter scale uniformly in 1/scale instead of in scale.
    "INV_UNIFORM_SAMPLE": False,
    # Flip training clips left to right with probability 0.5; never done for ssv2.
    "RANDOM_FLIP": True,
    # Decoder: auto (pyav), decord, pyav or torchcodec (PySlowFast's torchvision is read as auto).
    "DECODING_BACKEND": "auto",
    # PySlowFast's name of TEST.ENSEMBLE: sum (of softmax scores) or max.
    "ENSEMBLE_METHOD": "sum",
}

AUG: dict[str, Any] = {
    # Use RandAugment (or colour jitter) and random erasing on training clips.
    "ENABLE": False,
    # Clips drawn from each training video (repeated augmentation).
    "NUM_SAMPLE": 1,
    # Strength of the colour jitter; used only where AA_TYPE is empty.
    "COLOR_JITTER": 0.4,
    # RandAugment policy in timm's notation (m magnitude, n layers, mstd noise); empty: none.
    "AA_TYPE": "rand-m9-mstd0.5-inc1",
    # Interpolation of the random resized crop: bicubic, bilinear or random (bilinear).
    "INTERPOLATION": "bicubic",
    # Probability of random erasing per clip.
    "RE_PROB": 0.25,
    # Fill of an erased box: pixel (noise per pixel), rand (one colour) or const (zero).
    "RE_MODE": "pixel",
    # Largest number of boxes erased per clip.
    "RE_COUNT": 1,
}

MIXUP: dict[str, Any] = {
    # Mix the clips of a batch (mixup and cutmix); the targets become soft.
    "ENABLE": False,
    # Parameter of mixup's Beta distribution; 0: no mixup.
    "ALPHA": 0.8,
    # Parameter of cutmix's Beta distribution; 0: no cutmix.
    "CUTMIX_ALPHA": 1.0,
    # Probability that a batch is mixed.
    "PROB": 1.0,
    # Probability that a mixed batch gets cutmix, where both are on.
    "SWITCH_PROB": 0.5,
    # Label smoothing of the soft targets, 0 to 1.
    "LABEL_SMOOTH_VALUE": 0.1,
}

MVIT: dict[str, Any] = {
    # Pooling of q, k and v: conv (depth-wise, shared by the heads), conv_unshared, max or avg.
    "MODE": "conv",
    # Pool before the q, k, v projection instead of after it.
    "POOL_FIRST": False,
    # Use a class token.
    "CLS_EMBED_ON": True,
    # Kernel of the patch stem in frames and pixels (t, h, w); with PATCH_2D (h, w).
    "PATCH_KERNEL": [3, 7, 7],
    # Stride of the patch stem (t, h, w); with PATCH_2D (h, w).
    "PATCH_STRIDE": [2, 4, 4],
    # Padding of the patch stem (t, h, w); with PATCH_2D (h, w).
    "PATCH_PADDING": [2, 4, 4],
    # Image model: a stem without a temporal axis, one frame.
    "PATCH_2D": False,
    # Channels after the patch stem.
    "EMBED_DIM": 96,
    # Heads of the first block.
    "NUM_HEADS": 1,
    # Hidden width of the MLP over its input width.
    "MLP_RATIO": 4.0,
    # Bias in the q, k, v projections.
    "QKV_BIAS": True,
    # Drop path rate of the last block; it grows linearly from 0.
    "DROPPATH_RATE": 0.1,
    # Number of blocks.
    "DEPTH": 16,
    # Width multipliers: [[block, factor], ...].
    "DIM_MUL": [],
    # Head multipliers: [[block, factor], ...].
    "HEAD_MUL": [],
    # Strides of k and v pooling: [[block, t, h, w], ...].
    "POOL_KV_STRIDE": [],
    # Stride of k and v pooling in the first block, divided by each q stride met; or None.
    "POOL_KV_STRIDE_ADAPTIVE": None,
    # Strides of q pooling: [[block, t, h, w], ...]; a block that is not listed has no q pooling.
    "POOL_Q_STRIDE": [],
    # Kernel of all pooling (t, h, w); None: stride + 1 where the stride is above 1.
    "POOL_KVQ_KERNEL": None,
    # No weight decay on positions and class token.
    "ZERO_DECAY_POS_CLS": True,
    # LayerNorm after the patch stem.
    "NORM_STEM": False,
    # Separate tables for spatial and temporal absolute positions.
    "SEP_POS_EMBED": False,
    # Dropout after the positions and in the projections.
    "DROPOUT_RATE": 0.0,
    # Absolute positions.
    "USE_ABS_POS": True,
    # Relative positions along height and width.
    "REL_POS_SPATIAL": False,
    # Relative positions along time.
    "REL_POS_TEMPORAL": False,
    # Start the relative positions at zero instead of at random.
    "REL_POS_ZERO_INIT": False,
    # Add the pooled q to the output of the attention.
    "RESIDUAL_POOLING": False,
    # Widen the channels in the attention of a stage's first block instead of in the MLP before it.
    "DIM_MUL_IN_ATT": False,
    # Separate linear layers for q, k and v.
    "SEPARATE_QKV": False,
    # Factor on the initial weights of the classifier.
    "HEAD_INIT_SCALE": 1.0,
    # Classify the mean of the patch tokens instead of the class token.
    "USE_MEAN_POOLING": False,
    # A reversible network: two streams of tokens, whose activations training finds again.
    "REV": {
        "ENABLE": False,
        # How the two streams become one before the head: add, avg, max, min, concat or
        # [ln+]concat_linear[_RATIO[_DROPOUT]].
        "RESPATH_FUSE": "concat",
        # The blocks between two stages, which are not reversible: all that stride or widen.
        "BUFFER_LAYERS": [],
        # Shortcut of these blocks: conv (as the queries) or max.
        "RES_PATH": "conv",
        # How the two streams become one before these blocks, as RESPATH_FUSE.
        "PRE_Q_FUSION": "avg",
    },
}

MODEL: dict[str, Any] = {
    # videonet: name of a published architecture, as in list_models(); empty: MVIT.* describe it.
    "NAME": "",
    # PySlowFast's architecture family; not read, MODEL.NAME or MODEL.MODEL_NAME decide.
    "ARCH": "slowfast",
    # PySlowFast's model class; MViT where MODEL.NAME is empty.
    "MODEL_NAME": "SlowFast",
    # Number of classes; videonet: 0 counts them in the data.
    "NUM_CLASSES": 0,
    # videonet: what is learnt: classification.
    "TASK": "classification",
    # Loss: cross_entropy, soft_cross_entropy for soft targets (the same on hard labels), or
    # bce_logit (binary cross entropy of each class) for videos with several labels.
    "LOSS_FUNC": "cross_entropy",
    # Dropout before the classifier.
    "DROPOUT_RATE": 0.5,
    # videonet: stochastic depth of the last block, rising from 0; MViT reads MVIT.DROPPATH_RATE.
    "DROPPATH_RATE": 0.0,
    # videonet: further constructor arguments of the model, [[name, value], …].
    "ARGUMENTS": [],
    # Recompute activations in the backward pass to save memory.
    "ACT_CHECKPOINT": False,
    # videonet: compile the model with torch.compile in training and testing.
    "COMPILE": False,
    # videonet: layers, from the patch stem up, that training leaves alone; -1: all but
    # the last norm and the head.
    "FROZEN_LAYERS": 0,
}

TRAIN: dict[str, Any] = {
    # Train the model.
    "ENABLE": True,
    # Kind of training data set: kinetics (lists), ssv2 (its JSON files, or lists), folder (one
    # per class, of videos or of images) or multilabel (lists with several labels a line).
    "DATASET": "kinetics",
    # Videos per step, over all processes together.
    "BATCH_SIZE": 64,
    # Epochs between two validations, the last epoch always included; 0: never validate.
    "EVAL_PERIOD": 10,
    # Epochs between two checkpoints; the last epoch always leaves one.
    "CHECKPOINT_PERIOD": 10,
    # videonet: steps between two checkpoints within an epoch; 0: only at the ends of epochs.
    "CHECKPOINT_STEPS": 0,
    # videonet: number of newest checkpoints to keep; 0: all.
    "KEEP_CHECKPOINTS": 3,
    # Continue from the newest checkpoint in OUTPUT_DIR, if there is one.
    "AUTO_RESUME": True,
    # Checkpoint that training starts from (weights only); empty: random weights.
    "CHECKPOINT_FILE_PATH": "",
    # videonet: leave that checkpoint's classifier out even where its shape fits.
    "NEW_HEAD": False,
    # videonet: several processes hold the whole model each (ddp) or a share of it (fsdp).
    "PARALLEL": "ddp",
    # Compute in half precision where the device gains by it (see HALF_PRECISION).
    "MIXED_PRECISION": False,
    # videonet: which half precision: bf16, fp16 (with a loss scaler), or auto (of the GPU).
    "HALF_PRECISION": "auto",
    # videonet: forward and backward passes that a step's BATCH_SIZE videos are divided into.
    "ACCUMULATE": 1,
}

TEST: dict[str, Any] = {
    # Evaluate with several views per video.
    "ENABLE": True,
    # Kind of test data set, as TRAIN.DATASET.
    "DATASET": "kinetics",
    # Clips per forward pass.
    "BATCH_SIZE": 8,
    # Checkpoint to evaluate; empty: the one that training left.
    "CHECKPOINT_FILE_PATH": "",
    # Clips spread evenly over each video.
    "NUM_ENSEMBLE_VIEWS": 10,
    # Crops per clip: 1 (centre) or 3 (left, centre, right or top, centre, bottom).
    "NUM_SPATIAL_CROPS": 3,
    # videonet: the crop's share of the short side, in validation too (0.875 for images).
    "CROP_RATIO": 1.0,
    # videonet: join views by the mean of softmax scores (softmax), of logits (logits), or by max.
    "ENSEMBLE": "softmax",
    # videonet: test and predict with the averaged weights of a run with SOLVER.EMA_DECAY.
    "EMA": True,
    # videonet: largest share of unreadable videos with which a test has a result, 0 to 1.
    "MAX_BAD_SHARE": 0.1,
}

SOLVER: dict[str, Any] = {
    # Learning rate after the warm-up.
    "BASE_LR": 0.1,
    # videonet: clips per step that the rates hold for (they scale linearly); 0: no scaling.
    "BASE_LR_CLIPS": 0,
    # Multiply the rates by --num_shards; not used with BASE_LR_CLIPS.
    "BASE_LR_SCALE_NUM_SHARDS": False,
    # Schedule of the learning rate; cosine is the only one.
    "LR_POLICY": "cosine",
    # Learning rate that the cosine ends at.
    "COSINE_END_LR": 0.0,
    # Begin the cosine at its peak after the warm-up, instead of at epoch 0.
    "COSINE_AFTER_WARMUP": False,
    # Length of the training, in epochs.
    "MAX_EPOCH": 300,
    # Length of the linear warm-up, in epochs.
    "WARMUP_EPOCHS": 0.0,
    # Learning rate that the warm-up starts at.
    "WARMUP_START_LR": 0.01,
    # Optimiser: sgd, adam or adamw (PySlowFast's mt_adamw is read as adamw).
    "OPTIMIZING_METHOD": "sgd",
    # Momentum of SGD.
    "MOMENTUM": 0.9,
    # Dampening of SGD's momentum.
    "DAMPENING": 0.0,
    # Nesterov momentum for SGD.
    "NESTEROV": True,
    # Betas of Adam and AdamW.
    "BETAS": (0.9, 0.999),
    # Weight decay.
    "WEIGHT_DECAY": 1e-4,
    # No weight decay on biases and norms (parameters with one dimension).
    "ZERO_WD_1D_PARAM": False,
    # Clip the L2 norm of the gradient to this; None: no clipping.
    "CLIP_GRAD_L2NORM": None,
    # Clip each entry of the gradient to plus or minus this; None: no clipping.
    "CLIP_GRAD_VAL": None,
    # Factor on the learning rate per layer, from the head down; 1: none.
    "LAYER_DECAY": 1.0,
    # videonet: decay per step of an average of the weights, such as 0.9999; 0: no average.
    "EMA_DECAY": 0.0,
}

BN: dict[str, Any] = {
    # videonet: in training, batch norms see the clips of all processes instead of their own's.
    "SYNC": True,
    # Before a validation or checkpoint, take the statistics of batch norms anew from training
    # clips, with the weights as they are.
    "USE_PRECISE_STATS": False,
    # Steps whose clips these are taken from; at most an epoch's.
    "NUM_BATCHES_PRECISE": 200,
    # Weight decay of batch norm parameters.
    "WEIGHT_DECAY": 0.0,
}

DATA_LOADER: dict[str, Any] = {
    # Loader processes per training process; 0: decode in the training process.
    "NUM_WORKERS": 8,
    # videonet: seconds that a loader process may take for one video before it is stopped and the
    # video counts as unreadable; 0: no limit.
    "VIDEO_TIMEOUT": 120.0,
    # Put batches into pinned memory where there is a GPU.
    "PIN_MEMORY": True,
}

TENSORBOARD: dict[str, Any] = {
    # Write TensorBoard files.
    "ENABLE": False,
    # Folder of the TensorBoard files; empty: tensorboard in OUTPUT_DIR.
    "LOG_DIR": "",
}

VIDEO_HEAD: dict[str, Any] = {
    # videonet: 1 pools clips into the video, 2 pools frames into clips before.
    "LEVELS": 1,
    # videonet: score of a clip or frame: additive or dot (scaled dot product).
    "SCORE": "additive",
    # videonet: width that the scores are computed in.
    "HIDDEN": 128,
    # videonet: dropout before the head's classifier.
    "DROPOUT": 0.0,
}

WANDB: dict[str, Any] = {
    # videonet: record the run with Weights & Biases as well (pip install wandb).
    "ENABLE": False,
    # videonet: its project.
    "PROJECT": "videonet",
}

DEFAULTS: dict[str, Any] = {
    "DATA": DATA,
    "AUG": AUG,
    "MIXUP": MIXUP,
    "MVIT": MVIT,
    "MODEL": MODEL,
    "TRAIN": TRAIN,
    "TEST": TEST,
    "SOLVER": SOLVER,
    "BN": BN,
    "DATA_LOADER": DATA_LOADER,
    "TENSORBOARD": TENSORBOARD,
    "VIDEO_HEAD": VIDEO_HEAD,
    "WANDB": WANDB,
    # videonet: device to run on: auto (a GPU where there is one), cpu, mps, cuda or cuda:N.
    "DEVICE": "auto",
    # 0 runs on the CPU; processes of each machine with --num_shards, else torchrun decides.
    "NUM_GPUS": 1,
    # Folder that everything of a run is written to.
    "OUTPUT_DIR": ".",
    # Seed of all random numbers.
    "RNG_SEED": 1,
    # Steps between two log lines.
    "LOG_PERIOD": 10,
    # Log the model's name and number of parameters at the start.
    "LOG_MODEL_INFO": True,
    # Backend of torch.distributed on GPUs: nccl or gloo; the CPU always uses gloo.
    "DIST_BACKEND": "nccl",
}

# Keys whose default is None, with the type of their other values.
OPTIONAL: dict[str, type] = {
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": list,
    "MVIT.POOL_KVQ_KERNEL": list,
    "SOLVER.CLIP_GRAD_L2NORM": float,
    "SOLVER.CLIP_GRAD_VAL": float,
}


def default_config() -> CfgNode:
    """Every key at its default, not frozen."""
    return CfgNode(copy.deepcopy(DEFAULTS))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"DATA": {"MEAN": x}}`` as ``{"DATA.MEAN": x}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
