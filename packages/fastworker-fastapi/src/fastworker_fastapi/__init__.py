"""FastWorker inside FastAPI, and any other ASGI application.

What is in `__all__` is the public face; `fastworker.integrations.fastapi` has the same names.
"""

from fastworker.errors import ControlPlaneAway
from fastworker.patient import PatientClient
from fastworker_fastapi.background import BackgroundTasks
from fastworker_fastapi.dependency import FastWorkerClient, fastworker_client
from fastworker_fastapi.facade import FastWorker
from fastworker_fastapi.lifespan import fastworker_lifespan
from fastworker_fastapi.middleware import FastWorkerMiddleware, control_plane_away
from fastworker_fastapi.router import task_router

__all__ = [
    "BackgroundTasks",
    "ControlPlaneAway",
    "FastWorker",
    "FastWorkerClient",
    "FastWorkerMiddleware",
    "PatientClient",
    "control_plane_away",
    "fastworker_client",
    "fastworker_lifespan",
    "task_router",
]
