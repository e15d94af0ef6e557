"""The slow work."""

import asyncio

from pydantic import BaseModel

from fastworker import current_task, task


class Report(BaseModel):
    """A finished report."""

    customer: str
    pages: int


@task(timeout=120, retries=2)
async def write_report(customer: str, pages: int = 20) -> Report:
    """Write a report, page by page."""
    for page in range(1, pages + 1):
        await asyncio.sleep(0.02)  # stands for a slow query
        current_task().progress(page / pages, f"page {page} of {pages}")
    return Report(customer=customer, pages=pages)
