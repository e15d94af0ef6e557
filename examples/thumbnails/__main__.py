"""Makes twelve pictures, then a thumbnail of each.

Terminal 1: fastworker start thumbnails.tasks
Terminal 2: python -m thumbnails [FOLDER]
"""

import asyncio
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from fastworker import Client, TaskFailed

from .tasks import make_thumbnail


def make_pictures(folder: Path, count: int = 12) -> list[Path]:
    """Draw pictures of 1600 × 1200 pixels, and write one file that is no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = Image.radial_gradient("L").resize((1600, 1200)).convert("RGB")
        ImageDraw.Draw(image).ellipse((number * 100, 300, number * 100 + 400, 700), fill=(200, number * 20, 80))
        image.save(folder / f"picture-{number:02}.png")
    (folder / "picture-broken.png").write_text("not a picture")
    return sorted(folder.glob("*.png"))


async def main(folder: Path) -> None:
    """Submit one task per picture, then wait for all."""
    pictures = make_pictures(folder)
    async with Client():
        handles = [await make_thumbnail.submit(picture, folder / "thumbnails") for picture in pictures]
        for picture, handle in zip(pictures, handles, strict=True):
            try:
                thumbnail = await handle
                print(f"{thumbnail.path.name}: {thumbnail.width} × {thumbnail.height}")
            except TaskFailed as error:
                print(f"{picture.name} failed: {error.error_type}: {error.error_message}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "pictures").absolute()))
