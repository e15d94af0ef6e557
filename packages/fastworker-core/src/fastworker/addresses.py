"""Where the control plane listens.

On one host everything goes through `ipc://` in a directory that only the user can enter. Every TCP address is
TLS with a key (`fastworker.keys`), unless plain `tcp://` was asked for and allowed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fastworker.errors import ConfigurationError
from fastworker.settings import Settings

LONGEST_SOCKET_PATH: Final = 107
"""`sun_path` of unix(7) has 108 bytes, with the closing zero."""
DEFAULT_TCP: Final = "tls+tcp://127.0.0.1:5555"
ALL_INTERFACES: Final = "tls+tcp://0.0.0.0:5555"
LAN: Final = "lan://"
"""Not an address: whichever control plane a search on the network finds; `lan://NAME` is the one of that name."""


def runtime_directory() -> Path:
    """The user's own directory for sockets, made with mode 0700 at first need.

    Raises:
        ConfigurationError: it belongs to somebody else, or others can enter it.
    """
    chosen = os.environ.get("FASTWORKER_RUNTIME_DIR")
    home = os.environ.get("XDG_RUNTIME_DIR")
    uid = os.getuid() if hasattr(os, "getuid") else 0
    fallback = Path(home) / "fastworker" if home else Path(tempfile.gettempdir()) / f"fastworker-{uid}"
    path = Path(chosen) if chosen else fallback
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be a directory for sockets: {error}; set FASTWORKER_RUNTIME_DIR"
        ) from None
    if hasattr(os, "getuid") and (status.st_uid != uid or stat.S_IMODE(status.st_mode) & 0o077):
        raise ConfigurationError(
            f"{path} must belong to you with mode 0700: run `chmod 700 {path}`, or set FASTWORKER_RUNTIME_DIR"
        )
    return path


def local_url() -> str:
    """The ipc address of the user's control plane on this host."""
    return checked(f"ipc://{runtime_directory() / 'control-plane'}")


def checked(url: str) -> str:
    """The address, if its form is right and the system can take it. `host:port` alone means `tls+tcp`."""
    scheme, found, rest = url.partition("://")
    if not found and ":" in url:
        return checked(f"tls+tcp://{url}")
    if not found or scheme not in ("ipc", "inproc", "tcp", "tls+tcp") or not rest:
        raise ConfigurationError(f"{url!r} is not an address: use ipc:///path, tls+tcp://host:port or tcp://host:port")
    try:
        size = len(rest.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"{url!r} can't be an address: it is not UTF-8") from None
    if scheme == "ipc" and size > LONGEST_SOCKET_PATH:
        raise ConfigurationError(f"{rest} is longer than the {LONGEST_SOCKET_PATH} bytes that a socket's path may have")
    return url


def checked_places(text: str) -> str:
    """Where to look for one control plane: an address, several with commas between them, or `lan://`.

    A part without a scheme has that of the part before it: `tls+tcp://a:5555,b:5555`.
    """
    return ",".join(checked(url) if not url.startswith(LAN) else url for url in split(text))


def split(text: str) -> list[str]:
    """The addresses in a text of several."""
    urls: list[str] = []
    scheme = ""
    for part in text.split(","):
        if "://" in part:
            scheme = part.partition("://")[0]
            urls.append(part)
        elif scheme in ("ipc", "inproc"):  # the comma belongs to the path
            urls[-1] += f",{part}"
        else:
            scheme = scheme or "tls+tcp"
            urls.append(f"{scheme}://{part}" if urls or ":" in part else part)
    return urls


def needs_key(text: str) -> bool:
    """Whether one of these addresses can't be dialled without a key. A search beside others is left out then."""
    return text.startswith(LAN) or any(map(is_encrypted, split(text)))


def host_and_port(url: str) -> tuple[str, str]:
    """The two parts of an address of a network; an IPv6 host keeps its brackets."""
    host, _, port = url.partition("://")[2].rpartition(":")
    return host, port


def is_encrypted(url: str) -> bool:
    """Whether an address needs a key."""
    return url.startswith("tls+tcp://")


def is_insecure(url: str) -> bool:
    """Whether everybody who can reach an address may use it, and whoever is on the way can read along."""
    return url.startswith("tcp://")


def listening_addresses(settings: Settings) -> list[str]:
    """Where a control plane is to listen: as said, and at the user's socket unless another socket was named.

    Raises:
        ConfigurationError: plain TCP is not allowed.
    """
    said = [checked(url) for url in settings.listen]
    for url in said:
        if is_insecure(url) and not settings.insecure:
            raise ConfigurationError(
                f"{url} would be open to everybody who can reach it: use tls+tcp://, or allow it with --insecure"
            )
    if settings.lan and not any(map(is_encrypted, said)):
        said.append(ALL_INTERFACES)
    if any(url.startswith("ipc://") for url in said):
        return said
    return [local_url(), *(said or [DEFAULT_TCP])]


def candidates(url: str | None, settings: Settings) -> Sequence[tuple[str, str]]:
    """Where a control plane may be, best first, each with the place that named it."""
    if url:
        return [(place, "given") for place in split(checked_places(url))]
    if settings.url:
        return [(place, "FASTWORKER_URL or [tool.fastworker] url") for place in split(checked_places(settings.url))]
    return [(local_url(), "this user's socket on this host"), (LAN, "a search on the network")]
