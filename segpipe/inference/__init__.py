"""From an image to class ids: preprocessing, engine, tiling."""
