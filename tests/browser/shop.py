"""The tasks of a shop, for the pictures in the docs: they take as long as such tasks do, and some fail."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated, Literal

from pydantic import Field

from fastworker import current_task, task

Secret = Annotated[str, Field(json_schema_extra={"writeOnly": True})]
chance = random.Random()


class CardDeclined(Exception):
    """The bank said no."""


async def works(shortest: float, longest: float) -> None:
    await asyncio.sleep(chance.triangular(shortest, longest, shortest * 2))


@task(queue="mail", retries=2, backoff="exponential")
async def send_email(to: str, template: Literal["welcome", "receipt", "reminder"] = "welcome") -> str:
    """Send one letter to one customer."""
    await works(0.02, 0.2)
    if chance.random() < 0.06:
        raise TimeoutError("mail.example.org did not answer within 10 s")
    return f"sent to {to}"


@task(priority="high", rate_limit="30/s", timeout=30)
async def charge_card(order: str, amount: float, card: Secret = "") -> dict[str, str | float]:
    """Take the money for an order."""
    await works(0.05, 0.4)
    if chance.random() < 0.03:
        raise CardDeclined(f"the card of order {order} was declined: insufficient funds")
    return {"order": order, "charged": amount}


@task(queue="images")
async def resize_image(path: str, width: Annotated[int, Field(ge=16, le=4096, description="in pixels")] = 640) -> str:
    """Make a smaller copy of a picture."""
    await works(0.05, 0.6)
    return f"{path}@{width}"


@task(queue="images")
async def publish_gallery(pictures: list[str]) -> int:
    """Put the copies of a picture on its page."""
    await works(0.05, 0.2)
    return len(pictures)


@task(queue="search", max_concurrency=3)
async def index_product(sku: str) -> None:
    """Bring a product up to date in the search."""
    await works(0.1, 0.5)
    if chance.random() < 0.01:
        raise KeyError(sku)


@task(queue="reports", priority="low")
async def build_report(month: str, pages: int = 40) -> str:
    """Write the report of a month."""
    for page in range(pages):
        current_task().progress(page / pages, f"page {page + 1} of {pages}")
        if page % 5 == 0:
            current_task().log(f"{month}: {page * 212} rows read")
        await asyncio.sleep(1.0)
    return f"reports/{month}.pdf"


@task(cron="0 6 * * *")
async def nightly_rollup() -> None:
    """Add up the day."""
    await works(0.5, 1.0)
