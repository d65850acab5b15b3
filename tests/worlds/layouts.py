"""Small sources whose labels are known pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.dataset import Item, load_dataset
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.choose import choose_reading
from segpipe.data.formats.recognise import collect_readings
from segpipe.data.formats.source import NO_OPTIONS, ReadOptions
from segpipe.data.images import read_mask
from segpipe.data.importer import ImportOptions, ImportReport, import_dataset

LIMITS = DataParams()
HEIGHT, WIDTH = 18, 25


def import_source(source: Path, data: Path, format: str = "auto", **options: object) -> ImportReport:
    """Import with options as keywords."""
    return import_dataset(source, data, format, ImportOptions.model_validate(options))


def recognised(probe: SourceProbe, options: ReadOptions = NO_OPTIONS) -> tuple[str, str]:
    """Return the name of the layout of the only clear reading, and why it was recognised."""
    reading = choose_reading(probe.source, collect_readings(probe, options), "segpipe data import SRC")
    return reading.layout, reading.pairing


def save(path: Path, array: np.ndarray, colors: list[tuple[int, int, int]] | None = None) -> Path:
    """Write an array as an image file with PIL; with `colors`, as a palette image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if colors is not None:
        image = image.convert("P") if image.mode != "L" else image
        image.putpalette([part for colour in colors for part in colour])
    image.save(path)
    return path


def photo(path: Path, seed: int = 0) -> Path:
    """Write a random RGB image."""
    return save(path, np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def values(seed: int, among: list[int], dtype: type = np.uint8) -> np.ndarray:
    """Return random values of these, each at least once."""
    array = np.random.default_rng(seed).choice(np.array(among, dtype), (HEIGHT, WIDTH))
    array.flat[: len(among)] = among
    return array


def items(data: Path) -> dict[str, Item]:
    """Return the imported items by key."""
    return {item.key: item for item in load_dataset(data).items}


def mask_of(item: Item) -> np.ndarray:
    """Return the file values of an item's mask."""
    assert item.mask is not None
    return read_mask(item.mask, LIMITS)


def instances_of(item: Item) -> np.ndarray:
    """Return the instance ids of an item."""
    assert item.instances is not None
    return read_mask(item.instances, LIMITS)
