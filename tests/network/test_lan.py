"""Hosts on one network: they find each other by two commands, and again after whatever happens to the network."""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from collections.abc import Sequence

import pytest

from tests.support.hosts import Host, Network
from tests.support.waiting import Promised, until

DATAGRAMS = 10_000_000


def lan(host: Host, *options: str) -> None:
    """`fastworker start --lan` without own workers; the user's socket stands beside, for the test to look."""
    host.start("--lan", "--processes", "0", *options)


def submit(host: Host, *payloads: str) -> list[str]:
    """Tasks that last long enough for one worker not to have ended the first when the last one comes."""
    return [host.client.delay("nap", 0.5, payload) for payload in payloads]


def ran_at(host: Host, handles: Sequence[str]) -> set[str]:
    """By which workers these tasks were run, now that they have ended, each once."""
    for handle in handles:
        host.client.result(handle, 20)
    views = [host.client.info(handle) for handle in handles]
    assert {view.attempt for view in views} == {1}
    return {str(view.worker) for view in views}


def joined(host: Host, *names: str, within: float = 25.0) -> None:
    until(lambda: host.workers() == set(names), within, f"just {names} as workers")


def test_workers_find_the_control_plane_and_survive_what_happens_to_the_network(network: Network) -> None:
    queue, one, two = (network.host(name, f"10.77.0.{n}/24") for n, name in enumerate(("queue", "one", "two"), 1))
    lan(queue)
    lines = queue.programs[0].log
    assert re.search(r"ssh \S+@10\.77\.0\.1 \S+fastworker key show --role worker \| fastworker key save\n", lines)
    assert re.search(r"^ +fastworker worker start\n", lines, re.MULTILINE)
    one.take_key(queue)
    two.take_key(queue)
    network.call(two, "queue.example", "10.77.0.1")

    one.worker(name="one", wait=False)
    two.worker("--url", "tls+tcp://10.77.0.99:5555,queue.example:5555", name="two", wait=False)
    joined(queue, "one", "two")
    assert "found the control plane" in one.programs[0].log
    assert ran_at(queue, submit(queue, *"abcdefghijklmnop")) == {"one", "two"}

    # A cable is cut: the other one works on. It is mended: what was on its way when it was cut is neither lost nor
    # run twice.
    network.cut(one)
    under_way = submit(queue, *"abcdefghijklmnop")
    until(lambda: any(queue.client.info(handle).state == "succeeded" for handle in under_way), 10, "work at the other")
    until(lambda: "nothing was heard of the control plane" in one.programs[0].log, 15, "the worker's notice")
    network.mend(one)
    assert ran_at(queue, under_way) == {"one", "two"}

    # The control plane gets another address: one worker searches again, the other one asks for the name again.
    network.move(queue, "10.77.0.50/24")
    network.call(two, "queue.example", "10.77.0.50")
    under_way = submit(queue, *"abcdefghijklmnop")
    until(lambda: "at tls+tcp://10.77.0.50:5555" in one.programs[0].log, 30, "the worker's search")
    assert ran_at(queue, under_way) == {"one", "two"}


def test_who_finds_several_control_planes_has_to_name_one_and_whoever_holds_another_key_finds_none(
    network: Network,
) -> None:
    office, lab, other, stranger = (
        network.host(name, f"10.78.0.{n}/24") for n, name in enumerate(("office", "lab", "other", "stranger"), 1)
    )
    cluster_key = secrets.token_hex(32)
    for host in (office, lab, other):
        host.environment["FASTWORKER_KEY"] = cluster_key
    for host in (office, lab):
        host.start("--lan", "--processes", "0", "--lan-name", host.name, wait=False)
    for host in (office, lab):
        host.await_listening(host.programs[0])
    assert "export FASTWORKER_KEY=" in lab.programs[0].log
    assert cluster_key not in lab.programs[0].log

    named = other.worker(name="named", wait=False, FASTWORKER_URL="lan://lab")
    refused = other.run("worker", "start")
    assert refused.code == 2
    assert "lan://lab at tls+tcp://10.78.0.2:5555" in refused.err
    assert "lan://office at tls+tcp://10.78.0.1:5555" in refused.err
    joined(lab, "named")
    assert "is ready" in named.log
    assert office.workers() == set()

    nobody = stranger.run("list", FASTWORKER_KEY=secrets.token_hex(32))
    assert nobody.code == 4
    assert "lan:// (a search on the network): nobody answered" in nobody.err


def test_with_certificates_the_key_finds_the_control_plane_and_opens_nothing(network: Network) -> None:
    queue, one, other = (network.host(name, f"10.79.0.{n}/24") for n, name in enumerate(("queue", "one", "other"), 1))
    for words in (["make"], ["issue", "control-plane"], ["issue", "worker"]):
        assert queue.run("certs", *words).code == 0
    queue.environment["FASTWORKER_CERTIFICATES"] = "certificates/control-plane"
    lan(queue)
    assert "export FASTWORKER_CERTIFICATES=" in queue.programs[0].log
    until((queue.folder / "config" / "fastworker" / "key").exists, 10, "the key that signs answers")
    for host in (one, other):
        host.take_key(queue)
    shutil.copytree(queue.folder / "certificates" / "worker", one.folder / "certificates")

    with_the_key_alone = other.worker(name="other", wait=False)
    one.worker(name="one", wait=False, FASTWORKER_CERTIFICATES="certificates")
    joined(queue, "one")
    assert ran_at(queue, submit(queue, "a")) == {"one"}
    until(lambda: with_the_key_alone.log.count("found the control plane") >= 2, 15, "a search after it was refused")
    assert queue.workers() == {"one"}


@pytest.mark.parametrize("searches", [3, pytest.param(40, marks=[pytest.mark.full, pytest.mark.timeout(900)])])
def test_a_flood_of_packets_hides_nobody(network: Network, searches: int, promised: Promised) -> None:
    """A rogue floods both who asks and who answers, with noise and with what it has recorded."""
    queue, one, rogue = (network.host(name, f"10.80.0.{n}/24") for n, name in enumerate(("queue", "one", "rogue"), 1))
    lan(queue, "--lan-name", "office")
    one.take_key(queue)
    flood = rogue.launch("flood", [sys.executable, "-m", "tests.support.flood", str(DATAGRAMS)])
    until(lambda: "flooding" in flood.log, 10, "the flood")

    done = one.execute([sys.executable, "-m", "tests.support.searches", str(searches)])
    assert done.code == 0, done.err
    took = sorted(done.json)
    print(f"found under a flood within {took[len(took) // 2]} s (median), {took[int(0.95 * len(took))]} s (p95)")
    assert took[int(0.95 * len(took))] < promised(2.0)
    assert flood.alive
    if searches < 40:
        flood.kill()
    else:
        assert flood.wait(600) == 0
