"""The command line: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.entrants import ENTRANTS
from benchmarks.facts import machine_facts, versions
from benchmarks.report import show
from benchmarks.runs import Plan, Results, run
from benchmarks.scenarios import SCENARIOS

_FULL_ROUNDS = 3


def main() -> int:
    """Measure, then show the table; what is measured when it is interrupted is shown too."""
    arguments = _parser().parse_args()
    plan, facts = _plan(arguments), machine_facts()
    results: Results = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    interrupted = not _completes(plan, results)
    facts |= versions(results.values())
    show(Console(width=max(Console().width, 120)), plan, results, facts)
    if arguments.json:
        arguments.json.write_text(json.dumps(_document(plan, results, facts), indent=2) + "\n")
    return 130 if interrupted else 0


def _completes(plan: Plan, results: Results) -> bool:
    try:
        run(plan, results)
    except KeyboardInterrupt:
        print("interrupted; every process is ended", file=sys.stderr)
        return False
    return True


def _document(plan: Plan, results: Results, facts: dict[str, Any]) -> dict[str, Any]:
    return {"facts": facts, "quick": plan.quick, "results": [result.as_json() for result in results.values()]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks", description="Measure FastWorker and its peers side by side.")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a few minutes")
    parser.add_argument("--only", type=_names, default=[], metavar="NAME,...", help="only these scenarios, contenders")
    parser.add_argument("--rounds", type=int, help=f"how often (1 if quick, else {_FULL_ROUNDS}); medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round, the machine and versions there")
    return parser


def _names(text: str) -> list[str]:
    """The names in a comma-separated list, each a scenario's or a contender's."""
    known = [*SCENARIOS, *(entrant.name for entrant in ENTRANTS)]
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
    return names


def _plan(arguments: argparse.Namespace) -> Plan:
    rounds = arguments.rounds or (1 if arguments.quick else _FULL_ROUNDS)
    wanted = _chosen((entrant.name for entrant in ENTRANTS), arguments.only)
    entrants = [entrant for entrant in ENTRANTS if entrant.name in wanted]
    return Plan(entrants, _chosen(SCENARIOS, arguments.only), arguments.quick, rounds)


def _chosen(all_names: Iterable[str], only: list[str]) -> list[str]:
    """The names that were asked for, or all if none of this kind was."""
    names = list(all_names)
    return [name for name in names if name in only] or names


if __name__ == "__main__":
    sys.exit(main())
