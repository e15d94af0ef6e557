"""Hosts on a network, on this machine: network namespaces (`ip-netns(8)`), each with a cable to one switch."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.cluster import COMMAND, Cluster, Finished, Program

_numbers = itertools.count(1)


def ip(*words: str) -> None:
    """Run `ip`; it must succeed, a test without a network shows nothing."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}(these tests take root, and iproute2)"


class Host(Cluster):
    """One host: what it runs sees its own network alone, and has its own home."""

    def __init__(self, folder: Path, name: str, namespace: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.name = name
        self.namespace = namespace
        self._inside = ["ip", "netns", "exec", namespace]

    def program(self, name: str, *words: str, **environment: str) -> Program:
        """Start a `fastworker` command that goes on; a forked one would be on the network of the tests."""
        return self.launch(name, [str(COMMAND), *words], **environment)

    def run(self, *words: str, timeout: float = 60.0, **environment: str) -> Finished:
        """Run a `fastworker` command to its end."""
        return self.execute([str(COMMAND), *words], timeout, **environment)

    def launch(self, name: str, words: Sequence[str], **environment: str) -> Program:
        """Start any program that goes on."""
        return super().launch(name, [*self._inside, *words], **environment)

    def execute(self, words: Sequence[str], timeout: float = 60.0, **environment: str) -> Finished:
        """Run any program to its end."""
        return super().execute([*self._inside, *words], timeout, **environment)

    def take_key(self, other: Cluster, role: str = "worker") -> None:
        """Type the first of the two lines that `fastworker start --lan` prints, but for the ssh."""
        key = other.run("key", "show", "--role", role).out
        words = [str(COMMAND), "key", "save"]  # a file needs no network
        saved = subprocess.run(words, input=key, text=True, env=self.environment, capture_output=True, check=False)
        assert saved.returncode == 0, saved.stderr


class Network:
    """A switch; `host` plugs one in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"fw{os.getpid()}-{next(_numbers)}"
        self._switch = f"{self._prefix}-switch"
        self._namespaces: list[str] = []
        self.hosts: list[Host] = []

    def host(self, name: str, address: str) -> Host:
        """A new host with this address, such as 10.77.0.1/24."""
        namespace = self._namespace(f"{self._prefix}-{name}")
        ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", name, "netns", self._switch)
        ip("-n", self._switch, "link", "set", name, "master", "switch", "up")
        ip("-n", namespace, "addr", "add", address, "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        host = Host(self._folder / name, name, namespace)
        self.hosts.append(host)
        return host

    def cut(self, host: Host) -> None:
        """Cut its cable beyond the plug: nobody is told."""
        ip("-n", self._switch, "link", "set", host.name, "nomaster")

    def mend(self, host: Host) -> None:
        """Mend its cable."""
        ip("-n", self._switch, "link", "set", host.name, "master", "switch")

    def move(self, host: Host, address: str) -> None:
        """Give a host another address in place of its own."""
        ip("-n", host.namespace, "addr", "flush", "dev", "eth0")
        ip("-n", host.namespace, "addr", "add", address, "dev", "eth0")

    def call(self, host: Host, name: str, address: str) -> None:
        """Let a host know an address by a name, also a new one; `ip netns exec` puts that file over /etc/hosts."""
        hosts = self._etc(host.namespace) / "hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        with hosts.open("w") as file:  # in its place: what is mounted is this very file
            file.write(f"127.0.0.1 localhost\n{address} {name}\n")

    def _namespace(self, name: str) -> str:
        ip("netns", "add", name)
        self._namespaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def _etc(self, namespace: str) -> Path:
        return Path("/etc/netns") / namespace

    def __enter__(self) -> Self:
        self._namespace(self._switch)
        ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self._switch, "link", "set", "switch", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.close()
        for namespace in self._namespaces:
            (self._etc(namespace) / "hosts").unlink(missing_ok=True)
            if self._etc(namespace).exists():
                self._etc(namespace).rmdir()
            ip("netns", "delete", namespace)
