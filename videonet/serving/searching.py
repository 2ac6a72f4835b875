"""Moments of an index that resemble a stretch of an upload, with pictures of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from videonet.errors import ConfigError, DecodeError
from videonet.inference.buckets import is_address
from videonet.inference.predictor import Predictor
from videonet.inference.search import SearchIndex
from videonet.serving.decoding import PartViews, PartWindows, chunk_size
from videonet.serving.jobs import Jobs
from videonet.serving.limits import Refusal
from videonet.serving.schemas import Moment
from videonet.serving.uploads import Upload
from videonet.terminal import printable


class IndexSearch:
    """An index that uploads are compared with.

    Args:
        index: open for searching.
        predictors: by name; one of them has to be the model that made the index.

    Attributes:
        model: name of this one.
        clips: which clips of a video have embeddings, as a description of features says.

    Raises:
        ConfigError: none of the models made the index.
    """

    def __init__(self, index: SearchIndex, predictors: Mapping[str, Predictor]):
        self._index = index
        self.model = _maker(index, predictors)
        self.clips = index.description["clips"]
        self._numbers = {video: number for number, video in enumerate(index.videos)}
        self._names = shown_names(index.videos)

    def nearest(self, vectors: Tensor, count: int) -> list[Moment]:
        """The moments nearest to any of some embeddings (M, C), without pictures."""
        moments = []
        for found in self._index.nearest_to(vectors.numpy(), count=count):
            number = self._numbers[found.video]
            moments.append(
                Moment(
                    number=number,
                    video=self._names[number],
                    start=round(found.start, 4),
                    end=round(found.end, 4),
                    similarity=round(found.score, 6),
                )
            )
        return moments

    def path(self, number: int) -> str:
        """The file of a video that the index names; nothing else is ever opened for a request.

        Raises:
            Refusal: there is no such video, or its file is gone.
        """
        if not 0 <= number < len(self._names):
            raise Refusal(404, f"the index has {len(self._names)} videos, no number {number}")
        path = self._index.videos[number]
        if is_address(path):
            raise Refusal(422, f"{self._names[number]} is at an address that is not fetched")
        if not os.path.exists(path):
            raise Refusal(
                404,
                f"{self._names[number]} is not where the index has it any more: index the videos "
                "again",
            )
        return path

    def file(self, number: int) -> str:
        """The same, where it is one file.

        Raises:
            Refusal: there is no such video, its file is gone, or it is a folder.
        """
        path = self.path(number)
        if not os.path.isfile(path):
            raise Refusal(404, f"{self._names[number]} is no file")
        return path


def _maker(index: SearchIndex, predictors: Mapping[str, Predictor]) -> str:
    refusals = []
    for name, predictor in predictors.items():
        try:
            index.check(predictor)
            return name
        except ConfigError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    raise ConfigError(
        f"{index.folder} is searched with the model that made it: give --checkpoint "
        f"{index.description.get('checkpoint')}"
    )


def shown_names(videos: Sequence[str]) -> list[str]:
    """What people are shown for paths: what follows the folder that they have in common."""
    folders = {os.path.dirname(os.path.abspath(video)) for video in videos if not is_address(video)}
    common = os.path.commonpath(folders) if folders else ""
    return [
        printable(
            video.partition("?")[0] if is_address(video) else os.path.relpath(video, common or ".")
        )
        for video in videos
    ]


async def nearest_moments(
    jobs: Jobs, search: IndexSearch, upload: Upload, start: float, end: float | None, count: int
) -> list[Moment]:
    """The moments of the index nearest to a stretch of an upload, with pictures.

    Args:
        jobs: decodes.
        search: the index.
        upload: the video.
        start: seconds.
        end: seconds; None for its end.
        count: the most moments.

    Raises:
        Refusal, DecodeError: it cannot be answered, and why.
    """
    await jobs.look(upload)
    vectors = await _embeddings(jobs, search, upload, start, end)
    found = await jobs.compute(search.nearest, vectors, count)
    return await asyncio.gather(*(_with_picture(jobs, search, moment) for moment in found))


async def _embeddings(
    jobs: Jobs, search: IndexSearch, upload: Upload, start: float, end: float | None
) -> Tensor:
    """Those of the stretch (M, C), which is treated as the index treats a video."""
    path, model = str(upload.path), jobs.number(search.model)
    predictor, clips = jobs.predictors[search.model], search.clips
    if not clips.get("sliding"):
        pixels = await jobs.decode(PartViews(path, model, start, end))
        return (await jobs.compute(predictor.run, torch.from_numpy(pixels)))[1]
    crops, vectors = clips["crops"], list[Tensor]()
    count = chunk_size(predictor.cfg, crops)

    def step(first: int) -> PartWindows:
        return PartWindows(
            path, model, clips["window"], clips["stride"], crops, first, count, start, end
        )

    async with jobs.steps(step, count) as groups:
        async for windows in groups:
            scored = await jobs.score_windows(search.model, windows)
            vectors += [window.embedding for window in scored]
            jobs.check_windows(upload, len(vectors))
    return torch.stack(vectors)


async def _with_picture(jobs: Jobs, search: IndexSearch, moment: Moment) -> Moment:
    try:
        path = search.path(moment.number)
    except Refusal as error:
        return moment.model_copy(update={"error": str(error)})
    try:
        strip = await jobs.strip(path, moment.start, moment.end)
    except DecodeError as error:
        return moment.model_copy(
            update={"error": printable(str(error).replace(path, moment.video))}
        )
    return moment.model_copy(update={"picture": strip})
