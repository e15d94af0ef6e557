"""Every block of code in README.md and docs/ runs, page by page, as a reader would run it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, Block, as_pattern, blocks
from tests.support.playground import Playground

RUN_PROGRAM = str(Path(__file__).with_name("run_program.py"))
GO_ON = ("fastworker start", "fastworker worker start", "fastworker control-plane", "fastworker subworker", "uvicorn ")
"""Commands that go on: they are started in the background."""
RUN = [page for page in PAGES if page.name != "evidence.md"]
"""Its commands are the long tests and the benchmarks themselves: hours."""
READY = (" is ready: ", "Application startup complete", "recovered ")


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.ports = {"8000": free_port(), "8080": free_port()}
        playground.environment["UVICORN_PORT"] = self.ports["8000"]
        playground.environment["FASTWORKER_DASHBOARD_PORT"] = self.ports["8080"]
        self.control_plane = False
        self.programs = 0

    def read(self, page: Path) -> None:
        """Make the page's files, then run its blocks in order."""
        found = [block for block in blocks(page) if block.mark != "not run"]
        if any(":8080" in block.text for block in found):
            self.playground.environment["FASTWORKER_DASHBOARD"] = "true"
        self.shell = Shell(self.playground)
        if any("--listen 127.0.0.1:5555" in block.text for block in found):
            self.ports["5555"] = free_port()
        for block in found:
            if block.file is not None:
                place = self.playground.folder / block.file
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("a") as file:
                    file.write(self.here(block.text))
        for block in found:
            if block.language == "console":
                self.type(block)
            elif block.language == "python" and block.file is None:
                self.run(block)

    def here(self, text: str) -> str:
        """The text with ports that are free here."""
        for port, free in self.ports.items():
            text = text.replace(f":{port}", f":{free}")
        return text

    def type(self, block: Block) -> None:
        """Type the commands of a block, and compare what they print."""
        commands = block.commands
        for number, (command, expected) in enumerate(commands, 1):
            if command.startswith(GO_ON):
                self.start(command)
                continue
            if ":8080" in command:
                self.playground.wait_until(lambda: "FastWorker dashboard" in self.playground.said(), "the dashboard")
            code, printed = self.shell.run(self.here(command))
            fails = block.mark == "fails" and number == len(commands)
            about = f"{block}: {command}\nexit code {code}, printed:\n{printed}\n{self.playground.said()}"
            assert (code != 0) == fails, about
            assert as_pattern(self.here(expected)).fullmatch(printed.strip()) or not expected, about

    def start(self, command: str) -> None:
        """Start a command that goes on."""
        self.control_plane = True
        before = self.signs()
        process = self.playground.start("bash", "-c", f"exec {self.here(command.partition('#')[0])}")
        self.playground.wait_until(lambda: self.signs() > before or process.poll() is not None, command)
        assert process.poll() is None, f"{command}\n{self.playground.said()}"

    def signs(self) -> int:
        """How often a background command has said that it is ready."""
        return sum(self.playground.said().count(sign) for sign in READY)

    def run(self, block: Block) -> None:
        """Run a program, with a control plane that has the page's tasks."""
        if not self.control_plane:
            self.start("fastworker start")
        self.programs += 1
        program = f"program_{self.programs}.py"
        (self.playground.folder / program).write_text(block.text)
        ran = self.playground.run(sys.executable, RUN_PROGRAM, program)
        assert ran.returncode == 0, f"{block}\n{ran.stdout}{ran.stderr}\n{self.playground.said()}"


class Shell:
    """One bash for all commands of a page, so that variables live on."""

    def __init__(self, playground: Playground) -> None:
        self._bash = subprocess.Popen(
            ["bash"], cwd=playground.folder, env=playground.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, command: str) -> tuple[int, str]:
        """The exit code of a command, and what it prints."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\nprintf '\\n=== ended %s\\n' $?\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        for line in self._bash.stdout:
            if line.startswith("=== ended "):
                return int(line.split()[2]), "".join(printed)
            printed.append(line)
        raise AssertionError(f"bash ended in: {command}")

    def close(self) -> None:
        """End it."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.kill()
        self._bash.wait()


def free_port() -> str:
    """A port that nobody uses now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Playground(tmp_path) as playground:
        someone = Reader(playground)
        yield someone
        someone.shell.close()


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_every_block_of_the_page_runs(page: Path, reader: Reader) -> None:
    reader.read(page)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("python", "console", "json", "mermaid", "toml", "ini", "text", "yaml"), (
            f"{block}: {block.language}"
        )
        assert block.mark != "not run" or (block.why and len(block.why) > 10), str(block)
        assert block.mark == "not run" or block.language != "console" or block.text.startswith("$ "), str(block)
