"""The process that measures one scenario of one contender, inside the contender's own virtual environment.

`python -m benchmarks.driver MODULE:CLASS '{"scenario": "drain", "size": 5000}'` prints one line of JSON: the figures
and the contender's version, or an error.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import closing
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender
from benchmarks.job import Job, free_ports
from benchmarks.scenarios import SCENARIOS

_PORTS = 64


def main() -> None:
    """Measure what the command line asks for."""
    target, request = sys.argv[1], json.loads(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scenario = SCENARIOS[request["scenario"]]
        job = Job(**request, results=scenario.results, folder=folder, port=free_ports(_PORTS))
        job.publish()
        print(json.dumps(_measure(target, job)), flush=True)


def _measure(target: str, job: Job) -> dict[str, Any]:
    """The answer; whatever goes wrong is part of it, with the log as it was before the processes were ended."""
    with closing(_load(target)(job)) as contender:
        try:
            figures = SCENARIOS[job.scenario].run(contender, job.size)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "log": _last_lines(job.log)}
        return {"figures": figures, "version": version(contender.distribution)}


def _load(target: str) -> type[Contender]:
    module, _, name = target.partition(":")
    contender: type[Contender] = getattr(import_module(module), name)
    return contender


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []


if __name__ == "__main__":
    main()
