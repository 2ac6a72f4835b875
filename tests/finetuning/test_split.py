"""What belongs together, what is a copy of what, and what is held out."""

from collections import Counter

import numpy as np
import pytest

from tests.finetuning.conftest import look, video
from videonet.finetuning.examine import look_of
from videonet.finetuning.facts import find_copies
from videonet.finetuning.groups import by_looks, by_names, find_groups
from videonet.finetuning.split import hold_out, subset, together


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("{c}/person{g:02}_{c}_d{k}.mp4", "by person"),
        ("{c}/v_{c}_g{g:02}_c0{k}.avi", "by group"),
        ("{c}/S001C00{k}P{g:03}R001A00{c}.avi", "by person"),
        ("{c}/scene-{g}-take-{k}.mp4", "by scene"),
        ("{c}/subject{g}_{k}.mp4", "by person"),
        ("{c}/s{g:02}_t{k}.mp4", "by subject"),
        ("{c}/anna{g}/clip_{k}.mp4", "by the folders"),
        ("{c}/VID_2024030{g}_10{k}000.mp4", "by the day"),
        ("{c}/kitchen{g}x_{k}.mp4", "by what names begin with"),
    ],
)
def test_names_say_what_belongs_together(name, word):
    places = [(c, g, k) for c in range(3) for g in range(1, 6) for k in range(3)]
    found = by_names([name.format(c=c, g=g, k=k) for c, g, k in places], [c for c, _, _ in places])
    assert word in found.why
    of = {}
    for (_, g, _), group in zip(places, found.names, strict=True):
        assert of.setdefault(g, group) == group
    assert len(set(of.values())) == 5


@pytest.mark.parametrize(
    "name", ["{c}/IMG_{n:04}.mp4", "{c}/{c}_{n}.mp4", "{c}/clip ({n}).mp4", "{c}/{n:08x}.mp4"]
)
def test_counters_say_nothing(name):
    places = [(c, 20 * c + k) for c in range(3) for k in range(20)]
    found = by_names([name.format(c=f"c{c}", n=n) for c, n in places], [c for c, _ in places])
    assert not found.names and "say of no person" in found.why


def test_looks_say_it_where_names_do_not():
    videos = [video(f"/d/{k}.mp4", k % 2, look=look(k // 4, noise=k % 4)) for k in range(24)]
    found = find_groups(videos, "/d")
    assert len(set(found.names)) == 6 and "by look" in found.why
    one = [video(f"/d/{k}.mp4", k % 2, look=look(0, noise=1)) for k in range(24)]
    assert not by_looks(one).names and "flattering" in by_looks(one).why
    assert not find_groups(videos, "/d", how="none").names
    column = find_groups(videos, "/d", ("signer", [str(k % 5) for k in range(24)]))
    assert column.names[:2] == ["0", "1"] and "'signer'" in column.why


def test_copies_are_found_by_content_and_by_look():
    videos = [
        *(video("a", 0, look=look(1)), video("b", 1, digest="a", look=look(1))),
        *(video("c", 0, look=look(1, noise=1)), video("d", 0, look=look(2))),
        video("e", 0, look=look(1), seconds=9.0),
    ]
    found = find_copies(videos)
    assert list(found.same) == [(1, 0)] and list(found.alike) == [(2, 0)]
    assert list(found.of) == [0, 0, 0, 3, 4]
    blank = [
        video(str(k), 0, look=look_of(np.zeros((3, 32, 32, 3)), np.zeros((4, 32, 32, 3))))
        for k in range(3)
    ]
    assert not find_copies(blank).alike


@pytest.mark.parametrize("grouped", [False, True])
def test_a_share_of_every_class_is_held_out(grouped):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 300).tolist()
    groups = [f"g{k}" for k in rng.integers(0, 40, 300)] if grouped else []
    held = hold_out(labels, groups, seed=1)
    share = Counter(labels[k] for k in held)
    for label, total in Counter(labels).items():
        assert 0.12 <= share[label] / total <= 0.4
    if grouped:
        assert not {groups[k] for k in held} & {groups[k] for k in range(300) if k not in held}
    assert hold_out(labels, groups, seed=1) == held != hold_out(labels, groups, seed=2)


@pytest.mark.parametrize(
    ("labels", "held"), [([0, 0, 1, 1, 2, 2], 3), ([0, 1, 2], 0), ([0] * 50 + [1], 10)]
)
def test_every_class_keeps_a_video_to_train_with(labels, held):
    found = hold_out(labels)
    assert len(found) == held
    assert set(labels) == {label for k, label in enumerate(labels) if k not in found}


def test_copies_stay_on_one_side():
    labels = [0] * 20 + [1] * 20
    copies = list(range(40))
    copies[25], copies[3] = 5, 2  # one of another class
    for seed in range(20):
        held = hold_out(labels, copies=copies, seed=seed)
        assert (25 in held) == (5 in held) and (3 in held) == (2 in held)


def test_a_subset_has_its_share_of_every_class():
    labels = [0] * 40 + [1] * 20
    found = subset(labels, 0.25)
    assert Counter(labels[k] for k in found) == {0: 10, 1: 5}
    assert subset([0, 1], 0.5) == {0, 1}


def test_a_look_measures_what_moves():
    still = np.full((10, 40, 60, 3), 100, dtype=np.uint8)
    assert look_of(still, still[:4]).touched == 0
    lamp = still + np.arange(10, dtype=np.uint8)[:, None, None, None] * 10
    assert look_of(lamp, lamp[:4]).touched == 0
    moving = still.copy()
    for k in range(10):
        moving[k, 10:20, 5 * k + 5 : 5 * k + 10] = 255
    found = look_of(moving, moving[:4])
    assert 0.02 < found.moving < 0.06 and 0.15 < found.touched < 0.3 and found.border < 0.2
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (10, 40, 60, 3)).astype(np.uint8)
    assert look_of(noise, noise[:4]).border > 0.9


def test_copies_join_groups():
    found = together(5, ["a", "b", "b", "", "c"], [0, 1, 2, 3, 0])
    assert found[0] == found[4] and found[1] == found[2] == "b"
    assert len(set(found)) == 3 and all(found)
    assert len(set(together(3))) == 3 and len(set(together(3, copies=[0, 0, 2]))) == 2
