"""FastWorker inside web frameworks. Each module here names what another distribution holds."""
