"""FastWorker inside FastAPI. The code is in the distribution `fastworker-fastapi`."""

try:
    from fastworker_fastapi import (
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
except ModuleNotFoundError as error:
    if error.name not in ("fastworker_fastapi", "fastapi"):
        raise
    raise ImportError("FastWorker for FastAPI is not installed: pip install 'fastworker[fastapi]'") from None

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
