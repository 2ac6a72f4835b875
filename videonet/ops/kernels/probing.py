"""Private functions of torch, each tested before its first use and replaced where it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from threading import Thread
from typing import Generic, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Largest difference to the plain operator in a trial, in units of the largest number there.
TOLERANCES = {torch.bfloat16: 5e-2, torch.float16: 5e-3, torch.float32: 1e-4, torch.float64: 1e-9}

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result", bound=Tensor | tuple[Tensor, ...])


class Probed(Generic[Key]):
    """A private function that is tested before its first use, once for each key (a dtype).

    Args:
        name: of the private function, for the log.
        stand_in: what is used instead, for the log.
    """

    def __init__(self, name: str, stand_in: str):
        self.name, self.stand_in = name, stand_in
        self.trusted: dict[Key, bool] = {}

    def trust(self, key: Key) -> bool:
        """Whether the function passed its test; runs the test where that has not been done."""
        if key not in self.trusted:
            reason = _in_new_thread(lambda: self.find_fault(key))
            self.trusted[key] = True
            if reason is not None:
                self.distrust(key, reason)
        return self.trusted[key]

    def distrust(self, key: Key, reason: str) -> None:
        """Use the replacement from here on, and log the reason."""
        self.trusted[key] = False
        logger.warning(
            "%s of torch %s cannot be used (%s): %s",
            self.name,
            torch.__version__,
            reason,
            self.stand_in,
        )

    def find_fault(self, key: Key) -> str | None:
        """What is wrong with the function, None if nothing is."""
        raise NotImplementedError


class Kernel(Probed[torch.dtype], Generic[Result]):
    """A faster function of tensors, whose key is the dtype of the first one.

    Args:
        fast: the private function, looked up in torch when it is called.
        plain: the same of torch's public operators.
        example: a dtype -> arguments to test the function with.
    """

    def __init__(
        self,
        name: str,
        fast: Callable[..., Result],
        plain: Callable[..., Result],
        example: Callable[[torch.dtype], tuple],
    ):
        super().__init__(name, "torch's own operator runs, more slowly")
        self.fast, self.plain, self.example = fast, plain, example

    def __call__(self, x: Tensor, *arguments) -> Result:
        if not self.trust(x.dtype):
            return self.plain(x, *arguments)
        try:
            return self.fast(x, *arguments)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
            result = self.plain(x, *arguments)  # fails itself where the arguments are at fault
            self.distrust(x.dtype, _first_line(error))
            return result

    def find_fault(self, key: torch.dtype) -> str | None:
        arguments = self.example(key)
        found, expected = (tensors_of(f(*arguments)) for f in (self.fast, self.plain))
        return first_difference(found, expected, TOLERANCES[key])


class Question(Probed[None]):
    """A private function that tells whether torch is in some state, such as a transform.

    Where it fails the answer is True, which makes all callers use plain operators.

    Args:
        ask: the private function, looked up in torch when it is called.
        when_so: calls a function in a situation where the answer is True, and returns its result.
    """

    def __init__(
        self, name: str, ask: Callable[[], bool], when_so: Callable[[Callable[[], bool]], bool]
    ):
        super().__init__(name, "plain operators run, more slowly")
        self.ask, self.when_so = ask, when_so

    def __call__(self) -> bool:
        if not self.trust(None):
            return True
        try:
            return self.ask()
        except Exception as error:
            self.distrust(None, _first_line(error))
            return True

    def find_fault(self, key: None) -> str | None:
        self.ask()
        return None if self.when_so(self.ask) is True else "it does not say yes when it should"


def tensors_of(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The tensors that a function gives, one or several."""
    return (result,) if isinstance(result, Tensor) else result


def first_difference(
    found: Iterable[Tensor], expected: Iterable[Tensor], tolerance: float
) -> str | None:
    """What is wrong with the results of a trial, None if nothing is."""
    pairs = zip(found, expected, strict=True)
    return next(filter(None, (difference(a, b, tolerance) for a, b in pairs)), None)


def difference(found: Tensor, expected: Tensor, tolerance: float) -> str | None:
    """What is wrong with a result of a trial, None if nothing is.

    Args:
        tolerance: largest error in units of the largest expected number.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"it gives {found.dtype} {tuple(found.shape)}"
    error = (found.double() - expected.double()).abs().max()
    largest = expected.double().abs().max()
    return None if error <= tolerance * largest else "it gives other numbers"


def _in_new_thread(find_fault: Callable[[], str | None]) -> str | None:
    """Run a test outside of any autocast, transform, recording or default of the caller."""
    reasons: list[str | None] = []

    def run() -> None:
        try:
            with torch.no_grad():
                reasons.append(find_fault())
        except Exception as error:  # of any kind: a private function may do anything
            reasons.append(_first_line(error))

    thread = Thread(target=run, name="videonet-probe")
    thread.start()
    thread.join()
    return reasons[0]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
