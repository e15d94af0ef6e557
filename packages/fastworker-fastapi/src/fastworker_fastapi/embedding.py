"""The control plane inside the application: found by its entry point, so that this package does without it."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

from fastworker.errors import ConfigurationError


class EmbeddedControlPlane(Protocol):
    """What `fastworker_server.embedded.Embedded` is.

    Attributes:
        url: where it is reached.
    """

    url: str

    async def start(self) -> None:
        """Serve, or be the next."""

    async def stop(self) -> None:
        """Let another one serve."""


def embedded_control_plane(url: str | None) -> EmbeddedControlPlane:
    """The installed one.

    Raises:
        ConfigurationError: none is installed.
    """
    for point in entry_points(group="fastworker.embedded"):
        made: EmbeddedControlPlane = point.load()(url)
        return made
    raise ConfigurationError("embedded=True needs the control plane in this environment: pip install fastworker-server")
