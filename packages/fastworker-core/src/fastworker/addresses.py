"""Where the control plane listens, and the key that opens it to the network.

On one host everything goes through `ipc://` in a directory that only the user can enter. Every TCP address is
TLS with the cluster key as pre-shared key, unless plain `tcp://` was asked for and allowed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fastworker.errors import ConfigurationError
from fastworker.settings import Settings

KEY_BYTES: Final = 32
LONGEST_SOCKET_PATH: Final = 107
"""`sun_path` of unix(7) has 108 bytes, with the closing zero."""
DEFAULT_TCP: Final = "tls+tcp://127.0.0.1:5555"


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
    if scheme == "ipc" and len(rest.encode()) > LONGEST_SOCKET_PATH:
        raise ConfigurationError(f"{rest} is longer than the {LONGEST_SOCKET_PATH} bytes that a socket's path may have")
    return url


def listening_addresses(settings: Settings) -> list[str]:
    """Where a control plane is to listen: as said, and at the user's socket unless another socket was named.

    Raises:
        ConfigurationError: plain TCP is not allowed.
    """
    said = [checked(url) for url in settings.listen]
    for url in said:
        if url.startswith("tcp://") and not settings.insecure:
            raise ConfigurationError(
                f"{url} would be open to everybody who can reach it: use tls+tcp://, or allow it with --insecure"
            )
    if any(url.startswith("ipc://") for url in said):
        return said
    return [local_url(), *(said or [DEFAULT_TCP])]


def candidates(url: str | None, settings: Settings) -> Sequence[tuple[str, str]]:
    """Where a control plane may be, best first, each with the place that named it."""
    if url:
        return [(checked(url), "given")]
    if settings.url:
        return [(checked(settings.url), "FASTWORKER_URL or [tool.fastworker] url")]
    return [(local_url(), "this user's socket on this host")]


def key_path() -> Path:
    """Where the cluster key is kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser() / "fastworker" / "key"


def cluster_key(settings: Settings, given: str | None = None, *, make: bool = False) -> bytes:
    """The cluster key: 32 bytes, from the argument, `FASTWORKER_KEY`, or the key file.

    Args:
        settings: hold the key of the environment.
        given: 64 hexadecimal digits.
        make: write a new key file if there is no key at all.

    Raises:
        ConfigurationError: there is no key, or it has not the right form.
    """
    path = key_path()
    said = given or (settings.key.get_secret_value() if settings.key else None)
    if said is None and make and not path.exists():
        _make_key(path)
    if said is None and not path.exists():
        raise ConfigurationError(
            f"there is no cluster key: copy {path} from the control plane's host, or set FASTWORKER_KEY"
        )
    try:
        key = bytes.fromhex(said if said is not None else _read_secret(path))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"the cluster key must be {2 * KEY_BYTES} hexadecimal digits")
    return key


def _read_secret(path: Path) -> str:
    """The text of a file that nobody else may read."""
    if hasattr(os, "getuid") and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigurationError(
            f"{path} can be read by others: run `chmod 600 {path}`, and make a new key if in doubt"
        )
    return path.read_text()


def key_for(url: str, settings: Settings, given: str | None = None, *, make: bool = False) -> bytes | None:
    """The cluster key if the address needs one."""
    return cluster_key(settings, given, make=make) if url.startswith("tls+tcp://") else None


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all: of several processes that need one at once, one makes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"key-{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
    with contextlib.suppress(FileExistsError):  # another process was faster: its key counts
        os.link(draft, path)
    draft.unlink()
