"""Who may say what: the rights of the role keys (`fastworker.keys`)."""

from __future__ import annotations

from fastworker.keys import KeyRole
from fastworker.protocol import Control, Hello, Message, Schedules

_READ_ONLY = ("follow", "unfollow")


def role_needed(message: Message) -> KeyRole:
    """The least role that may say this: `client` < `worker` < `admin`."""
    match message:
        case Hello(role="worker"):
            return "worker"
        case Control(action=action) if action not in _READ_ONLY:
            return "admin"
        case Schedules():
            return "admin"
        case _:
            return "client"


def why_not(role: KeyRole, message: Message) -> str | None:
    """Why a peer may not say this; None if it may."""
    needed = role_needed(message)
    if _RANK[role] >= _RANK[needed]:
        return None
    what = f"to {message.action}" if isinstance(message, Control | Schedules) else "to register as a worker"
    return (
        f"{what} takes the key of {_A[needed]}, and yours is that of {_A[role]}: "
        f"`fastworker key show --role {needed}` on the control plane's host prints one"
    )


_RANK: dict[KeyRole, int] = {"client": 0, "worker": 1, "admin": 2}
_A: dict[KeyRole, str] = {"client": "a client", "worker": "a worker", "admin": "an admin"}
