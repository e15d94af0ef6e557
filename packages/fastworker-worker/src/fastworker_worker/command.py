"""`fastworker worker start`: one worker process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fastworker.addresses import candidates, key_for
from fastworker.cli.output import LogLevel, Url, set_up_logging
from fastworker.function import registry
from fastworker.settings import Settings, load_settings
from fastworker.transport import why_unreachable
from fastworker_worker.modules import import_modules, task_modules
from fastworker_worker.worker import Worker

logger = logging.getLogger("fastworker.worker")

LOOK_AGAIN_AFTER = 10.0
ORPHAN_WAITS = 60.0
"""Seconds that a worker whose control plane died tries to hand its last outcomes to the next one."""

app = typer.Typer(help="Workers: processes that run tasks.", no_args_is_help=True, rich_markup_mode=None)

Modules = Annotated[
    list[str] | None, typer.Argument(help="Modules with task functions; default: tasks.py, *_tasks.py and tasks/ here.")
]


@app.callback()
def _group() -> None:
    """Workers: processes that run tasks."""


@app.command()
def start(
    modules: Modules = None,
    url: Url = None,
    name: Annotated[str | None, typer.Option(help="The worker's name; default: made of host and process.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks to run at once; default 8.")] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds that running tasks get at a stop; default 30.")] = None,
    log_level: LogLevel = "info",
    own: Annotated[bool, typer.Option("--own", hidden=True)] = False,
) -> None:
    """Start a worker. It finds the control plane on this host by itself."""
    set_up_logging(log_level)
    settings = load_settings(concurrency=concurrency, grace=grace)
    names = task_modules(modules or [], settings)
    import_modules(names)
    if not len(registry):
        found = f"in {', '.join(names)}" if names else "(no tasks.py, *_tasks.py or tasks/ here)"
        logger.warning(
            "NO TASK FUNCTIONS were found %s: this worker can run nothing. Name modules, e.g. `app.tasks`", found
        )
    asyncio.run(serve(settings, url, name, own=own))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that can't be interrupted must not hold the process


async def serve(settings: Settings, url: str | None, name: str | None, *, own: bool) -> None:
    """Run a worker until a signal ends it, or, for the control plane's own, the control plane's end."""
    address, source = candidates(url, settings)[0]
    key = key_for(address, settings)
    worker = Worker(address, key, slots=settings.concurrency, own=own, name=name)
    stop = asyncio.Event()
    _on_signals(stop)
    if not await _connect(worker, address, key, source, stop):
        return
    orphaned = _watch_parent(stop) if own else None
    await stop.wait()
    deliver = ORPHAN_WAITS if orphaned is not None and orphaned.is_set() else None
    await worker.drain(settings.grace, deliver)


async def _connect(worker: Worker, address: str, key: bytes | None, source: str, stop: asyncio.Event) -> bool:
    """Connect, however long that takes; False if a signal came first."""
    connecting = asyncio.ensure_future(worker.start())
    stopping = asyncio.ensure_future(stop.wait())
    while not connecting.done():
        await asyncio.wait([connecting, stopping], timeout=LOOK_AGAIN_AFTER, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            connecting.cancel()
            return False
        if not connecting.done():
            why = await why_unreachable(address, key)
            logger.warning(
                "no control plane yet at %s (%s): %s; start one: fastworker start. Trying on", address, source, why
            )
    stopping.cancel()
    await connecting
    return True


def _on_signals(stop: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT drains, a second one ends the process now."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            logger.warning("a second signal: ending now")
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


def _watch_parent(stop: asyncio.Event) -> asyncio.Event:
    """Stop when standard input closes: the control plane holds its other end, so it is gone."""
    orphaned = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_readable() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            loop.remove_reader(sys.stdin.fileno())
            logger.warning("the control plane is gone: ending what runs here")
            orphaned.set()
            stop.set()

    loop.add_reader(sys.stdin.fileno(), on_readable)
    return orphaned


def child_command(modules: Sequence[str], url: str, settings: Settings, name: str, log_level: str) -> list[str]:
    """The command line of a worker that belongs to a control plane."""
    return [
        sys.executable, "-m", "fastworker_worker", "start", *modules, "--own", "--url", url, "--name", name,
        "--concurrency", str(settings.concurrency), "--grace", str(settings.grace), "--log-level", log_level,
    ]  # fmt: skip
