"""Templates to bytes."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from fastworker.release import RELEASE
from fastworker_dashboard import words
from fastworker_dashboard.access import User
from fastworker_dashboard.assets import asset_version
from fastworker_dashboard.views import View, term

NAVIGATION = (
    ("/", "Overview"),
    ("/tasks", "Tasks"),
    ("/failed", "Failed"),
    ("/queues", "Queues"),
    ("/workers", "Workers"),
    ("/types", "Task types"),
    ("/schedules", "Schedules"),
    ("/audit", "Audit"),
    ("/about", "About"),
)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fastworker_dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        number=words.number, size=words.size, rate=words.rate, duration=words.duration, moment=words.moment,
        clock=words.clock, day=words.day, short_place=words.short_place, ago=words.ago,
        pretty=words.pretty, arguments=words.arguments, segment=lambda text: quote(text, safe=""),
    )  # fmt: skip
    environment.globals.update(navigation=NAVIGATION, release=RELEASE, asset=asset_version, term=term)
    return environment


def render(view: View, *, root: str, path: str, query: str, user: User | None, whole: bool, **more: Any) -> str:
    """A page.

    Args:
        root: the prefix that the dashboard is mounted under.
        path, query: of the page, without the prefix.
        whole: False gives what is inside `<main>` only.
    """
    values = {
        "live": True,
        "q": "",
        "complaint": None,
        "message": None,
        "needs_login": False,
        "insecure": False,
        **view.values,
        **more,
    }
    return (
        _environment()
        .get_template(view.template)
        .render(
            **values,
            layout="base.html" if whole else "bare.html",
            title=view.title,
            root=root,
            path=path,
            query=query,
            address=f"{path}?{query}" if query else path,
            user=user,
        )
    )
