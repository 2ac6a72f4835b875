"""Which project named the tensors of a checkpoint, below the prefixes of wrappers and trainers.

Wrappers put their name before those of what they wrap: ``DistributedDataParallel`` ``module.``,
``torch.compile`` ``_orig_mod.``, FSDP and activation checkpointing theirs, of a whole model or of
single blocks; trainers keep the model as ``model.``, ``backbone.``, ``net.`` and the like, beside
losses and averages. What is left decides, by the marks of a dialect or by the model's own names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from videonet.checkpoint.contents import AVERAGES
from videonet.checkpoint.dialect import Dialect, State
from videonet.checkpoint.dialects import DIALECTS
from videonet.checkpoint.dialects.detection import rename_parts_on_top
from videonet.errors import CheckpointError

OWN = Dialect("videonet", ())
WRAPPERS = frozenset(
    ("module", "_module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
    + ("_forward_module", "model", "backbone")
)
# Tensors of losses and figures of merit, which trainers register beside the model.
OF_A_LOSS = re.compile(
    r"(?:.*[._])?(?:loss(?:es|_fn|_func|_fun)?|criterions?|criteria|metrics?|accuracy)(?:[._].*|\d*)",
    re.IGNORECASE,
)
# What a pre-training has beside the model, at the top of its names: other heads, decoders, queues.
OF_A_PRETRAINING = re.compile(
    r"(?:\w+_head|head_dist|(?:\w+_)?(?:decoder|projector|predictor|queue)(?:_\w+)?"
    r"|dec_pos_embed_\w+|hogs|pixel_(?:mean|std)|class_weights?|center)(?:\..*)?"
    r"|(?:.*\.)?mask_token"
)
# What a detector or a segmentation has beside its backbone (detectron2, mmdetection, torchvision,
# mmsegmentation, HRNet), at the top of its names or beside the backbone within a pyramid.
OF_A_DETECTOR = re.compile(
    r"(neck|rpn|rpn_head|roi_heads?|bbox_head|mask_head|decode_head|auxiliary_head|aux_head"
    r"|proposal_generator|sem_seg_head|fpn|fpn_lateral|fpn_output|simfp|top_block|last_layer"
    r"|pixel_mean|pixel_std)"
    r"(?:_?\d+)?(?:\..*)?"
)
SMALLEST_SHARE = 0.2  # of all names, below a prefix that could be the model's
OVERLAP = 0.1  # of the names that have to be the model's, where no dialect is recognised
TARGET_ENCODER = "target_encoder."
COPY = 0.9  # of the names that a second copy of the model shares


@dataclass(frozen=True)
class Recognised:
    """Whose names they are.

    Attributes:
        dialect: the project.
        names: name in the checkpoint -> name in that project.
        outside: names in the checkpoint that lie outside of the model: losses, a trainer's own.
        of_pretraining: those of them that are the rest of a pre-training.
        of_detector: those of them that are the rest of a detector or a segmentation -> its part.
        copies: names that belong to a second copy of the model -> its prefix.
        is_base: the project's model without its classifier.
    """

    dialect: Dialect
    names: dict[str, str]
    outside: frozenset[str] = frozenset()
    of_pretraining: frozenset[str] = frozenset()
    of_detector: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    is_base: bool = False


def without_wrappers(name: str) -> str:
    """A parameter's name without the names of wrappers, wherever they stand."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    return ".".join(parts) if parts else name


def recognise(state: State, origin: str, wanted: Collection[str] = ()) -> Recognised:
    """Find the dialect of a state dict, under whatever prefix the model lies.

    Args:
        wanted: names of the model's parameters, where there is a model.

    Raises:
        CheckpointError: it holds two models, neither of which is an average of the other.
    """
    clean, aliases = _clean_names(state, origin)
    wanted = frozenset(wanted)
    # What stands on a backbone does not tell whose the backbone is.
    on_top = rename_parts_on_top(clean.values())
    body = {name: short for name, short in clean.items() if short not in on_top}
    prefixes = ["", *_prefixes(body.values())]
    found: dict[str, tuple[Dialect, bool]] = {}  # by prefix; whether it is a base model
    for prefix in prefixes:
        if any(prefix.startswith(other) for other in found):
            continue  # a part of a model that was found
        if (match := _match(state, body, prefix, wanted)) is not None:
            found[prefix] = match
    if not found:
        outside = _outside(clean, "", wanted)
        parts = _of_detector(outside, clean, "")
        rest = _of_pretraining(outside - parts.keys(), clean, "")
        return Recognised(OWN, clean, outside, rest, parts, aliases)
    prefix = _choose(found, clean, origin)
    dialect, is_base = found[prefix]
    copies = _copies(prefix, prefixes, clean)
    names = {name: s.removeprefix(prefix) for name, s in clean.items() if name not in copies}
    if is_base:
        names = {
            name: short if any(row.to_ours(short) for row in dialect.rows) else dialect.base + short
            for name, short in names.items()
        }
    outside = _outside(clean, prefix, wanted) - copies.keys()
    parts = _of_detector(outside, clean, prefix)
    rest = _of_pretraining(outside - parts.keys(), clean, prefix)
    return Recognised(dialect, names, outside, rest, parts, aliases | copies, is_base)


def _clean_names(state: State, origin: str) -> tuple[dict[str, str], dict[str, str]]:
    """Every name without wrappers, and the names of tensors that are there under another one."""
    clean: dict[str, str] = {}
    owners: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        short = without_wrappers(name)
        if (other := owners.setdefault(short, name)) == name:
            clean[name] = short
        elif state[other].shape != tensor.shape or not torch.equal(state[other], tensor):
            raise CheckpointError(
                f"{origin} holds two tensors for {short}, {other} and {name}, with other values: "
                "give the state dict of one model"
            )
        else:
            aliases[name] = name.removesuffix(short)
    return clean, aliases


def _prefixes(names: Iterable[str]) -> list[str]:
    """Beginnings ``"a.b."`` that enough of the names share, the shortest first."""
    names = list(names)
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, min(len(parts), 5)):
            prefix = ".".join(parts[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    often = [p for p, count in counts.items() if count >= SMALLEST_SHARE * len(names)]
    return sorted(often, key=lambda prefix: prefix.count("."))


def _match(
    state: State, clean: Mapping[str, str], prefix: str, wanted: frozenset[str]
) -> tuple[Dialect, bool] | None:
    """The dialect of the names under `prefix`, with what lies beside it under its own name."""
    tensors = {short.removeprefix(prefix): state[name] for name, short in clean.items()}
    for dialect in DIALECTS:
        if dialect.matches(tensors):
            return dialect, False
    for dialect in DIALECTS:
        if dialect.base and dialect.matches({dialect.base + n: t for n, t in tensors.items()}):
            return dialect, True
    inside = [s.removeprefix(prefix) for s in clean.values() if s.startswith(prefix)]
    if len(wanted.intersection(inside)) > OVERLAP * len(inside):
        return OWN, False
    return None


def _gives_way(prefix: str) -> bool:
    """Whether an average of a model, or the decoder of a pre-training, lies under a prefix."""
    name = prefix.rstrip(".")
    last = name.rpartition(".")[2]
    return bool(AVERAGES.fullmatch(name) or OF_A_PRETRAINING.fullmatch(last))


def _choose(
    found: Mapping[str, tuple[Dialect, bool]], clean: Mapping[str, str], origin: str
) -> str:
    """The prefix of the model: the only one, or the only one that gives way to no other.

    Of an encoder and its target encoder, a running average of it, V-JEPA's evaluations use the
    latter.
    """
    if len(found) == 1 or "" in found:
        return next(iter(found))
    if TARGET_ENCODER in found:
        return TARGET_ENCODER
    plain = [prefix for prefix in found if not _gives_way(prefix)]
    if len(plain) == 1 or not plain:
        return (plain or list(found))[0]
    raise CheckpointError(
        f"{origin} holds {len(plain)} models, under {' and '.join(plain[:3])}: give the state dict "
        "of one"
    )


def _copies(chosen: str, prefixes: list[str], clean: Mapping[str, str]) -> dict[str, str]:
    """Names of models beside the chosen one that have the same names below another prefix."""
    copies: dict[str, str] = {}
    for prefix in prefixes:
        if not prefix or chosen.startswith(prefix) or (chosen and prefix.startswith(chosen)):
            continue
        if OF_A_PRETRAINING.fullmatch(prefix[:-1].rpartition(".")[2]):
            continue  # a decoder, which has the names of some of the encoder's blocks
        under = {name: s.removeprefix(prefix) for name, s in clean.items() if s.startswith(prefix)}
        own = {
            s.removeprefix(chosen)
            for name, s in clean.items()
            if s.startswith(chosen) and name not in under
        }
        shared = len(own.intersection(under.values()))
        sizes = sorted((len(own), len(under)))
        if shared and shared >= COPY * sizes[0] and 2 * shared >= sizes[1]:
            copies |= dict.fromkeys(under, prefix)
    return copies


def _outside(clean: Mapping[str, str], prefix: str, wanted: frozenset[str]) -> frozenset[str]:
    """Names beside the model.

    They are not under its prefix, lack the wrappers that most have, or are of losses, averages and
    the rest of a pre-training.
    """
    leads = {name: _lead(name, prefix) for name in clean}
    counts = Counter(lead for name, lead in leads.items() if clean[name].startswith(prefix))
    lead = max(counts, key=lambda text: (counts[text], len(text)), default="")

    def is_outside(name: str) -> bool:
        short = clean[name].removeprefix(prefix)
        if not name.startswith(lead) or OF_A_LOSS.fullmatch(name):
            return True
        first = short.partition(".")[0]
        return short not in wanted and bool(
            OF_A_PRETRAINING.fullmatch(short)
            or OF_A_DETECTOR.fullmatch(short)
            or (first != short and AVERAGES.fullmatch(first))
        )

    return frozenset(filter(is_outside, clean))


def _of_detector(outside: frozenset[str], clean: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Names of the rest of a detector, in the order of the checkpoint -> the part's name."""
    beside = prefix[: prefix.rstrip(".").rfind(".") + 1]
    found = {}
    for name, whole in clean.items():
        short = whole.removeprefix(prefix).removeprefix(beside)
        if name in outside and (match := OF_A_DETECTOR.fullmatch(short)):
            found[name] = match[1]
    # Pictures are normed by a pre-training too.
    return found if any(not part.startswith("pixel_") for part in found.values()) else {}


def _of_pretraining(
    outside: frozenset[str], clean: Mapping[str, str], prefix: str
) -> frozenset[str]:
    """Names of the rest of a pre-training, beside the model's parts or beside its prefix."""
    beside = prefix[: prefix.rstrip(".").rfind(".") + 1]
    return frozenset(
        name
        for name in outside
        if any(OF_A_PRETRAINING.fullmatch(clean[name].removeprefix(p)) for p in (prefix, beside))
    )


def _lead(name: str, prefix: str) -> str:
    """The beginning of a name that is `prefix` with the names of wrappers among it and behind."""
    parts, wanted = name.split("."), prefix.split(".")[:-1]
    place = 0
    while place < len(parts) - 1:
        if wanted and parts[place] == wanted[0]:
            wanted = wanted[1:]
        elif parts[place] not in WRAPPERS:
            break
        place += 1
    return "".join(f"{part}." for part in parts[:place])
