"""The part of the HTTP API that shows the clips of a list."""

from __future__ import annotations

import mimetypes
from collections import OrderedDict
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import FileResponse

from videonet.errors import DecodeError
from videonet.serving.browsing import Browser
from videonet.serving.limits import Refusal
from videonet.serving.schemas import ClipPage
from videonet.serving.service import Service
from videonet.terminal import printable

KEPT_STRIPS = 2000


def video_response(path: str) -> FileResponse:
    """A file of this machine, which a browser takes for a video or for mere bytes."""
    guess = mimetypes.guess_type(path)[0] or ""
    # What a browser might read as a page or a script is bytes to it.
    kind = guess if guess.startswith("video/") else "application/octet-stream"
    return FileResponse(path, media_type=kind)


def add_browsing(app: FastAPI, service: Service, browser: Browser) -> None:
    """Add the routes below ``/api/clips``.

    Args:
        app: gets them.
        service: decodes film strips.
        browser: has the clips.
    """
    strips: OrderedDict[int, str] = OrderedDict()

    @app.get("/api/clips", summary="Clips of the list that is browsed")
    async def clips(
        order: Annotated[str, Query(description="list, loss, suspect or duplicates")] = "list",
        label: Annotated[str, Query(max_length=500)] = "",
        text: Annotated[str, Query(max_length=500, description="is in the name")] = "",
        first: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=200)] = 24,
        confidence: Annotated[float | None, Query(ge=0, le=1)] = None,
    ) -> ClipPage:
        return browser.page(order, label, text, first, count, confidence)

    @app.get("/api/clips/{index}/video", summary="The file of a clip")
    async def video(index: int) -> FileResponse:
        return video_response(browser.path(index))

    @app.get("/api/clips/{index}/strip", summary="Frames of a clip, as a data: address")
    async def strip(index: int) -> dict[str, str]:
        if index not in strips:
            path = browser.path(index)
            try:
                strips[index] = await service.strip(path)
            except DecodeError as error:
                raise Refusal(422, printable(str(error))) from None
            while len(strips) > KEPT_STRIPS:
                strips.popitem(last=False)
        return {"strip": strips[index]}
