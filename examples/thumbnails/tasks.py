"""The task: one thumbnail of one picture."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastworker import task


@dataclass
class Thumbnail:
    """A finished thumbnail."""

    path: Path
    width: int
    height: int


@task(timeout=60)
def make_thumbnail(picture: Path, folder: Path, size: int = 200) -> Thumbnail:
    """Write a thumbnail of `picture` into `folder`. Paths must be absolute: the worker may run elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{picture.stem}.jpg"
    with Image.open(picture) as image:
        image.thumbnail((size, size))
        image.convert("RGB").save(target, quality=85)
        return Thumbnail(target, image.width, image.height)
