"""Will hold the dashboard: pages, JSON API and Prometheus metrics. It holds nothing yet."""

__all__: list[str] = []
