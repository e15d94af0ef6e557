"""The dashboard of FastWorker: pages, JSON API and Prometheus metrics, as a client of the control plane."""

from fastworker_dashboard.access import User
from fastworker_dashboard.app import dashboard

__all__ = ["User", "dashboard"]
