"""Near-duplicates: videos of a data set, or of two, that show the same thing.

Embeddings propose pairs. As a model may well give two videos of one class the same embedding, the
pixels of a proposed pair decide: a copy that was encoded again, made smaller or cut shows the same
small pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from videonet.data.decode import open_video
from videonet.errors import DataError, DecodeError
from videonet.inference.parts import frames_between
from videonet.inference.search import SearchIndex

THRESHOLD = 0.95  # cosine from which on a pair is proposed
DIFFERENCE = 4.0  # of 255: the mean difference of the pixels of a pair, up to which it is one
_BLOCK = 1024  # clips that are compared with all others at a time
_FRAMES, _AROUND, _SIDE = 6, 64, 32  # frames of the first and of the second video, pixels
_COMPARED = ("weights", "model", "settings", "clips")


@dataclass(frozen=True)
class Duplicate:
    """Two videos that are alike, at the clips where they are the most alike.

    Attributes:
        first: path.
        second: path.
        times: start and end in seconds in the first video.
        other_times: the same in the second one.
        score: cosine between the embeddings of the two clips.
        difference: mean absolute difference of pixels, 0 … 255; None where it was not looked at.
        labels: of both.
    """

    first: str
    second: str
    times: tuple[float, float]
    other_times: tuple[float, float]
    score: float
    difference: float | None
    labels: tuple[int | None, int | None]


def find_duplicates(
    first: SearchIndex,
    second: SearchIndex | None = None,
    *,
    threshold: float = THRESHOLD,
    difference: float | None = DIFFERENCE,
) -> list[Duplicate]:
    """Pairs of videos that are alike: within one collection, or one from each of two.

    All clips are compared with all others. A pair whose files cannot be read any more stays.

    Args:
        first: opened with ``exact=True``.
        second: the same; None to look within the first.
        threshold: the least cosine.
        difference: the largest difference of pixels; None not to look at the files.

    Returns:
        The pairs, the most similar first.

    Raises:
        DataError: the two were made by different models or of different clips.
    """
    if second is not None:
        for key in _COMPARED:
            if first.description.get(key) != second.description.get(key):
                raise DataError(
                    f"{first.folder} and {second.folder} were made with different {key}, so their "
                    "embeddings cannot be compared: extract both with one checkpoint and options"
                )
    other = first if second is None else second
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for row, column, score in _similar(first, other, threshold):
        pair = int(first.owner[row]), int(other.owner[column])
        if second is None and pair[0] >= pair[1]:
            continue
        if score > best.get(pair, (-2.0,))[0]:
            best[pair] = score, row, column
    found = [_pair(first, other, *entry) for entry in best.values()]
    if difference is not None:
        looked = [replace(pair, difference=difference_of(pair)) for pair in found]
        found = [
            pair for pair in looked if pair.difference is None or pair.difference <= difference
        ]
    return sorted(found, key=lambda pair: (-pair.score, pair.first, pair.second))


def _similar(
    first: SearchIndex, second: SearchIndex, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Rows of both whose cosine is at least the threshold, with the cosine."""
    right = second.vectors
    for start in range(0, len(first), _BLOCK):
        similar = first.vectors[start : start + _BLOCK] @ right.T  # (block, N)
        rows, columns = torch.nonzero(similar >= threshold, as_tuple=True)
        scores = similar[rows, columns].tolist()
        yield from zip((rows + start).tolist(), columns.tolist(), scores, strict=True)


def _pair(
    first: SearchIndex, second: SearchIndex, score: float, row: int, column: int
) -> Duplicate:
    one, two = int(first.owner[row]), int(second.owner[column])
    (start, end), (other_start, other_end) = first.times[row], second.times[column]
    return Duplicate(
        first.videos[one],
        second.videos[two],
        (float(start), float(end)),
        (float(other_start), float(other_end)),
        score,
        None,
        (first.labels[one], second.labels[two]),
    )


def difference_of(pair: Duplicate) -> float | None:
    """How much the pixels of a pair differ, 0 … 255; None where a file cannot be read.

    Every frame of the first clip is compared with the one around the second clip that is the
    nearest to it, as cuts move the clips of a copy against those of the original.
    """
    try:
        mine = _small(pair.first, *pair.times, _FRAMES)
        around = (pair.other_times[1] - pair.other_times[0]) / 2
        start, end = pair.other_times[0] - around, pair.other_times[1] + around
        theirs = _small(pair.second, max(start, 0.0), end, _AROUND)
    except DecodeError:
        return None
    apart = (mine[:, None] - theirs[None]).abs().mean(dim=2)  # (frames, around)
    return float(apart.amin(dim=1).mean())


def _small(video: str, start: float, end: float, count: int) -> torch.Tensor:
    """Frames of a part of a video as small pictures of one shape, (n, 3 · side²) float32."""
    with open_video(video, short_side=_SIDE) as reader:
        numbers = frames_between(reader, start, end)
        some = np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)
        frames = reader.frames_at(numbers[some])  # (n, H, W, 3)
    pictures = frames.permute(0, 3, 1, 2).float()
    return torch.nn.functional.adaptive_avg_pool2d(pictures, (_SIDE // 2, _SIDE // 2)).flatten(1)


def as_rows(pairs: Sequence[Duplicate]) -> list[list[str]]:
    """A report as a table, with its head."""
    head = ["first", "second", "score", "difference", "first_start", "first_end"]
    head += ["second_start", "second_end", "first_label", "second_label"]
    rows = [head]
    for pair in pairs:
        apart = "" if pair.difference is None else f"{pair.difference:.2f}"
        labels = ["" if label is None else str(label) for label in pair.labels]
        times = [f"{time:.3f}" for time in (*pair.times, *pair.other_times)]
        rows.append([pair.first, pair.second, f"{pair.score:.5f}", apart, *times, *labels])
    return rows
