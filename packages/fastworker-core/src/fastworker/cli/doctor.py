"""`fastworker doctor`: looks at everything that often is the cause when nothing works."""

from __future__ import annotations

import platform
import sqlite3
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from fastworker.addresses import candidates, runtime_directory
from fastworker.blocking import BlockingClient
from fastworker.cli.exits import NO_CONTROL_PLANE
from fastworker.cli.output import CONNECT_TIMEOUT, AsJson, Url, print_json, say
from fastworker.errors import FastWorkerError
from fastworker.key_file import key_path
from fastworker.settings import load_settings
from fastworker.views import Stats

PACKAGES = ("fastworker-core", "fastworker-worker", "fastworker-server", "fastworker-dashboard", "pynng", "pydantic")


def doctor(url: Url = None, as_json: AsJson = False) -> None:
    """Check the installation, the settings and the connection."""
    findings = {
        "python": f"{platform.python_version()} at {sys.executable}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "sqlite": sqlite3.sqlite_version,
        "settings": _try(lambda: _settings()),
        "sockets": _try(lambda: str(runtime_directory())),
        "key": f"{key_path()} {'exists' if key_path().exists() else 'does not exist (made at first need)'}",
        "tried": _try(lambda: ", ".join(place for place, _ in candidates(url, load_settings()))),
    }
    reached, findings["control plane"] = _reach(url)
    if as_json:
        print_json({**findings, "ok": reached})
    else:
        for name, finding in findings.items():
            say(f"{name:14} {finding}")
    if not reached:
        raise typer.Exit(NO_CONTROL_PLANE)


def _reach(url: str | None) -> tuple[bool, str]:
    try:
        with BlockingClient(url, connect_timeout=CONNECT_TIMEOUT) as client:
            return True, _describe(client.stats())
    except FastWorkerError as error:
        return False, str(error)


def _describe(stats: Stats) -> str:
    return (
        f"release {stats.release}, process {stats.pid}, listens at {', '.join(stats.listen)}; store: {stats.store}; "
        f"{stats.workers} workers with {stats.slots} slots; {stats.states['queued']} tasks queued"
    )


def _settings() -> str:
    said: dict[str, Any] = load_settings().model_dump(exclude_defaults=True)
    return ", ".join(f"{name}={value}" for name, value in said.items()) or "all defaults"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _try(check: Callable[[], str]) -> str:
    try:
        return check()
    except FastWorkerError as error:
        return f"PROBLEM: {error}"
