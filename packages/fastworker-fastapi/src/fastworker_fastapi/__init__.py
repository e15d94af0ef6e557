"""Will hold the FastAPI integration: middleware, dependency, router. It holds nothing yet."""

__all__: list[str] = []
