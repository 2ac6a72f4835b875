"""Loading a checkpoint of any dialect, image or video, into a model, with a full account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from videonet.checkpoint.architectures import guess_architecture
from videonet.checkpoint.files import read_checkpoint
from videonet.checkpoint.fit import Fit
from videonet.checkpoint.inflation import fit_model
from videonet.checkpoint.report import (
    DROPPED,
    INFLATED,
    MISSING,
    REINITIALISED,
    UNEXPECTED,
    USED,
    Entry,
    LoadReport,
)
from videonet.checkpoint.translate import (
    Tensors,
    to_own_names,
    unsupported_option,
    with_fused_projections,
    with_separate_projections,
)
from videonet.errors import CheckpointError

HEAD = "head."
# Below this share of fitting tensors a checkpoint is taken for another architecture's.
SMALLEST_FITTING_SHARE = 0.1


def load_checkpoint(
    model: nn.Module,
    source: str | Path | Mapping,
    *,
    strict: bool = True,
    inflation: str = "centre",
    origin: str = "the state dict",
) -> LoadReport:
    """Load weights into a model, in place.

    The names of PySlowFast, the MViTv2 image repository, torchvision, timm and pytorchvideo are
    recognised by content. Weights of an image model, of shorter clips or of another resolution
    are inflated and interpolated. A head for another number of classes is left out: the model
    keeps its own.

    Args:
        model: built by :func:`videonet.create_model`.
        source: path, URL, state dict, or a dictionary that holds a state dict.
        strict: refuse parameters outside the head that the checkpoint lacks or cannot fit, and
            tensors outside the head that the model has no place for.
        inflation: "centre" (the law of still clips holds) or "average" (I3D).
        origin: what messages call a source that is no path.

    Returns:
        What became of every tensor.

    Raises:
        CheckpointError: the file cannot be read, belongs to another architecture, or (strict)
            does not fit. The model is then as it was.
        ConfigError: unknown `inflation`.
    """
    if isinstance(source, Mapping):
        content = source
    else:
        origin, content = str(source), read_checkpoint(source)
    tensors = _shape_projections(to_own_names(content, origin), model)
    if option := unsupported_option(tensors.dialect, model):
        raise CheckpointError(
            f"{origin} comes from {tensors.dialect}, whose weights mean something else in a "
            f"model with {option}=True"
        )
    fits = _keep_own_head(fit_model(model, tensors.state, inflation))
    target = model.state_dict()
    report = LoadReport(
        origin,
        tensors.dialect,
        tuple(_target_entry(name, tensor, fits.get(name)) for name, tensor in target.items()),
        _source_entries(tensors, fits, target),
        tensors.notes + tuple(_notes(model, target, fits, inflation)),
    )
    _refuse_another_architecture(model, tensors, report)
    if strict and report.fatal:
        raise CheckpointError(_misfits(model, report))
    with torch.no_grad():
        for name, fit in fits.items():
            if fit.value is not None:
                target[name].copy_(fit.value)
    return report


def load_trained(
    model: nn.Module, source: str | Path | Mapping, *, origin: str = "the state dict"
) -> LoadReport:
    """Load weights to predict with: the head has to be the checkpoint's own too.

    Args:
        origin: what messages call a source that is no path.

    Raises:
        CheckpointError: as :func:`load_checkpoint`, and where the head does not fit.
    """
    report = load_checkpoint(model, source, origin=origin)
    if report.reinitialised:
        shape = tuple(model.state_dict()[report.reinitialised[0]].shape)
        raise CheckpointError(
            f"{report.origin} was not trained for the classes of this model: its tensor "
            f"{report.reinitialised[0]} does not have the shape {shape}"
        )
    return report


def _shape_projections(tensors: Tensors, model: nn.Module) -> Tensors:
    fused = any(name.endswith(".attn.qkv.weight") for name in model.state_dict())
    return with_fused_projections(tensors) if fused else with_separate_projections(tensors)


def _keep_own_head(fits: dict[str, Fit]) -> dict[str, Fit]:
    """A head is loaded as a whole or not at all."""
    head = [name for name in fits if name.startswith(HEAD)]
    why = next((fits[name].reason for name in head if fits[name].misfit), None)
    if why is None:
        return fits
    reason = f"other classes, the model's own head stays: {why}"
    return fits | {name: Fit(None, REINITIALISED, reason) for name in head}


def _target_entry(name: str, tensor: Tensor, fit: Fit | None) -> Entry:
    in_head = name.startswith(HEAD)
    if fit is not None:
        return Entry(name, fit.status, fit.reason, tensor.numel(), fit.misfit and not in_head)
    if in_head:
        return Entry(name, REINITIALISED, "no such head in the checkpoint", tensor.numel())
    return Entry(name, MISSING, "", tensor.numel(), fatal=True)


def _source_entries(
    tensors: Tensors, fits: Mapping[str, Fit], target: Mapping[str, Tensor]
) -> tuple[Entry, ...]:
    positions_used = any(
        "pos_embed" in name and fit.value is not None for name, fit in fits.items()
    )
    has_class = any(name.endswith("cls_token") for name in target)
    entries = {}
    for name in tensors.state:
        leaf = name.rpartition(".")[2]
        if name in fits:
            used = fits[name].value is not None
            status, reason = (USED, "") if used else (DROPPED, fits[name].reason)
        elif not has_class and leaf in ("cls_token", "pos_embed_class"):
            status, reason = DROPPED, "this model has no class token"
        elif leaf.startswith("pos_embed") and positions_used:
            status, reason = USED, ""  # for a table of another name
        else:
            status, reason = UNEXPECTED, ""
        fatal = status == UNEXPECTED and not name.startswith(HEAD)
        for original in tensors.sources[name]:
            entries[original] = Entry(original, status, reason, tensors.sizes[original], fatal)
    for name in tensors.constants:
        entries[name] = Entry(name, DROPPED, "computed by this model", tensors.sizes[name])
    return tuple(entries.values())


def _notes(
    model: nn.Module, target: Mapping[str, Tensor], fits: Mapping[str, Fit], inflation: str
) -> list[str]:
    """What the inflation promises for a clip that repeats one image."""
    if not any(fit.status == INFLATED for fit in fits.values()):
        return []
    notes = []
    if inflation == "average":
        notes.append("averaged kernels see a still clip's ends darkened: it differs from its image")
    tokens = [name for name in target if name.endswith("cls_token")]
    if any(name in fits and fits[name].value is None for name in tokens):
        notes.append(
            "the class token, which the head reads, is untrained: the checkpoint has none "
            "(cls_token=False builds the model without)"
        )
    elif tokens and not getattr(model, "still_clips_are_exact", False):
        notes.append(
            "a still clip gives the logits of its image only up to the class token's keys "
            "(cls_key_log_frames=True makes it exact)"
        )
    return notes


def _refuse_another_architecture(model: nn.Module, tensors: Tensors, report: LoadReport) -> None:
    body = {name for name in tensors.state if not name.startswith(HEAD)}
    sources = {original for name in body for original in tensors.sources[name]}
    used = len(sources.intersection(report.used))
    if used and used >= SMALLEST_FITTING_SHARE * len(sources):
        return
    here = type(model).__name__
    there = guess_architecture(tensors.state)
    looks = f"looks like {there}" if there else "is of another architecture"
    if there and there.endswith(f" {here}"):
        looks += " of another size"
    raise CheckpointError(
        f"{report.origin} {looks}: {used} of its {len(report.source)} tensors fit this {here}"
    )


def _misfits(model: nn.Module, report: LoadReport) -> str:
    groups = (
        ("missing", [e.name for e in report.target if e.fatal and e.status == MISSING]),
        (
            "of another shape",
            [f"{e.name}: {e.reason}" for e in report.target if e.fatal and e.status != MISSING],
        ),
        ("unexpected", [e.name for e in report.source if e.fatal]),
    )
    parts = [f"{len(names)} {what} ({_first(names)})" for what, names in groups if names]
    return (
        f"{report.origin} does not fit this {type(model).__name__}: {', '.join(parts)}; "
        "strict=False loads the rest"
    )


def _first(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
