"""A bulk run over two Ray nodes that reach each other over a network alone, one of them killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("ray")

from videonet.config import load_config
from videonet.inference.bulk import bulk_here, describe_bulk, paths_of
from videonet.inference.options import Options
from videonet.inference.predictor import Predictor
from videonet.inference.rows import Parts
from videonet.models import create_model

FIRST, SECOND = "10.77.13.1", "10.77.13.2"
PORT = "6399"
MEMORY = "100000000"  # bytes of a node's object store


def run_on(address: str, model: str, videos: str, output: str) -> None:
    """The process of the first node: its first rows wait until the second node is gone."""
    import ray

    from videonet.inference.bulk_ray import bulk_on_ray

    predictor, options = Predictor.from_pretrained(model), Options(2)
    ray.init(address=address, log_to_driver=False)
    folder = Path(output)
    with Parts(folder, describe_bulk(predictor, options)) as parts:
        add = parts.add

        def take(table):
            folder.with_suffix(".begun").touch()
            while not folder.with_suffix(".killed").exists():
                time.sleep(0.1)
            return add(table)

        parts.add = take
        bulk_on_ray(predictor, paths_of([videos], "path"), parts, options, models=2, progress=False)


@contextlib.contextmanager
def two_namespaces() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces with a cable between them."""
    names = tuple(f"videonet-{os.getpid()}-{side}" for side in "ab")
    ends = tuple(f"vn{os.getpid() % 100000}{side}" for side in "ab")
    made = []
    try:
        for name in names:
            try:
                call("ip", "netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
            made.append(name)
        call("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, (FIRST, SECOND), strict=True):
            call("ip", "link", "set", end, "netns", name)
            call("ip", "-n", name, "addr", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                call("ip", "-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in made:
            kill_all(name)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=120)


def kill_all(namespace: str) -> None:
    """Kill every process that is in a namespace."""
    found = subprocess.run(
        ["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True
    )
    for number in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def start_node(namespace: str, *words: str) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    call(
        *("ip", "netns", "exec", namespace, ray, "start", *words),
        *("--object-store-memory", MEMORY, "--disable-usage-stats"),
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("ip"),
    reason="network namespaces need root and iproute2",
)
def test_a_node_behind_a_network_is_killed(make_colours, tmp_path):
    (tmp_path / "videos").mkdir()
    for k in range(24):
        make_colours(tmp_path / "videos" / f"{k:02}.mp4", [("red", 6 + k), ("blue", 6)])
    (tmp_path / "videos" / "damaged.mp4").write_bytes(b"no video")
    keys = ["MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", "3", "DEVICE", "cpu"]
    keys += ["DATA.TEST_CROP_SIZE", "32", "DATA.NUM_FRAMES", "4", "TEST.NUM_ENSEMBLE_VIEWS", "2"]
    network = create_model("mvit_v2_xs", num_classes=3, num_frames=4, crop_size=32)
    trained = Predictor(network, load_config(None, keys), ["a", "b", "c"])
    model = trained.save_pretrained(tmp_path / "model")
    output = tmp_path / "rows"
    with two_namespaces() as (first, second):
        start_node(
            *(first, "--head", "--node-ip-address", FIRST, "--port", PORT, "--num-cpus", "3"),
            *("--include-dashboard", "false"),
        )
        start_node(
            *(second, "--address", f"{FIRST}:{PORT}", "--node-ip-address", SECOND),
            *("--num-cpus", "2"),
        )
        words = [f"{FIRST}:{PORT}", str(model), str(tmp_path / "videos"), str(output)]
        code = f"from tests.inference.test_namespaces import run_on; run_on(*{words!r})"
        run = subprocess.Popen(["ip", "netns", "exec", first, sys.executable, "-c", code])
        wait_for(output.with_suffix(".begun"), run)
        kill_all(second)
        output.with_suffix(".killed").touch()
        assert run.wait(300) == 0
    predictor = Predictor.from_pretrained(model)
    options = Options(2)
    with Parts(tmp_path / "alone", describe_bulk(predictor, options)) as parts:
        paths = paths_of([str(tmp_path / "videos")], "path")
        assert bulk_here(predictor, paths, parts, options, progress=False) == 1
    assert rows(output) == rows(tmp_path / "alone")


def wait_for(path: Path, run: subprocess.Popen) -> None:
    begun = time.monotonic()
    while not path.exists():
        assert run.poll() is None and time.monotonic() - begun < 240
        time.sleep(0.2)


def rows(folder: Path) -> list[dict]:
    import pyarrow.parquet as pq

    found = [row for part in folder.glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    return sorted(found, key=lambda row: (row["path"], row["window"]))
