"""Run seeds: `python -m tests.simulation --seeds 10000`; random graphs: `--graphs 1000`; replay one: `--seed 4711`."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.simulation.plan import GRAPH_SEED
from tests.simulation.simulation import Report, simulate

BATCH = 16
"""Seeds between two looks at how many graphs there were."""
COUNTED = ("tasks", "graphs", "executions", "lost", "crashes")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--graphs", type=int, help="run seeds that are all about graphs, until there were so many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", help="replay this one and print what happens")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many to run at once")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed)
    if arguments.graphs is not None:
        return run_many(_graph_seeds(arguments.start), arguments.processes, arguments.graphs)
    return run_many([range(arguments.start, arguments.start + arguments.seeds)], arguments.processes)


def _graph_seeds(start: int) -> Iterator[list[str]]:
    for first in itertools.count(start, BATCH):
        yield [f"{GRAPH_SEED}{number}" for number in range(first, first + BATCH)]


def replay(seed: str) -> int:
    """Run one seed with a trace."""
    report = simulate(seed, tracing=True)
    print("\n".join(report.trace))
    print(report.violation or f"seed {seed}: {report.tasks} tasks, {report.steps} steps, nothing wrong")
    return 1 if report.violation else 0


def run_many(batches: Iterable[Sequence[int | str]], processes: int, graphs: int | None = None) -> int:
    """Run seeds on all cores; stop at the first that fails, or as soon as there were so many graphs."""
    began, done, sums = time.monotonic(), 0, Counter[str]()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for batch in batches:
            for report in pool.imap(simulate, batch, chunksize=4):
                done += 1
                sums.update({name: getattr(report, name) for name in COUNTED})
                if report.violation is not None:
                    return _complain(report)
                if done % max(1, len(batch) // 20) == 0 and graphs is None:
                    print(f"{done}/{len(batch)} seeds, {time.monotonic() - began:.0f} s", flush=True)
            if graphs is not None and sums["graphs"] >= graphs:
                break
    print(_summary(done, sums, time.monotonic() - began))
    return 0


def _complain(report: Report) -> int:
    print(f"\nseed {report.seed}: {report.violation}", flush=True)
    print(f"replay it: python -m tests.simulation --seed {report.seed}", flush=True)
    return 1


def _summary(done: int, sums: Counter[str], seconds: float) -> str:
    return (
        f"{done} seeds in {seconds:.0f} s, nothing wrong: {sums['tasks']} tasks, {sums['graphs']} graphs, "
        f"{sums['executions']} runs, {sums['lost']} attempts lost with their worker, "
        f"{sums['crashes']} restarts of the control plane"
    )


if __name__ == "__main__":
    sys.exit(main())
