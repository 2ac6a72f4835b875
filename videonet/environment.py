"""What of videonet works on this machine: ``videonet doctor``.

Prints versions, devices and decoders, for each thing that will not work the reason, and for each
that is optional and not there what it would bring. The exit
code is 1 where a model cannot be run or no video can be read.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videonet.commands.arguments import Words, new_parser

NEEDED = ("torch", "torchvision", "av", "fvcore", "iopath", "pytorchvideo", "torchmetrics",
          "safetensors", "tensorboard")  # fmt: skip
OPTIONAL = {
    "decord": "the decord decoder",
    "torchcodec": "the torchcodec decoder",
    "wandb": "WANDB.ENABLE",
}
SHARED_MEMORY = 1.0  # GiB; loader processes hand batches over in it


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        value: what was found.
        problem: what does not work, and why, or what is not there.
        fatal: nothing works without it.
    """

    subject: str
    value: str
    problem: str = ""
    fatal: bool = False


def examine() -> Iterator[Finding]:
    """Everything that the report says, in its order."""
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    yield from _versions()
    yield from _devices()
    yield from _processes()
    yield from _decoders()
    yield from _compiler()
    yield from _model()


def _versions() -> Iterator[Finding]:
    yield Finding("videonet", importlib.import_module("videonet").__version__)
    for name in NEEDED:
        yield _import(name, f"{name} is needed everywhere", fatal=True)
    for name, purpose in OPTIONAL.items():
        yield _import(name, f"without it {purpose} cannot be used", fatal=False)


def _import(name: str, consequence: str, *, fatal: bool) -> Finding:
    try:
        importlib.import_module(name)
        return Finding(name, importlib.metadata.version(name))
    except Exception as error:  # a broken wheel fails in any way, as with missing libraries
        reason = str(error).partition("\n")[0] or type(error).__name__
        return Finding(name, "not usable", f"{reason}; {consequence}", fatal)


def _devices() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", f"{cores} cores for this process, torch uses {torch.get_num_threads()}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            half = "bf16" if torch.cuda.is_bf16_supported() else "fp16 (no bf16)"
            memory = found.total_memory / 2**30
            yield Finding(f"cuda:{index}", f"{found.name}, {memory:.0f} GiB, {half}")
    elif torch.version.cuda is None:
        yield Finding("cuda", "none", f"torch {torch.__version__} is built without CUDA")
    else:
        yield Finding(
            "cuda",
            "none",
            f"torch is built for CUDA {torch.version.cuda} but finds no GPU or driver",
        )
    if torch.backends.mps.is_available():
        yield Finding("mps", "there")


def _processes() -> Iterator[Finding]:
    import torch.distributed as dist

    if not dist.is_available():
        yield Finding("torchrun", "none", "torch is built without torch.distributed")
        return
    backends = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    there = [name for name, available in backends.items() if available]
    missing = "" if backends["gloo"] else "several processes on a CPU need gloo"
    yield Finding("torchrun", ", ".join(there) or "no backend", missing)
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total / 2**30
        problem = "loader processes may run out of it (docker: --shm-size=8g)"
        yield Finding("/dev/shm", f"{size:.1f} GiB", problem if size < SHARED_MEMORY else "")


def _decoders() -> Iterator[Finding]:
    """Each decoder reads a video that was written here."""
    from videonet.data.decode import open_video
    from videonet.data.preparing.synthetic import write_demo_dataset

    working = 0
    with tempfile.TemporaryDirectory() as folder:
        write_demo_dataset(folder, train_clips=8, val_clips=8, size=32, num_frames=4, processes=1)
        video = next(Path(folder).rglob("*.mp4"))
        for backend in ("pyav", "decord", "torchcodec"):
            try:
                with open_video(video, backend) as reader:
                    frames = reader.frames_at([0, 3])
                working += 1
                yield Finding(f"decoder {backend}", f"reads H.264, {tuple(frames.shape)}")
            except Exception as error:  # whatever stops it is the finding
                reason = str(error).partition("\n")[0] or type(error).__name__
                yield Finding(f"decoder {backend}", "does not work", reason)
    if not working:
        yield Finding("decoders", "none works", "no video can be read", fatal=True)


def _compiler() -> Iterator[Finding]:
    found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    yield Finding(
        "C++ compiler", found or "none", "" if found else "MODEL.COMPILE needs one on the CPU"
    )


def _model() -> Iterator[Finding]:
    try:
        import torch

        import videonet

        model = videonet.create_model("mvit_v2_xs", num_classes=2, num_frames=2, crop_size=32)
        shape = tuple(model.eval()(torch.zeros(1, 3, 2, 32, 32)).shape)
        yield Finding("model", f"a clip goes in, logits {shape} come out")
    except Exception as error:  # whatever stops it is the finding
        yield Finding("model", "does not run", f"{type(error).__name__}: {error}", fatal=True)


def main(argv: Words = None, prog: str | None = None) -> int:
    """Print the report; 1 where a model cannot be run or no video can be read."""
    new_parser(__doc__, prog).parse_args(argv)
    fatal = False
    for finding in examine():
        line = f"{finding.subject:18} {finding.value}"
        if finding.problem:
            kind = "will not work" if finding.fatal else "optional"
            line += f"\n{'':18} {kind}: {finding.problem}"
        fatal |= finding.fatal
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return int(fatal)


if __name__ == "__main__":
    sys.exit(main())
