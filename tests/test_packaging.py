"""What a user gets from the built wheel, not from the checkout."""

import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy, so that nothing left over in the checkout gets into it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("videonet", "tools", "configs"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "--quiet")
    run("-m", "pip", "wheel", ".", *options, cwd=source)
    (path,) = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def files_below(folder: str, pattern: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern)}


def test_the_wheel_has_every_module_tool_and_config(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = ("*.py", "*.yaml", "*.json", "*.html", "*.css", "*.js", "*.svg")
    wanted = set().union(*(files_below("videonet", kind) for kind in kinds))
    wanted |= {f"videonet/{name}" for name in files_below("tools", "*.py")} | {"videonet/py.typed"}
    wanted |= {f"videonet/{name}" for name in files_below("configs", "*.yaml")}
    assert wanted - names == set()
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged - wanted == set(), "files of the wheel that the checkout does not have"


def test_the_wheel_says_the_version_of_the_package(wheel):
    import videonet

    assert wheel.name.startswith(f"videonet-{videonet.__version__}-py3-none-any")


def test_the_wheel_has_the_console_command(unpacked):
    entries = configparser.ConfigParser()
    (info,) = unpacked.glob("*.dist-info")
    entries.read(info / "entry_points.txt", encoding="utf-8")
    module, _, function = entries["console_scripts"]["videonet"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_wheel_has_the_licence_and_its_requirements(unpacked):
    (info,) = unpacked.glob("*.dist-info")
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text()
    required = [
        line.removeprefix("Requires-Dist: ")
        for line in (info / "METADATA").read_text().splitlines()
        if line.startswith("Requires-Dist: ")
    ]
    for name in ("torch", "torchvision", "pytorchvideo", "av", "fvcore", "iopath"):
        assert any(line.startswith(f"{name}>=") for line in required), name
    assert not [line for line in required if "==" in line.partition(";")[0]], "a pinned version"


def test_configs_are_found_in_the_wheel(unpacked, tmp_path):
    code = (
        "from videonet.config import find_config, load_config;"
        "load_config('K400/MVITv2_B.yaml');"
        "print(find_config('configs/SSv2/MVITv2_S.yaml'))"
    )
    found = run("-c", code, cwd=tmp_path, PYTHONPATH=str(unpacked)).strip()
    assert found == str(unpacked / "videonet" / "configs" / "SSv2" / "MVITv2_S.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("tool", sorted(path.stem for path in (ROOT / "tools").glob("[!_]*.py")))
def test_tools_run_from_the_wheel(tool, unpacked, tmp_path):
    output = run("-m", f"videonet.tools.{tool}", "--help", cwd=tmp_path, PYTHONPATH=str(unpacked))
    assert "usage:" in output


def test_the_oldest_dependencies_are_those_that_setup_cfg_admits():
    """Of every dependency: its floor, or for newer Pythons a later release."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    groups = config["options"]["install_requires"], config["options.extras_require"]["test"]
    floors = dict(
        re.fullmatch(r"([\w-]+)>=([\w.]+)(?:;.*)?", line).groups()
        for line in "\n".join(groups).split("\n")
        if line
    )
    del floors["setuptools"]  # builds the package, and nothing here imports it
    oldest: dict[str, str] = {}
    for line in (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, version = re.fullmatch(r"([\w-]+)==([\w.]+)(?:;.*)?", line).groups()
            oldest.setdefault(name, version)
    found = {name: re.sub(r"(\.0)+$", "", version) for name, version in oldest.items()}
    assert found == {n: re.sub(r"(\.0)+$", "", version) for n, version in floors.items()}
