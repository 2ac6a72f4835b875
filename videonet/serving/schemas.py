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
    finds: str = Field(description="labels of videos, objects of frames, or label_maps of frames")


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
    """An object over the frames of a video, or a class of its label maps."""

    number: int = Field(description="of the object in the video, or of the class")
    label: str
    score: float = Field(description="mean over its frames; of a class its share of the pixels")
    scores: list[float] = Field(description="of each frame, 0 where it is not there")
    boxes: list[tuple[float, ...] | None] = Field(
        description="left, top, width, height in pixels, in each frame; null where it is not there"
    )
    masks: list[str | None] = Field(
        description="in each frame, run lengths of a mask of the frame's size as COCO compresses "
        "them; empty where the model gives boxes alone"
    )


class ModelResult(BaseModel):
    """What one model says of a video."""

    model: str
    classes: list[str]
    top: list[Score]
    windows: list[WindowScore]
    segments: list[LabelledSegment]
    times: list[float] = Field(
        default=[], description="seconds of the frames that objects and label maps are of"
    )
    objects: list[FoundObject] = Field(default=[], description="the best first")
    jsonl: str = Field(
        default="", description="where labels are as JSON lines, for an hour; empty for none"
    )
    csv: str = Field(default="", description="the same as a table")
    coco: str = Field(
        default="", description="where objects and label maps are as JSON of COCO, likewise"
    )


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

    number: int = Field(description="of the video in the index")
    video: str = Field(description="its name")
    start: float
    end: float
    similarity: float = Field(description="cosine of embeddings, 1 for the same")
    picture: str = Field(default="", description="some of its frames, as a data: address")
    error: str = Field(default="", description="why it has no picture, in one sentence")


class Progress(BaseModel):
    """How far a request has come."""

    state: str = Field(description="unknown, waiting, reading or scoring")
    ahead: int = Field(description="requests before it")
    done: int = Field(description="windows or frames that are scored")
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
