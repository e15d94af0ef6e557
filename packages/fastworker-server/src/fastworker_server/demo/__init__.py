"""`fastworker demo`: real work on real files, with a control plane and workers of its own."""

from fastworker_server.demo.command import demo

__all__ = ["demo"]
