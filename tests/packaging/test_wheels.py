"""What a user installs works: every wheel is built, then installed into clean environments and tried."""

import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.wheels, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
UV = str(ROOT / "scripts" / "uv")
MODULES = {
    "fastworker-core": "fastworker",
    "fastworker-worker": "fastworker_worker",
    "fastworker-server": "fastworker_server",
    "fastworker-dashboard": "fastworker_dashboard",
    "fastworker-fastapi": "fastworker_fastapi",
    "fastworker-otel": "fastworker_otel",
}

PUBLIC_NAMES = """
import importlib, sys

import fastworker
assert fastworker.__all__, "fastworker has no public name"

for name in sys.argv[1:]:
    module = importlib.import_module(name)
    missing = [public for public in getattr(module, "__all__", []) if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ promises {missing}"
"""

ABSENT = """
import importlib.util, sys

present = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
assert not present, f"nobody asked for {present}"
"""

PLAIN_CALL = """
from fastworker import task

@task
def add(a: int, b: int) -> int:
    return a + b

assert add(1, 2) == 3
"""


@dataclass(frozen=True)
class Story:
    """What a user asks for, and the packages that come."""

    requirements: tuple[str, ...]
    packages: tuple[str, ...]


BASE = ("fastworker-core", "fastworker-worker", "fastworker-server", "fastworker-dashboard")
STORIES = {
    "core alone": Story(("fastworker-core",), BASE[:1]),
    "core and worker": Story(("fastworker-core", "fastworker-worker"), BASE[:2]),
    "core and server": Story(("fastworker-core", "fastworker-server"), BASE[:3]),
    "fastworker": Story(("fastworker",), BASE),
    "fastworker[all]": Story(("fastworker[all]",), tuple(MODULES)),
}
WITH_SERVER = [name for name, story in STORIES.items() if "fastworker-server" in story.packages]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command to its end; return what it printed, fail with it. Whatever it started is ended too."""
    ours = ("VIRTUAL_ENV", "PYTHONPATH", "UV_PYTHON", "FASTWORKER_")  # of the environment that runs the tests
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=240)
    except subprocess.TimeoutExpired as expired:
        pytest.fail(f"{command} did not end in {expired.timeout} s; it printed:\n{expired.output}")
    finally:
        end_group(process)
    assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{printed}"
    return printed


def end_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every package of this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    run(UV, "build", "--all-packages", "--out-dir", folder, cwd=ROOT)
    return folder


@dataclass(frozen=True)
class Installed:
    """A clean environment in which the packages of one story are installed, and an empty folder to work in."""

    story: Story
    scripts: Path
    folder: Path

    def run(self, command: str, *arguments: str) -> str:
        return run(self.scripts / command, *arguments, cwd=self.folder, HOME=str(self.folder))

    def python(self, source: str, *arguments: str) -> str:
        script = self.folder / "script.py"
        script.write_text(source, encoding="utf-8")
        return self.run("python", str(script), *arguments)


@pytest.fixture(scope="session", params=STORIES)
def installed(request: pytest.FixtureRequest, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    story = STORIES[request.param]
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("home")
    version = next(wheels.glob("fastworker_core-*.whl")).name.split("-")[1]
    wanted = [f"{requirement}=={version}" for requirement in story.requirements]
    run(UV, "venv", "--clear", "--python", sys.executable, environment, cwd=folder)
    run(UV, "pip", "install", "--python", environment, "--find-links", wheels, *wanted, cwd=folder)
    return Installed(story, environment / "bin", folder)


def test_only_what_was_asked_for_is_installed(installed: Installed) -> None:
    installed.python(ABSENT, *(MODULES[name] for name in MODULES if name not in installed.story.packages))


def test_the_public_names_can_be_imported(installed: Installed) -> None:
    installed.python(PUBLIC_NAMES, *(MODULES[name] for name in installed.story.packages))


def test_a_task_function_is_still_the_function(installed: Installed) -> None:
    installed.python(PLAIN_CALL)


@pytest.mark.parametrize("installed", WITH_SERVER, indirect=True)
def test_the_demo_runs_its_tasks(installed: Installed) -> None:
    installed.run("fastworker", "demo", "--limit", "20")


@pytest.mark.parametrize(("package", "module"), MODULES.items())
def test_a_wheel_carries_its_types_and_the_licence(wheels: Path, package: str, module: str) -> None:
    (wheel,) = wheels.glob(f"{package.replace('-', '_')}-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert f"{module}/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {module}


def test_the_metapackage_holds_no_module(wheels: Path) -> None:
    (wheel,) = wheels.glob("fastworker-*.whl")
    assert [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name] == []
