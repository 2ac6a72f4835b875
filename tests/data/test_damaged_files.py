"""Hundreds of damaged files made from real ones, and thousands of opened files."""

import csv
import gc
import random
from pathlib import Path

import numpy as np
import pytest

from videonet.data.decode import open_video
from videonet.data.loading.workers import WorkerFailure, WorkerPool

HERE = Path(__file__).parent
FILES = 500
LIMIT = 60.0  # seconds for one file, on a slow and busy machine
INDICES = (0, 1, 5, 9, 20, 30)


def truncate(data, rng, other):
    return data[: rng.randrange(len(data) // 20, len(data))]


def flip_bits(data, rng, other):
    for _ in range(1 + len(data) // 4000):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def zero_a_part(data, rng, other):
    start = rng.randrange(len(data))
    length = min(len(data) - start, rng.randrange(16, 4000))
    data[start : start + length] = bytes(length)
    return data


def swap_header(data, rng, other):
    """The first bytes of another video: another size, codec, or container."""
    length = rng.choice([64, 512, 2048])
    return other[:length] + data[length:]


DAMAGE = (truncate, flip_bits, zero_a_part, swap_header)


@pytest.fixture(scope="module")
def sources(shared_dir):
    with open(shared_dir / "data" / "videos.csv", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["path"].startswith("decode/")]
    paths = [shared_dir / "data" / row["path"] for row in rows if not row["error"]]
    small = [path for path in paths if path.stat().st_size < 150_000]
    assert len(small) > 30
    return small


@pytest.fixture(scope="module")
def damaged(sources, tmp_path_factory):
    """(damaged file, its source, what was done to it)."""
    folder, rng = tmp_path_factory.mktemp("damaged"), random.Random(0)
    files = []
    for k in range(FILES):
        source, other = sources[k % len(sources)], rng.choice(sources)
        damage = DAMAGE[k // len(sources) % len(DAMAGE)]
        data = damage(bytearray(source.read_bytes()), rng, other.read_bytes())
        path = folder / f"{k}{source.suffix}"
        path.write_bytes(data)
        files.append((path, source, damage))
    return files


@pytest.fixture(scope="module")
def faults():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import faults

        yield faults


def read_all(faults, paths, backend, indices=INDICES):
    pool = WorkerPool(faults.read_some, 2, LIMIT)
    for path in paths:
        pool.submit(path, (str(path), backend, indices))
    found = {}
    while (done := pool.result()) is not None:
        found[done[0]] = done[1]
    pool.close()
    return found


@pytest.mark.slow
def test_damaged_files_are_refused_or_read(damaged, sources, faults):
    whole = read_all(faults, sources, "auto", range(60))
    found = read_all(faults, [path for path, _, _ in damaged], "auto")
    assert len(found) == FILES
    counts = {damage: [0, 0] for damage in DAMAGE}
    for path, source, damage in damaged:
        outcome = found[path]
        assert not isinstance(outcome, WorkerFailure), f"{damage.__name__} of {source}: {outcome}"
        refused = isinstance(outcome, str)
        counts[damage][refused] += 1
        if refused:
            assert outcome.startswith(f"cannot read {path}: ") and "\n" not in outcome
        elif damage is truncate:  # what is left of it is what was there at that time
            for time, frame in outcome.items():
                assert np.array_equal(frame, whole[source][time]), f"{source} at {time} ms"
    for damage, (read, refused) in counts.items():
        assert refused > 10, f"{damage.__name__}: {read} read, {refused} refused"


@pytest.mark.slow
def test_decord_may_end_its_process_but_not_the_pool(damaged, faults):
    pytest.importorskip("decord")
    found = read_all(faults, [path for path, _, _ in damaged], "decord")
    assert len(found) == FILES
    for path, outcome in found.items():
        if isinstance(outcome, str):
            assert outcome.startswith(f"cannot read {path}: ")


def resident():
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.parametrize("backend", ["auto", "decord"])
def test_memory_is_flat_over_2000_opens(sources, backend):
    if backend != "auto":
        pytest.importorskip(backend)

    def read(count):
        for k in range(count):
            with open_video(sources[k % len(sources)], backend, short_side=64) as reader:
                reader.frames_at([0, reader.info.frames - 1])
        gc.collect()

    read(4 * len(sources))
    before = resident()
    read(2000)
    assert resident() - before < 40
