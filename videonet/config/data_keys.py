"""The keys of the videos, of the clips that are taken from them, and of their augmentation."""

from __future__ import annotations

from videonet.config.key import Group, Key

DATA = Group(
    "The videos, and the clips that are taken from them.",
    {
        "PATH_TO_DATA_DIR": Key("", "Folder of the list files (train.csv, val.csv, test.csv)."),
        "PATH_PREFIX": Key(
            "",
            "Folder that relative paths of videos start from; empty: the folder of the list file.",
        ),
        "PATH_LABEL_SEPARATOR": Key(" ", "Text between path and label on a line of a list."),
        "TRAIN_LIST": Key(
            "train.csv",
            "List file of the training videos, below PATH_TO_DATA_DIR. TRAIN.DATASET ssv2 reads "
            "train.json where this file does not exist; folder takes it for the folder of the "
            "classes, or train where it does not exist.",
            own=True,
        ),
        "VAL_LIST": Key(
            "val.csv",
            "The same for the validation videos (ssv2: validation.json; folder: val).",
            own=True,
        ),
        "TEST_LIST": Key(
            "",
            "The same for the test videos; empty: test.csv (folder: test) where it exists, else "
            "the validation videos.",
            own=True,
        ),
        "CLASS_NAMES": Key(
            "", "Text file with one class name per line, in the order of the labels.", own=True
        ),
        "IMAGE_FOLDER": Key(
            "",
            "Folder of the pictures of masks and label_maps, below PATH_TO_DATA_DIR; empty: the "
            "first of a few usual names.",
            own=True,
        ),
        "MASK_FOLDER": Key("", "The same for their masks or label maps.", own=True),
        "REDUCE_ZERO_LABEL": Key(
            False,
            "Label maps count the classes from 1, and 0 does not count (ADE20K).",
            own=True,
        ),
        "IGNORED_LABEL": Key(
            255, "Value of pixels of label maps that do not count; -1 for none.", own=True
        ),
        "MAX_BAD_SHARE": Key(
            0.05,
            "Training stops when more than this share of the videos, 0 to 1, cannot be read.",
            own=True,
        ),
        "SAMPLING": Key(
            "auto",
            "How a clip is taken from a video: dense (NUM_FRAMES frames, SAMPLING_RATE apart), "
            "segments (one frame from each of NUM_FRAMES equal parts of the video), or auto "
            "(segments for ssv2, otherwise dense).",
            own=True,
        ),
        "SHORT_VIDEO": Key(
            "repeat_last",
            "How a video that is shorter than its clip is continued: repeat_last (its last frame) "
            "or loop (from its start).",
            own=True,
        ),
        "FRAME_STORE": Key(
            "",
            "Folder for the decoded frames of short training videos, at the size that clips are "
            "cropped from: later epochs read them from there. Empty: every clip is decoded.",
            own=True,
        ),
        "FRAME_STORE_GB": Key(
            8.0,
            "Gigabytes that FRAME_STORE may take; videos for which there is no room are decoded.",
            own=True,
        ),
        "NUM_FRAMES": Key(8, "Frames per clip; 1 for images."),
        "SAMPLING_RATE": Key(
            8, "Distance between two frames of a dense clip, in frames at TARGET_FPS."
        ),
        "TARGET_FPS": Key(
            30.0,
            "Frame rate, in frames per second, that SAMPLING_RATE counts in; 0: the video's own.",
        ),
        "FRAMES_FPS": Key(
            30.0,
            "Frame rate, in frames per second, of videos that are folders of pictures.",
            own=True,
        ),
        "MEAN": Key([0.45, 0.45, 0.45], "Mean of the pixels (R, G, B), with pixels from 0 to 1."),
        "STD": Key(
            [0.225, 0.225, 0.225],
            "Standard deviation of the pixels (R, G, B), with pixels from 0 to 1.",
        ),
        "TRAIN_JITTER_SCALES": Key(
            [256, 320],
            "The short side of a training clip is resized to a random length in this range, in "
            "pixels, before it is cropped.",
        ),
        "TRAIN_JITTER_SCALES_RELATIVE": Key(
            [],
            "Range of the random crop's share of the frame's area; where given, "
            "TRAIN_JITTER_SCALES is not used.",
        ),
        "TRAIN_JITTER_ASPECT_RELATIVE": Key(
            [],
            "Range of that crop's width over its height; empty: 3/4 to 4/3.",
        ),
        "TRAIN_CROP_SIZE": Key(
            224, "Side of the square crop of training and validation, in pixels."
        ),
        "TEST_CROP_SIZE": Key(256, "Side of the square crop of testing, in pixels."),
        "INV_UNIFORM_SAMPLE": Key(
            False,
            "Draw the length of TRAIN_JITTER_SCALES uniformly in 1/length instead of in length.",
        ),
        "CROP": Key(
            "square",
            "What clips show of their frames: square (a crop of TRAIN_CROP_SIZE, for "
            "classification), or for boxes and masks: short_side (whole pictures, SHORT_SIDES), "
            "large_scale_jitter (scaled by SCALES to fit TRAIN_CROP_SIZE, then cropped to it), "
            "scale_and_crop (scaled by SCALES to fit SCALE_BASE, then a crop of TRAIN_CROP_SIZE), "
            "patches (those of boundary_patches, resized to TRAIN_CROP_SIZE).",
            own=True,
        ),
        "SHORT_SIDES": Key(
            [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
            "Short sides of training pictures with CROP short_side; one is drawn.",
            own=True,
        ),
        "TEST_SHORT_SIDE": Key(
            800, "Short side in validation and test, unless CROP is square.", own=True
        ),
        "LONGEST_SIDE": Key(
            1333,
            "The long side at most, for which the short one gives way, unless CROP is square.",
            own=True,
        ),
        "FIRST_SIDES": Key(
            [],
            "With CROP short_side, half of the pictures are first resized to one of these short "
            "sides and cropped (DETR and MViT: 400, 500, 600); empty: none.",
            own=True,
        ),
        "FIRST_CROP": Key([384, 600], "Range of the sides of that crop.", own=True),
        "SCALES": Key(
            [0.1, 2.0],
            "Range of the scales of CROP large_scale_jitter (0.1 to 2.0) and scale_and_crop (0.5 "
            "to 2.0).",
            own=True,
        ),
        "SCALE_BASE": Key(
            [2048, 512],
            "Long and short side that a picture fits at scale 1 of CROP scale_and_crop.",
            own=True,
        ),
        "SIZE_MULTIPLE": Key(
            32,
            "Batches of pictures of several sizes are padded to the largest one, and on to a "
            "multiple of this.",
            own=True,
        ),
        "RANDOM_FLIP": Key(
            True,
            "Flip training clips left to right with probability 0.5; never done for ssv2, whose "
            "classes tell left from right.",
        ),
        "DECODING_BACKEND": Key(
            "auto",
            "Video decoder: pyav, decord, torchcodec, cuda (torchcodec on an NVIDIA GPU, from "
            "every loader process), or auto (pyav).",
        ),
    },
)

AUG = Group(
    "Augmentation of training clips.",
    {
        "ENABLE": Key(
            False, "Use RandAugment (or colour jitter) and random erasing on training clips."
        ),
        "NUM_SAMPLE": Key(1, "Clips drawn from each training video (repeated augmentation)."),
        "COLOR_JITTER": Key(
            0.4, "Strength of the colour jitter, which is used only where AA_TYPE is empty."
        ),
        "AA_TYPE": Key(
            "rand-m9-mstd0.5-inc1",
            "RandAugment policy in timm's notation (m: magnitude, n: layers, mstd: noise of the "
            "magnitude); empty: none.",
        ),
        "INTERPOLATION": Key(
            "bicubic",
            "Interpolation of the random resized crop: bicubic, bilinear, or random (read as "
            "bilinear).",
        ),
        "RE_PROB": Key(0.25, "Probability that boxes of a clip are erased (random erasing)."),
        "RE_MODE": Key(
            "pixel", "What fills an erased box: pixel (noise), rand (one random colour), const (0)."
        ),
        "RE_COUNT": Key(1, "Largest number of boxes erased per clip."),
        "EXPOSURE": Key(
            0.0,
            "Strength, 0 to 1, of light that changes within a clip: an automatic exposure that "
            "settles, a drift, a flicker; at 1 up to four times the light, or a fourth.",
            own=True,
        ),
        "SHAKE": Key(
            0.0,
            "Strength, 0 to 1, of a camera that moves within a clip; at 1 a frame is up to a tenth "
            "of its side off its place.",
            own=True,
        ),
        "TRIM": Key(
            0.0,
            "Largest share of a video, 0 to 1, that training clips of DATA.SAMPLING segments leave "
            "out at its two ends together.",
            own=True,
        ),
        "HOLD": Key(
            0.0,
            "Largest share of a training clip of DATA.SAMPLING segments, 0 to 1, in which the "
            "first or the last frame stands still.",
            own=True,
        ),
        "PACE": Key(
            0.0,
            "Strength, 0 to 1, of uneven speed in training clips of DATA.SAMPLING segments; at 1 "
            "it doubles or halves towards one end.",
            own=True,
        ),
    },
)

MIXUP = Group(
    "Mixing the clips and targets of a batch.",
    {
        "ENABLE": Key(False, "Mix the clips of a batch (mixup and CutMix); targets become soft."),
        "ALPHA": Key(0.8, "Parameter of mixup's Beta distribution; 0: no mixup."),
        "CUTMIX_ALPHA": Key(1.0, "Parameter of CutMix's Beta distribution; 0: no CutMix."),
        "PROB": Key(1.0, "Probability that a batch is mixed."),
        "SWITCH_PROB": Key(
            0.5, "Probability that a mixed batch gets CutMix instead of mixup, where both are on."
        ),
        "LABEL_SMOOTH_VALUE": Key(0.1, "Label smoothing of the soft targets, 0 to 1."),
    },
)
