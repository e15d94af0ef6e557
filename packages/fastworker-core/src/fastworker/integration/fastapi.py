"""`fastworker.integrations.fastapi`, where 0.3.0 had it."""

from fastworker.integrations.fastapi import (
    BackgroundTasks,
    ControlPlaneAway,
    FastWorker,
    FastWorkerClient,
    FastWorkerMiddleware,
    PatientClient,
    control_plane_away,
    fastworker_client,
    fastworker_lifespan,
    task_router,
)

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
