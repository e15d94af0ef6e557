"""The packages are released together: one version for all, exact pins among them, one command that raises them."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("packages/*/pyproject.toml"))]


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


PROJECTS = {read(path)["project"]["name"]: read(path)["project"] for path in MANIFESTS}
MEMBERS = set(PROJECTS) - {"fastworker"}
VERSION = PROJECTS["fastworker"]["version"]


def requirements(project: dict[str, Any]) -> Iterator[str]:
    yield from project.get("dependencies", [])
    for extra in project.get("optional-dependencies", {}).values():
        yield from extra


def own_requirements(project: dict[str, Any]) -> list[str]:
    """What a package asks of its siblings; `fastworker[fastapi,otel]` inside `fastworker` is itself, no sibling."""
    siblings = [r for r in requirements(project) if r.startswith("fastworker")]
    return [r for r in siblings if not r.startswith(f"{project['name']}[")]


def sibling_of(requirement: str) -> str:
    """Its name, without extras and version."""
    return requirement.partition("==")[0].partition("[")[0]


def test_all_packages_have_one_version() -> None:
    assert {name: project["version"] for name, project in PROJECTS.items()} == dict.fromkeys(PROJECTS, VERSION)


def test_members_pin_each_other_exactly() -> None:
    for name, project in PROJECTS.items():
        for requirement in own_requirements(project):
            sibling, version = sibling_of(requirement), requirement.partition("==")[2]
            assert sibling in MEMBERS, f"{name} asks for {requirement}"
            assert version == VERSION, f"{name} asks for {requirement}"


def test_fastworker_with_all_extras_is_every_package() -> None:
    assert {sibling_of(r) for r in own_requirements(PROJECTS["fastworker"])} == MEMBERS


def test_the_workspace_knows_every_package() -> None:
    sources = read(ROOT / "pyproject.toml")["tool"]["uv"]["sources"]
    assert sources == {name: {"workspace": True} for name in PROJECTS}


def test_the_lock_file_holds_the_same_versions() -> None:
    locked = {package["name"]: package["version"] for package in read(ROOT / "uv.lock")["package"]}
    assert {name: locked.get(name) for name in PROJECTS} == dict.fromkeys(PROJECTS, VERSION)


def test_the_lock_file_names_no_private_host() -> None:
    hosts = re.findall(r'"https?://([^/"]+)', (ROOT / "uv.lock").read_text(encoding="utf-8"))
    assert set(hosts) <= {"pypi.org", "files.pythonhosted.org"}


def test_every_package_carries_the_licence() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for path in MANIFESTS:
        assert (path.parent / "LICENSE").read_text(encoding="utf-8") == licence


@pytest.fixture(scope="module")
def bump() -> ModuleType:
    loader = SourceFileLoader("bump", str(ROOT / "scripts" / "bump"))
    spec = importlib.util.spec_from_loader("bump", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_bump_finds_every_package(bump: ModuleType) -> None:
    assert bump.manifests(ROOT) == MANIFESTS


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_bump_raises_the_version_and_the_pins_and_nothing_else(bump: ModuleType, path: Path) -> None:
    before = read(path)
    after = tomllib.loads(bump.bump(path.read_text(encoding="utf-8"), "7.8.9"))

    assert after["project"]["version"] == "7.8.9"
    assert own_requirements(after["project"]) == [
        f"{requirement.partition('==')[0]}==7.8.9" for requirement in own_requirements(before["project"])
    ]
    again = tomllib.loads(bump.bump(bump.bump(path.read_text(encoding="utf-8"), "7.8.9"), VERSION))
    assert again == before


@pytest.mark.parametrize("arguments", [[], ["next"], ["1.2"], ["1.2.3", "4"]])
def test_bump_refuses_what_is_no_version(bump: ModuleType, arguments: list[str]) -> None:
    assert bump.main(arguments) == 2
