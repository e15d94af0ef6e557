"""`fastworker start`: the control plane with its own workers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Annotated, Final

import typer

from fastworker.addresses import is_insecure
from fastworker.cli.output import LogFormat, LogLevel, announce, set_up_logging
from fastworker.settings import Settings, load_settings
from fastworker_server.companions import Companions, companion_commands
from fastworker_server.control_plane import ControlPlane
from fastworker_server.lan import lines_for_another_machine
from fastworker_server.own_workers import own_address, own_workers
from fastworker_worker.command import MaxMemory, MaxTasks, Modules
from fastworker_worker.modules import task_modules

logger = logging.getLogger("fastworker.control_plane")

GC_THRESHOLDS: Final = (100_000, 50, 100)
"""A queue is many long-lived objects without cycles: there is little to collect and much to look through."""


DESCRIPTORS: Final = 65_536
"""Open files, of which each connection is one; the usual limit of 1,024 is a soft one."""


def start(
    modules: Modules = None,
    listen: Annotated[list[str] | None, typer.Option(help="Address to listen at; can be repeated.")] = None,
    lan: Annotated[bool, typer.Option("--lan", help="Let machines on this network find it and work along.")] = False,
    lan_name: Annotated[str | None, typer.Option(help="Its name on the network; default: the host's.")] = None,
    store: Annotated[str | None, typer.Option(help="sqlite (default) or memory.")] = None,
    store_path: Annotated[str | None, typer.Option(help="Folder of the store; default .fastworker here.")] = None,
    sync: Annotated[str | None, typer.Option(help="normal (default), or full: survives a loss of power too.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks that a worker runs at once; default 8.")] = None,
    processes: Annotated[int | None, typer.Option(help="Own worker processes; default 1, 0 for none.")] = None,
    max_tasks_per_process: MaxTasks = None,
    max_memory: MaxMemory = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="Run tasks in this very process.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow plain tcp:// addresses.")] = False,
    dashboard: Annotated[bool, typer.Option(help="Whether to start the dashboard too.")] = True,
    grace: Annotated[float | None, typer.Option(help="Seconds that running tasks get at a stop; default 30.")] = None,
    log_level: LogLevel = "info",
    log_format: LogFormat = None,
) -> None:
    """Start the control plane: the queue, and a worker of its own for when no other is connected."""
    set_up_logging(log_level, log_format)
    settings = load_settings(
        listen=listen,
        lan=lan or None,
        lan_name=lan_name,
        store=store,
        store_path=store_path,
        sync=sync,
        concurrency=concurrency,
        processes=processes,
        max_tasks_per_process=max_tasks_per_process,
        max_memory=max_memory,
        insecure=insecure or None,
        grace=grace,
        log_format=log_format,
        dashboard=None if dashboard else False,
    )
    names = task_modules(modules or [], settings)
    asyncio.run(_serve(settings, names, log_level, in_process=in_process))
    sys.stderr.flush()
    os._exit(0)  # a task thread of --in-process that can't be interrupted must not hold the process


def dev(
    modules: Modules = None,
    listen: Annotated[list[str] | None, typer.Option(help="Address to listen at; can be repeated.")] = None,
    store: Annotated[str | None, typer.Option(help="sqlite (default) or memory.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks that the worker runs at once; default 8.")] = None,
    log_level: LogLevel = "info",
) -> None:
    """Start everything for development: like `start`, with one worker that has new code a moment after you save it."""
    set_up_logging(log_level)
    settings = load_settings(listen=listen, store=store, concurrency=concurrency, processes=1)
    names = task_modules(modules or [], settings)
    asyncio.run(_serve(settings, names, log_level, in_process=False, reload=True))


async def _serve(
    settings: Settings, modules: list[str], log_level: str, *, in_process: bool, reload: bool = False
) -> None:
    """Start, serve until a signal, stop: own workers first, so that their last outcomes are recorded."""
    gc.set_threshold(*GC_THRESHOLDS)
    _allow_many_connections()
    control_plane = ControlPlane(settings)
    companions = Companions(companion_commands(own_address(control_plane), settings))
    stop = _stop_on_signals()
    await control_plane.start()
    workers = own_workers(control_plane, modules, log_level, in_process=in_process, reload=reload)
    _announce(control_plane, modules, in_process=in_process)
    try:
        workers.start()
        companions.start()
        await _until(stop, workers.first_failure())
    finally:
        await companions.stop()
        await workers.stop()
        await control_plane.stop()
    logger.info("stopped; what is queued goes on at the next start")


def _allow_many_connections() -> None:
    """As far as the system lets us."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


async def _until(stop: asyncio.Event, failing: Coroutine[None, None, None]) -> None:
    """Wait for the signal, or for the failure that makes going on pointless."""
    waiting = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(failing)}
    while not stop.is_set() and waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            ended.result()
    for left in waiting:
        left.cancel()


def _stop_on_signals() -> asyncio.Event:
    """The first SIGTERM or SIGINT stops in order, a second one ends the process now."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            logger.warning("a second signal: ending now")
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _announce(control_plane: ControlPlane, modules: list[str], *, in_process: bool) -> None:
    """Say what runs, and loudly what is risky."""
    settings = control_plane.settings
    place = "in this process" if in_process else f"{settings.processes} own worker process(es)"
    announce(f"FastWorker control plane, process {os.getpid()}", bold=True)
    announce(f"  listens  {', '.join(control_plane.addresses)}")
    announce(f"  store    {control_plane.describe_store()}")
    announce(f"  tasks    {', '.join(modules) or 'NO TASK MODULES: name one, or make a tasks.py here'}")
    announce(f"  runs     {place}, {settings.concurrency} tasks each, while no other worker is connected")
    if settings.lan:
        announce("  lan      to let another machine on this network work along, type there:")
        for line in lines_for_another_machine(settings):
            announce(f"             {line}")
    if any(map(is_insecure, control_plane.addresses)):
        announce("  INSECURE: plain TCP, open to everybody who can reach it", bold=True, colour="red")
