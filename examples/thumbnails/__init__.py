"""Makes thumbnails of pictures."""
