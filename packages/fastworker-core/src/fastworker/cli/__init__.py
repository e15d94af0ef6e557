"""The command `fastworker`.

Each installed package names its commands in the entry-point group `fastworker.commands`; those that only need a client
live here. Exit codes: see `fastworker.cli.exits`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

import typer

from fastworker.cli.exits import exit_code_of
from fastworker.cli.legacy import in_today_s_words
from fastworker.cli.output import complain
from fastworker.errors import FastWorkerError
from fastworker.release import RELEASE


def build_app(wanted: str | None = None) -> typer.Typer:
    """The command line with the commands of all installed packages.

    Args:
        wanted: the command that will be run. The modules of others are not imported then: that takes seconds.
    """
    app = typer.Typer(
        name="fastworker",
        help="A task queue without a broker. Begin with: fastworker demo",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    points = sorted(entry_points(group="fastworker.commands"), key=lambda point: point.name)
    chosen = [] if wanted == "--version" else [point for point in points if point.name == wanted] or points
    for point in chosen:
        command = point.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)
    return app


def _print_release(wanted: bool) -> None:
    if wanted:
        typer.echo(RELEASE)
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the release and exit.", is_eager=True, callback=_print_release
    ),
) -> None:
    """A task queue without a broker. Begin with: fastworker demo"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: what goes wrong is one sentence that says what to do, not a traceback."""
    words = in_today_s_words(sys.argv[1:] if arguments is None else list(arguments))
    try:
        # Typer reports wrong usage by itself, with error classes of the click that it brings along.
        typer.main.get_command(build_app(words[0] if words else None)).main(words, "fastworker")
    except FastWorkerError as error:
        complain(str(error))
        sys.exit(exit_code_of(error))
