"""A virtual environment for each peer: fastworker 0.3.0 has our package's name, and none needs the others' pins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.entrants import Entrant

ROOT = Path(__file__).parent.parent
_HOME = Path(__file__).parent / ".venvs"
_UV = ROOT / "scripts" / "uv"


def python_for(entrant: Entrant) -> str:
    """The interpreter that has what the entrant needs, installed first if it is not there yet."""
    if entrant.requirements is None:
        return sys.executable
    folder = _HOME / entrant.name
    stamp = folder / "made-from.txt"
    recipe = f"# Python {sys.version}\n{entrant.requirements.read_text()}"
    if not stamp.exists() or stamp.read_text() != recipe:
        _make(folder, entrant.requirements)
        stamp.write_text(recipe)
    return str(folder / "bin" / "python")


def _make(folder: Path, requirements: Path) -> None:
    _HOME.mkdir(exist_ok=True)
    (_HOME / ".gitignore").write_text("*\n")
    _uv("venv", "--clear", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--python", str(folder), "--requirement", str(requirements))


def _uv(*arguments: str) -> None:
    done = subprocess.run([str(_UV), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"uv {arguments[0]} failed: {done.stderr.strip()}")
