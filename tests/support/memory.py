"""What a running process has in its memory (`proc(5)`), to look for what must not be there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def holds(pid: int, text: str) -> bool:
    """Whether the bytes of a text are anywhere in what the process can write to: its heap, stacks and buffers."""
    wanted = text.encode()
    return any(wanted in piece for piece in _pieces(pid))


def _pieces(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            memory.seek(start)
            try:
                yield memory.read(end - start)
            except OSError:  # a guard page, or memory of a device
                continue
