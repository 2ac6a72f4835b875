"""Many files at once give what each gives alone, to the last digit."""

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videonet.data.feature_store import FeatureWriter, read_features
from videonet.errors import WriteError
from videonet.inference import scoring
from videonet.inference.clips import ClipReader
from videonet.inference.decoding import Decoder, Job, Unreadable
from videonet.inference.extraction import extract_features
from videonet.inference.many import Turns, default_workers
from videonet.inference.options import Options
from videonet.inference.result_files import JsonLines
from videonet.inference.run import predict_videos
from videonet.inference.scoring import CPU_BATCH, Scorer
from videonet.inference.sources import Source

ABOUT = {"top_k": 3, "classes": ["red", "green", "blue"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_colours) -> list[Source]:
    """Short clips, two films, a picture, a damaged file and one that is missing."""
    folder = tmp_path_factory.mktemp("files")
    colours = ("red", "green", "blue")
    paths = [
        make_colours(folder / f"{k}.mp4", [(colours[k % 3], 5 + k), (colours[k // 2 % 3], 4)])
        for k in range(5)
    ]
    paths.insert(1, make_colours(folder / "film.mp4", [("green", 150), ("red", 60)]))
    paths.append(make_colours(folder / "other.mp4", [("blue", 90)]))
    Image.fromarray(np.full((32, 48, 3), 90, dtype=np.uint8)).save(folder / "picture.png")
    damaged = folder / "damaged.mp4"
    damaged.write_bytes(b"no video")
    paths[3:3] = [damaged, folder / "missing.mp4"]
    return [Source(str(path)) for path in [*paths, folder / "picture.png"]]


def lines(predictor, sources, path: Path, **options) -> str:
    sliding = options.pop("sliding", False)
    with JsonLines(path, ABOUT) as writer:
        opts = Options(top_k=3, sliding=sliding, stride=0.4 if sliding else None)
        predict_videos(predictor, sources, writer, opts, progress=False, **options)
    return path.read_text()


@pytest.fixture
def predictor(colour_predictor):
    """With random weights: scores with digits of their own."""
    predictor = colour_predictor()
    torch.manual_seed(0)
    with torch.no_grad():
        predictor.model.head.projection.weight.normal_()
    return predictor


@pytest.mark.parametrize("sliding", [False, True])
def test_the_same_lines_from_one_file_at_a_time_and_from_all_at_once(
    predictor, files, tmp_path, sliding
):
    alone = ""
    for k, source in enumerate(files):
        alone += lines(predictor, [source], tmp_path / f"{k}.jsonl", sliding=sliding)
    assert alone.count('"error"') == 2
    here = lines(predictor, files, tmp_path / "here.jsonl", sliding=sliding)
    workers = lines(predictor, files, tmp_path / "workers.jsonl", sliding=sliding, workers=2)
    assert here == alone and workers == alone
    copies = {"devices": ("cpu", "cpu"), "ordered": False, "workers": 1}
    unordered = lines(predictor, files, tmp_path / "unordered.jsonl", sliding=sliding, **copies)
    assert sorted(unordered.splitlines()) == sorted(alone.splitlines())


def test_a_film_goes_on_with_workers_where_it_was_stopped(predictor, files, tmp_path):
    whole = lines(predictor, files[1:2], tmp_path / "whole.jsonl", sliding=True)
    part = tmp_path / "part.jsonl"
    (tmp_path / "part.jsonl.meta.json").write_text(json.dumps(ABOUT))
    part.write_text("".join(line + "\n" for line in whole.splitlines()[:11]))
    assert lines(predictor, files[1:2], part, sliding=True, workers=1) == whole


@pytest.mark.parametrize("sliding", [False, True])
def test_features_are_the_same(predictor, files, tmp_path, sliding):
    found = []
    for workers in (0, 2):
        with FeatureWriter(tmp_path / str(workers), {"classes": []}) as writer:
            options = Options(sliding=sliding)
            frames = not sliding
            failed = extract_features(
                predictor, files, writer, options, frames=frames, progress=False, workers=workers
            )
        assert failed == 2
        found.append(read_features(tmp_path / str(workers)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.video == theirs.video
        assert np.array_equal(ours.features, theirs.features)
        assert np.array_equal(ours.times, theirs.times)
        assert sliding or np.array_equal(ours.frames, theirs.frames)


def test_a_clip_gets_the_same_digits_wherever_it_stands():
    import videonet
    from videonet.config import load_config
    from videonet.inference import Predictor

    torch.manual_seed(0)
    model = videonet.create_model("vit_xs", num_classes=7, num_frames=4, crop_size=32)
    overrides = [
        "MODEL.NAME",
        "vit_xs",
        "MODEL.NUM_CLASSES",
        "7",
        "DEVICE",
        "cpu",
        "DATA.NUM_FRAMES",
        "4",
    ]
    predictor = Predictor(model, load_config(None, overrides), list("abcdefg"))
    scorer = Scorer(predictor)
    clips = torch.randint(0, 256, (CPU_BATCH, 3, 4, 32, 32), dtype=torch.uint8)
    together = scorer.compute([clips])[0]
    for k, row in enumerate(clips.split(1)):
        assert torch.equal(scorer.compute([row])[0][0], together[k])
    order = torch.randperm(CPU_BATCH)
    assert torch.equal(scorer.compute([clips[order]])[0], together[order])


def test_beside_decoders_batches_are_computed_side_by_side(predictor, monkeypatch):
    """With the same weights in memory, a share of the threads each, and the same digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scorer = Scorer(predictor, beside=True)
        copies = [scorer._idle.get() for _ in range(2)]
        pointers = [{p.data_ptr() for p in copy.model.parameters()} for copy in copies]
        assert pointers[0] == pointers[1] == {p.data_ptr() for p in predictor.model.parameters()}
        assert copies[0].model is not copies[1].model
        with scoring._models(2, scorer._threads) as threads:
            assert threads.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
        assert Scorer(predictor)._copies == 1
    finally:
        torch.set_num_threads(before)


class Harmful(ClipReader):
    """Hangs at files named ``hang``, ends its process at those named ``crash``."""

    def __call__(self, path, first=0):
        if "hang" in path:
            time.sleep(60)
        if "crash" in path:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__call__(path, first)


def test_a_crash_and_a_hang_cost_their_files(colour_predictor, files):
    reader = Harmful.of(colour_predictor().cfg, Options(sliding=True), 8)
    names = [files[0].path, "crash.mp4", files[1].path, "hang.mp4", files[2].path]
    jobs = [Job(k, name) for k, name in enumerate(names)]
    ended: dict[int, object] = {}
    windows = []
    with Decoder(reader, 2, timeout=4.0) as decoder:
        for job, piece in decoder.pieces(jobs):  # nothing has to wait: no pause
            if isinstance(piece, Unreadable) or piece.span.last:
                assert job.number not in ended
                ended[job.number] = piece
            if job.number == 2 and not isinstance(piece, Unreadable):
                windows += range(piece.span.first, piece.span.first + len(piece.span.times))
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert "SIGSEGV" in ended[1].reason and "longer than 4 s" in ended[3].reason
    assert windows == list(range(len(windows))) and len(windows) > 30


def test_a_worker_that_is_killed_costs_no_window(colour_predictor, files):
    reader = ClipReader.of(colour_predictor().cfg, Options(sliding=True, stride=0.1), 4)
    wanted = sum(len(piece.span.times) for piece in reader(files[1].path))
    found, killed = [], False
    with Decoder(reader, 1, ahead=1) as decoder:
        for _, piece in decoder.pieces([Job(0, files[1].path)]):
            found += range(piece.span.first, piece.span.first + len(piece.span.times))
            if not killed:
                os.kill(decoder._pool._workers[0].process.pid, signal.SIGKILL)
                killed = True
    assert found == list(range(wanted))


def test_an_error_ends_the_run_at_once(predictor, files, tmp_path):
    """As a full disk does; nobody waits for files that are under way, and no thread is left."""
    before = set(threading.enumerate())
    with JsonLines(tmp_path / "a.jsonl", ABOUT) as writer:

        def full(*_):
            raise WriteError("the disk is full")

        writer.window = full
        options = Options(top_k=3, sliding=True)
        with pytest.raises(WriteError, match="full"):
            predict_videos(predictor, files, writer, options, progress=False, workers=2)
    left = set(threading.enumerate()) - before
    assert {thread.name for thread in left} <= {"tqdm_monitor"}  # it stays for all bars


def test_actions_come_in_the_order_of_the_files():
    said, turns = [], Turns(ordered=True)
    for number, ended in [(1, True), (2, False), (0, False), (0, True), (2, True), (3, False)]:
        turns.do(number, partial(said.append, number))
        if ended:
            turns.end(number)
    assert said == [0, 0, 1, 2, 2, 3] and turns.head == 3


def test_files_behind_a_long_film_wait(predictor, files, tmp_path, monkeypatch):
    """With two files ahead at most, the results are held of no more."""
    monkeypatch.setattr("videonet.inference.many.FILES_AHEAD", 2)
    before = threading.active_count()
    order = [files[1], *[s for s in files if s != files[1]]]
    text = lines(predictor, order, tmp_path / "a.jsonl", sliding=True, workers=2)
    videos = list(dict.fromkeys(json.loads(line)["video"] for line in text.splitlines()))
    assert videos == [source.path for source in order]
    assert threading.active_count() < before + 10


def test_few_files_need_no_processes():
    assert default_workers(8, sliding=False) == 0
    assert default_workers(1, sliding=True) == 1
    assert 1 <= default_workers(1000, sliding=False) <= os.cpu_count()
