"""Each example, run as its own text says, with real processes."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.support.playground import COMMAND, Playground
from tests.support.waiting import until

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Playground]:
    """A copy of the examples, as users copy them."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    with Playground(tmp_path / "examples") as place:
        yield place


def run(playground: Playground, *arguments: str) -> str:
    """Run an example as a program; what it printed."""
    program = playground.run(sys.executable, "-m", *arguments)
    assert program.returncode == 0, program.stderr + playground.said()
    return program.stdout


def test_every_example_is_in_the_readme_and_in_this_file() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if (path / "tasks.py").exists()}
    readme = (EXAMPLES / "README.md").read_text()
    assert folders == set(re.findall(r"`fastworker start (\w+)\.tasks`", readme))
    assert folders <= set(re.findall(r'"(\w+)\.tasks"', Path(__file__).read_text()))


def test_thumbnails(playground: Playground, tmp_path: Path) -> None:
    playground.start_control_plane("thumbnails.tasks")
    told = run(playground, "thumbnails", str(tmp_path / "pictures"))
    thumbnails = sorted((tmp_path / "pictures" / "thumbnails").glob("*.jpg"))
    assert len(thumbnails) == 12
    for path in thumbnails:
        with Image.open(path) as image:
            assert image.size == (200, 150)
    assert "picture-00.jpg: 200 × 150" in told
    assert "picture-broken.png failed: PIL.UnidentifiedImageError" in told


def test_fastapi_app(playground: Playground) -> None:
    playground.start_control_plane("fastapi_app.tasks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    playground.start(sys.executable, "-m", "uvicorn", "fastapi_app.main:app", "--port", port)
    playground.wait_until(lambda: "Application startup complete" in playground.said(), "the application runs")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        ordered = http.post("/reports", params={"customer": "Ada", "pages": 30})
        assert ordered.status_code == 202
        address = f"/reports/{ordered.json()['id']}"
        until(lambda: http.get(address).json()["progress"], 15, "progress")
        until(lambda: http.get(address).json()["state"] == "succeeded", 15, "the report")
        assert http.get(f"{address}/result").json()["result"] == {"customer": "Ada", "pages": 30}
        assert http.get("/reports/00000000-0000-7000-8000-000000000000").status_code == 404
        other = f"/reports/{http.post('/reports', params={'customer': 'Bob', 'pages': 3000}).json()['id']}"
        assert http.post(f"{other}/cancel").json()["answer"] in ("was_queued", "interrupted")
        until(lambda: http.get(other).json()["state"] == "cancelled", 15, "the cancellation")


def test_blocking_script(playground: Playground) -> None:
    playground.start_control_plane("blocking_script.tasks")
    (playground.folder / "words.txt").write_text("one two two three three three")
    assert run(playground, "blocking_script", "words.txt") == "words.txt: three 3, two 2, one 1\n"
    missing = playground.run(sys.executable, "-m", "blocking_script", "words.txt", "absent.txt")
    assert missing.returncode == 1
    assert "absent.txt failed: [Errno 2]" in missing.stdout


def test_nightly_rollup_can_be_repeated(playground: Playground) -> None:
    playground.start_control_plane("nightly_rollup.tasks")
    first, second = run(playground, "nightly_rollup"), run(playground, "nightly_rollup")
    assert first == second
    day = yesterday()
    totals = totals_of(playground)
    assert {row[0] for row in totals} == {day.isoformat()}
    assert sum(row[2] for row in totals) == 1000
    assert f"turnover of {day}: {sum(row[3] for row in totals) / 100:.2f}".rstrip("0") in first


def test_nightly_rollup_waits_for_a_locked_database(playground: Playground) -> None:
    playground.start_control_plane("nightly_rollup.tasks")
    run(playground, "nightly_rollup")
    day = yesterday().isoformat()
    database = playground.folder / "sales.db"
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    arguments = json.dumps([day, str(database)])
    task = playground.run(COMMAND, "submit", "roll_up", "--args", arguments, "--no-wait").stdout.strip()
    until(lambda: '"failures": 1' in playground.run(COMMAND, "status", task, "--json").stdout, 30, "a failed attempt")
    other.execute("ROLLBACK")
    other.close()
    result = playground.run(COMMAND, "result", task, "--wait-for", "60")
    assert result.returncode == 0, result.stderr
    assert sum(row[2] for row in totals_of(playground)) == 1000


def test_nightly_rollup_for_tonight_is_scheduled(playground: Playground) -> None:
    playground.start_control_plane("nightly_rollup.tasks")
    told = run(playground, "nightly_rollup", "--tonight")
    task = told.split()[1]
    why = playground.run(COMMAND, "why", task)
    assert "scheduled: it is to start in" in why.stdout
    assert playground.run(COMMAND, "cancel", task).stdout.startswith("was_queued")


def totals_of(playground: Playground) -> list[tuple[str, str, int, int]]:
    """The rows that the roll-up wrote."""
    with sqlite3.connect(playground.folder / "sales.db") as connection:
        return connection.execute("SELECT day, product, sales, cents FROM daily_totals").fetchall()


def yesterday() -> date:
    """The day that the roll-up sums up, unless midnight comes between."""
    return datetime.now().astimezone().date() - timedelta(days=1)
