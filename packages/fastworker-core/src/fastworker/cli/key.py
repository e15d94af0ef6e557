"""`fastworker key`: make, show, rotate and retire the cluster key. Only `show` prints a secret."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fastworker.cli.output import say
from fastworker.errors import ConfigurationError
from fastworker.key_file import key_path, make_key, read_keys, retire_key, rotate_key, save_key, shown_key
from fastworker.keys import Key, KeyRole
from fastworker.settings import load_settings

app = typer.Typer(help="The cluster key, which opens the control plane to other machines.", no_args_is_help=True)


@app.command()
def make() -> None:
    """Make a cluster key in the key file; the first `fastworker start` does that too."""
    if not make_key():
        raise ConfigurationError(f"{key_path()} exists: fastworker key rotate makes a new one beside it")
    _tell(read_keys())


@app.command()
def show(
    role: Annotated[KeyRole | None, typer.Option(help="The key of a role: client, worker or admin.")] = None,
) -> None:
    """Print the cluster key, or the key of a role, to be handed out."""
    typer.echo(shown_key(load_settings(), role).text)


@app.command()
def save() -> None:
    """Keep a key that comes on standard input, such as `fastworker key show` of another machine."""
    _tell((save_key(sys.stdin.read()),))


@app.command()
def rotate() -> None:
    """Make a new cluster key; the one before it is accepted too until it is retired."""
    _tell(rotate_key())
    say("Copy the new key to the other machines, restart what runs there, then: fastworker key retire")


@app.command()
def retire() -> None:
    """End a rotation: the old key opens nothing any more, and what is connected with it is cut off."""
    _tell(retire_key())


def _tell(keys: tuple[Key, ...]) -> None:
    """Which keys there are, by their ids."""
    say(str(key_path()))
    for what, key in zip(("key", "key before it"), keys, strict=False):
        say(f"{what} {key.id}")
