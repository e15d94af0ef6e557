"""`python -m benchmarks.lanes`: what dispatch costs with many lanes, beside one; the engine alone, without processes.

The same tasks are queued once in one lane and once in many, by a limit key; then so many are dispatched and end, one by
one. The time per task, and the ratio, are printed.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from random import Random

from fastworker.protocol import PROTOCOL_VERSION, Hello, Outcome, Submission
from fastworker.tasks import Definition, Ties
from fastworker_server.engine import Engine
from fastworker_server.queue import Patience

NAME = "noop"
_SLOTS = 4


def queue_of(tasks: int, lanes: int) -> Engine:
    """An engine with so many queued tasks in so many lanes, and a worker that knows them."""
    engine = Engine(Patience(), Random(0))
    ties = [Ties(key=f"key {lane}") for lane in range(lanes)] if lanes > 1 else [None]
    for number in range(tasks):
        engine.submit(Submission(f"{number:036d}", NAME, "[]", ties=ties[number % lanes]), 0.0)
    engine.outbox.clear()
    engine.join(Hello("worker", PROTOCOL_VERSION, "w", "host", 1, "", _SLOTS, definitions=[Definition(NAME)]), 0.0)
    engine.outbox.clear()
    return engine


def seconds_per_task(engine: Engine, count: int) -> float:
    """Processor time to dispatch a task and to take in its outcome."""
    worker = engine.workers["w"]
    gc.collect()
    gc.disable()
    done, now, began = 0, 1.0, time.process_time()
    while done < count:
        orders = [order for _, order in engine.dispatch(now)]
        now += 0.001
        outcomes = [Outcome(order.id, order.attempt, "succeeded", now, 0.001, "null") for order in orders]
        engine.report(worker, outcomes, now)
        engine.outbox.clear()
        done += len(orders)
    took = time.process_time() - began
    gc.enable()
    return took / done


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser("benchmarks.lanes", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=1_000_000, help="how many are queued (default: 1,000,000)")
    parser.add_argument("--lanes", type=int, default=10_000, help="in so many lanes (default: 10,000)")
    parser.add_argument("--dispatch", type=int, default=100_000, help="how many are started (default: 100,000)")
    parser.add_argument("--json", action="store_true", help="for a program")
    said = parser.parse_args()
    one = seconds_per_task(queue_of(said.tasks, 1), said.dispatch)
    many = seconds_per_task(queue_of(said.tasks, said.lanes), said.dispatch)
    if said.json:
        print(json.dumps({"one": one, "many": many, "ratio": many / one}))
        return
    print(f"{said.tasks:,} queued tasks, {said.dispatch:,} of them dispatched and done, in microseconds per task:")
    print(f"  one lane {one * 1e6:.1f}, {said.lanes:,} lanes {many * 1e6:.1f}: {many / one:.2f} times")


if __name__ == "__main__":
    main()
