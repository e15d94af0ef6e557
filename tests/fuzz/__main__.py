"""The fuzzer: `python -m tests.fuzz SECONDS [TARGET …]`. Takes atheris: `make fuzz` installs it.

Each target runs in a process of its own, because libFuzzer ends its process.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import atheris

LONGEST = 2000
EXECUTIONS = re.compile(r"stat::number_of_executed_units: (\d+)")


def fuzz_all(seconds: int, names: Sequence[str]) -> int:
    """Share the time among these targets; the number of those that something was found in."""
    from tests.fuzz.targets import TARGETS

    chosen = names or list(TARGETS)
    found = 0
    for name in chosen:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--one", name, str(max(1, seconds // len(chosen)))],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        executions = EXECUTIONS.search(done.stderr)
        print(f"{name}: {int(executions[1]) if executions else 0:,} executions, exit {done.returncode}", flush=True)
        if done.returncode != 0:
            found += 1
            print(done.stdout[-3000:], done.stderr[-3000:], sep="\n")
    return found


def fuzz_one(name: str, seconds: str) -> None:
    """Fuzz one target until its time is up, or something is found."""
    with atheris.instrument_imports(include=["fastworker", "cronsim"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            Path(folder, str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            "-print_final_stats=1",
            f"-artifact_prefix={folder}/",
        ]
        atheris.Setup([sys.argv[0], *options, folder], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        fuzz_one(sys.argv[2], sys.argv[3])
    else:
        sys.exit(fuzz_all(int(sys.argv[1]), sys.argv[2:]) > 0)
