"""The pages of docs/: what mkdocs.yml builds is complete, and links lead to files."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# --help documents commands; predict is an old name.
UNDOCUMENTED = {"commands", "configs", "predict"}


def pages_of(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    below = entry.values() if isinstance(entry, dict) else entry
    return [page for part in below for page in pages_of(part)]


def test_the_navigation_has_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(pages_of(nav)) == [page.relative_to(DOCS).as_posix() for page in PAGES]


def test_the_reference_has_every_room():
    named = set()
    for page in (DOCS / "api").glob("*.md"):
        named |= set(re.findall(r"^::: videonet\.(\w+)$", page.read_text(encoding="utf-8"), re.M))
    rooms = {path.parent.name for path in (ROOT / "videonet").glob("*/__init__.py")}
    assert rooms - UNDOCUMENTED <= named
    for room in named:
        assert (ROOT / "videonet" / room).is_dir() or (ROOT / f"videonet/{room}.py").is_file()


@pytest.mark.parametrize(
    "page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", link):
            assert (page.parent / link).exists(), f"{link} is not there"
            if page.is_relative_to(DOCS):
                assert (page.parent / link).resolve().is_relative_to(DOCS), f"{link} leaves docs/"
