"""What the HTTP API answers."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Error(BaseModel):
    """What went wrong."""

    error: str = Field(description="one sentence")


class ModelFacts(BaseModel):
    """A model that answers."""

    name: str
    classes: list[str]
    score_range: tuple[float, float] | None = Field(description="null where scores have no limits")
    slides: bool = Field(description="whether windows have a length of their own")


class ServerFacts(BaseModel):
    """What this server does, and up to where."""

    version: str
    models: list[ModelFacts]
    limits: dict[str, float]
    search: bool
    urls: bool
    data: str = Field(description="the list that is browsed; empty for none")


class Score(BaseModel):
    """A name and its score."""

    label: str
    score: float


class WindowScore(BaseModel):
    """Scores of a stretch of time."""

    start: float
    end: float
    scores: list[float] = Field(description="of all classes, in their order")


class LabelledSegment(BaseModel):
    """A stretch of time with one label."""

    start: float
    end: float
    label: str
    score: float


class FoundObject(BaseModel):
    """A thing on a frame; coordinates are shares of the picture's width and height."""

    time: float
    label: str
    score: float
    box: tuple[float, float, float, float] = Field(description="left, top, right, bottom")
    outline: list[tuple[float, float]] = Field(default=[], description="of its mask; may be empty")


class ModelResult(BaseModel):
    """What one model says of a video."""

    model: str
    classes: list[str]
    top: list[Score]
    windows: list[WindowScore]
    segments: list[LabelledSegment]
    objects: list[FoundObject]
    jsonl: str = Field(description="where the results are as JSON lines, for an hour")
    csv: str = Field(description="the same as a table")


class VideoFacts(BaseModel):
    """What is in a file."""

    frames: int
    fps: float
    width: int
    height: int
    duration: float
    codec: str
    is_picture: bool


class PredictionAnswer(BaseModel):
    """What all models say of a video."""

    video: str
    facts: VideoFacts
    strip: str = Field(description="some frames side by side, as a data: address")
    results: list[ModelResult]


class HeatFrame(BaseModel):
    """A frame and the same under its heat map, as data: addresses."""

    time: float
    picture: str
    heat: str


class Explanation(BaseModel):
    """Where a model looks for a label."""

    model: str
    label: str
    score: float
    start: float
    end: float
    frames: list[HeatFrame]


class Moment(BaseModel):
    """A stretch of a video of the index that resembles the one that was asked for."""

    video: str
    start: float
    end: float
    similarity: float


class Progress(BaseModel):
    """How far a request has come."""

    state: str = Field(description="unknown, waiting, reading or scoring")
    ahead: int = Field(description="requests before it")
    done: int = Field(description="windows that are scored")
    total: int


class ClipRow(BaseModel):
    """A clip of a list."""

    index: int
    name: str
    labels: list[str]
    prediction: str
    score: float | None
    score_of_label: float | None
    loss: float | None
    group: int | None = Field(description="clips of one number have the same content")


class ClipPage(BaseModel):
    """Some clips of a list."""

    total: int
    scored: int
    listed: int
    classes: list[str]
    clips: list[ClipRow]
