"""`fastworker start --lan`: a companion process that answers machines which look for a control plane.

A process of its own, so that a flood of packets takes no time from the queue.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from fastworker.addresses import host_and_port, listening_addresses
from fastworker.cli.output import set_up_logging
from fastworker.discovery import Answering, addresses_for_others, checked_name, seen_from_outside
from fastworker.errors import ConfigurationError
from fastworker.key_file import accepted_keys
from fastworker.multicast import answer_forever, our_hosts
from fastworker.parent import end_with_parent
from fastworker.settings import Settings, load_settings

UNKNOWN_HOST: Final = "THIS-HOST"


def companion(_: str, settings: Settings) -> Sequence[str] | None:
    """The command that answers on the network, if that is wanted.

    Raises:
        ConfigurationError: another machine could not use any address of this control plane, or its name is none.
    """
    if not settings.lan:
        return None
    urls = _told(settings)
    name = _name(settings)
    words = [word for url in urls for word in ("--listen", url)]
    return [sys.executable, "-m", "fastworker_server.lan", "discovery", name, *words]


def lines_for_another_machine(settings: Settings) -> list[str]:
    """What is to be typed on another machine so that it works along. The key signs searches, also with certificates."""
    host = next(iter(our_hosts()), UNKNOWN_HOST)
    start = ["fastworker worker start"]
    if settings.certificates is not None:
        start.insert(0, "export FASTWORKER_CERTIFICATES=…    # what `fastworker certs issue worker` made for it")
    if settings.key is not None:
        return ["export FASTWORKER_KEY=…    # the same key as here, or that of a role", *start]
    program = Path(sys.executable).with_name("fastworker")
    login = f"{os.environ.get('USER', 'USER')}@{host_and_port(seen_from_outside(_told(settings)[0], host))[0]}"
    return [f"ssh {login} {program} key show --role worker | fastworker key save", *start]


app = typer.Typer(add_completion=False)


@app.callback()
def _group() -> None:
    """Companions of the control plane."""


@app.command()
def discovery(name: str, listen: Annotated[list[str], typer.Option()]) -> None:
    """Answer those who look for a control plane, until standard input closes."""
    set_up_logging("info")
    settings = load_settings()
    end_with_parent()
    answering = Answering(name, listen, accepted_keys(settings))

    def follow_keys() -> None:
        with contextlib.suppress(ConfigurationError, OSError):  # the control plane complains of it
            answering.accept(accepted_keys(settings))

    answer_forever(answering, follow_keys)


def _told(settings: Settings) -> list[str]:
    urls = addresses_for_others(listening_addresses(settings))
    if not urls:
        raise ConfigurationError(
            "--lan needs an address that other machines can dial: leave --listen out, or add tls+tcp://0.0.0.0:5555"
        )
    return urls


def _name(settings: Settings) -> str:
    return checked_name(settings.lan_name or platform.node().partition(".")[0] or "fastworker")


if __name__ == "__main__":
    app()
