"""Where the cluster key is kept: a file that only its owner can read, or `FASTWORKER_KEY`.

The file has a key a line: the one to connect with, and during a rotation the one before it, which a control plane still
accepts. It is written beside its place and moved there, so that nobody ever reads half a file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from pydantic import SecretStr

from fastworker.addresses import LAN, needs_key, split
from fastworker.errors import ConfigurationError
from fastworker.keys import MOST_KEYS, Key, KeyRole, role_keys
from fastworker.settings import Settings


def key_path() -> Path:
    """Where the cluster key is kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser() / "fastworker" / "key"


def load_keys(settings: Settings, given: SecretStr | None = None, *, make: bool = False) -> tuple[Key, ...]:
    """The keys, the one to connect with first: from the argument, `FASTWORKER_KEY`, or the key file.

    Args:
        settings: hold the key of the environment.
        given: as text; two keys with a comma or a space between them.
        make: write a new key file if there is no key at all.

    Raises:
        ConfigurationError: there is no key, or it has not the right form.
    """
    said = given or settings.key
    if said is not None:
        return _parse(said.get_secret_value())
    if make and not key_path().exists():
        make_key()
    return read_keys()


def read_keys() -> tuple[Key, ...]:
    """The keys in the key file.

    Raises:
        ConfigurationError: there is none, others can read it, or it holds something else.
    """
    path = key_path()
    try:
        mode = path.stat().st_mode
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no cluster key: copy {path} from the control plane's host, or set FASTWORKER_KEY; "
            "on the control plane's host itself: fastworker key make"
        ) from None
    if hasattr(os, "getuid") and stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(
            f"{path} can be read by others: run `chmod 600 {path}`, and if in doubt fastworker key rotate"
        )
    return _parse(text)


def _parse(text: str) -> tuple[Key, ...]:
    keys = tuple(Key.from_text(word) for word in text.replace(",", " ").split()) or (Key.from_text(""),)
    if len(keys) > MOST_KEYS:
        raise ConfigurationError(f"at most {MOST_KEYS} cluster keys can be accepted at once, here are {len(keys)}")
    return keys


def key_for(url: str, settings: Settings, given: SecretStr | None = None) -> Key | None:
    """The key with which a peer connects to an address, or to one of several, if that needs one."""
    if needs_key(url):
        return load_keys(settings, given)[0].for_dialing()
    return search_key(settings, given) if LAN in split(url) else None


def search_key(settings: Settings, given: SecretStr | None = None) -> Key | None:
    """The key with which to search the network beside other places; without one it is not searched."""
    with contextlib.suppress(ConfigurationError):
        return load_keys(settings, given)[0].for_dialing()
    return None


def accepted_keys(settings: Settings) -> tuple[Key, ...]:
    """The role keys that a control plane accepts; made at first need."""
    return role_keys(load_keys(settings, make=True))


# ---- changing it -----------------------------------------------------------------------------------------------------


def make_key() -> bool:
    """Write a new key file, unless there is one: of several processes that need one at once, one makes it."""
    draft = _draft((Key.new(),))
    try:
        os.link(draft, key_path())
    except FileExistsError:  # another process was faster: its key counts
        return False
    finally:
        draft.unlink()
    return True


def save_key(text: str) -> Key:
    """Keep a key of another machine in the key file, in place of a key of a role that is there.

    Raises:
        ConfigurationError: it is no key, or another cluster key is there, which may be the only copy.
    """
    key = Key.from_text(text)
    if key_path().exists() and any(old.role is None and old != key for old in read_keys()):
        raise ConfigurationError(f"{key_path()} holds another cluster key: move that file away if it is not needed")
    _replace((key,))
    return key


def rotate_key() -> tuple[Key, ...]:
    """Put a new cluster key before the one there is, which stays accepted until `retire_key`.

    Raises:
        ConfigurationError: there is no key, it is a role's, or a rotation is under way.
    """
    keys = _cluster_keys()
    if len(keys) == MOST_KEYS:
        raise ConfigurationError(
            "a rotation is under way: copy the new key to the other machines, then fastworker key retire"
        )
    return _replace((Key.new(), *keys))


def retire_key() -> tuple[Key, ...]:
    """Drop the key that was there before the last rotation.

    Raises:
        ConfigurationError: there is only one.
    """
    keys = _cluster_keys()
    if len(keys) == 1:
        raise ConfigurationError(
            "there is one key only, nothing to retire: fastworker key rotate makes a new one first"
        )
    return _replace(keys[:1])


def shown_key(settings: Settings, role: KeyRole | None) -> Key:
    """The key to be handed out: the cluster key, or that of a role."""
    key = load_keys(settings)[0]
    return key if role is None else key.of(role)


def _cluster_keys() -> tuple[Key, ...]:
    keys = read_keys()
    role_keys(keys)
    return keys


def _replace(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    _draft(keys).replace(key_path())
    return keys


def _draft(keys: tuple[Key, ...]) -> Path:
    """The keys in a new file beside the key file."""
    path = key_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        path.parent.chmod(0o700)
    draft = path.with_name(f"key-{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("".join(f"{key.text}\n" for key in keys))
    return draft
