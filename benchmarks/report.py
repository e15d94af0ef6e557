"""The table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.entrants import OURS
from benchmarks.runs import Plan, Results
from benchmarks.scenarios import SCENARIOS, Measure


def show(console: Console, plan: Plan, results: Results, facts: dict[str, Any]) -> None:
    """The measures by contender, then what failed and where it was measured."""
    names = [entrant.name for entrant in plan.entrants]
    table = _empty_table(_caption(plan), names)
    for scenario in plan.scenarios:
        for measure in SCENARIOS[scenario].measures:
            table.add_row(*_row(scenario, measure, names, results))
    console.print(table)
    _show_failures(console, results)
    console.print(" · ".join(f"{key} {value}" for key, value in facts.items()), style="dim", soft_wrap=True)


def _empty_table(caption: str, names: Sequence[str]) -> Table:
    table = Table(title="FastWorker and its peers", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("measure")
    for name in [*names, "ours / best peer"]:
        table.add_column(name, justify="right")
    return table


def _caption(plan: Plan) -> str:
    times = "once" if plan.rounds == 1 else f"{plan.rounds} rounds, median"
    size = "quick size" if plan.quick else "full size"
    return f"{size}, {times}; the last column: above 1× we are better"


def _row(scenario: str, measure: Measure, names: Sequence[str], results: Results) -> list[str]:
    cells = [_cell(scenario, measure, name, results) for name in names]
    return [f"{measure.name}, {measure.unit}", *cells, _ratio(scenario, measure, names, results)]


def _cell(scenario: str, measure: Measure, name: str, results: Results) -> str:
    result = results.get((scenario, name))
    if result is None:
        return ""
    figure = result.figure(measure.name)
    if figure is None:
        return "failed"
    return _number(figure) + ("*" if result.errors else "")


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _ratio(scenario: str, measure: Measure, names: Sequence[str], results: Results) -> str:
    """How many times better we are than the best of the others."""
    figures = {name: _figure(scenario, measure, name, results) for name in names}
    ours = figures.pop(OURS.name, None)
    peers = [figure for figure in figures.values() if figure is not None]
    if ours is None or not peers:
        return "–"
    return f"{ours / max(peers) if measure.more_is_better else min(peers) / ours:.2f}×"


def _figure(scenario: str, measure: Measure, name: str, results: Results) -> float | None:
    result = results.get((scenario, name))
    return result.figure(measure.name) if result else None


def _show_failures(console: Console, results: Results) -> None:
    for result in results.values():
        if result.errors:
            rounds = f"{len(result.errors)} of {len(result.errors) + len(result.rounds)} rounds"
            console.print(
                f"failed: {result.contender}, {result.scenario}, {rounds}: {escape(result.errors[-1])}", soft_wrap=True
            )
