"""NNG below its sockets: asynchronous operations, what of it is open in this process, and how both end.

What NNG does meanwhile it tells in threads of its own, which need the interpreter for that: they hand over, no more.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Final

import pynng  # type: ignore[import-untyped, unused-ignore]

from fastworker.errors import ConnectionFailed
from fastworker.forks import Open, all_open

lib: Any = pynng.lib
ffi: Any = pynng.ffi

TASK_THREADS: Final = 2
"""The fewest that NNG has. With its default of two for each core, each message wakes more of them."""

# No more than a wish: who has used NNG in this process before us has settled it.
lib.nng_init_set_parameter(lib.NNG_INIT_NUM_TASK_THREADS, TASK_THREADS)

OnDone = Callable[[], None]
_numbers = itertools.count(1)
_when_done: dict[int, OnDone] = {}


@ffi.callback("void(void *)")  # type: ignore[untyped-decorator, unused-ignore]
def _tell(number: Any) -> None:
    """In a thread of NNG: an operation has ended. One that is no longer wanted has nobody to be told."""
    _tell_of(int(ffi.cast("uintptr_t", number)))


def _tell_of(number: int) -> None:
    done = _when_done.get(number)
    if done is not None:
        done()


def hand_over(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    """Call back in the event loop, from any thread; if it is closed, nobody is left to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)


# ---- operations ----------------------------------------------------------------------------------------------


class Operation:
    """Something that NNG does meanwhile (nng_aio(5)); `when_done` is called in one of its threads."""

    def __init__(self, when_done: OnDone | None = None) -> None:
        self._number = next(_numbers)
        cell = ffi.new("nng_aio **")
        if when_done is None:
            check(lib.nng_aio_alloc(cell, ffi.NULL, ffi.NULL))
        else:
            _when_done[self._number] = when_done
            check(lib.nng_aio_alloc(cell, _tell, ffi.cast("void *", self._number)))
        self.aio = cell[0]
        self._vector = ffi.new("nng_iov *")

    def use(self, place: Any, size: int) -> None:
        """Read to, or write from, this place."""
        self._vector.iov_buf, self._vector.iov_len = place, size
        lib.nng_aio_set_iov(self.aio, 1, self._vector)

    @property
    def busy(self) -> bool:
        """Whether it goes on."""
        return bool(lib.nng_aio_busy(self.aio))

    @property
    def code(self) -> int:
        """0, or why it failed."""
        return int(lib.nng_aio_result(self.aio))

    @property
    def count(self) -> int:
        """Bytes that were read or written."""
        return int(lib.nng_aio_count(self.aio))

    def tell(self) -> None:
        """Call `when_done`, in place of NNG."""
        _tell_of(self._number)

    def stop(self) -> None:
        """Wait until it has ended and nobody is told any more."""
        lib.nng_aio_stop(self.aio)

    def free(self) -> None:
        """Nobody is to be told any more."""
        _when_done.pop(self._number, None)
        lib.nng_aio_reap(self.aio)


class Connecting(Operation):
    """One that makes connections, one at a time."""

    under_way = False

    def begin(self, how: Callable[[Any, Any], None], handle: Any) -> None:
        """Make one, in this way."""
        self.under_way = True
        how(handle, self.aio)

    def stream(self) -> Any:
        """NNG's handle of the connection that was made; None if that failed."""
        self.under_way = False
        return ffi.cast("nng_stream *", lib.nng_aio_get_output(self.aio, 0)) if self.code == 0 else None

    def free(self) -> None:
        """Nobody is to be told any more, or wants a connection that came meanwhile."""
        self.stop()
        if self.under_way and (unwanted := self.stream()) is not None:
            lib.nng_stream_free(unwanted)
        super().free()


def check(code: int) -> None:
    """Raise `ConnectionFailed` for anything but 0."""
    if code != 0:
        raise ConnectionFailed(f"NNG: {in_words(code)}")


def in_words(code: int) -> str:
    """What NNG says of one of its codes."""
    return str(ffi.string(lib.nng_strerror(code)).decode())


# ---- what is open --------------------------------------------------------------------------------------------

_process_ends = False


class OpenInNng(Open):
    """Something of NNG's in this process.

    Args:
        handle: NNG's.
        hang_up, free: what NNG calls so.
        operations: that it is used with.
    """

    def __init__(
        self, handle: Any, hang_up: Callable[[Any], None], free: Callable[[Any], None], *operations: Operation
    ) -> None:
        super().__init__()
        self._handle = handle
        self._hang_up = hang_up
        self._free = free
        self._operations = operations

    def abandon(self) -> None:
        """The process ends, maybe while another thread works on: from here on it does nothing with NNG."""
        if not self.closed:
            self.closed = True
            self._hang_up(self._handle)
            for operation in self._operations:
                operation.stop()

    def close(self) -> None:
        """Give it back; what goes on ends."""
        if not _process_ends:
            super().close()

    def _release(self) -> None:
        self._hang_up(self._handle)
        for operation in self._operations:
            operation.free()
        self._free(self._handle)


def _abandon_all() -> None:
    """Before NNG's own end, which pynng registered: it panics if something goes on."""
    global _process_ends
    _process_ends = True
    for opened in all_open():
        if isinstance(opened, OpenInNng):
            opened.abandon()


atexit.register(_abandon_all)
