"""Loading a checkpoint of any dialect, image or video, into a model, with a full account."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from videonet.checkpoint.architectures import guess_architecture
from videonet.checkpoint.contents import find_state
from videonet.checkpoint.fit import Fit
from videonet.checkpoint.head import HEAD, Classes, fit_head
from videonet.checkpoint.inflation import fit_model
from videonet.checkpoint.last_norm import fit_last_norm, norm_as_in
from videonet.checkpoint.names import has_names
from videonet.checkpoint.output_norms import (
    fit_output_norms,
    note_on_windows,
    why_without_place,
)
from videonet.checkpoint.projections import shaped_projections
from videonet.checkpoint.read import read_checkpoint
from videonet.checkpoint.recognition import OF_A_DETECTOR
from videonet.checkpoint.report import (
    DROPPED,
    INFLATED,
    MISSING,
    PARTIAL,
    REINITIALISED,
    UNEXPECTED,
    USED,
    Entry,
    LoadReport,
)
from videonet.checkpoint.target import Target
from videonet.checkpoint.translate import (
    Tensors,
    has_open_residual,
    to_own_names,
    wrong_option,
)
from videonet.errors import CheckpointError
from videonet.ops.grid import Grid

# Below this share of fitting tensors a checkpoint is taken for another architecture's.
SMALLEST_FITTING_SHARE = 0.1


def load_checkpoint(
    model: nn.Module,
    source: str | Path | Mapping,
    *,
    strict: bool = True,
    inflation: str = "centre",
    antialias: bool | None = None,
    position_grid: Grid | None = None,
    class_names: Sequence[str] | None = None,
    source_classes: Sequence[str] | None = None,
    class_table: Mapping[str, str] | str | Path | None = None,
    new_head: bool = False,
    origin: str = "the state dict",
) -> LoadReport:
    """Load weights into a model, in place.

    Whose names they are (PySlowFast's, the MViTv2 image repository's, torchvision's, timm's, …) is
    recognised by the names and shapes of the tensors, under whatever wrapper they were saved.
    Weights of an image model, of shorter clips or of another resolution are inflated and
    interpolated. Of a head for other classes the rows of classes with the same name are taken, as
    far as both sides have names; the others, or else the whole head, stay the model's own.

    Args:
        model: built by :func:`videonet.create_model`; compiled, in ``DataParallel`` or
            ``DistributedDataParallel``, or sharded by ``fully_shard`` if need be.
        source: path, URL, state dict, or a dictionary that holds a state dict.
        strict: refuse parameters outside the head that the checkpoint lacks or cannot fit, and
            tensors of the model's body that it has no place for.
        inflation: "centre" (the law of still clips holds) or "average" (I3D).
        antialias: whether a ViT's positions are resized with antialiasing where its grid is
            another: True as timm does, False as DINOv2 and transformers do; None for what the
            model does at run time (its argument ``antialias_positions``).
        position_grid: cells (T, H, W) of the checkpoint's joint table of positions, for a model of
            another length and another size, where that cannot be told from its rows.
        class_names: of the model's classes, in the order of its logits. Small and large letters
            are the same, and so are spaces and underscores.
        source_classes: names of the checkpoint's classes, where it does not name them itself.
        class_table: for classes whose names differ: ``{name in the checkpoint: name here}``, or a
            CSV file of lines ``from,to``. Where the checkpoint's classes have no names, their
            numbers from 0. A class here that several of the checkpoint's become gets the mean of
            their rows.
        new_head: leave the model's head as it is.
        origin: what messages call a source that is no path.

    Returns:
        What became of every tensor.

    Raises:
        CheckpointError: the file cannot be read, belongs to another architecture, or (strict)
            does not fit; a weight is not finite; or the model cannot be filled. The model is then
            as it was.
        ConfigError: unknown `inflation`.
        DataError: the table of classes cannot be read.
    """
    report, target, values = _plan(
        model,
        source,
        strict,
        inflation,
        class_names,
        source_classes,
        class_table,
        antialias=antialias,
        position_grid=position_grid,
        new_head=new_head,
        origin=origin,
    )
    target.fill(values)
    return report


def load_trained(
    model: nn.Module,
    source: str | Path | Mapping,
    *,
    class_names: Sequence[str] | None = None,
    origin: str = "the state dict",
) -> LoadReport:
    """Load weights to predict with: the head has to be the checkpoint's own too.

    Args:
        class_names: as for :func:`load_checkpoint`.
        origin: what messages call a source that is no path.

    Raises:
        CheckpointError: as :func:`load_checkpoint`, and where the head does not fit or is for
            other classes.
    """
    report, target, values = _plan(model, source, True, "centre", class_names, origin=origin)
    if report.reinitialised or report.partial:
        entry = next(e for e in report.target if e.status in (REINITIALISED, PARTIAL))
        raise CheckpointError(
            f"{report.origin} was not trained for the classes of this model: {entry.name} has "
            f"{entry.reason}"
        )
    target.fill(values)
    return report


def refuse_larger_model(
    build: Callable[[], nn.Module], source: Mapping, origin: str = "the state dict"
) -> None:
    """Refuse a model that is far larger than the weights that it is meant for, before it is built.

    Args:
        build: makes the model; called where tensors take no memory.
        source: a state dict, or a dictionary that holds one.
        origin: what messages call it.

    Raises:
        CheckpointError: it has more than four times the values, and a million.
    """
    with torch.device("meta"):
        size = sum(tensor.numel() for tensor in build().state_dict().values())
    held = sum(tensor.numel() for tensor in find_state(source, origin).state.values())
    if size > max(4 * held, 1_000_000):
        raise CheckpointError(
            f"{origin} holds {held:,} values, but its configuration describes a model of {size:,}"
        )


def _plan(
    model: nn.Module,
    source: str | Path | Mapping,
    strict: bool,
    inflation: str,
    class_names: Sequence[str] | None,
    source_classes: Sequence[str] | None = None,
    class_table: Mapping[str, str] | str | Path | None = None,
    *,
    antialias: bool | None = None,
    position_grid: Grid | None = None,
    new_head: bool = False,
    origin: str,
) -> tuple[LoadReport, Target, dict[str, Tensor]]:
    """What loading would do, and the values to copy; nothing is changed."""
    target = Target.of(model)
    if isinstance(source, Mapping):
        content = source
    elif not isinstance(source, str | os.PathLike) or not str(source):
        given = repr(source) if source in (None, "") else f"a {type(source).__name__}"
        raise CheckpointError(
            f"the checkpoint is {given}, expected a path, a URL or a state dict"
            + ("; give its state_dict()" if isinstance(source, nn.Module) else "")
        )
    else:
        origin, content = str(source), read_checkpoint(source)
    tensors = shaped_projections(to_own_names(content, origin, target.state), target)
    tensors = norm_as_in(tensors, target)
    if option := wrong_option(tensors.dialect, model):
        raise CheckpointError(
            f"{origin} comes from {tensors.dialect}, whose weights mean something else in this "
            f"model: build it with {option}"
        )
    classes = Classes.of(content, class_names, origin, source_classes, class_table)
    fits = fit_model(target, tensors.state, inflation, antialias, position_grid)
    fits = fit_head(
        fits, classes, origin, tensors.state, target.state, new_head=new_head
    ) | _lacking(tensors, target, fits)
    fits = fit_output_norms(tensors, target) | fit_last_norm(tensors, target, fits) | fits
    report = LoadReport(
        origin,
        tensors.dialect,
        _target_entries(tensors, fits, target),
        _source_entries(tensors, fits, target),
        (
            *tensors.notes,
            *_note_on_detector(tensors, target),
            *note_on_windows(tensors, target),
            *_notes(target, fits, inflation),
            *_note_on_classes(classes, fits),
            *_note_on_residual(tensors.dialect, target.model),
        ),
    )
    _refuse_another_architecture(target.model, tensors, report)
    if strict and report.fatal:
        raise CheckpointError(_misfits(target.whole, report))
    values = {name: fit.value for name, fit in fits.items() if fit.value is not None}
    _refuse_odd_values(values, target, origin)
    return report, target, values


def _refuse_odd_values(values: Mapping[str, Tensor], target: Target, origin: str) -> None:
    """Refuse values that copying into the model would change, or that no model can have."""
    for name, value in values.items():
        if value.is_meta:
            raise CheckpointError(f"{origin} is of the meta device: its {name} has no values")
        own = target.state[name]
        if own.is_floating_point() and not value.is_floating_point():
            raise CheckpointError(
                f"{origin}: its {name} is of {value.dtype}, expected floating-point numbers "
                "(quantised weights? give the checkpoint that was quantised)"
            )
        if value.is_floating_point() and not value.to(own.dtype).isfinite().all():
            raise CheckpointError(
                f"{origin} cannot be used: its {name} has values that are not finite"
                + (f" in {own.dtype}" if value.float().isfinite().all() else "")
            )


def _note_on_classes(classes: Classes, fits: Mapping[str, Fit]) -> tuple[str, ...]:
    kept = any(name.startswith(HEAD) and fit.value is not None for name, fit in fits.items())
    return (classes.note,) if kept and classes.note else ()


def _beside_backbone(tensors: Tensors, target: Target) -> Mapping[str, str]:
    """Name in the checkpoint -> part of a detector, where the model is a backbone alone."""
    if any(OF_A_DETECTOR.fullmatch(name) for name in target.state):
        return {}
    return tensors.of_detector


def _note_on_detector(tensors: Tensors, target: Target) -> tuple[str, ...]:
    """The parts of a detector or a segmentation beside its backbone."""
    groups = Counter(_beside_backbone(tensors, target).values())
    if not groups:
        return ()
    listed = ", ".join(f"{group} ({count} tensors)" for group, count in groups.items())
    return (f"of the detector only the backbone is loaded; it also has {listed}",)


def _note_on_residual(dialect: str, model: nn.Module) -> tuple[str, ...]:
    if not has_open_residual(dialect, model):
        return ()
    return (
        f"{dialect}'s names do not show whether the class token's query is added in residual "
        "pooling (residual_with_cls_embed there, residual_with_cls_token here)",
    )


def _lacking(tensors: Tensors, target: Target, fits: Mapping[str, Fit]) -> dict[str, Fit]:
    """Parts that such a checkpoint never has: they keep the values of the model."""
    reason = f"such a checkpoint of {tensors.dialect} has none"
    return {
        name: Fit(None, REINITIALISED, reason)
        for name in target.state
        if name not in fits and any(has_names([name], [t]) for t in tensors.lacking)
    }


def _target_entries(tensors: Tensors, fits: Mapping[str, Fit], target: Target) -> tuple[Entry, ...]:
    """What becomes of the model's tensors.

    A neck or a dense head of which the checkpoint has nothing stays as it is, like a classifier.
    """
    on_top = getattr(target.whole, "parts_on_top", ())
    new = tuple(part for part in on_top if not any(n.startswith(part) for n in tensors.state))
    heads = (HEAD, *getattr(target.whole, "classifiers", ()), *new)
    return tuple(
        _target_entry(name, own, fits.get(name), heads) for name, own in target.state.items()
    )


def _target_entry(name: str, tensor: Tensor, fit: Fit | None, heads: tuple[str, ...]) -> Entry:
    in_head = name.startswith(heads)
    if fit is not None:
        return Entry(name, fit.status, fit.reason, tensor.numel(), fit.misfit and not in_head)
    if in_head:
        return Entry(name, REINITIALISED, "no such head in the checkpoint", tensor.numel())
    return Entry(name, MISSING, "", tensor.numel(), fatal=True)


def _source_entries(tensors: Tensors, fits: Mapping[str, Fit], target: Target) -> tuple[Entry, ...]:
    entries = {}
    parts = _beside_backbone(tensors, target)
    for name in tensors.state:
        beside = name.startswith(HEAD)
        if name in fits:
            used = fits[name].value is not None
            status, reason = (USED, "") if used else (DROPPED, fits[name].reason)
        else:
            status, reason = _without_place(name, fits, target)
        for original in tensors.sources[name]:
            found, why = status, reason
            if status == UNEXPECTED and original in tensors.of_pretraining:
                found, why = DROPPED, "the rest of a pre-training"
            if status == UNEXPECTED and original in parts:
                found, why = DROPPED, f"beside the backbone: {parts[original]}"
            fatal = found == UNEXPECTED and not beside and original not in tensors.outside
            entries[original] = Entry(original, found, why, tensors.sizes[original], fatal)
    for name, reason in tensors.dropped.items():
        entries[name] = Entry(name, DROPPED, reason, tensors.sizes[name])
    return tuple(entries.values())


def _without_place(name: str, fits: Mapping[str, Fit], target: Target) -> tuple[str, str]:
    """Status and reason of a tensor that no parameter of the model has the name of."""
    leaf = name.rpartition(".")[2]
    has_class = any(own.endswith("cls_token") for own in target.state)
    if not has_class and leaf in ("cls_token", "pos_embed_class"):
        return DROPPED, "this model has no class token"
    if leaf.startswith("pos_embed"):
        if any("pos_embed" in own and fit.value is not None for own, fit in fits.items()):
            return USED, ""  # for a table of another name
        if has_fixed_positions(target):
            return DROPPED, "this model's positions are fixed"
    if name.startswith(getattr(target.whole, "parts_left_out", ())):
        return DROPPED, "of a classifier, which this model is not"
    if name.startswith(getattr(target.whole, "parts_of_training", ())):
        return DROPPED, "of training alone, and this model is without"
    if name.startswith("norm.") and f"fc_{name}" in fits and fits[f"fc_{name}"].value is None:
        return DROPPED, "this model norms after the pooling, not before"
    if reason := why_without_place(name, target):
        return DROPPED, reason
    return UNEXPECTED, ""


def has_fixed_positions(target: Target) -> bool:
    """Whether the model's positions are computed, not learned."""
    return getattr(target.model, "fixed_positions", None) is not None


def _notes(target: Target, fits: Mapping[str, Fit], inflation: str) -> list[str]:
    """What the inflation promises for a clip that repeats one image."""
    if not any(fit.status == INFLATED for fit in fits.values()):
        return []
    notes = []
    if inflation == "average":
        notes.append("averaged kernels see a still clip's ends darkened: it differs from its image")
    if getattr(target.model, "rotate_time", False):
        notes.append(
            "a still clip differs from its image: rotary positions tell its frames apart "
            "(rotate_time=False leaves them out)"
        )
    tokens = [name for name in target.state if name.endswith("cls_token")]
    if has_fixed_positions(target):
        notes.append(
            "a still clip differs from its image: this model's positions are fixed and number the "
            "cells of all frames (sine_grid=None has those of the image)"
        )
    if any(name in fits and fits[name].value is None for name in tokens):
        notes.append(
            "the class token, which the head reads, is untrained: the checkpoint has none "
            "(cls_token=False builds the model without)"
        )
    elif tokens and not getattr(target.model, "still_clips_are_exact", False):
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
