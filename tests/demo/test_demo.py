"""`fastworker demo` and `fastworker bench`, as a user runs them."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from fastworker_server.demo.tasks import measure_module
from tests.support.playground import COMMAND, Playground, descendants

pytestmark = pytest.mark.integration


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Playground]:
    folder = tmp_path / "empty"
    folder.mkdir()
    with TemporaryDirectory(prefix="fw-") as short, Playground(folder) as place:  # the path of a socket has to be short
        place.environment["TMPDIR"] = short
        yield place


def left_behind(playground: Playground) -> list[str]:
    """Files in the working directory and in the folder for temporary files."""
    folders = playground.folder, Path(playground.environment["TMPDIR"])
    return [str(path) for folder in folders for path in folder.iterdir()]


def test_the_demo_measures_every_file_and_leaves_nothing_behind(playground: Playground) -> None:
    demo = playground.run(COMMAND, "demo", "--limit", "120", "--json")
    assert demo.returncode == 0, demo.stderr
    told = json.loads(demo.stdout)
    assert told["succeeded"] + told["failed"] == told["files"] == 120
    assert told["missing"] == []
    lengths = [function["lines"] for function in told["longest_functions"]]
    assert len(lengths) == 10
    assert lengths == sorted(lengths, reverse=True)
    assert told["seconds"]["queued_mean"] > 0
    assert left_behind(playground) == []


@pytest.mark.timeout(300)
def test_a_bad_file_of_the_standard_library_is_a_failed_task(playground: Playground) -> None:
    demo = playground.run(COMMAND, "demo", "--json", timeout=280)
    assert demo.returncode == 0, demo.stderr
    told = json.loads(demo.stdout)
    assert told["files"] > 500
    assert told["missing"] == []
    assert told["succeeded"] > 500
    assert all("Error: " in failure["reason"] for failure in told["failures"])


def test_what_the_demo_says_to_type_next_works(playground: Playground) -> None:
    demo = playground.run(COMMAND, "demo", "--limit", "30")
    assert demo.returncode == 0, demo.stderr
    assert "Where the time went" in demo.stdout
    commands = [shlex.split(line) for line in demo.stdout.splitlines() if line.startswith("    fastworker ")]
    assert [command[1] for command in commands] == ["start", "submit", "list", "workers"]
    playground.start_control_plane(*commands[0][2:])
    for command in commands[1:]:
        ran = playground.run(*command)
        assert ran.returncode == 0, ran.stderr
        assert "measure_module" in ran.stdout or "own" in ran.stdout or '"functions"' in ran.stdout


def test_the_task_of_its_own_that_the_demo_shows_works(playground: Playground) -> None:
    demo = playground.run(COMMAND, "demo", "--limit", "5")
    own_task = demo.stdout.partition("put this in tasks.py")[2].splitlines()[1:]
    (playground.folder / "tasks.py").write_text("\n".join(line[4:] for line in own_task))
    playground.start_control_plane()
    assert playground.run(COMMAND, "submit", "add", "--args", "[2, 3]").stdout.strip() == "5"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_demo_that_is_stopped_ends_all_that_it_started(
    playground: Playground, number: signal.Signals, code: int
) -> None:
    demo = playground.start(COMMAND, "demo")
    playground.wait_until(lambda: len(descendants(demo)) >= 3 or demo.poll() is not None, "workers run")
    started = descendants(demo)
    demo.send_signal(number)
    assert demo.wait(30) == code, playground.said()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    if number != signal.SIGKILL:
        assert left_behind(playground) == []


def test_missing_results_are_not_taken_for_success(playground: Playground) -> None:
    demo = playground.start(COMMAND, "demo")
    playground.wait_until(lambda: len(descendants(demo)) >= 1, "the control plane runs")
    for process in descendants(demo):
        process.kill()
    assert demo.wait(30) not in (0, None)


def test_a_file_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "class A:\n    def b(self):\n        def c():\n            pass\n        return c\n\nasync def d(): ...\n"
    )
    measured = measure_module(str(file))
    assert (measured.lines, measured.functions, measured.classes) == (7, 3, 1)
    assert [(f.name, f.line, f.lines) for f in measured.longest] == [("A.b", 2, 4), ("A.b.c", 3, 2), ("d", 7, 1)]


def test_bench_tells_its_figures(playground: Playground) -> None:
    bench = playground.run(COMMAND, "bench", "--tasks", "500", "--json")
    assert bench.returncode == 0, bench.stderr
    told = json.loads(bench.stdout)
    assert told["end_to_end_rate"] > 0
    assert 0 < told["round_trip_p50"] <= told["round_trip_p95"]
    shown = playground.run(COMMAND, "bench", "--tasks", "500", "--memory")
    assert "round trip" in shown.stdout
    assert left_behind(playground) == []
