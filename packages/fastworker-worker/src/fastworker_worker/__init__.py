"""The worker: takes tasks from the control plane and runs them."""

from fastworker_worker.worker import Worker

__all__ = ["Worker"]
