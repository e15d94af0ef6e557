"""What was taken over from others is what they published, and pages stay small."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from importlib.resources import files

import pytest

from fastworker_dashboard.assets import PARTS, asset

STATIC = files("fastworker_dashboard") / "static"
LOCK = json.loads((STATIC / "vendored.lock.json").read_text())


@pytest.mark.parametrize("name", LOCK)
def test_a_vendored_file_has_the_hash_of_its_release(name: str) -> None:
    said = LOCK[name]
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == said["sha256"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", said["version"])


def test_everything_vendored_is_locked_and_has_a_licence() -> None:
    assert {path.name for path in STATIC.iterdir() if path.name.endswith(".min.js")} == set(LOCK)
    assert len([path for path in STATIC.iterdir() if path.name.startswith("LICENSE.")]) == len(LOCK)


def test_the_assets_are_small() -> None:
    assert sum(len(asset(name)) for name in PARTS) <= 100_000
    assert sum(len(gzip.compress(asset(name))) for name in PARTS) <= 40_000


def test_nothing_points_to_a_third_party() -> None:
    ours = [(STATIC / name).read_text() for name in ("dashboard.css", "dashboard.js")]
    templates = files("fastworker_dashboard") / "templates"
    ours += [path.read_text() for path in templates.iterdir() if path.name.endswith(".html")]
    assert not [text for text in ours if re.search(r"(src|href|url)\W{1,3}https?://", text)]
    assert not [text for text in ours if re.search(r"\sstyle=|<style|\son\w+=|javascript:", text)]
