"""The checkable facts of the pages: links lead to files, named files exist, lists are complete."""

import re

import pytest

from capface.tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/miniature.md", "docs/training.md", "experiments/README.md"])
def test_named_files_exist(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    tops = "nodes|host|experiments|training|photos|miniature|models|flame|files|tests|tools|benchmarks|docs|web|locales"
    named = re.findall(rf"`((?:{tops})/[\w/.]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_workflow_is_listed():
    page = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "workflows").glob("*.json") if f"(../workflows/{path.name})" not in page]
    assert missing == []


def test_every_room_is_described():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.py")]
    parts = [
        path.parent.relative_to(ROOT).as_posix()
        for top in ("flame", "host", "models")
        for path in ROOT.glob(f"{top}/*/__init__.py")
    ]
    assert [room for room in rooms + parts if f"`{room}/`" not in page] == []
