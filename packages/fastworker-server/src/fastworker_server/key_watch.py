"""Follows the key file, so that a rotation of the cluster key needs no restart of the control plane."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fastworker.errors import ConfigurationError
from fastworker.key_file import read_keys
from fastworker.keys import Key, role_keys
from fastworker.transport import Listener
from fastworker_server.door import Door

logger = logging.getLogger("fastworker.control_plane")

LOOK_EVERY: Final = 1.0


async def watch_keys(accepted: tuple[Key, ...], listener: Listener, door: Door) -> None:
    """Accept what the key file says, from a second after it was changed; connections with a key that went are ended.

    A file that is damaged or gone changes nothing, and is complained of once.
    """
    complained = ""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            keys = role_keys(read_keys())
        except (ConfigurationError, OSError) as error:
            if str(error) != complained:
                complained = str(error)
                logger.error("the keys stay as they were: %s", error)
            continue
        complained = ""
        if keys != accepted:
            accepted = keys
            listener.change_keys(keys)
            door.accept(keys)
            ids = sorted({key.id for key in read_keys()})
            logger.info("the key file has changed: cluster keys %s are accepted now", " and ".join(ids))
