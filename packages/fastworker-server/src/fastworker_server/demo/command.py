"""The command itself. It imports the rest only when it runs: every `fastworker` command loads this module."""

from __future__ import annotations

from typing import Annotated

import typer

from fastworker.cli.output import AsJson


def demo(
    limit: Annotated[int | None, typer.Option(help="Only so many files.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Watch real work: measure every module of Python's standard library, one task each."""
    from fastworker_server.demo.report import print_report, print_report_as_json
    from fastworker_server.demo.run import run, standard_library
    from fastworker_server.temporary import run_until_signal

    folder, files = standard_library()
    figures = run_until_signal(run(folder, files[:limit], show_progress=not as_json))
    if as_json:
        print_report_as_json(figures)
    else:
        print_report(figures)
    if figures.missing:
        raise typer.Exit(1)
