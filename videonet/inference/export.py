"""Export of models by torch.export, to ONNX and by AOTInductor, with a check of what was written.

An exported model maps normalised clips float32 (B, 3, T, S, S) to outputs (B, K), for any B. The
file also says how to make the clips (mean, deviation, frames) and what the outputs are called.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError, VideonetError
from videonet.files import replacing
from videonet.inference.predictor import Predictor
from videonet.ops.kernels import private

if TYPE_CHECKING:
    from google.protobuf.message import Message

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of the logits' largest value
BATCHES = (1, 3)  # sizes that the export is compared at; it is traced with another one, 2
METADATA = "videonet.json"  # the description in a .pt2 file; an ONNX file calls it "videonet"

Runner = Callable[[Tensor], Tensor]


class ExportError(VideonetError):
    """A model cannot be exported, or an exported file cannot be used."""


def describe_model(predictor: Predictor) -> dict:
    """How to make the clips that an exported model takes, and the names of its outputs."""
    data = predictor.cfg.DATA
    return {
        "input": list(clip_shape(predictor)),
        "mean": list(data.MEAN),
        "std": list(data.STD),
        "sampling_rate": data.SAMPLING_RATE,
        "target_fps": data.TARGET_FPS,
        "classes": predictor.class_names,
    }


def clip_shape(predictor: Predictor) -> tuple[int, int, int, int]:
    """(3, T, S, S) of the clips of testing."""
    data = predictor.cfg.DATA
    return 3, data.NUM_FRAMES, data.TEST_CROP_SIZE, data.TEST_CROP_SIZE


def export_model(predictor: Predictor, kind: str, path: Path, *, seed: int = 0) -> float:
    """Write a model, and compare what was written with the model on random clips.

    Args:
        predictor: holds the model.
        kind: "pt2" (``torch.export``), "onnx" (needs the extra ``export``) or "aoti" (needs a C++
            compiler; for this kind of machine only).
        path: the file to write.
        seed: of the random clips.

    Returns:
        The largest difference between two outputs, divided by the largest output.

    Raises:
        ConfigError: unknown kind, or what it needs is not installed.
        ExportError: the model cannot be exported, or the export computes something else.
        WriteError: the file cannot be written.
    """
    if kind not in WRITERS:
        raise ConfigError(f"models are exported as {', '.join(WRITERS)}, not as {kind!r}")
    with replacing(path) as temporary:
        return _write_and_compare(predictor, kind, temporary, path, seed)


def _write_and_compare(
    predictor: Predictor, kind: str, temporary: Path, path: Path, seed: int
) -> float:
    model = predictor.model.float().eval()
    generator = torch.Generator().manual_seed(seed)
    shape = clip_shape(predictor)
    clip = torch.randn(2, *shape, generator=generator).to(predictor.device)
    try:
        run = WRITERS[kind](model, clip, describe_model(predictor), temporary)
    except (VideonetError, OSError):
        raise
    except Exception as error:  # the exporters raise errors of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"cannot export {type(model).__name__} as {kind}: {reason[0]}") from error
    worst = 0.0
    for batch in BATCHES:
        clips = torch.randn(batch, *shape, generator=generator).to(predictor.device)
        found = difference(model, run, clips)
        if not math.isfinite(found):
            raise ExportError(f"{path}: the logits of the model or of the export are not finite")
        worst = max(worst, found)
    if worst > TOLERANCE:
        raise ExportError(
            f"{path} is not written, as it computes something else than the model: logits differ "
            f"by {worst:.2g} of their largest value, {TOLERANCE:.0e} is allowed"
        )
    return worst


@torch.inference_mode()
def difference(model: nn.Module, run: Runner, clips: Tensor) -> float:
    """The largest difference between two models' outputs, divided by the largest output."""
    expected, found = model(clips).cpu(), run(clips).cpu()
    if found.shape != expected.shape:
        raise ExportError(f"the export gives {tuple(found.shape)}, not {tuple(expected.shape)}")
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


def read_pt2(path: str | Path, *, trust_file: bool = False) -> tuple[Runner, dict]:
    """Read a model that ``torch.export`` wrote.

    Args:
        path: a ``.pt2`` file.
        trust_file: reading such a file can run any code that its author put there. Say True only
            of a file from somebody whose programs you would run.

    Returns:
        The model, as a function of clips, and its description.

    Raises:
        ExportError: the file is not trusted, or was not written by :func:`export_model`.
    """
    _require_trust("read_pt2", path, "a program whose reading can run code", trust_file)
    extra = {METADATA: ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module(), _description(extra[METADATA], path)


def read_onnx(path: str | Path) -> tuple[Runner, dict]:
    """Read an ONNX model, which onnxruntime runs on the CPU.

    The file holds operators of a fixed list and no code. Weights in files beside it are read from
    its own folder alone.

    Args:
        path: the file.

    Returns:
        The model, as a function of clips, and its description.

    Raises:
        ExportError: the file takes weights from elsewhere, cannot be run, or was not written by
            :func:`export_model`.
    """
    onnxruntime = _need("onnxruntime")
    _refuse_files_elsewhere(Path(path))
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an error for each way in which a graph is wrong
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{path} is no ONNX model that can be run: {reason[0]}") from error
    about = _description(session.get_modelmeta().custom_metadata_map.get("videonet"), path)

    def run(clips: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"clip": clips.cpu().numpy()})[0])

    return run, about


def read_aoti(path: str | Path, *, trust_file: bool = False) -> tuple[Runner, dict]:
    """Read a model that AOTInductor compiled.

    Args:
        path: the package.
        trust_file: the package is machine code, which runs. Say True only of a file from somebody
            whose programs you would run.

    Returns:
        The model, as a function of clips, and its description.

    Raises:
        ExportError: the file is not trusted, or was not written by :func:`export_model`.
    """
    _require_trust("read_aoti", path, "machine code", trust_file)
    package = _inductor("aoti_load_package")(str(path))
    return package, _description(package.get_metadata().get("videonet"), path)


def _description(text: str | None, path: str | Path) -> dict:
    try:
        about = json.loads(text or "")
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise ExportError(f"{path} was not written by this project: it holds no description")
    return about


def _require_trust(function: str, path: str | Path, what: str, trust_file: bool) -> None:
    if trust_file is not True:
        raise ExportError(
            f"{path} is {what}, so it is not opened; if you trust its author, say "
            f"{function}(path, trust_file=True)"
        )


def _refuse_files_elsewhere(path: Path) -> None:
    """Refuse an ONNX file whose weights lie outside of its folder."""
    onnx = _need("onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors are of many kinds
        raise ExportError(f"{path} is not an ONNX file, or it is damaged") from error
    folder = path.resolve().parent
    for tensor in _messages(model, onnx.TensorProto):
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            there = folder / entry.value
            if Path(entry.value).name != entry.value or there.resolve().parent != folder:
                raise ExportError(
                    f"{path} takes {tensor.name} from {entry.value!r}, which does not lie beside it"
                )


def _messages(message: Message, kind: type) -> Iterator[Message]:
    """The parts of a protobuf message that are of one type, however deep they lie."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in [value] if hasattr(value, "ListFields") else value:
            if isinstance(item, kind):
                yield item
            if hasattr(item, "ListFields"):
                yield from _messages(item, kind)


def _trace(model: nn.Module, clip: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(model, (clip,), dynamic_shapes=({0: batch},))


def _write_pt2(model: nn.Module, clip: Tensor, about: dict, path: Path) -> Runner:
    program = _trace(model, clip)
    content = io.BytesIO()  # torch's own writing of a file ends the process on a full disk
    torch.export.save(program, content, extra_files={METADATA: json.dumps(about)})
    path.write_bytes(content.getbuffer())
    return read_pt2(path, trust_file=True)[0]  # just written


def _write_onnx(model: nn.Module, clip: Tensor, about: dict, path: Path) -> Runner:
    _need("onnx")
    _need("onnxscript")
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            (clip,),
            dynamo=True,
            input_names=["clip"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None  # it is with dynamo=True
    program.model.metadata_props["videonet"] = json.dumps(about)
    program.save(path)
    return read_onnx(path)[0]


def _write_aoti(model: nn.Module, clip: Tensor, about: dict, path: Path) -> Runner:
    if clip.device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError("AOTInductor needs a C++ compiler, and there is none on this machine")
    _inductor("aoti_compile_and_package")(
        _trace(model, clip),
        package_path=str(path),
        inductor_configs={"aot_inductor.metadata": {"videonet": json.dumps(about)}},
    )
    return read_aoti(path, trust_file=True)[0]  # just written


def _inductor(name: str) -> Callable:
    function = private.inductor_function(name)
    if function is None:
        raise ConfigError(f"torch {torch.__version__} has no {name}: export as pt2 or onnx instead")
    return function


def _need(module: str):
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{module} is not installed: pip install 'videonet[export]'")
    return importlib.import_module(module)


WRITERS = {"pt2": _write_pt2, "onnx": _write_onnx, "aoti": _write_aoti}
