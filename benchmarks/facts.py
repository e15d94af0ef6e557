"""The machine and the versions that the figures belong to."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.runs import Result


def machine_facts() -> dict[str, Any]:
    """Taken before the run, so that the load is that of the others."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count(),
        "cpu": _cpu_model(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "redis": _redis_version(),
    }


def versions(results: Iterable[Result]) -> dict[str, str]:
    return {result.contender: result.version for result in results if result.version}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _redis_version() -> str:
    try:
        answer = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return next((word[2:] for word in answer.stdout.split() if word.startswith("v=")), "unknown")
