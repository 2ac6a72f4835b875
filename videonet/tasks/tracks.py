"""Detections of the frames of a clip as tracks, and the tracks of the pieces of a video as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from videonet.data.datasets.objects import Box
from videonet.data.masks import Rle, mask_overlaps, to_rle
from videonet.heads.detection import Detections
from videonet.tasks.object_scores import ObjectRecord, Track

LEAST_OVERLAP = 0.3  # of the boxes of a track before and after a cut between two pieces
PATIENCE = 5  # frames that a track may be absent


def tracks_of(frames: Sequence[Detections]) -> list[Track]:
    """The objects of some frames of a clip.

    Args:
        frames: detections of each, with run lengths for masks where there are masks. Those of one
            of ``instance_ids`` are one track; without them every detection is a track.
    """
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}  # number -> (frame, place in it)
    for t, one in enumerate(frames):
        ids = range(len(one)) if one.instance_ids is None else one.instance_ids.tolist()
        for place, number in enumerate(ids):
            key = (0, number) if one.instance_ids is not None and number >= 0 else (t + 1, place)
            found.setdefault(key, []).append((t, place))
    tracks = [_track(frames, number, places) for number, places in enumerate(found.values())]
    return sorted(tracks, key=lambda track: -track.score)


def _track(frames: Sequence[Detections], number: int, places: Sequence[tuple[int, int]]) -> Track:
    boxes: list[Box | None] = [None] * len(frames)
    masks: list[Rle | None] = [None] * len(frames)
    scores = [0.0] * len(frames)
    weights: dict[int, float] = {}
    for t, place in places:
        one = frames[t]
        x1, y1, x2, y2 = one.boxes[place].tolist()
        boxes[t], scores[t] = [x1, y1, x2 - x1, y2 - y1], float(one.scores[place])
        if isinstance(one.masks, list):
            runs = one.masks[place]
            masks[t] = to_rle(runs, *runs["size"])
        label = int(one.labels[place])
        weights[label] = weights.get(label, 0.0) + scores[t]
    best = max(weights, key=lambda label: weights[label])
    with_masks = any(mask is not None for mask in masks)
    return Track(
        best,
        number,
        tuple(boxes),
        tuple(masks) if with_masks else (),
        score=sum(weights.values()) / len(places),
        scores=tuple(scores),
    )


@dataclass
class _End:
    """The last that was seen of a track."""

    label: int
    box: Box
    frame: int


class TrackJoiner:
    """Numbers the tracks of consecutive pieces of a video, so that an object keeps its number.

    A track continues one of an earlier piece where both are of one class and the box that it begins
    with overlaps the last one of the other; the greatest overlaps first.
    """

    def __init__(self) -> None:
        self._ends: dict[int, _End] = {}
        self._new = count()

    def join(self, tracks: Sequence[Track], start: int) -> list[Track]:
        """The tracks of the next piece with the numbers that they have in the whole video.

        Args:
            tracks: of the piece.
            start: the place of its first frame in the video.
        """
        self._ends = {n: e for n, e in self._ends.items() if start - e.frame <= PATIENCE + 1}
        begins = [next((k, box) for k, box in enumerate(t.boxes) if box) for t in tracks]
        numbers = self._pairs(tracks, begins, start)
        joined = []
        for place, track in enumerate(tracks):
            number = numbers.get(place)
            number = next(self._new) if number is None else number
            last, box = [(k, box) for k, box in enumerate(track.boxes) if box][-1]
            self._ends[number] = _End(track.label, box, start + last)
            joined.append(replace(track, number=number))
        return joined

    def _pairs(
        self, tracks: Sequence[Track], begins: Sequence[tuple[int, Box]], start: int
    ) -> dict[int, int]:
        """Place of a track -> number of the one that it continues."""
        ends = list(self._ends.items())
        ious = mask_overlaps(
            [box for _, box in begins], [end.box for _, end in ends], [False] * len(ends)
        )
        candidates = [
            (-float(ious[place, k]), place, number)
            for place, track in enumerate(tracks)
            for k, (number, end) in enumerate(ends)
            if end.label == track.label
            and ious[place, k] >= LEAST_OVERLAP
            and 0 < start + begins[place][0] - end.frame <= PATIENCE + 1
        ]
        pairs: dict[int, int] = {}
        for _, place, number in sorted(candidates):
            if place not in pairs and number not in pairs.values():
                pairs[place] = number
        return pairs


def joined_records(records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """Records whose tracks have one number in all pieces of a video, in their order."""
    given = list(records)
    order = sorted(range(len(given)), key=lambda k: (given[k].video, given[k].start))
    joined, joiners = list(given), dict[int, TrackJoiner]()
    for k in order:
        record = given[k]
        joiner = joiners.setdefault(record.video, TrackJoiner())
        joined[k] = replace(record, found=tuple(joiner.join(record.found, record.start)))
    return joined
