"""The task: count the words of one file."""

from collections import Counter
from pathlib import Path

from fastworker import task


@task(retries=2)
def count_words(file: Path) -> dict[str, int]:
    """The ten most frequent words of a text file."""
    words = file.read_text(encoding="utf-8", errors="replace").lower().split()
    return dict(Counter(words).most_common(10))
