"""Detections of a clip become tracks."""

import torch

from tests.heads.detection.small import TinyBackbone, small_detector
from videonet.heads.detection import Detections, Linker, collect_tracks


def frame(boxes, scores=None, labels=None, embeddings=None, masks=None):
    count = len(boxes)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.full((count,), 0.9) if scores is None else torch.tensor(scores),
        torch.zeros(count, dtype=torch.int64) if labels is None else torch.tensor(labels),
        masks,
        None if embeddings is None else torch.tensor(embeddings, dtype=torch.float32),
    )


def moving(x, y, size=20):
    return [x, y, x + size, y + size]


def ids(frames):
    return [one.instance_ids.tolist() for one in frames]


def test_two_objects_keep_their_numbers_whatever_their_order():
    frames = [frame([moving(4 * t, 0), moving(50 - 3 * t, 50)]) for t in range(5)]
    frames[2] = frames[2].select(torch.tensor([1, 0]))
    assert ids(Linker().link(frames)) == [[0, 1], [0, 1], [1, 0], [0, 1], [0, 1]]


def test_appearance_tells_crossing_objects_apart():
    red, blue = [1.0, 0.0], [0.0, 1.0]
    apart = frame([moving(0, 0), moving(12, 0)], embeddings=[red, blue])
    crossed = frame([moving(0, 0), moving(12, 0)], embeddings=[blue, red])
    assert ids(Linker().link([apart, crossed]))[1] == [1, 0]
    assert ids(Linker(appearance_weight=0.0).link([apart, crossed]))[1] == [0, 1]


def test_an_object_may_be_hidden_for_a_while():
    seen, nothing = frame([moving(0, 0)]), frame([])
    frames = [seen, nothing, nothing, seen]
    assert ids(Linker(patience=2).link(frames))[-1] == [0]
    assert ids(Linker(patience=1).link(frames))[-1] == [1]


def test_another_class_is_another_object():
    frames = [frame([moving(0, 0)], labels=[0]), frame([moving(0, 0)], labels=[1])]
    assert ids(Linker().link(frames)) == [[0], [1]]
    assert ids(Linker(same_class=False).link(frames)) == [[0], [0]]


def test_weak_detections_begin_no_track_but_continue_one():
    frames = [frame([moving(0, 0), moving(60, 60)], scores=[0.9, 0.2])] * 2
    frames.append(frame([moving(0, 0)], scores=[0.2]))
    assert ids(Linker(new_score=0.5).link(frames)) == [[0, -1], [0, -1], [0]]


def test_every_clip_begins_anew():
    linker = Linker()
    clip = [frame([moving(0, 0)])]
    assert ids(linker.link(clip)) == ids(linker.link(clip)) == [[0]]


def test_tracks_have_mean_scores_and_the_class_of_most_score():
    linker = Linker(same_class=False)
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    frames = [
        frame([moving(0, 0)], [0.9], [2], masks=masks),
        frame([moving(1, 0)], [0.4], [1], masks=masks),
        frame([]),
        frame([moving(2, 0), moving(70, 70)], [0.4, 0.9], [1, 0], masks=masks.repeat(2, 1, 1)),
    ]
    best, moved = collect_tracks(linker.link(frames))
    assert (best.label, best.boxes[:3]) == (0, [None] * 3)
    assert (moved.instance_id, moved.label) == (0, 2)
    assert abs(moved.score - 1.7 / 3) < 1e-6
    assert moved.boxes[2] is None and moved.masks[2] is None and moved.masks[3].shape == (4, 4)
    assert collect_tracks([frame([])]) == []


def test_a_detector_links_a_still_clip():
    model = small_detector(TinyBackbone())
    clip = torch.rand(1, 3, 1, 64, 64).expand(-1, -1, 3, -1, -1)
    with torch.no_grad():
        (found,) = model(clip, linker=Linker())
    assert len(found[0]) > 2
    for one in found:
        assert one.instance_ids.tolist() == list(range(len(one)))
