"""Bare pickles of NumPy arrays, as detectron2 publishes its weights (``.pkl``), read as data.

Nothing that such a file names is imported or called: every name that NumPy writes is a class of
this module, which makes tensors of the stored bytes, and any other name is refused.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

TYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}
DEEPEST = 50  # containers within each other


class _Reader(Protocol):
    """One of the classes below, which are called like what they stand for."""

    def __call__(self, *arguments: Any) -> Any: ...


class _Type:
    """For ``numpy.dtype``."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in TYPES:
            raise pickle.UnpicklingError(f"arrays of type {code!r}")
        self.dtype = TYPES[code]

    def __setstate__(self, state: tuple) -> None:
        if state[1] == ">":
            raise pickle.UnpicklingError("arrays of numbers with the first byte last")


class _Array:
    """For ``numpy.ndarray``, whose content follows its creation."""

    tensor: Tensor | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, columns_first, raw = state
        self.tensor = _tensor(raw, kind, shape, columns_first)


class _NewArray:
    """For ``numpy.core.multiarray._reconstruct``."""

    def __new__(cls, *_: Any) -> Any:
        return _Array()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function with a state")


class _FromBuffer(_NewArray):
    """For ``numpy.core.numeric._frombuffer``."""

    def __new__(cls, raw: Any, kind: Any, shape: Any, order: str) -> Any:
        array = _Array()
        array.tensor = _tensor(raw, kind, shape, order == "F")
        return array


class _Scalar(_NewArray):
    """For ``numpy.core.multiarray.scalar``."""

    def __new__(cls, kind: Any, raw: Any) -> Any:
        return _tensor(raw, kind, (), False).item()


class _Encode(_NewArray):
    """For ``_codecs.encode``, by which older protocols write bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in {encoding!r}")
        return text.encode("latin1")


KNOWN: dict[tuple[str, str], _Reader] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encode,
    ("collections", "OrderedDict"): OrderedDict,
}
for core in ("numpy.core", "numpy._core"):  # before NumPy 2, and from then on
    KNOWN[f"{core}.multiarray", "_reconstruct"] = _NewArray
    KNOWN[f"{core}.multiarray", "scalar"] = _Scalar
    KNOWN[f"{core}.numeric", "_frombuffer"] = _FromBuffer


class _Unpickler(pickle.Unpickler):
    """Knows the names of ``KNOWN`` alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return KNOWN[module, name]


def read_arrays(local: Path) -> Any:
    """What a bare pickle of arrays holds, arrays as tensors.

    Raises:
        pickle.UnpicklingError: it holds something else, or is damaged.
    """
    size = local.stat().st_size
    try:
        with local.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                number = argument if opcode.name in ("LONG_BINPUT", "PUT") else 0
                # The unpickler keeps a list as long as the greatest number.
                if isinstance(number, int) and number > size:
                    raise pickle.UnpicklingError("numbers beyond the file")
        with local.open("rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load(), 0)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # it fails in many ways on what is no such pickle
        raise pickle.UnpicklingError(str(error)) from error


def _tensor(raw: Any, kind: Any, shape: Any, columns_first: bool) -> Tensor:
    """The tensor of stored bytes."""
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError(f"an array of a {type(raw).__name__}")
    if len(data) != math.prod(shape) * kind.dtype.itemsize:
        raise pickle.UnpicklingError(f"{len(data)} bytes for an array of shape {shape}")
    if not data:
        return torch.empty(tuple(shape), dtype=kind.dtype)
    flat = torch.frombuffer(bytearray(data), dtype=kind.dtype)
    if columns_first:
        return flat.reshape(tuple(shape)[::-1]).permute(*range(len(shape))[::-1]).contiguous()
    return flat.reshape(tuple(shape))


def _plain(value: Any, depth: int) -> Any:
    """The same with tensors in place of arrays."""
    if depth > DEEPEST:
        raise pickle.UnpicklingError(f"more than {DEEPEST} containers within each other")
    if isinstance(value, _Array):
        if value.tensor is None:
            raise pickle.UnpicklingError("an array without content")
        return value.tensor
    if isinstance(value, Mapping):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, depth + 1) for item in value)
    return value
