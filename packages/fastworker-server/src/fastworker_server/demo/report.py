"""What the demo tells at its end: for people, and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastworker.cli.output import print_json, say
from fastworker_server.demo.run import FailedFile, Figures
from fastworker_server.demo.tasks import MeasuredFunction, MeasuredModule, measure_module

SHOWN = 10
SLOWEST_SHOWN = 5

_OWN_TASK = """\
from fastworker import task

@task
def add(a: int, b: int) -> int:
    return a + b
"""


def print_report(figures: Figures) -> None:
    """Everything, for people."""
    _print_totals(figures)
    _print_longest(figures)
    _print_times(figures)
    _print_slowest(figures)
    _print_failures(figures)
    _print_next(figures)


def print_report_as_json(figures: Figures) -> None:
    """Everything, for programs."""
    times = Times(figures)
    print_json(
        {
            "python": platform.python_version(),
            "folder": figures.folder,
            "files": figures.files,
            "succeeded": len(figures.measured),
            "failed": len(figures.failed),
            "missing": figures.missing,
            "lines": sum(module.lines for module in figures.measured),
            "functions": sum(module.functions for module in figures.measured),
            "classes": sum(module.classes for module in figures.measured),
            "processes": figures.processes,
            "seconds": times.as_dict(),
            "tasks_per_second": figures.files / figures.working,
            "longest_functions": [_function_as_dict(figures, *entry) for entry in _longest(figures)],
            "slowest_modules": [
                {"file": _short(figures, module.file), "seconds": module.seconds} for module in _slowest(figures)
            ],
            "failures": [_failure_as_dict(figures, failure) for failure in figures.failed],
        }
    )


class Times:
    """Where the time went. A task is queued from its submission to its start, as the control plane noted them."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.waited = [info.started_at - info.submitted_at for info in figures.infos if info.started_at is not None]
        self.ran = [module.seconds for module in figures.measured]
        self.busy = sum(self.ran) / (figures.processes * figures.working)

    def as_dict(self) -> dict[str, float]:
        """Seconds by name."""
        return {
            "starting": self.figures.starting,
            "submitting": self.figures.submitting,
            "submit_to_last_result": self.figures.working,
            "queued_mean": _mean(self.waited),
            "queued_longest": max(self.waited, default=0.0),
            "running_mean": _mean(self.ran),
            "running_longest": max(self.ran, default=0.0),
            "running_sum": sum(self.ran),
        }


def _print_totals(figures: Figures) -> None:
    modules = figures.measured
    lines, functions = sum(m.lines for m in modules), sum(m.functions for m in modules)
    classes = sum(m.classes for m in modules)
    say(
        f"\nThe standard library of Python {platform.python_version()}: {len(modules):,} files parsed, "
        f"{lines:,} lines, {functions:,} functions, {classes:,} classes; {len(figures.failed)} files failed.",
    )
    for problem in figures.missing:
        say(f"MISSING: {problem}", bold=True, colour="red")


def _print_longest(figures: Figures) -> None:
    _title(f"Its {SHOWN} longest functions")
    rows = [
        (f"{function.lines} lines", function.name, f"{_short(figures, file)}:{function.line}")
        for file, function in _longest(figures)
    ]
    _rows(rows)


def _print_times(figures: Figures) -> None:
    _title("Where the time went")
    times = Times(figures)
    rate = figures.files / figures.working
    _rows(
        [
            ("starting the control plane and its workers", f"{figures.starting:.2f} s"),
            (f"submitting {figures.files:,} tasks", f"{figures.submitting:.2f} s"),
            ("from the first submission to the last result", f"{figures.working:.2f} s, {rate:,.0f} tasks/s"),
            ("a task was queued for", _spread(times.waited)),
            ("a task ran for", _spread(times.ran)),
            (f"the {figures.processes} workers were inside a task", f"{times.busy:.0%} of the time"),
        ]
    )


def _print_slowest(figures: Figures) -> None:
    _title("The slowest modules")
    rows = [(f"{m.seconds * 1000:,.0f} ms", f"{m.lines:,} lines", _short(figures, m.file)) for m in _slowest(figures)]
    _rows(rows)


def _print_failures(figures: Figures) -> None:
    if not figures.failed:
        return
    _title("Failed tasks: the library's own tests have files that are wrong on purpose")
    rows = [(_short(figures, failure.file), failure.reason) for failure in figures.failed]
    _rows(rows)


def _print_next(figures: Figures) -> None:
    command = command_name()
    file = figures.measured[0].file if figures.measured else __file__
    _title("What to type next")
    say("Start a control plane that stays, with the task of this demo:")
    _command(f"{command} start {measure_module.__module__}")
    say("Then, in a second terminal:")
    _command(f"{command} submit {measure_module.name} --args '[\"{file}\"]'")
    _command(f"{command} list")
    _command(f"{command} workers")
    say("For a task of your own, put this in tasks.py; `start` without a module finds it:")
    for line in _OWN_TASK.splitlines():
        _command(line)


def _title(text: str) -> None:
    say(f"\n{text}", bold=True)


def _rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest text: a terminal that is too narrow wraps, nothing is cut off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  " + "  ".join([*cells, row[-1]]))


def _command(text: str) -> None:
    say(f"    {text}", colour="cyan")


def command_name() -> str:
    """How to call `fastworker` from the shell that called this. `uv run` puts it on the path for one command only."""
    script = Path(sys.argv[0])
    if "UV_RUN_RECURSION_DEPTH" not in os.environ:
        return "fastworker"
    here = Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else str(script)


def _longest(figures: Figures) -> Sequence[tuple[str, MeasuredFunction]]:
    found = [(module.file, function) for module in figures.measured for function in module.longest]
    return sorted(found, key=lambda entry: (-entry[1].lines, entry[0]))[:SHOWN]


def _slowest(figures: Figures) -> Sequence[MeasuredModule]:
    return sorted(figures.measured, key=lambda module: -module.seconds)[:SLOWEST_SHOWN]


def _function_as_dict(figures: Figures, file: str, function: MeasuredFunction) -> dict[str, Any]:
    return {"name": function.name, "file": _short(figures, file), "line": function.line, "lines": function.lines}


def _failure_as_dict(figures: Figures, failure: FailedFile) -> dict[str, str]:
    return {"file": _short(figures, failure.file), "task": failure.task, "reason": failure.reason}


def _short(figures: Figures, file: str) -> str:
    return str(Path(file).relative_to(figures.folder))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _spread(values: Sequence[float]) -> str:
    return f"{_milliseconds(_mean(values))} on average, {_milliseconds(max(values, default=0.0))} at most"


def _milliseconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
