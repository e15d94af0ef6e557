"""The command lines of fastworker 0.3.0, said in today's words."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

_DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"


def in_today_s_words(words: Sequence[str]) -> list[str]:
    """Translate a command line of 0.3.0; any other is left as it is."""
    match list(words):
        case ["control-plane", *rest]:
            return _control_plane(rest)
        case ["subworker", *rest]:
            return _subworker(rest)
        case ["submit", *rest] if "--task-name" in rest:
            return _submit(rest)
        case [("cancel" | "status") as command, "--task-id", task_id, *_]:
            return [command, task_id]
        case other:
            return other


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"fastworker {command}", allow_abbrev=False)
    parser.add_argument("--worker-id")
    parser.add_argument("--base-address", default=_DEFAULT_ADDRESS)
    parser.add_argument("--discovery-address")
    parser.add_argument("--task-modules", nargs="*", default=[])
    parser.add_argument("--concurrency")
    return parser


def _control_plane(words: list[str]) -> list[str]:
    parser = _parser("control-plane")
    for ignored in ("--subworker-port", "--result-cache-size", "--result-cache-ttl", "--gui-host", "--gui-port"):
        parser.add_argument(ignored)
    parser.add_argument("--no-gui", action="store_true")
    said = parser.parse_args(words)
    return ["start", *said.task_modules, *_listen(said.base_address), *_option("--concurrency", said.concurrency)]


def _subworker(words: list[str]) -> list[str]:
    parser = _parser("subworker")
    parser.add_argument("--control-plane-address", default=_DEFAULT_ADDRESS)
    said = parser.parse_args(words)
    address = said.control_plane_address
    url = [] if address == _DEFAULT_ADDRESS else ["--url", _encrypted(address)]
    return [
        "worker", "start", *said.task_modules, *_option("--name", said.worker_id), *url,
        *_option("--concurrency", said.concurrency),
    ]  # fmt: skip


def _submit(words: list[str]) -> list[str]:
    parser = argparse.ArgumentParser("fastworker submit", allow_abbrev=False)
    parser.add_argument("--task-name", required=True)
    parser.add_argument("--args", nargs="*", default=[])
    parser.add_argument("--priority", default="normal")
    parser.add_argument("--countdown")
    parser.add_argument("--task-modules", nargs="*")
    parser.add_argument("--discovery-address")
    parser.add_argument("--non-blocking", action="store_true")
    said = parser.parse_args(words)
    wait = ["--no-wait"] if said.non_blocking else []
    arguments = json.dumps([_value(text) for text in said.args])
    return [
        "submit", said.task_name, "--args", arguments, "--priority", said.priority,
        *_option("--delay", said.countdown), *wait,
    ]  # fmt: skip


def _value(text: str) -> bool | int | float | str:
    """0.3.0 guessed the type of each word: a truth value, a number, else text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]


def _listen(address: str) -> list[str]:
    return [] if address == _DEFAULT_ADDRESS else ["--listen", _encrypted(address)]


def _encrypted(address: str) -> str:
    """0.3.0 spoke plain TCP; today that is TLS with the cluster key."""
    return address.replace("tcp://", "tls+tcp://", 1) if address.startswith("tcp://") else address
