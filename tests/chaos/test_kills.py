"""kill -9, SIGTERM, SIGSTOP, with work in hand: nothing is lost, and nothing runs twice whose worker lived."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from tests.chaos.conftest import Figures
from tests.support.cluster import Cluster, Program
from tests.support.judge import Verdict, judge
from tests.support.waiting import Promised, until

LONGEST_RETURN = 3.0
"""Seconds from the kill of a worker until all that it had runs again."""
TASKS = 5000
GRACE = "10"
SILENCE = "3"
"""Seconds; an idle worker says something every 2."""
LONGEST_STOP = 10.0 + 5.0


def collect(cluster: Cluster, submitted: dict[str, str], timeout: float = 120) -> Verdict:
    """Wait for the end of all tasks, and judge."""
    answered = set()
    for task_id, payload in submitted.items():
        answer = cluster.client.result(task_id, timeout)
        if answer in (payload, f"done:{payload}"):
            answered.add(task_id)
    return judge(submitted, answered, cluster.journal)


def submit(cluster: Cluster, count: int, seconds: float = 0.0, label: str = "") -> dict[str, str]:
    """Submit tasks with unique payloads; returns when they are acknowledged."""
    payloads = [f"{label}{n}" for n in range(count)]
    calls = [(seconds, payload) if seconds else (payload,) for payload in payloads]
    ids = cluster.client.submit_many("nap" if seconds else "work", calls)
    return dict(zip(map(str, ids), payloads, strict=True))


@contextmanager
def submitting(cluster: Cluster, submitted: dict[str, str]) -> Iterator[None]:
    """Meanwhile, submit tasks all the time."""
    stop = Event()
    failures: list[BaseException] = []

    def run() -> None:
        n = 0
        try:
            while not stop.is_set():
                calls = [f"stream {n} {i}" for i in range(20)]
                ids = cluster.client.submit_many("work", [(payload,) for payload in calls])
                submitted.update(zip(map(str, ids), calls, strict=True))
                n += 1
                stop.wait(0.01)
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive(), "a submission never returned"
    assert not failures, failures


# ---- workers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nap", "nap_async"])
def test_kill_9_of_a_worker_brings_its_work_back(
    cluster: Cluster, figures: Figures, rounds: int, name: str, promised: Promised
) -> None:
    cluster.start("--processes", "0")
    slowest = 0.0
    victim = cluster.worker(name="worker-0")
    for n in range(rounds):
        ids = {str(cluster.client.submit(name, [4.0, f"round {n} task {i}"])) for i in range(8)}
        cluster.await_starts(16 * n + 8)
        heir = cluster.worker(name=f"worker-{n + 1}")
        killed = time.time()
        victim.kill()
        cluster.await_starts(16 * n + 16, 20)
        again = [event for event in cluster.journal.events("start") if event.task in ids and event.attempt == 2]
        slowest = max(slowest, max(event.at for event in again) - killed)
        assert {event.task for event in again} == ids
        assert {event.pid for event in again} == {heir.pid}
        for task_id in ids:
            cluster.client.result(task_id, 20)
        victim = heir
    figures(
        f"kill -9 of a worker ({name})", f"{rounds} rounds of 8 running tasks: all ran again within {slowest:.2f} s"
    )
    assert slowest < promised(LONGEST_RETURN)


def test_kill_9_of_a_worker_that_has_work_ahead(cluster: Cluster, figures: Figures, rounds: int) -> None:
    """Short tasks are sent ahead; those that had not started are no more lost than those that ran."""
    cluster.start("--processes", "0")
    stays = cluster.worker(name="stays")
    victim = cluster.worker(name="victim-0")
    submitted: dict[str, str] = {}
    fewest_open = 2000
    for n in range(rounds):
        before = cluster.journal.count("start")
        submitted |= submit(cluster, 2000, 0.005, f"round {n} ")
        cluster.await_starts(before + 1)
        victim.kill()
        fewest_open = min(fewest_open, before + 2000 - cluster.journal.count("start"))
        victim = cluster.worker(name=f"victim-{n + 1}")
    verdict = collect(cluster, submitted)
    figures(
        "kill -9 of a worker in a stream of short tasks",
        f"{rounds} rounds, at least {fewest_open} not started at the kill: {verdict}",
    )
    assert fewest_open > 0
    assert verdict.clean
    assert stays.alive
    assert doubles_of(cluster, verdict, stays.pid) == set()


def doubles_of(cluster: Cluster, verdict: Verdict, pid: int) -> set[str]:
    """Tasks that ran more than once though the process of their first start lived."""
    first: dict[str, int] = {}
    for event in cluster.journal.events("start"):
        first.setdefault(event.task, event.pid)
    return {task for task in verdict.double if first[task] == pid}


def test_kill_9_of_the_own_worker(cluster: Cluster, figures: Figures, rounds: int, promised: Promised) -> None:
    control_plane = cluster.start()
    slowest = 0.0
    for n in range(rounds):
        cluster.await_own_worker()
        ids = set(submit(cluster, 8, 3.0, f"round {n} "))
        cluster.await_starts(16 * n + 8)
        [child] = control_plane.children()
        killed = time.time()
        child.kill()
        cluster.await_starts(16 * n + 16, 60)
        again = [event for event in cluster.journal.events("start") if event.task in ids and event.attempt == 2]
        slowest = max(slowest, max(event.at for event in again) - killed)
        for task_id in ids:
            cluster.client.result(task_id, 20)
        time.sleep(10 if n + 1 < rounds else 0)  # a child that lived that long is replaced without back-off
    figures("kill -9 of the own worker", f"{rounds} rounds of 8 running tasks: all ran again within {slowest:.2f} s")
    assert slowest < promised(LONGEST_RETURN)


# ---- the control plane -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "seconds"),
    [
        pytest.param(False, 0.0, id="subworkers, no-op", marks=pytest.mark.full),
        pytest.param(False, 0.01, id="subworkers, 10 ms"),
        # A run that shares the machine may be too late to kill anything in the middle of 5,000 no-ops.
        pytest.param(True, 0.0, id="own worker, no-op", marks=pytest.mark.full),
        pytest.param(True, 0.01, id="own worker, 10 ms"),
    ],
)
def test_kill_9_of_the_control_plane(
    cluster: Cluster, figures: Figures, rounds: int, own: bool, seconds: float
) -> None:
    control_plane = start(cluster, own)
    workers = [] if own else [cluster.worker(name=f"worker-{n}") for n in range(2)]
    submitted: dict[str, str] = {}
    began = time.monotonic()
    fewest_open = TASKS
    for n in range(rounds):
        before = cluster.journal.count("start")
        submitted |= submit(cluster, TASKS, seconds, f"round {n} ")
        cluster.await_starts(before + 1)
        control_plane.kill()
        fewest_open = min(fewest_open, before + TASKS - cluster.journal.count("start"))
        control_plane = start(cluster, own)
        verdict = collect(cluster, submitted)
    seconds_taken = time.monotonic() - began
    who = "own worker" if own else "2 subworkers"
    figures(
        f"kill -9 of the control plane ({who}, {'10 ms' if seconds else 'no-op'} tasks)",
        f"{rounds} rounds of {TASKS}, at least {fewest_open} not started at the kill: {verdict}, {seconds_taken:.0f} s",
    )
    assert fewest_open > 0
    assert verdict.clean
    assert verdict.double == set()
    assert all(worker.alive for worker in workers)


def start(cluster: Cluster, own: bool) -> Program:
    """A control plane with or without an own worker."""
    return cluster.start(*([] if own else ["--processes", "0"]), "--grace", GRACE)


def test_the_control_plane_is_killed_twice(cluster: Cluster, figures: Figures, rounds: int) -> None:
    """The second time while workers and clients are on their way back."""
    control_plane = start(cluster, own=False)
    for n in range(2):
        cluster.worker(name=f"worker-{n}")
    submitted: dict[str, str] = {}
    chance = random.Random(rounds)
    with submitting(cluster, submitted):
        for n in range(rounds):
            submitted |= submit(cluster, 1000, 0.005, f"round {n} ")
            control_plane.kill()
            control_plane = cluster.start("--processes", "0", wait=False)
            cluster.await_listening(control_plane)
            time.sleep(chance.uniform(0.0, 0.6))
            control_plane.kill()
            control_plane = start(cluster, own=False)
    verdict = collect(cluster, submitted)
    figures("the control plane killed twice, clients submitting", f"{rounds} rounds: {verdict}")
    assert verdict.clean
    assert verdict.double == set()


# ---- SIGTERM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True], ids=["subworkers", "own worker"])
def test_sigterm_of_the_control_plane(cluster: Cluster, figures: Figures, rounds: int, own: bool) -> None:
    control_plane = start(cluster, own)
    if not own:
        for n in range(2):
            cluster.worker(name=f"worker-{n}")
    submitted: dict[str, str] = {}
    slowest = 0.0
    with submitting(cluster, submitted):
        for n in range(rounds):
            before = cluster.journal.count("start")
            submitted |= submit(cluster, 1000, 0.01, f"round {n} ")
            cluster.await_starts(before + 300)
            slowest = max(slowest, stop(control_plane))
            control_plane = start(cluster, own)
    verdict = collect(cluster, submitted)
    who = "own worker" if own else "2 subworkers"
    figures(
        f"SIGTERM of the control plane ({who})", f"{rounds} rounds under load: exit 0 within {slowest:.2f} s; {verdict}"
    )
    assert verdict.clean
    assert verdict.double == set()


def stop(program: Program) -> float:
    """SIGTERM; the seconds until it has ended with exit code 0."""
    began = time.monotonic()
    assert program.terminate(LONGEST_STOP + 5) == 0
    seconds = time.monotonic() - began
    assert seconds < LONGEST_STOP
    return seconds


def test_sigterm_of_a_worker(cluster: Cluster, figures: Figures, rounds: int) -> None:
    start(cluster, own=False)
    cluster.worker(name="stays")
    leaves = cluster.worker("--grace", GRACE, name="leaves-0")
    submitted: dict[str, str] = {}
    slowest = 0.0
    with submitting(cluster, submitted):
        for n in range(rounds):
            before = cluster.journal.count("start")
            submitted |= submit(cluster, 1000, 0.01, f"round {n} ")
            cluster.await_starts(before + 300)
            slowest = max(slowest, stop(leaves))
            leaves = cluster.worker("--grace", GRACE, name=f"leaves-{n + 1}")
    verdict = collect(cluster, submitted)
    figures("SIGTERM of a worker", f"{rounds} rounds under load: exit 0 within {slowest:.2f} s; {verdict}")
    assert verdict.clean
    assert verdict.double == set()


def test_sigterm_of_the_own_worker(cluster: Cluster, figures: Figures, rounds: int) -> None:
    control_plane = start(cluster, own=True)
    submitted: dict[str, str] = {}
    for n in range(min(rounds, 5)):
        before = cluster.journal.count("start")
        submitted |= submit(cluster, 1000, 0.01, f"round {n} ")
        cluster.await_starts(before + 300)
        [child] = control_plane.children()
        child.terminate()
        child.wait(LONGEST_STOP)
        cluster.await_own_worker()
    verdict = collect(cluster, submitted)
    figures("SIGTERM of the own worker", f"{min(rounds, 5)} rounds under load: {verdict}")
    assert control_plane.log.count("ended with exit code 0") == min(rounds, 5)
    assert verdict.clean
    assert verdict.double == set()


# ---- SIGSTOP -----------------------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_for_a_while_keeps_its_work(cluster: Cluster, figures: Figures, rounds: int) -> None:
    cluster.start("--processes", "0", FASTWORKER_SILENCE=SILENCE, FASTWORKER_LEASE="60")
    sleeper = cluster.worker(name="sleeper")
    submitted: dict[str, str] = {}
    for n in range(rounds):
        held = submit(cluster, 8, 0.5, f"held {n} ")
        await_starts_of(cluster, held)
        sleeper.signal(signal.SIGSTOP)
        if n == 0:
            cluster.worker(name="other")
        until(lambda: silent(cluster, "sleeper"), 20, "the silence to be noticed")
        others = submit(cluster, 100, label=f"meanwhile {n} ")
        for task_id in others:
            cluster.client.result(task_id, 20)
        sleeper.signal(signal.SIGCONT)
        submitted |= held | others
        collect(cluster, submitted)
    verdict = collect(cluster, submitted)
    figures("SIGSTOP and SIGCONT within the lease", f"{rounds} rounds: {verdict}; others went on meanwhile")
    assert verdict.clean
    assert verdict.double == set()


def await_starts_of(cluster: Cluster, tasks: dict[str, str]) -> None:
    """Wait until these tasks have started."""
    until(lambda: tasks.keys() <= {event.task for event in cluster.journal.events("start")}, what="the starts")


def await_worker(cluster: Cluster, name: str) -> None:
    """Wait until this worker is connected."""
    until(lambda: name in cluster.workers(), 30, f"the return of {name}")


def silent(cluster: Cluster, name: str) -> bool:
    """Whether nothing was heard of the worker for so long that it gets no new tasks."""
    longest = float(SILENCE) + 0.2
    return any(worker.name == name and worker.silent_for > longest for worker in cluster.client.workers())


def test_a_worker_that_is_stopped_beyond_its_lease(cluster: Cluster, figures: Figures, rounds: int) -> None:
    """Its tasks run elsewhere; its late reports change nothing; it may come back."""
    cluster.start("--processes", "0", FASTWORKER_SILENCE=SILENCE, FASTWORKER_LEASE="5")
    cluster.worker(name="other")
    submitted: dict[str, str] = {}
    for n in range(min(rounds, 5)):
        sleeper = cluster.worker(name=f"sleeper-{n}")
        held = submit(cluster, 16, 0.5, f"held {n} ")
        await_starts_of(cluster, held)
        sleeper.signal(signal.SIGSTOP)
        for task_id, payload in held.items():
            assert cluster.client.result(task_id, 30) == payload
        ended = {task_id: cluster.client.info(task_id) for task_id in held}
        sleeper.signal(signal.SIGCONT)
        await_worker(cluster, f"sleeper-{n}")
        after = submit(cluster, 16, 0.2, f"after {n} ")
        for task_id in after:
            cluster.client.result(task_id, 20)
        assert sleeper.pid in {event.pid for event in cluster.journal.events("start") if event.task in after}
        assert {task_id: cluster.client.info(task_id) for task_id in held} == ended
        submitted |= held | after
        assert sleeper.terminate() == 0
    verdict = collect(cluster, submitted)
    figures(
        "SIGSTOP beyond the lease, then SIGCONT", f"{min(rounds, 5)} rounds: {verdict} (those of the stopped worker)"
    )
    assert verdict.clean


# ---- everything at once ------------------------------------------------------------------------------------------


def test_everything_at_once(cluster: Cluster, figures: Figures, rounds: int) -> None:
    """Kills, stalls and stops in any order, while clients submit: what was acknowledged ends, whatever happens."""
    chance = random.Random(f"everything {rounds}")
    control_plane = start(cluster, own=True)
    workers = [cluster.worker(name=f"worker-{n}") for n in range(2)]
    names = iter(f"worker-{n}" for n in range(2, 1_000_000))
    submitted: dict[str, str] = {}
    done: list[str] = []
    with submitting(cluster, submitted):
        for _ in range(rounds * 3):
            what = chance.choice(
                ["kill control plane", "stop control plane", "kill worker", "stop worker", "stall worker"]
            )
            done.append(what)
            index = chance.randrange(len(workers))
            match what:
                case "kill control plane":
                    control_plane.kill()
                    control_plane = cluster.start(wait=False)
                    cluster.await_listening(control_plane)
                case "stop control plane":
                    stop(control_plane)
                    control_plane = cluster.start(wait=False)
                    cluster.await_listening(control_plane)
                case "kill worker":
                    workers[index].kill()
                    workers[index] = cluster.worker(name=next(names), wait=False)
                case "stop worker":
                    stop(workers[index])
                    workers[index] = cluster.worker(name=next(names), wait=False)
                case _:
                    workers[index].signal(signal.SIGSTOP)
                    time.sleep(chance.uniform(0.2, 1.5))
                    workers[index].signal(signal.SIGCONT)
            time.sleep(chance.uniform(0.0, 0.5))
    verdict = collect(cluster, submitted)
    figures("everything at once", f"{len(done)} blows ({', '.join(sorted(set(done)))}): {verdict}")
    assert verdict.clean
    if "kill worker" not in done:
        assert verdict.double == set()
