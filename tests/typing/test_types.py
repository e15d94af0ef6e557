"""Types end to end: a wrong argument is an error in the editor, and a result has its type."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SNIPPET = Path(__file__).with_name("right_and_wrong.txt")  # no .py: the checks of this project must not see it


def said_by_mypy(file: Path) -> dict[int, set[str]]:
    """The codes of the errors, by line."""
    file.write_text(SNIPPET.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-pretty", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    said: dict[int, set[str]] = {}
    for line in done.stdout.splitlines():
        match = re.match(r"(?P<file>[^:]+):(?P<line>\d+): error: .*  (?P<code>\[[\w-]+\])$", line)
        if match is not None:
            assert match["file"].endswith(file.name), line
            said.setdefault(int(match["line"]), set()).add(match["code"])
    return said


def test_right_calls_pass_and_wrong_ones_are_errors_in_their_lines(tmp_path: Path) -> None:
    wanted = {
        number: set(re.findall(r"\[[\w-]+\]", line.partition("# E:")[2]))
        for number, line in enumerate(SNIPPET.read_text(encoding="utf-8").splitlines(), 1)
        if "# E:" in line
    }
    assert len(wanted) > 15
    said = said_by_mypy(tmp_path / "right_and_wrong.py")
    unused = {"[unused-awaitable]", "[unused-coroutine]"}  # true as well, and not the point here
    assert {number: codes - unused for number, codes in said.items() if codes - unused} == wanted
