"""Reads the code blocks of a page of documentation.

- A `python` block that begins with `# name.py` is a file of that name; a second one of the same name goes on with it.
- Any other `python` block is a program; it may `await` at top level, as in `python -m asyncio`.
- A `console` block holds commands after `$ ` and what they print; `…` stands for any text.
- `<!-- not run: why -->` before a block exempts it; `<!-- fails -->` says that its last command is to fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|fails)(?:: (?P<why>[^>]+?))? -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"# ([\w/]+\.py|pyproject\.toml)\b")


@dataclass(frozen=True)
class Block:
    """One block of code."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None
    why: str | None

    @property
    def file(self) -> str | None:
        """The name of the file that it is."""
        named = _FILE.match(self.text)
        return named[1] if named else None

    @property
    def commands(self) -> Sequence[tuple[str, str]]:
        """Commands, each with what it prints. A command goes on after a backslash at the end of its line."""
        found: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif found[-1][0].endswith("\\"):
                found[-1] = (f"{found[-1][0]}\n{line}", "")
            else:
                found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        return found

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(page, line, match["language"], match["text"], match["mark"], match["why"])


def as_pattern(expected: str) -> re.Pattern[str]:
    """What matches the printed text, where the space at the end of lines and the width of gaps don't matter."""
    lines = [r"\s+".join(map(re.escape, line.split())) for line in expected.strip().splitlines()]
    return re.compile(r"\s*\n\s*".join(lines).replace("…", ".*?"), re.DOTALL)
