"""Runs the drivers, one process group each, and collects what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.entrants import Entrant
from benchmarks.environments import ROOT, python_for
from benchmarks.processes import process_group
from benchmarks.scenarios import SCENARIOS, Figures


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, at which size and how often."""

    entrants: Sequence[Entrant]
    scenarios: Sequence[str]
    quick: bool
    rounds: int

    @property
    def timeout_seconds(self) -> float:
        return 90 if self.quick else 300

    def size(self, entrant: Entrant, scenario: str) -> int:
        spec = SCENARIOS[scenario]
        return entrant.size(spec.quick if self.quick else spec.full)

    def steps(self) -> Iterable[tuple[Entrant, str]]:
        """Contenders take turns, so that what disturbs the machine for a while disturbs all of them."""
        for number in range(self.rounds):
            for scenario in self.scenarios:
                if number == 0 or SCENARIOS[scenario].repeatable:
                    yield from ((entrant, scenario) for entrant in self.entrants)


@dataclass(slots=True)
class Result:
    """All rounds of one scenario with one contender."""

    scenario: str
    contender: str
    size: int
    version: str | None = None
    rounds: list[Figures] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """The last lines that the processes of the last failed round wrote."""

    def add(self, answer: dict[str, Any]) -> None:
        self.version = answer.get("version", self.version)
        if "error" in answer:
            self.errors.append(answer["error"])
            self.log = answer.get("log", [])
        else:
            self.rounds.append(answer["figures"])

    def figure(self, measure: str) -> float | None:
        """The median of the rounds that succeeded."""
        return median(figures[measure] for figures in self.rounds) if self.rounds else None

    def as_json(self) -> dict[str, Any]:
        medians = {name: self.figure(name) for name in self.rounds[0]} if self.rounds else {}
        return {"median": medians, **asdict(self)}


type Results = dict[tuple[str, str], Result]


def run(plan: Plan, results: Results) -> None:
    """Measure everything, adding to the results as they come, so that an interrupted run still has some."""
    steps = list(plan.steps())
    for number, (entrant, scenario) in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {scenario}: {entrant.name}", file=sys.stderr, flush=True)
        size = plan.size(entrant, scenario)
        answer = _ask_driver(entrant, scenario, size, plan.timeout_seconds)
        results.setdefault((scenario, entrant.name), Result(scenario, entrant.name, size)).add(answer)


def _ask_driver(entrant: Entrant, scenario: str, size: int, timeout: float) -> dict[str, Any]:
    """The driver's answer; a driver that breaks is answered for."""
    request = json.dumps({"scenario": scenario, "size": size})
    try:
        command = [python_for(entrant), "-m", "benchmarks.driver", entrant.target, request]
        with _temporary_folder() as folder, process_group(command, _environment(folder)) as driver:
            return _answer(*driver.communicate(timeout=timeout))
    except subprocess.TimeoutExpired:
        return {"error": f"not finished within {timeout:.0f} s"}
    except RuntimeError as error:
        return {"error": str(error)}


def _temporary_folder() -> TemporaryDirectory[str]:
    """Ours, not the driver's, which may be killed before it can tidy up."""
    return TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder}


def _answer(output: str, complaint: str) -> dict[str, Any]:
    """What the driver printed; a crash after that, while it ends, no longer matters."""
    for line in output.splitlines():
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    lines = complaint.strip().splitlines() or ["it said nothing"]
    return {"error": f"the driver crashed: {_gist(lines)}", "log": lines[-20:]}


def _gist(lines: Sequence[str]) -> str:
    """The line of a traceback, or of a C library's panic, that says what went wrong."""
    return next((line for line in lines if "panic" in line.lower()), lines[-1])
