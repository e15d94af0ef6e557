"""Counts the words of files, with blocking calls only: for scripts, notebooks and views that are not async.

Terminal 1: fastworker start blocking_script.tasks
Terminal 2: python -m blocking_script FILE…
"""

import sys
from pathlib import Path

from fastworker import TaskFailed

from .tasks import count_words


def main(files: list[Path]) -> int:
    """Submit one task per file, then wait for each; how many failed."""
    failed = 0
    handles = [count_words.submit_sync(file) for file in files]
    for file, handle in zip(files, handles, strict=True):
        try:
            words = handle.result_sync(timeout=60)
            print(f"{file.name}: {', '.join(f'{word} {count}' for word, count in words.items())}")
        except TaskFailed as error:
            print(f"{file.name} failed: {error.error_message}")
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(1 if main([Path(name).absolute() for name in sys.argv[1:]]) else 0)
