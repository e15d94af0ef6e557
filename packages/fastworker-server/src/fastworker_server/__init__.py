"""The control plane: holds the queue, decides, keeps results."""

from fastworker_server.control_plane import ControlPlane

__all__ = ["ControlPlane"]
