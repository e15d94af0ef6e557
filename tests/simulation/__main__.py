"""Run seeds: `python -m tests.simulation --seeds 10000`, or replay one: `--seed 4711`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.simulation.simulation import simulate


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", help="replay this one and print what happens")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many to run at once")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed)
    return run_many(range(arguments.start, arguments.start + arguments.seeds), arguments.processes)


def replay(seed: str) -> int:
    """Run one seed with a trace."""
    report = simulate(seed, tracing=True)
    print("\n".join(report.trace))
    print(report.violation or f"seed {seed}: {report.tasks} tasks, {report.steps} steps, nothing wrong")
    return 1 if report.violation else 0


def run_many(seeds: range, processes: int) -> int:
    """Run seeds on all cores; stop at the first that fails."""
    began, done, sums = time.monotonic(), 0, [0, 0, 0, 0]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for report in pool.imap(simulate, seeds, chunksize=4):
            done += 1
            for index, value in enumerate((report.tasks, report.executions, report.lost, report.crashes)):
                sums[index] += value
            if report.violation is not None:
                print(f"\nseed {report.seed}: {report.violation}", flush=True)
                print(f"replay it: python -m tests.simulation --seed {report.seed}", flush=True)
                return 1
            if done % max(1, len(seeds) // 20) == 0:
                print(f"{done}/{len(seeds)} seeds, {time.monotonic() - began:.0f} s", flush=True)
    print(_summary(done, sums, time.monotonic() - began))
    return 0


def _summary(done: int, sums: list[int], seconds: float) -> str:
    tasks, executions, lost, crashes = sums
    return (
        f"{done} seeds in {seconds:.0f} s, nothing wrong: {tasks} tasks, {executions} runs, "
        f"{lost} attempts lost with their worker, {crashes} restarts of the control plane"
    )


if __name__ == "__main__":
    sys.exit(main())
