"""`fastworker worker start`: one worker process."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import platform
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fastworker.addresses import candidates
from fastworker.cli.output import LogFormat, LogLevel, Url, set_up_logging
from fastworker.credentials import Credential, credential_for
from fastworker.function import registry
from fastworker.route import why_nobody
from fastworker.settings import Settings, load_settings
from fastworker_worker.modules import import_modules, task_modules
from fastworker_worker.processes import Recycle
from fastworker_worker.supervisor import Supervisor
from fastworker_worker.worker import Worker

logger = logging.getLogger("fastworker.worker")

LOOK_AGAIN_AFTER = 10.0
ORPHAN_WAITS = 60.0
"""Seconds that a worker whose control plane died tries to hand its last outcomes to the next one."""

app = typer.Typer(help="Workers: processes that run tasks.", no_args_is_help=True, rich_markup_mode=None)

Modules = Annotated[
    list[str] | None, typer.Argument(help="Modules with task functions; default: tasks.py, *_tasks.py and tasks/ here.")
]


MaxTasks = Annotated[int | None, typer.Option(help="Replace a process for tasks after so many; default: never.")]
MaxMemory = Annotated[str | None, typer.Option(help="Replace a process for tasks that holds more, e.g. '512 MB'.")]


@app.callback()
def _group() -> None:
    """Workers: processes that run tasks."""


@app.command()
def start(
    modules: Modules = None,
    url: Url = None,
    name: Annotated[str | None, typer.Option(help="The worker's name; default: made of host and process.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks to run at once; default 8.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=1024, help="Worker processes, kept alive; default 1.")] = 1,
    grace: Annotated[float | None, typer.Option(help="Seconds that running tasks get at a stop; default 30.")] = None,
    max_tasks_per_process: MaxTasks = None,
    max_memory: MaxMemory = None,
    log_level: LogLevel = "info",
    log_format: LogFormat = None,
    own: Annotated[bool, typer.Option("--own", hidden=True)] = False,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
    wait: Annotated[bool, typer.Option("--wait", hidden=True)] = False,
) -> None:
    """Start a worker. It finds the control plane on this host or network by itself."""
    set_up_logging(log_level, log_format)
    settings = load_settings(
        concurrency=concurrency,
        grace=grace,
        max_tasks_per_process=max_tasks_per_process,
        max_memory=max_memory,
        log_format=log_format,
    )
    names = task_modules(modules or [], settings)
    if processes > 1:
        asyncio.run(supervise(processes, names, url, name, settings, log_level))
        return
    faulthandler.enable()
    if wait:
        logger.debug("a worker waits for the word to read its tasks")
        if not os.read(sys.stdin.fileno(), 1):
            return  # whoever was to say it is gone
    import_modules(names)
    if not len(registry):
        found = f"in {', '.join(names)}" if names else "(no tasks.py, *_tasks.py or tasks/ here)"
        logger.warning(
            "NO TASK FUNCTIONS were found %s: this worker can run nothing. Name modules, e.g. `app.tasks`", found
        )
    asyncio.run(serve(settings, url, name, own=own, supervised=supervised or own))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that can't be interrupted must not hold the process


async def supervise(
    count: int, modules: Sequence[str], url: str | None, name: str | None, settings: Settings, log_level: str
) -> None:
    """Keep some workers alive until a signal ends this process, and them before it."""

    def command(number: int) -> list[str]:
        own_name = f"{name or f'{platform.node()}:{os.getpid()}'}-{number}"
        return child_command(modules, url, settings, own_name, log_level, "--supervised")

    stop = asyncio.Event()
    on_signals(stop)
    supervisor = Supervisor(count, command, settings.grace)
    supervisor.start()
    failing = asyncio.ensure_future(supervisor.first_failure())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([failing, stopping], return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        failing.cancel()
        stopping.cancel()
        await supervisor.stop()


async def serve(settings: Settings, url: str | None, name: str | None, *, own: bool, supervised: bool) -> None:
    """Run a worker until a signal ends it, or, if it is `supervised`, the end of its parent process."""
    places = candidates(url, settings)
    address = ",".join(place for place, _ in places)
    credential = credential_for(address, settings)
    worker = Worker(address, credential, slots=settings.concurrency, own=own, name=name, recycle=recycle_of(settings))
    stop = asyncio.Event()
    on_signals(stop)
    if not await _connect(worker, places, credential, stop):
        return
    orphaned = _watch_parent(stop) if supervised else None
    await stop.wait()
    deliver = ORPHAN_WAITS if orphaned is not None and orphaned.is_set() else None
    await worker.drain(settings.grace, deliver)


def recycle_of(settings: Settings) -> Recycle:
    """When process slots are replaced."""
    return Recycle(settings.max_tasks_per_process, settings.max_memory)


async def _connect(
    worker: Worker, places: Sequence[tuple[str, str]], credential: Credential | None, stop: asyncio.Event
) -> bool:
    """Connect, however long that takes; False if a signal came first."""
    connecting = asyncio.ensure_future(worker.start())
    stopping = asyncio.ensure_future(stop.wait())
    while not connecting.done():
        await asyncio.wait([connecting, stopping], timeout=LOOK_AGAIN_AFTER, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            connecting.cancel()
            return False
        if not connecting.done():
            tried = await why_nobody(places, credential)
            logger.warning("no control plane yet; start one: fastworker start. Trying on; tried:\n%s", tried)
    stopping.cancel()
    await connecting
    return True


def on_signals(stop: asyncio.Event) -> None:
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
            logger.warning("the process that started this worker is gone: ending what runs here")
            orphaned.set()
            stop.set()

    loop.add_reader(sys.stdin.fileno(), on_readable)
    return orphaned


def child_command(
    modules: Sequence[str], url: str | None, settings: Settings, name: str, log_level: str, kind: str
) -> list[str]:
    """The command line of a worker that another process starts. `kind`: `--own` or `--supervised`."""
    recycle = {"--max-tasks-per-process": settings.max_tasks_per_process, "--max-memory": settings.max_memory}
    more = [word for option, value in recycle.items() if value is not None for word in (option, str(value))]
    if url is not None:
        more += ["--url", url]
    return [
        sys.executable, "-m", "fastworker_worker", "start", *modules, kind, "--name", name,
        "--concurrency", str(settings.concurrency), "--grace", str(settings.grace), "--log-level", log_level,
        "--log-format", settings.log_format, *more,
    ]  # fmt: skip
