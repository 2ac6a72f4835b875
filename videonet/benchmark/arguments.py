"""The arguments of the benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path

from videonet.choices import BENCHMARK_PEERS


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``videonet benchmark model``."""
    parser.add_argument(
        "candidates",
        nargs="+",
        metavar="[LIBRARY:]MODEL[@DTYPE][+compile]",
        help="library is videonet (default), reference (videonet, attention written out), "
        "torchvision, pytorchvideo, timm, transformers or hiera; dtype fp32 (default), bf16 or "
        "fp16; ratios are to the first one",
    )
    parser.add_argument("--mode", choices=("inference", "training", "both"), default="both")
    parser.add_argument("--batch", type=int, default=1, help="in inference (default 1)")
    parser.add_argument("--train-batch", type=int, default=2, help="in training (default 2)")
    _add_task(parser)
    parser.add_argument("--output", type=Path, help="write PREFIX.json and PREFIX.png")


def add_scaling(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``videonet benchmark scaling``."""
    parser.add_argument("candidates", nargs="+", metavar="[LIBRARY:]MODEL[@DTYPE][+compile]")
    parser.add_argument("--training", action="store_true", help="a training step, not inference")
    parser.add_argument("--all-frames", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--all-sizes", type=int, nargs="+", default=[224, 288, 352, 448])
    _add_task(parser)
    parser.set_defaults(rounds=3)
    parser.add_argument("--output", type=Path, help="write PREFIX.json and PREFIX.png")


def add_detectors(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``videonet benchmark detectors``."""
    parser.add_argument(
        "candidates",
        nargs="+",
        metavar="RECIPE",
        help="a recipe of an instance segmentation, or torchvision:maskrcnn_resnet50_fpn and the "
        "like; ratios are to the first one",
    )
    parser.add_argument("--batch", type=int, default=1, help="in inference (default 1)")
    parser.add_argument("--train-batch", type=int, default=1, help="in training (default 1)")
    _add_task(parser)
    parser.set_defaults(frames=1, size=512, rounds=3)


def add_gpu(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``videonet benchmark gpu``."""
    parser.add_argument(
        "--groups",
        nargs="+",
        metavar="A,B",
        help="candidates that take turns, ratios are to the first (default: every family beside "
        "a peer)",
    )
    parser.add_argument("--batch", type=int, default=16, help="in inference (default 16)")
    parser.add_argument("--train-batch", type=int, default=8, help="in training (default 8)")
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16")
    parser.add_argument(
        "--minutes", type=float, default=4.5, help="no group begins later (default 4.5)"
    )
    _add_task(parser)
    parser.set_defaults(device="cuda", rounds=3, seconds=0.4)
    parser.add_argument("--output", type=Path, help="write PREFIX.md and PREFIX.json")


def add_data(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``videonet benchmark data``."""
    parser.add_argument("--cfg", default="K400/MVITv2_B.yaml", help="recipe (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of each candidate (default %(default)s)"
    )
    parser.add_argument(
        "--peer", action="append", choices=BENCHMARK_PEERS, help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--needed", type=float, help="clips/s that the model takes; the verdict is about that rate"
    )
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")


def _add_task(parser: argparse.ArgumentParser) -> None:
    """Arguments that all comparisons of models share."""
    parser.add_argument("--frames", type=int, default=16, help="default 16; 1 for images")
    parser.add_argument("--size", type=int, default=224, help="pixels (default 224)")
    parser.set_defaults(takes_overrides=False)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: as torch chooses)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn (default 2)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: time spent by the process, for machines that are busy; with --threads 1",
    )
