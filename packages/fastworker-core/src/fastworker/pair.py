"""One message to a Pair0 socket, as fastworker 0.3.0 sent them."""

from __future__ import annotations

import time
from typing import Final

import pynng  # type: ignore[import-untyped, unused-ignore]

from fastworker.errors import ConnectionFailed
from fastworker.forks import refuse_if_forked

LINGER: Final = 0.1


def send_to_pair(url: str, body: bytes, timeout: float) -> None:
    """Send one message to somebody's Pair0 that listens at an address; blocks.

    Raises:
        ConnectionFailed: it did not take the message within `timeout` seconds.
    """
    refuse_if_forked()
    try:
        with pynng.Pair0(dial=url, block_on_dial=True, send_timeout=round(timeout * 1000)) as pair:
            pair.send(body)
            time.sleep(LINGER)  # `close` right after a send may lose it, and a pair has no acknowledgement
    except pynng.NNGException as error:
        raise ConnectionFailed(f"{url}: {error}") from None
