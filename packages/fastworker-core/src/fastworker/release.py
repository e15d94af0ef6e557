"""The release of this package. The metapackage may be absent, so it is core's version that counts."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

RELEASE: Final = version("fastworker-core")
