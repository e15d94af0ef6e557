"""What the pages say of the code is so: names, links, the picture of the states."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from fastworker import errors
from fastworker.lifecycle import picture
from fastworker.options import SubmitOptions
from fastworker.settings import Settings
from tests.docs.pages import PAGES, ROOT, blocks

DOCS = ROOT / "docs"
PLACE = re.compile(r"`(fastworker\w*/[\w/]+\.py):([\w.]+)`")


def test_each_place_that_how_it_works_names_exists() -> None:
    places = PLACE.findall((DOCS / "how-it-works.md").read_text())
    assert len(places) > 30
    for file, name in places:
        found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        for part in name.split("."):
            assert hasattr(found, part), f"{file} has no {name}"
            found = getattr(found, part)


def test_the_picture_is_the_table() -> None:
    pictures = [block.text for block in blocks(DOCS / "how-it-works.md") if block.language == "mermaid"]
    assert picture().splitlines() in [text.splitlines() for text in pictures]


def test_errors_lists_the_whole_tree() -> None:
    page = (DOCS / "errors.md").read_text()
    tree = (errors.__doc__ or "").partition("\n\n")[2].strip()
    assert tree in page
    names = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_tasks_names_every_option() -> None:
    page = (DOCS / "tasks.md").read_text()
    options = {*SubmitOptions.__annotations__, "name", "retry_on", "give_up_on"}
    assert {name for name in options if f"`{name}`" not in page} == set()


def test_deployment_names_every_setting() -> None:
    page = (DOCS / "deployment.md").read_text()
    assert {name for name in Settings.model_fields if f"| `{name}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        assert not target or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {page.name for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in readme} == set()
