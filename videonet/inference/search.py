"""Finding moments: which clips of a collection are the nearest to a clip, a part of one, a picture.

A folder of features (:mod:`videonet.data.feature_store`) can be searched as it is, exactly: the
similarity of two clips is the cosine between their embeddings. :func:`build_index` adds the same
embeddings as one Parquet file, which other programs read too, and for many clips an approximate
index of faiss.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from videonet.data.decode import Encoded
from videonet.data.feature_store import iterate_features, read_description, read_videos_of
from videonet.data.loading.build import evaluation_views
from videonet.data.preparing.contact_sheet import strip_of, write_rows
from videonet.data.texts import read_text
from videonet.errors import ConfigError, DataError
from videonet.files import replacing, replacing_text
from videonet.inference.description import describe_scoring
from videonet.inference.parts import part_views, part_windows
from videonet.inference.predictor import Predictor

TABLE, VECTORS, NOTES = "embeddings.parquet", "vectors.faiss", "search.json"
MANY = 200_000  # clips from which on an approximate index is built
_LINKS, _BREADTH = 32, 256  # of the graph: edges of a clip, candidates that a search keeps
_TOGETHER = 4096  # clips that are held while a table is written
_OVERLAP = 0.25  # of the shorter of two moments of a video, from which on they are the same


@dataclass(frozen=True)
class Moment:
    """A part of a video that was found.

    Attributes:
        video: its path.
        start: seconds from the first frame.
        end: seconds from the first frame.
        score: cosine between its embedding and the nearest one of what was asked for.
        label: its class, where the list of videos gave one.
    """

    video: str
    start: float
    end: float
    score: float
    label: int | None = None


class SearchIndex:
    """The embeddings of a folder, open for searching; several threads may search.

    Args:
        folder: where it lies.
        description: what made the embeddings.
        videos: paths.
        labels: of the videos.
        owner: number of the video of each clip, (N,).
        times: start and end of each clip in seconds, (N, 2).
        vectors: of length 1, (N, C) float32; None where a graph holds them.
        graph: an index of faiss, or None.
    """

    def __init__(
        self,
        folder: Path,
        description: dict[str, Any],
        videos: Sequence[str],
        labels: Sequence[int | None],
        owner: np.ndarray,
        times: np.ndarray,
        vectors: np.ndarray | None,
        graph: Any = None,
    ):
        self.folder, self.description = folder, description
        self.videos, self.labels, self.owner, self.times = videos, labels, owner, times
        self._vectors = None if vectors is None else torch.from_numpy(vectors)
        self._graph = graph
        self._predictor: Predictor | None = None

    def __len__(self) -> int:
        """The number of clips."""
        return len(self.owner)

    @property
    def vectors(self) -> torch.Tensor:
        """All embeddings, (N, C). Raises ConfigError where a graph holds them."""
        if self._vectors is None:
            raise ConfigError(f"{self.folder} is open with its graph: open it with exact=True")
        return self._vectors

    @classmethod
    def open(cls, folder: str | Path, *, exact: bool = False) -> SearchIndex:
        """The index of a folder that :func:`build_index` or ``videonet features`` wrote.

        Args:
            folder: of features.
            exact: read all vectors, even if there is a graph of them.

        Raises:
            DataError: it holds no features, or is older than they are.
            ConfigError: its graph needs faiss, which is not installed.
        """
        folder = Path(folder)
        description = read_description(folder)
        if (folder / NOTES).is_file():
            return _open_table(cls, folder, description, exact=exact)
        videos, labels, owner, times, vectors = [], [], [], [], []
        for number, video in enumerate(iterate_features(folder)):
            videos.append(video.video)
            labels.append(video.label)
            owner.append(np.full(len(video.features), number))
            times.append(video.times)
            vectors.append(unit(video.features))
        if not videos:
            raise DataError(f"{folder} holds the features of no video")
        parts = (np.concatenate(owner), np.concatenate(times), np.concatenate(vectors))
        return cls(folder, description, videos, labels, *parts)

    def nearest(
        self,
        clip: Encoded,
        predictor: Predictor | None = None,
        *,
        start: float = 0.0,
        end: float | None = None,
        count: int = 10,
    ) -> list[Moment]:
        """The moments that are the most similar to a clip, the best first.

        Overlapping clips of one video count as one moment, the best of them.

        Args:
            clip: whatever :func:`videonet.data.decode.open_video` opens: a video, a picture, bytes.
            predictor: with the model and the settings of the index; None to load the checkpoint
                that the index names, once.
            start: the first second of the clip that is asked for.
            end: the last one; None for the end of the clip.
            count: the most moments.

        Raises:
            DecodeError: the clip cannot be read, or has nothing between `start` and `end`.
            ConfigError: the predictor is another one than that of the index.
        """
        if predictor is None:
            predictor = self._predictor = self._predictor or self.load_predictor()
        self.check(predictor)
        vectors = embed(predictor, clip, self.description["clips"], start=start, end=end)
        return self.nearest_to(vectors, count=count)

    def load_predictor(self) -> Predictor:
        """The model that made the embeddings, from where it lay then."""
        return Predictor.from_checkpoint(self.description["checkpoint"])

    def check(self, predictor: Predictor) -> None:
        """Refuse a model whose embeddings are not to be compared with those of the index.

        Raises:
            ConfigError: names what differs.
        """
        wanted = json.loads(json.dumps(describe_scoring(predictor)))
        for key in ("weights", "model", "settings"):
            if wanted[key] != self.description.get(key):
                raise ConfigError(
                    f"{self.folder} was made by {self.description.get('checkpoint')} with other "
                    f"{key} than those of {predictor.origin or 'this model'}: use that checkpoint "
                    "and its options, or index the videos again"
                )

    def nearest_to(self, vectors: np.ndarray, *, count: int = 10) -> list[Moment]:
        """The moments that are the most similar to any of some embeddings (M, C), the best first.

        Raises:
            ConfigError: their length is not that of the index.
        """
        queries = unit(np.atleast_2d(vectors))
        wanted = min(len(self), 4 * count + 16)
        while True:
            rows, scores = self._candidates(queries, wanted)
            found = self._moments(rows, scores, count)
            if len(found) >= count or wanted >= len(self):
                return found
            wanted = min(len(self), 4 * wanted)

    def _candidates(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the best clips (n,), each once."""
        width = self._graph.d if self._vectors is None else self._vectors.shape[1]
        if queries.shape[1] != width:
            raise ConfigError(
                f"the embedding has {queries.shape[1]} numbers, those of {self.folder} {width}"
            )
        if self._vectors is None:
            scores, rows = self._graph.search(queries, count)
            rows, scores = rows.ravel(), scores.ravel()
            order = np.argsort(-scores, kind="stable")
            order = order[rows[order] >= 0]  # a graph may find fewer
            _, first = np.unique(rows[order], return_index=True)
            order = order[np.sort(first)]
            return rows[order], scores[order]
        similar = (self._vectors @ torch.from_numpy(queries).T).amax(dim=1)  # (N,)
        best = similar.topk(count)
        return best.indices.numpy(), best.values.numpy()

    def _moments(self, rows: np.ndarray, scores: np.ndarray, count: int) -> list[Moment]:
        """Moments of the best rows, without those that overlap a better one."""
        taken: dict[int, list[tuple[float, float]]] = {}
        found: list[Moment] = []
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            video = int(self.owner[row])
            start, end = map(float, self.times[row])
            spans = taken.setdefault(video, [])
            if any(_is_same(start, end, *span) for span in spans):
                continue
            spans.append((start, end))
            found.append(Moment(self.videos[video], start, end, score, self.labels[video]))
            if len(found) == count:
                break
        return found


def _is_same(start: float, end: float, other_start: float, other_end: float) -> bool:
    common = min(end, other_end) - max(start, other_start)
    return common > _OVERLAP * min(end - start, other_end - other_start)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Embeddings (N, C) with length 1, float32; those of length 0 stay."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1))


def embed(
    predictor: Predictor,
    clip: Encoded,
    clips: dict[str, Any],
    *,
    start: float = 0.0,
    end: float | None = None,
) -> np.ndarray:
    """The embeddings (M, C) of a part of a video, which is treated as a video of its own.

    Args:
        predictor: computes them.
        clip: the video.
        clips: which clips of it are taken, as a description of features says: the views of testing
            or a sliding window.
        start: in seconds.
        end: in seconds; None for the end of the video.

    Raises:
        DecodeError: it cannot be read, or nothing lies between `start` and `end`.
    """
    views = evaluation_views(predictor.cfg)
    if not clips.get("sliding"):
        return predictor.run(part_views(views, clip, start, end))[1].numpy()
    plan = {key: clips[key] for key in ("window", "stride", "crops")}
    windows = predictor.score_windows(part_windows(views, clip, start, end, **plan), 1)
    return torch.stack([window.embedding for window in windows]).numpy()


def build_index(folder: str | Path, *, many: int = MANY) -> SearchIndex:
    """Write the Parquet file, and for many clips the graph, of a folder of features.

    A row of the Parquet file is a clip: ``video``, ``label``, ``start``, ``end``, ``embedding``
    (of length 1). What made the features is in the metadata of its schema, under ``videonet``.

    Args:
        folder: of features.
        many: clips from which on faiss builds a graph (HNSW); a search in it is approximate.

    Raises:
        ConfigError: pyarrow or faiss is not installed.
        DataError: the features cannot be read.
        WriteError: a file cannot be written.
    """
    folder = Path(folder)
    description = read_description(folder)
    pa, parquet = _extra("pyarrow"), _extra("pyarrow.parquet")
    (folder / NOTES).unlink(missing_ok=True)  # until all of it is written
    videos = clips = 0
    schema: Any = None
    graph: Any = None
    with replacing(folder / TABLE) as part:
        writer = None
        try:
            for video in iterate_features(folder):
                vectors = unit(video.features)
                if writer is None:
                    schema = _schema(pa, vectors.shape[1], description)
                    writer = parquet.ParquetWriter(part, schema, compression="zstd")
                writer.write_table(_table(pa, schema, video, vectors))
                videos, clips = videos + 1, clips + len(vectors)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError(f"{folder} holds the features of no video")
    if clips >= many:
        faiss = _extra("faiss")
        graph = _graph(faiss, parquet, folder / TABLE)
        with replacing(folder / VECTORS) as part:
            faiss.write_index(graph, str(part))
    notes: dict[str, Any] = {"videos": videos, "clips": clips, "graph": graph is not None}
    notes["made_by"] = description
    with replacing_text(folder / NOTES) as file:
        json.dump(notes, file)
    return SearchIndex.open(folder)


def _schema(pa: ModuleType, width: int, description: dict[str, Any]) -> Any:
    fields = [
        ("video", pa.string()),
        ("label", pa.int64()),
        ("start", pa.float32()),
        ("end", pa.float32()),
        ("embedding", pa.list_(pa.float32(), width)),
    ]
    return pa.schema(fields, metadata={"videonet": json.dumps(description)})


def _table(pa: ModuleType, schema: Any, video: Any, vectors: np.ndarray) -> Any:
    count = len(vectors)
    name = video.video.encode("utf-8", "backslashreplace").decode()
    columns = [
        pa.array([name] * count, pa.string()),
        pa.array([video.label] * count, pa.int64()),
        pa.array(video.times[:, 0].astype(np.float32)),
        pa.array(video.times[:, 1].astype(np.float32)),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _graph(faiss: ModuleType, parquet: ModuleType, table: Path) -> Any:
    graph = None
    for batch in parquet.ParquetFile(table).iter_batches(_TOGETHER, columns=["embedding"]):
        column = batch.column("embedding")
        vectors = column.flatten().to_numpy().reshape(len(column), -1)
        if graph is None:
            graph = faiss.IndexHNSWFlat(vectors.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.add(np.ascontiguousarray(vectors))
    return graph


def _open_table(
    cls: type[SearchIndex], folder: Path, description: dict[str, Any], *, exact: bool
) -> SearchIndex:
    try:
        notes = json.loads(read_text(folder / NOTES, "notes of an index"))
    except ValueError as error:
        raise DataError(f"{folder / NOTES} is not JSON: {error}") from None
    videos, labels, clips = read_videos_of(folder)
    made_of = {"videos": len(videos), "clips": sum(clips), "made_by": description}
    if any(notes.get(key) != value for key, value in made_of.items()):
        raise DataError(
            f"{folder} holds the features of {len(videos)} videos, its index other ones, or of "
            f"{notes.get('videos')}: run videonet index --output {folder} again"
        )
    graphed = bool(notes["graph"]) and not exact
    parquet = _extra("pyarrow.parquet")
    columns = ["start", "end"] + ([] if graphed else ["embedding"])
    table = parquet.read_table(folder / TABLE, columns=columns)
    times = np.stack([table["start"].to_numpy(), table["end"].to_numpy()], axis=1)
    owner = np.repeat(np.arange(len(videos)), clips)
    vectors = graph = None
    if graphed:
        graph = _extra("faiss").read_index(str(folder / VECTORS))
        graph.hnsw.efSearch = _BREADTH
    else:
        flat = table["embedding"].combine_chunks().flatten().to_numpy()
        vectors = np.array(flat).reshape(len(owner), -1)
    return cls(folder, description, videos, labels, owner, times, vectors, graph)


def _extra(name: str) -> ModuleType:
    """A module of the extra ``search``. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"an index needs {name} ({error}): pip install 'videonet[search]'; a folder of "
            "features is searched without it"
        ) from None


def write_moments(
    path: Path,
    clip: Encoded,
    name: str,
    start: float,
    end: float | None,
    moments: Sequence[Moment],
) -> None:
    """Draw a clip that was asked for and, below it, frames of the moments that were found.

    Args:
        path: of the picture.
        clip: what was asked for.
        name: what the picture calls it.
        start: seconds of the clip.
        end: seconds of the clip, or None.
        moments: in their order.

    Raises:
        WriteError: it cannot be written.
    """
    until = "end" if end is None else f"{end:.2f} s"
    rows = [(f"{name}  {start:.2f} s – {until}", strip_of(clip, start, end))]
    for moment in moments:
        title = f"{moment.score:.4f}  {moment.video}  {moment.start:.2f} – {moment.end:.2f} s"
        rows.append((title, strip_of(moment.video, moment.start, moment.end)))
    write_rows(path, "asked for, and the nearest moments", rows)
