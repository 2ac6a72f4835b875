"""Words and numbers that command lines offer and the code behind them works with.

A module of their own, so that ``--help`` need not import what does the work.
"""

from __future__ import annotations

SPLITS = ("train", "val", "test")
LIST_SUFFIXES = (".csv", ".list", ".tsv", ".txt")  # of lists of videos
FRAMES_FPS = 30.0  # of a folder of pictures
FEATURE_FORMATS = ("safetensors", "npy")
EXPORT_SUFFIXES = {"pt2": ".pt2", "onnx": ".onnx", "aoti": ".aoti.pt2"}
CHECKPOINT_NAMES = (  # whose names are written
    *("videonet", "pyslowfast", "torchvision", "timm-vit", "videomae", "transformers-videomae"),
)
BENCHMARK_PEERS = ("decord", "pytorchvideo")
RECIPES = ("scratch", "small", "full", "head", "probe")  # of videonet finetune
GROUPINGS = ("auto", "names", "looks", "none")
