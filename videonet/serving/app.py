"""The page and the HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from videonet.errors import ConfigError
from videonet.serving.browsing import Browser
from videonet.serving.browsing_routes import add_browsing, video_response
from videonet.serving.dense import finds
from videonet.serving.guard import LOCAL, Guard
from videonet.serving.limits import Refusal
from videonet.serving.schemas import (
    Error,
    Explanation,
    ModelFacts,
    Moment,
    PredictionAnswer,
    Progress,
    ServerFacts,
)
from videonet.serving.searching import IndexSearch
from videonet.serving.service import NO_INDEX, Service, Wanted
from videonet.serving.uploads import Upload, fetched, receive
from videonet.tasks.segments import Hysteresis

STATIC = Path(__file__).parent / "static"
PAGES = {"/": "index.html", "/data": "data.html", "/docs": "docs.html"}
TOKEN = r"^[A-Za-z0-9_-]{0,64}$"
MEDIA = {"jsonl": "application/x-ndjson", "csv": "text/csv", "json": "application/json"}
BODY: dict[str, Any] = {
    "requestBody": {
        "description": "the bytes of a video or a picture",
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "no file"},
    403: {"model": Error, "description": "not allowed"},
    404: {"model": Error, "description": "no such model"},
    408: {"model": Error, "description": "the upload was too slow"},
    413: {"model": Error, "description": "the file is too large"},
    422: {"model": Error, "description": "a value or a file that cannot be used"},
    503: {"model": Error, "description": "the queue is full"},
    504: {"model": Error, "description": "it took too long"},
}
Name = Annotated[str, Query(max_length=500, description="what the file is called")]
Token = Annotated[str, Query(pattern=TOKEN, description="ask /api/progress for it")]
Address = Annotated[str, Query(max_length=2000, description="fetch this address instead of a body")]
Seconds = Annotated[float, Query(ge=0, le=1e6, allow_inf_nan=False)]
Length = Annotated[float | None, Query(gt=0, le=1e6, allow_inf_nan=False)]


def create_app(
    service: Service,
    *,
    browser: Browser | None = None,
    hosts: frozenset[str] = LOCAL,
    url_hosts: frozenset[str] = frozenset(),
    version: str = "",
) -> FastAPI:
    """The application; closing it closes the service.

    Args:
        service: does the work.
        browser: of a data set; None for none.
        hosts: names that the server is reached by; none for any.
        url_hosts: hosts that addresses may be fetched from.
        version: of the package, for the description.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scoring = asyncio.create_task(browser.score(service)) if browser else None
        try:
            yield
        finally:
            if scoring is not None:
                scoring.cancel()
                await asyncio.gather(scoring, return_exceptions=True)
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="videonet",
        version=version or "0",
        description="What is in a video: send its bytes, and get labels over time or objects.",
        docs_url=None,  # FastAPI's own pages load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, hosts=hosts)
    _add_errors(app)
    _add_pages(app)
    _add_facts(app, service, browser, bool(url_hosts))
    _add_prediction(app, service, url_hosts)
    if service.search is not None:
        _add_index(app, service.search)
    if browser is not None:
        add_browsing(app, service, browser)
    return app


def _add_errors(app: FastAPI) -> None:
    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return JSONResponse({"error": str(error)}, error.status, error.headers)

    async def unusable(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{place}: {first['msg']}"}, 422)

    async def of_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    async def unexpected(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "the server failed; its log says why"}, 500)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, unusable)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, unexpected)


def _add_pages(app: FastAPI) -> None:
    def add(place: str, file: str) -> None:
        async def page() -> FileResponse:
            return FileResponse(STATIC / file)

        app.add_api_route(place, page, methods=["GET"], include_in_schema=False)

    for place, file in PAGES.items():
        add(place, file)
    app.mount("/static", StaticFiles(directory=STATIC))


def _add_facts(app: FastAPI, service: Service, browser: Browser | None, urls: bool) -> None:
    @app.get("/api/info", summary="Models, limits and what else this server does")
    async def info() -> ServerFacts:
        models = [
            ModelFacts(
                name=name,
                classes=model.class_names,
                score_range=(0.0, 1.0) if name in service.dense else model.task.score_range,
                slides=service.slides(name),
                finds=finds(model),
            )
            for name, model in service.models.items()
        ]
        return ServerFacts(
            version=app.version,
            models=models,
            limits=asdict(service.limits),
            search=service.search is not None,
            urls=urls,
            data=browser.name if browser else "",
        )

    @app.get("/api/progress/{token}", summary="How far a request has come")
    async def progress(token: Annotated[str, PathParameter(pattern=TOKEN)]) -> Progress:
        return service.progress(token)

    @app.get("/api/results/{name}.{kind}", summary="A result as a file, for an hour")
    async def result(name: str, kind: str) -> Response:
        text = service.results.text(name, kind)
        if text is None:
            raise Refusal(404, "this result is not kept any more: send the video again")
        headers = {"Content-Disposition": f'attachment; filename="results.{kind}"'}
        return Response(text, media_type=MEDIA[kind], headers=headers)


def _wanted(
    model: Annotated[
        list[str] | None, Query(max_length=8, description="names; default first")
    ] = None,
    top_k: Annotated[int, Query(ge=1, le=1000)] = 5,
    sliding: Annotated[bool, Query(description="windows over the whole video")] = False,
    window: Length = None,
    stride: Length = None,
    crops: Annotated[int, Query(ge=1, le=3)] = 1,
    on: Annotated[float, Query(ge=0, le=1)] = 0.5,
    off: Annotated[float, Query(ge=0, le=1)] = 0.3,
    max_gap: Seconds = 0.0,
    min_length: Seconds = 0.0,
    smooth: Annotated[int, Query(ge=1, le=999)] = 1,
    min_score: Annotated[float, Query(ge=0, le=1, description="of objects")] = 0.3,
) -> Wanted:
    if crops == 2:
        raise Refusal(422, "crops: a window has 1 or 3")
    try:
        rule = Hysteresis(on, off, max_gap, min_length, smooth)
    except ConfigError as error:
        raise Refusal(422, str(error)) from None
    over_time = sliding or window is not None or stride is not None
    models = list(dict.fromkeys(model or ()))
    return Wanted(models, top_k, over_time, window, stride, crops, rule, min_score)


def _add_prediction(app: FastAPI, service: Service, url_hosts: frozenset[str]) -> None:
    @contextlib.asynccontextmanager
    async def received(
        request: Request, name: str, url: str = "", token: str = ""
    ) -> AsyncIterator[Upload]:
        with service.held(token):
            if url:
                opened = fetched(url, url_hosts, service.folder, service.limits)
                upload = await asyncio.to_thread(opened.__enter__)
                try:
                    yield upload
                finally:
                    await asyncio.to_thread(opened.__exit__, None, None, None)
            else:
                body = receive(
                    request.stream(), request.headers, name, service.folder, service.limits
                )
                async with body as upload:
                    yield upload

    @app.post("/api/predict", responses=ERRORS, openapi_extra=BODY, summary="What is in a video")
    async def predict(
        request: Request,
        wanted: Annotated[Wanted, Depends(_wanted)],
        name: Name = "video",
        url: Address = "",
        progress: Token = "",
    ) -> PredictionAnswer:
        """Labels of a video, and with `sliding` over time, with segments.

        Of a model for frames: boxes, masks or label maps of all of them.
        """
        async with received(request, name, url, progress) as upload:
            return await service.predict(upload, wanted, progress)

    @app.post("/api/explain", responses=ERRORS, openapi_extra=BODY, summary="Where the model looks")
    async def explain(
        request: Request,
        time: Seconds = 0.0,
        label: Annotated[str, Query(max_length=500, description="default: the best")] = "",
        model: Annotated[str, Query(max_length=500)] = "",
        window: Length = None,
        stride: Length = None,
        name: Name = "video",
    ) -> Explanation:
        """Frames around a time under a class activation map."""
        async with received(request, name) as upload:
            return await service.explain(upload, model, label, time, window, stride)

    @app.post("/api/search", responses=ERRORS, openapi_extra=BODY, summary="The nearest moments")
    async def search(
        request: Request,
        start: Seconds = 0.0,
        end: Annotated[float | None, Query(gt=0, le=1e6, allow_inf_nan=False)] = None,
        count: Annotated[int, Query(ge=1, le=100)] = 12,
        name: Name = "video",
    ) -> list[Moment]:
        """Moments of the index that resemble a stretch of a video, the nearest first."""
        if service.search is None:
            raise Refusal(404, NO_INDEX)
        async with received(request, name) as upload:
            return await service.moments(upload, start, end, count)


def _add_index(app: FastAPI, search: IndexSearch) -> None:
    @app.get("/api/moments/{number}/video", summary="The file of a video of the index")
    async def video(number: int) -> FileResponse:
        return video_response(search.file(number))
