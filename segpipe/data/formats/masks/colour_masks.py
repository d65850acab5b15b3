"""Masks in RGB, and a palette that says which colour is which class: palette.csv in the source, or --palette FILE."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.masks.palette_files import (
    PALETTE_FILES,
    choose_palette,
    find_palette,
    palettes_with,
    read_palette,
)
from segpipe.data.formats.masks.palettes import Palette
from segpipe.data.formats.source import Drawing, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_image
from segpipe.errors import ConfigError, DataError

NEAREST_COLOUR = "pixels of a colour near one of the palette, given that class"
IGNORED_COLOUR = "pixels of a colour that is not in the palette, ignored"
_MAX_COLOURS_SHOWN = 12
_MAX_MASKS_READ = 12


def draw_by_palette(
    result: ReadResult, source: Path, options: ReadOptions, stored_palette: Palette | None = None
) -> None:
    """Change a result so that its masks are drawn with the palette that the user gives or that lies in the source.

    Args:
        result: the items of the source.
        source: the folder of the source, in which a palette is looked for.
        options: `palette`, `tolerance` and `unknown_colours` are used.
        stored_palette: the palette of the mask files themselves, which is used instead.

    Raises:
        ConfigError: there is no palette (the error lists the colours of the masks), or several lie in the source.
        DataError: the palette is not valid.
    """
    file = "" if stored_palette else options.palette or choose_palette(source, result.palettes) or find_palette(source)
    if file is None:
        masks = [item.mask for item in result.items if item.mask]
        colours = _frequent_colours(masks[:: max(1, len(masks) // _MAX_MASKS_READ)], options.limits)
        fitting = palettes_with(colours) if len(colours) < _MAX_COLOURS_SHOWN else []
        known = f"add --palette {' or --palette '.join(fitting)}, if these are its classes; or " if fitting else ""
        raise ConfigError(
            "which colour is which class?",
            where=source,
            found="colours " + ", ".join(" ".join(map(str, colour)) for colour in colours) or "no colour",
            expected="a palette",
            fix=f"{known}write lines such as `128 64 128 road` and give them as --palette FILE, or as {PALETTE_FILES[-1]}",
        )
    result.used_files |= {Path(file)} if file else set()
    palette = stored_palette or read_palette(str(file))
    ignore_unknown = options.unknown_colours == "ignore"
    if ignore_unknown:
        palette = palette.with_ignored()

    def draw(mask: Path) -> ColourMask:
        return ColourMask(mask, palette, options.tolerance or 0, options.limits, ignore_unknown)

    result.items = [
        replace(item, mask=None, instances=None, draw=draw(item.mask)) if item.mask else item for item in result.items
    ]
    result.classes, result.classes_from = palette.classes, palette.origin


@dataclass(frozen=True)
class ColourMask:
    """Draws class values from a mask in colours (a `segpipe.data.formats.source.Draw`)."""

    mask: Path
    palette: Palette
    tolerance: int
    limits: DataParams
    ignore_unknown: bool = False

    def __call__(self, height: int, width: int) -> Drawing:
        """Return the class values, (height, width).

        Raises:
            DataError: the mask has another size, or colours that differ too much from the palette.
        """
        image = read_image(self.mask, self.limits)
        check_size(self.mask, image, height, width)
        encoded = self.palette.encode(image, str(self.mask), self.tolerance, self.ignore_unknown)
        counts = {NEAREST_COLOUR: encoded.approximated, IGNORED_COLOUR: encoded.ignored}
        return Drawing(encoded.values, notes=+Counter(counts))


def _frequent_colours(masks: list[Path], limits: DataParams) -> list[tuple[int, ...]]:
    """Return the most frequent colours of some masks, the most frequent first."""
    counts: Counter[tuple[int, ...]] = Counter()
    for mask in masks:
        try:
            image = read_image(mask, limits)
        except DataError:  # drawing it reports the error
            continue
        colours, pixels = np.unique(image[::4, ::4].reshape(-1, image.shape[-1]), axis=0, return_counts=True)
        counts.update({tuple(map(int, colour)): int(n) for colour, n in zip(colours, pixels, strict=True)})
    return [colour for colour, _ in counts.most_common(_MAX_COLOURS_SHOWN)]
