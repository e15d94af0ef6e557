"""Where to dial: the addresses at which the control plane may be, one after the other, again and again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from fastworker.addresses import LAN, is_encrypted, split
from fastworker.credentials import Credential, search_key_of
from fastworker.discovery import Place
from fastworker.errors import ConfigurationError
from fastworker.multicast import search
from fastworker.transport import why_unreachable

logger = logging.getLogger("fastworker.connection")

LOCAL_TURN: Final = 0.2
"""Seconds in which a socket on this host answers, if anybody is there."""
FIRST_TURN: Final = 1.0
LONGEST_TURN: Final = 10.0
"""Seconds that an address gets; longer each time round, for networks that are slow."""


class Route:
    """The places where one control plane may be.

    Args:
        url: one or several addresses, or `lan://`.
        credential: what we have to show; a search on the network takes a key.
    """

    def __init__(self, url: str, credential: Credential | None) -> None:
        self._places = split(url)
        self._key = search_key_of(credential)
        self._name = ""
        self._found: dict[str, str] = {}
        self._turn = FIRST_TURN

    @property
    def only(self) -> str | None:
        """The address, if there is nothing to choose and nothing to look for."""
        return self._places[0] if len(self._places) == 1 and not self._places[0].startswith(LAN) else None

    async def addresses(self, place: str) -> Sequence[str]:
        """The addresses to dial for one place.

        Raises:
            ConfigurationError: several control planes are on the network, and none was named.
        """
        return await self._search(place) if place.startswith(LAN) else [place]

    @property
    def places(self) -> Sequence[str]:
        """The places to try, in this order."""
        return self._places

    def turn(self, address: str) -> float:
        """How long an address may take to answer."""
        return LOCAL_TURN if address.startswith("ipc://") else self._turn

    def went_round(self) -> None:
        """None has answered."""
        self._turn = min(self._turn * 2, LONGEST_TURN)

    def reached(self, address: str) -> None:
        """One has answered. Where it was this host or the network, it is that control plane from now on."""
        self._turn = FIRST_TURN
        if LAN in self._places:
            name = self._found.get(address)
            self._places = [LAN + name if name else address]

    async def _search(self, place: str) -> Sequence[str]:
        if self._key is None:
            return []
        found = await search(self._key, place.removeprefix(LAN))
        if len(found) > 1:
            raise ConfigurationError(_several(found))
        for one in found:
            logger.info("found the control plane %s on the network, at %s", one.name, ", ".join(one.urls))
            self._found |= dict.fromkeys(one.urls, one.name)
        return [url for one in found for url in one.urls]


def _several(found: Sequence[Place]) -> str:
    """Which control planes there are, and how to say which is meant."""
    lines = sorted(f"  {LAN}{place.name} at {', '.join(place.urls)}" for place in found)
    head = "several control planes are on this network; choose one with --url or FASTWORKER_URL, by name or address:"
    return "\n".join([head, *lines])


async def why_nobody(places: Sequence[tuple[str, str]], credential: Credential | None) -> str:
    """Why no control plane answered at any of these places; a line for each."""
    lines = []
    for place, source in places:
        if place.startswith(LAN):
            why = (
                "nobody answered" if search_key_of(credential) is not None else "not searched, there is no cluster key"
            )
        else:
            why = await why_unreachable(place, credential if is_encrypted(place) else None)
        lines.append(f"  {place} ({source}): {why}")
    return "\n".join(lines)
