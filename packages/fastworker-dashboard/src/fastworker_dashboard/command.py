"""`fastworker dashboard`, and the companion that `fastworker start` starts beside the control plane."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Annotated, Final

import typer
import uvicorn

from fastworker.cli.output import LogLevel, Url, announce, set_up_logging
from fastworker.errors import AddressInUse, ConfigurationError
from fastworker.parent import end_with_parent
from fastworker.settings import Settings, load_settings
from fastworker_dashboard.access import Role
from fastworker_dashboard.app import dashboard as make_dashboard

PORTS_TRIED: Final = 50


def dashboard(
    control_plane: Annotated[str | None, typer.Option(help="Where the control plane is.", metavar="URL")] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default 8080, or the next free one; 0 for any.")] = None,
    prefix: Annotated[str, typer.Option(help="What a proxy takes away from the beginning of paths.")] = "",
    url: Url = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
    log_level: LogLevel = "warning",
) -> None:
    """Start the dashboard alone, for a control plane that runs elsewhere."""
    set_up_logging(log_level)
    settings = load_settings(dashboard_host=host, dashboard_port=port)
    passwords = checked_passwords(settings)
    listening = bind(settings.dashboard_host, settings.dashboard_port)
    where = listening.getsockname()
    shown = f"[{where[0]}]" if ":" in where[0] else where[0]
    application = make_dashboard(
        control_plane or url or settings.url, passwords=passwords, prefix=prefix,
        hosts=[*settings.dashboard_hosts, settings.dashboard_host], trace_url=settings.dashboard_trace_url,
    )  # fmt: skip
    if with_parent:
        end_with_parent()
    announce(f"FastWorker dashboard  http://{shown}:{where[1]}{prefix}/")
    config = uvicorn.Config(
        application, log_level=log_level.lower(), access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])


def companion(control_plane: str, settings: Settings) -> list[str] | None:
    """The command that runs beside a control plane; None if the settings don't want it.

    Raises:
        ConfigurationError: it would be open to others without a password.
    """
    if not settings.dashboard:
        return None
    checked_passwords(settings)
    return [
        sys.executable, "-m", "fastworker", "dashboard", "--with-parent", "--control-plane", control_plane,
        "--host", settings.dashboard_host, "--port", str(settings.dashboard_port),
    ]  # fmt: skip


def checked_passwords(settings: Settings) -> dict[Role, str]:
    """The passwords by role.

    Raises:
        ConfigurationError: there is none, and others than this host could come in.
    """
    said = {
        "admin": settings.dashboard_password,
        "operator": settings.dashboard_operator_password,
        "viewer": settings.dashboard_viewer_password,
    }
    passwords: dict[Role, str] = {}
    for role in ("viewer", "operator", "admin"):
        secret = said[role]
        if secret is not None and secret.get_secret_value():
            passwords[role] = secret.get_secret_value()
    if not passwords and not _is_loopback(settings.dashboard_host):
        raise ConfigurationError(
            f"the dashboard would be open to everybody who can reach {settings.dashboard_host}: "
            "set FASTWORKER_DASHBOARD_PASSWORD, or leave it at 127.0.0.1"
        )
    return passwords


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket at this port, or at the next one that is free.

    Raises:
        AddressInUse: none of the next ports is free.
        ConfigurationError: the host is not one of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigurationError(f"the dashboard can't listen at {host}: {error.strerror}") from None
    for candidate in range(port, min(port + PORTS_TRIED, 65_536)) if port else (0,):
        # asyncio turns Nagle's algorithm off only where the protocol is named; else each answer waits for 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address[0], candidate))
            listening.listen(512)
        except OSError as error:
            listening.close()
            if error.errno not in (98, 48, 13):  # EADDRINUSE on Linux and macOS, EACCES
                raise ConfigurationError(f"the dashboard can't listen at {host}: {error.strerror}") from None
            continue
        return listening
    raise AddressInUse(f"the ports {port} to {port + PORTS_TRIED - 1} of {host} are taken: choose another with --port")
