"""What this process holds open, and a forked child of it can't go on with."""

from __future__ import annotations

import os

from fastworker.errors import ForkError

_open: set[Open] = set()
_forked_while_open = False


class Open:
    """Something that is open until it is closed."""

    def __init__(self) -> None:
        self.closed = False
        _open.add(self)

    def close(self) -> None:
        """Give it back; what goes on ends."""
        if not self.closed:
            self.closed = True
            _open.discard(self)
            self._release()

    def _release(self) -> None:
        raise NotImplementedError


def all_open() -> list[Open]:
    """What is open now."""
    return list(_open)


def _after_fork() -> None:
    global _forked_while_open
    _forked_while_open = bool(_open)


os.register_at_fork(after_in_child=_after_fork)


def refuse_if_forked() -> None:
    """Raise `ForkError` in a child of a process that had a connection open: NNG would abort it, and both would read
    from the same socket.
    """
    if _forked_while_open:
        raise ForkError(
            "this process was forked from one that was connected already, and its connections can't be used here: "
            "connect after the fork, or use multiprocessing's 'spawn'"
        )
