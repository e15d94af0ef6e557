"""Will hold OpenTelemetry traces and metrics of tasks. It holds nothing yet."""

__all__: list[str] = []
