"""Every key of the configuration: its default and what it means.

The groups and keys that PySlowFast has too keep its names, defaults and meanings. Sizes are in
pixels, learning rates per step, and a clip is one view of a video. ``videonet config --help KEY``
and docs/config.md show these texts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from videonet.config.data_keys import AUG, DATA, MIXUP
from videonet.config.dense_keys import DETECTOR, NECK, SEGMENTER
from videonet.config.key import Group, Key, dotted, walk_groups
from videonet.config.model_keys import MODEL, MVIT

TRAIN = Group(
    "Training.",
    {
        "ENABLE": Key(True, "Train the model."),
        "DATASET": Key(
            "kinetics",
            "Kind of the training data: kinetics (lists), ssv2 (Something-Something's JSON files, "
            "or lists), folder (one folder per class, of videos or of images), multilabel "
            "(lists with several labels per line), or for dense tasks coco, youtube_vis, masks or "
            "label_maps.",
        ),
        "BATCH_SIZE": Key(64, "Videos per step, over all processes together."),
        "EVAL_PERIOD": Key(
            10, "Epochs between two validations, the last epoch always included; 0: none."
        ),
        "CHECKPOINT_PERIOD": Key(
            10, "Epochs between two checkpoints; the last epoch always leaves one."
        ),
        "CHECKPOINT_STEPS": Key(
            0,
            "Steps between two checkpoints within an epoch; 0: none within an epoch.",
            own=True,
        ),
        "KEEP_CHECKPOINTS": Key(
            3, "Number of checkpoints to keep, the newest ones; 0: all.", own=True
        ),
        "AUTO_RESUME": Key(True, "Continue from the newest checkpoint in OUTPUT_DIR, if any."),
        "CHECKPOINT_FILE_PATH": Key(
            "",
            "Checkpoint whose weights training starts from (a file, the folder of a run, a URL, "
            "hf-hub:OWNER/NAME, or a name that videonet weights lists); empty: random weights.",
        ),
        "INFLATION": Key(
            "centre",
            "How kernels of an image model become those of clips: centre (in the middle, zeros "
            "around it, so that a still clip gives what its image gives) or average (the same in "
            "each frame, as in I3D).",
            own=True,
        ),
        "NEW_HEAD": Key(
            False, "Leave that checkpoint's classifier out even where its shape fits.", own=True
        ),
        "CLASS_TABLE": Key(
            "",
            "CSV file of lines from,to: which class of the data each class of that checkpoint "
            "becomes, where their names differ. Rows of the classifier whose classes have the same "
            "name are kept in any case.",
            own=True,
        ),
        "PARALLEL": Key(
            "ddp",
            "With several processes, each holds the whole model (ddp) or a share of it (fsdp).",
            own=True,
        ),
        "MIXED_PRECISION": Key(
            False, "Compute in half precision where the device gains by it (see HALF_PRECISION)."
        ),
        "HALF_PRECISION": Key(
            "auto",
            "Which half precision: bf16, fp16 (with a loss scaler), or auto (what the GPU offers).",
            own=True,
        ),
        "COMPILE": Key(
            False,
            "Compile the forward and backward pass of training with torch.compile; the first step "
            "takes minutes.",
            own=True,
        ),
        "GRAD_ACCUM_STEPS": Key(
            1,
            "Forward and backward passes that the BATCH_SIZE videos of a step are divided into, "
            "which saves memory.",
            own=True,
        ),
    },
)

TEST = Group(
    "Testing, and the views of a video in prediction.",
    {
        "ENABLE": Key(True, "Test with several views per video."),
        "DATASET": Key("kinetics", "Kind of the test data, as TRAIN.DATASET."),
        "BATCH_SIZE": Key(8, "Clips per forward pass."),
        "CHECKPOINT_FILE_PATH": Key(
            "", "Checkpoint to test, as TRAIN.CHECKPOINT_FILE_PATH; empty: the one of the training."
        ),
        "NUM_ENSEMBLE_VIEWS": Key(10, "Clips per video, spread evenly over it."),
        "NUM_SPATIAL_CROPS": Key(
            3, "Crops per clip: 1 (centre) or 3 (left, centre, right or top, centre, bottom)."
        ),
        "CROP_RATIO": Key(
            1.0,
            "The crop's share of the short side, in validation too (0.875 is usual for images).",
            own=True,
        ),
        "INTERPOLATION": Key(
            "bilinear",
            "How frames are resized, in validation too: bilinear (by the decoder) or bicubic.",
            own=True,
        ),
        "ENSEMBLE": Key(
            "softmax",
            "How the scores of views are joined: mean of the softmax scores (softmax), mean of "
            "the logits (logits), or the largest score (max).",
            own=True,
        ),
        "EVERY_FRAME": Key(
            False,
            "Validation and test see videos of objects in pieces of DATA.NUM_FRAMES frames, which "
            "cover every frame.",
            own=True,
        ),
        "EMA": Key(
            True,
            "Test and predict with the averaged weights of a run with SOLVER.EMA_DECAY.",
            own=True,
        ),
        "CUDA_GRAPHS": Key(
            True,
            "On a GPU, record what the model does with clips whose shape repeats, and replay it as "
            "a whole, in testing and prediction.",
            own=True,
        ),
        "MAX_BAD_SHARE": Key(
            0.1,
            "A test has no result when more than this share of the videos, 0 to 1, cannot be read.",
            own=True,
        ),
    },
)

BOUNDARY = Group(
    "Patches along the boundaries of masks, for MODEL.TASK boundary_refinement.",
    {
        "PATCH_SIZE": Key(64, "Side of a patch in pixels, an even number.", own=True),
        "PADDING": Key(0, "Pixels around a patch that the network sees too.", own=True),
        "OVERLAP": Key(
            0.25,
            "Of two patches with a larger intersection over union one is left, when masks are "
            "refined.",
            own=True,
        ),
        "TRAIN_OVERLAP": Key(0.25, "The same for the patches of training.", own=True),
        "EDGES": Key(
            "covered",
            "Patches at the end of an image reach its last row and column (covered) or, as in the "
            "official code, end one pixel before (official).",
            own=True,
        ),
        "TRAIN_PREDICTIONS": Key(
            "",
            "JSON of detections in the training images, whose masks are the coarse ones; empty: "
            "the true masks made coarse.",
            own=True,
        ),
        "VAL_PREDICTIONS": Key("", "The same for validation and test.", own=True),
        "MIN_IOU": Key(
            0.5,
            "Detections that overlap no true mask of their class more than that are left out; -1: "
            "none is.",
            own=True,
        ),
        "COARSE_CELLS": Key(
            [7, 14],
            "Cells along each side of its box that a true mask is made coarse by: the lowest and "
            "the highest number.",
            own=True,
        ),
    },
)

SOLVER = Group(
    "The optimiser and its schedule.",
    {
        "BASE_LR": Key(0.1, "Learning rate after the warm-up."),
        "BASE_LR_CLIPS": Key(
            0,
            "Clips per step that the learning rates hold for: with another number they are scaled "
            "in proportion; 0: no scaling.",
            own=True,
        ),
        "BASE_LR_SCALE_NUM_SHARDS": Key(
            False, "Multiply the learning rates by --num_shards; not used with BASE_LR_CLIPS."
        ),
        "SCHEDULE": Key(
            "cosine",
            "Learning rate after the warm-up: cosine, steps (multiplied by STEP_FACTOR at each of "
            "STEP_EPOCHS) or poly (a power of the share of the training that is left).",
            own=True,
        ),
        "STEP_EPOCHS": Key([], "Epochs at which SCHEDULE steps lowers the rate.", own=True),
        "STEP_FACTOR": Key(0.1, "Factor on the rate at each of them.", own=True),
        "POLY_POWER": Key(
            1.0, "Power of SCHEDULE poly; 1: a line down to COSINE_END_LR.", own=True
        ),
        "COSINE_END_LR": Key(0.0, "Learning rate at the end of the cosine or poly schedule."),
        "COSINE_AFTER_WARMUP": Key(
            False, "Begin the cosine at its peak after the warm-up, instead of at epoch 0."
        ),
        "MAX_EPOCH": Key(300, "Length of the training, in epochs."),
        "WARMUP_EPOCHS": Key(0.0, "Length of the linear warm-up, in epochs."),
        "WARMUP_START_LR": Key(0.01, "Learning rate at the start of the warm-up."),
        "OPTIMIZING_METHOD": Key("sgd", "Optimiser: sgd, adam or adamw."),
        "MOMENTUM": Key(0.9, "Momentum of SGD."),
        "DAMPENING": Key(0.0, "Dampening of SGD's momentum."),
        "NESTEROV": Key(True, "Nesterov momentum for SGD."),
        "BETAS": Key((0.9, 0.999), "Betas of Adam and AdamW."),
        "WEIGHT_DECAY": Key(1e-4, "Weight decay."),
        "ZERO_WD_1D_PARAM": Key(
            False, "No weight decay on parameters with one dimension: biases and norms."
        ),
        "CLIP_GRAD_L2NORM": Key(
            None, "Clip the L2 norm of the gradient to this; None: no clipping.", optional=float
        ),
        "CLIP_GRAD_VAL": Key(
            None,
            "Clip each entry of the gradient to plus or minus this; None: no clipping.",
            optional=float,
        ),
        "LAYER_DECAY": Key(
            1.0, "Factor on the learning rate from each layer to the one below; 1: none."
        ),
        "LAYER_GROUPS": Key(
            "blocks",
            "What a layer is: blocks, or a grouping of the family's published recipes (HorNet's "
            "layers and stages).",
            own=True,
        ),
        "EMA_DECAY": Key(
            0.0,
            "Decay per step of a moving average of the weights, such as 0.9999; 0: no average.",
            own=True,
        ),
    },
)

BN = Group(
    "Batch norms.",
    {
        "SYNC": Key(
            True,
            "In training, batch norms see the clips of all processes instead of their own's.",
            own=True,
        ),
        "USE_PRECISE_STATS": Key(
            False,
            "Before a validation or checkpoint, estimate the statistics of batch norms again from "
            "training clips, with the weights as they are.",
        ),
        "NUM_BATCHES_PRECISE": Key(
            200, "Steps whose clips that estimate uses; at most those of an epoch."
        ),
        "WEIGHT_DECAY": Key(0.0, "Weight decay of the parameters of batch norms."),
    },
)

DATA_LOADER = Group(
    "The processes that read and decode videos.",
    {
        "NUM_WORKERS": Key(
            8, "Loader processes per training process; 0: decode in the training process."
        ),
        "VIDEO_TIMEOUT": Key(
            120.0,
            "Seconds that a loader process may take for one video, before it is stopped and the "
            "video counts as unreadable; 0: no limit.",
            own=True,
        ),
        "PIN_MEMORY": Key(True, "Put batches into pinned memory where there is a GPU."),
    },
)

TENSORBOARD = Group(
    "TensorBoard.",
    {
        "ENABLE": Key(False, "Write TensorBoard files."),
        "LOG_DIR": Key("", "Folder of the TensorBoard files; empty: tensorboard in OUTPUT_DIR."),
    },
)

VIDEO_HEAD = Group(
    "The attention head over frozen features that videonet head trains.",
    {
        "LEVELS": Key(
            1, "1: pool the clips of a video; 2: pool the frames of each clip before.", own=True
        ),
        "SCORE": Key(
            "additive",
            "Score of a clip or frame: additive, or dot (scaled dot product).",
            own=True,
        ),
        "HIDDEN": Key(128, "Width that the scores are computed in.", own=True),
        "DROPOUT": Key(0.0, "Dropout before the head's classifier.", own=True),
    },
)

PROBE = Group(
    "Classifiers on frozen features (videonet probe). SOLVER.MAX_EPOCH, WARMUP_EPOCHS and "
    "TRAIN.BATCH_SIZE say how long the attentive one is trained; the rates end at zero.",
    {
        "METHODS": Key(
            ["attentive", "statistics", "linear", "knn"],
            "Which classifiers: attentive (queries over all tokens), statistics (linear, of means "
            "and changes over time of all tokens), linear (of what the model's own head reads), "
            "knn (nearest neighbours by the same).",
            own=True,
        ),
        "FEATURES": Key(
            "",
            "Folder that the features are kept in; empty: features in OUTPUT_DIR. Features that "
            "are there are used again where model, weights, videos and clips are the same.",
            own=True,
        ),
        "AUGMENTED": Key(
            0,
            "Passes over the training videos with random, augmented clips whose features are kept "
            "beside those of the views of testing.",
            own=True,
        ),
        "FOLDS": Key(
            3,
            "Parts that the training videos are divided into; each is held out once to choose the "
            "settings.",
            own=True,
        ),
        "GROUPS": Key(
            "",
            "CSV file with a header that says which training videos belong together and are held "
            "out together: a column id, video, path, file or video_id, and GROUP_COLUMN. Empty: "
            "none do.",
            own=True,
        ),
        "GROUP_COLUMN": Key("group", "The column of GROUPS that names the group.", own=True),
        "RATES": Key(
            [1e-4, 3e-4, 1e-3, 3e-3],
            "Learning rates of the attentive classifier, each trained with each of DECAYS at once.",
            own=True,
        ),
        "DECAYS": Key([0.01, 0.1, 0.4], "Its weight decays.", own=True),
        "DROPOUT": Key(0.0, "Dropout before its last layer.", own=True),
        "L2": Key(
            [1e-4, 1e-3, 1e-2, 1e-1, 1.0],
            "Factors on half the squared norm of the weights of the linear classifiers.",
            own=True,
        ),
        "REGIONS": Key(
            [1, 2],
            "Regions along each side of a frame that the statistics classifier tells apart.",
            own=True,
        ),
        "NEIGHBOURS": Key([1, 5, 20], "Numbers of the nearest neighbours that vote.", own=True),
    },
)

WANDB = Group(
    "Weights & Biases.",
    {
        "ENABLE": Key(
            False, "Record the run with Weights & Biases too (pip install wandb).", own=True
        ),
        "PROJECT": Key("videonet", "Its project.", own=True),
    },
)

ROOT = Group(
    "Keys without a group.",
    {
        "DATA": DATA,
        "AUG": AUG,
        "MIXUP": MIXUP,
        "MODEL": MODEL,
        "MVIT": MVIT,
        "TRAIN": TRAIN,
        "TEST": TEST,
        "SOLVER": SOLVER,
        "BN": BN,
        "BOUNDARY": BOUNDARY,
        "NECK": NECK,
        "DETECTOR": DETECTOR,
        "SEGMENTER": SEGMENTER,
        "DATA_LOADER": DATA_LOADER,
        "TENSORBOARD": TENSORBOARD,
        "VIDEO_HEAD": VIDEO_HEAD,
        "PROBE": PROBE,
        "WANDB": WANDB,
        "DEVICE": Key(
            "auto", "Device: auto (a GPU where there is one), cpu, mps, cuda or cuda:N.", own=True
        ),
        "NUM_GPUS": Key(
            1,
            "0 runs on the CPU. With --num_shards, the number of processes on each machine; "
            "otherwise torchrun decides how many processes there are.",
        ),
        "OUTPUT_DIR": Key(".", "Folder that everything of a run is written to."),
        "RNG_SEED": Key(1, "Seed of all random numbers."),
        "LOG_PERIOD": Key(10, "Steps between two log lines."),
        "LOG_MODEL_INFO": Key(True, "Log the model's name and number of parameters at the start."),
        "DIST_BACKEND": Key(
            "nccl",
            "Backend of torch.distributed on GPUs: nccl or gloo; the CPU always uses gloo.",
        ),
    },
)

# By dotted name; the name of ROOT itself is empty.
GROUPS: dict[str, Group] = dict(walk_groups(ROOT))
KEYS: dict[str, Key] = {
    dotted(name, last): member
    for name, group in GROUPS.items()
    for last, member in group.members.items()
    if isinstance(member, Key)
}
# Keys whose values are themselves given by name.
MAPPINGS = tuple(name for name, key in KEYS.items() if key.kind is dict)


def nearest_key(key: str, known: Iterable[str] = tuple(KEYS)) -> str:
    """A sentence for an unknown key that names the key most like it.

    Args:
        key: dotted name that is not known.
        known: the names to choose from.
    """
    names = list(known)
    same_ending = [name for name in names if name.split(".")[-1] == key.split(".")[-1]]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.75) or same_ending
    near = near or difflib.get_close_matches(key, names, n=1)
    return f"did you mean {near[0]}?" if near else "no key of videonet has a similar name"
