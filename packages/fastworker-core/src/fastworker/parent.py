"""For a process that another one has started, and that is not to outlive it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final

STANDARD_INPUT: Final = 0


def when_parent_ends(end: Callable[[], None]) -> None:
    """Call this, in a thread, when standard input closes: the parent holds its other end, so it is gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(STANDARD_INPUT, 1024):
                pass
        end()

    threading.Thread(target=watch, name="fastworker-parent", daemon=True).start()


def end_with_parent() -> None:
    """End at once when the parent has ended."""
    when_parent_ends(lambda: os._exit(0))
