"""The files of predictions of objects and label maps: JSON, pictures, and videos drawn over."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videonet.data.texts import short_stem
from videonet.data.video.names import is_picture
from videonet.data.video.writer import new_video
from videonet.errors import ConfigError, DecodeError, ScoreError
from videonet.files import make_folder, replacing, replacing_text
from videonet.inference.dense import DensePredictor, Piece, annotation_of, whole_tracks
from videonet.inference.sources import Source
from videonet.tasks.dense_plots import draw_labels, draw_objects
from videonet.tasks.object_scores import Track
from videonet.tasks.object_tables import drawn_tracks
from videonet.terminal import logs_above_bars, progress_bar

logger = logging.getLogger(__name__)

Draw = Callable[[np.ndarray, float], None]  # a picture and its second
CLASSES = "classes.json"
_OF_OBJECTS = ("track_id", "score", "bbox", "bboxes")  # what a class of a label map has not


def predict_dense(
    predictor: DensePredictor,
    sources: Sequence[Source],
    *,
    output: Path | None = None,
    overlay: Path | None = None,
    least_score: float = 0.3,
    progress: bool = True,
) -> int:
    """Find objects or label maps in videos and images, and write what is asked for.

    Args:
        predictor: finds them.
        sources: videos and images.
        output: of objects a JSON file of COCO (``images``) and YouTube-VIS (``videos``), whose
            annotations have a ``score``; of label maps a folder of PNG files, one per frame, with
            ``classes.json``.
        overlay: an MP4 of a video or a PNG of an image; of several a folder.
        least_score: of objects; others are left out.
        progress: show progress bars.

    Returns:
        The number of videos and images that failed; they are logged.

    Raises:
        ConfigError: the names of files do not fit what is to be written.
        WriteError: a file cannot be written.
    """
    _check(predictor, sources, output, overlay)
    content = CocoContent(predictor.class_names)
    failed = 0
    bar = progress_bar(total=len(sources), show=progress, desc="videos", unit="videos")
    with logs_above_bars(), bar:
        for number, source in enumerate(sources, 1):
            try:
                _one(predictor, source.path, number, content, output,
                     _place(overlay, source.path, len(sources) > 1), least_score)  # fmt: skip
            except (DecodeError, ScoreError) as error:
                failed += 1
                reason = str(error)
                logger.error("%s", reason if source.path in reason else f"{source.path}: {reason}")
            bar.update()
    if output is not None and predictor.finds_objects:
        make_folder(output.parent)
        with replacing_text(output) as file:
            json.dump(content.as_json(), file)
    elif output is not None:
        with replacing_text(output / CLASSES) as file:
            json.dump(predictor.class_names, file, indent=2)
    return failed


class CocoContent:
    """Objects of images and videos in the form of COCO and YouTube-VIS.

    Args:
        names: of the classes.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._images: list[dict[str, Any]] = []
        self._videos: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(
        self,
        number: int,
        name: str,
        tracks: Iterable[Track],
        *,
        size: tuple[int, int],
        length: int,
        fps: float,
        video: bool,
        maps: bool = False,
    ) -> None:
        """Take what was found in a video or an image.

        Args:
            number: of the video or image.
            name: of its file.
            tracks: the objects.
            size: height and width.
            length: the number of frames.
            fps: frames per second.
            video: whether it is a video.
            maps: whether the tracks are the classes of label maps, which have masks alone.
        """
        entry = {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        if video:
            self._videos.append(entry | {"length": length, "fps": fps})
        else:
            self._images.append(entry)
        for track in tracks:
            found = annotation_of(track, number, length, video)
            if maps:
                found = {key: value for key, value in found.items() if key not in _OF_OBJECTS}
            self._annotations.append({"id": len(self._annotations) + 1} | found)

    def as_json(self) -> dict[str, Any]:
        """All of it; categories are counted from 1."""
        kinds = {"images": self._images, "videos": self._videos}
        categories = [{"id": k, "name": name} for k, name in enumerate(self._names, 1)]
        return {
            **{kind: entries for kind, entries in kinds.items() if entries},
            "annotations": self._annotations,
            "categories": categories,
        }


def _check(
    predictor: DensePredictor,
    sources: Sequence[Source],
    output: Path | None,
    overlay: Path | None,
) -> None:
    if output is None and overlay is None:
        raise ConfigError("nothing is to be written: give --output or --overlay")
    if output is not None and predictor.finds_objects != (output.suffix == ".json"):
        wanted = "a .json file" if predictor.finds_objects else "a folder for label maps"
        raise ConfigError(f"--output is {output}, expected {wanted}")
    if output is not None and not predictor.finds_objects:
        make_folder(output)
    if overlay is None:
        return
    if len(sources) > 1:
        if overlay.suffix:
            raise ConfigError(f"--overlay of several videos is a folder, not a file: {overlay}")
        return
    suffix = _suffix(sources[0].path)
    if overlay.suffix.lower() != suffix:
        raise ConfigError(f"--overlay is {overlay}, expected a name in {suffix}")


def _suffix(path: str) -> str:
    return ".png" if is_picture(path) else ".mp4"


def _place(overlay: Path | None, path: str, several: bool) -> Path | None:
    """The file of a video's overlay."""
    if overlay is None or not several:
        return overlay
    return overlay / (_stem(path) + _suffix(path))


def _stem(path: str) -> str:
    return short_stem("_".join(Path(path).parts).lstrip("/_."))


def _one(
    predictor: DensePredictor,
    path: str,
    number: int,
    content: CocoContent,
    output: Path | None,
    overlay: Path | None,
    least_score: float,
) -> None:
    """One video or image; what was found is added to `content` when it is whole."""
    lengths, found = list[int](), list[Any]()
    size, rate = (0, 0), 0.0
    with contextlib.ExitStack() as stack:
        draw: Draw | None = None
        for piece in predictor.pieces(path):
            size, rate = (piece.frames.shape[1], piece.frames.shape[2]), piece.fps
            if overlay is not None and draw is None:
                draw = stack.enter_context(_canvas(overlay, rate))
            lengths.append(len(piece.frames))
            found.append(piece.tracks)
            if output is not None and piece.label_maps is not None:
                _write_maps(output, path, piece)
            if draw is not None:
                _draw(draw, piece, predictor.class_names, least_score)
    if not lengths:
        raise DecodeError(f"{path} has no frames")
    if not predictor.finds_objects:
        return
    tracks = [track for track in whole_tracks(found, lengths) if track.score >= least_score]
    content.add(
        number, path, tracks, size=size, length=sum(lengths), fps=rate, video=not is_picture(path)
    )


@contextlib.contextmanager
def _canvas(path: Path, fps: float) -> Iterator[Draw]:
    """Takes the pictures of an overlay: the frames of an MP4, or the one of a PNG."""
    make_folder(path.parent)
    if path.suffix.lower() == ".png":
        with replacing(path) as temporary:

            def save(picture: np.ndarray, time: float) -> None:
                Image.fromarray(picture).save(temporary, "PNG")

            yield save
        return
    with new_video(path, fps or 1.0) as writer:
        yield writer.add


def _draw(draw: Draw, piece: Piece, names: Sequence[str], least_score: float) -> None:
    for t, frame in enumerate(piece.frames):
        if piece.label_maps is not None:
            picture = draw_labels(frame, piece.label_maps[t].numpy())
        else:
            objects = drawn_tracks(piece.tracks, t, names, least_score=least_score)
            picture = draw_objects(frame, objects)
        draw(picture, (piece.start + t) / (piece.fps or 1.0))


def _write_maps(folder: Path, path: str, piece: Piece) -> None:
    """The label maps of a piece: a file for an image, a folder of numbered ones for a video."""
    assert piece.label_maps is not None
    for t, labels in enumerate(piece.label_maps.numpy()):
        place = folder / f"{_stem(path)}.png"
        if not is_picture(path):
            place = folder / _stem(path) / f"{piece.start + t:06d}.png"
            make_folder(place.parent)
        with replacing(place) as temporary:
            Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(
                temporary, "PNG"
            )
