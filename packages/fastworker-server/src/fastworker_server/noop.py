"""The task that `fastworker bench` runs. A module of its own, because each `fastworker` command loads `bench`."""

from fastworker import task


@task(name="fastworker.noop")
async def noop(number: int) -> int:
    """Do nothing."""
    return number
