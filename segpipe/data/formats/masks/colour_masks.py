"""`colour-masks`: images and RGB masks in two folders, and a palette that maps colours to classes.

```
SRC/images/a.png  SRC/masks/a.png  SRC/palette.csv (or --palette FILE)
```
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.masks.paired_folders import recognise_paired_folders
from segpipe.data.formats.masks.palette_files import PALETTE_FILES, find_palette, read_palette
from segpipe.data.formats.masks.palettes import Palette
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_image
from segpipe.errors import ConfigError, DataError

NEAREST_COLOUR = "pixels of a colour near one of the palette, given that class"
_MAX_COLOURS_SHOWN = 12
_MAX_MASKS_READ = 12


def recognise_colour_masks(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of images and of masks in colours. None otherwise."""
    folders = recognise_paired_folders(probe, "colours")
    return f"{folders} in colours" if folders else None


def read_colour_masks(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout; errors as in `segpipe.data.formats.pairs.find_pairs` and `draw_by_palette`."""
    result = probe.pairs(options)
    draw_by_palette(result, probe.source, options)
    return result


def draw_by_palette(result: ReadResult, source: Path, options: ReadOptions) -> None:
    """Change a result so that its masks are drawn with the palette that the user gives or that lies in the source.

    Raises:
        ConfigError: there is no palette (the error lists the colours of the masks), or several lie in the source.
        DataError: the palette is not valid.
    """
    file = options.palette or find_palette(source)
    if file is None:
        masks = [item.mask for item in result.items if item.mask][:_MAX_MASKS_READ]
        raise ConfigError(
            "the classes of the mask colours are not known",
            where=source,
            found=_frequent_colours(masks, options.limits),
            expected="a palette",
            fix=f"write lines such as `128 64 128 road` and give them as --palette FILE, or as {PALETTE_FILES[-1]}",
        )
    palette = read_palette(str(file))
    result.items = [
        replace(
            item, mask=None, instances=None, draw=ColourMask(item.mask, palette, options.tolerance or 0, options.limits)
        )
        if item.mask
        else item
        for item in result.items
    ]
    result.classes, result.classes_from = palette.classes, palette.origin


@dataclass(frozen=True)
class ColourMask:
    """Draws class values from a mask in colours (a `segpipe.data.formats.source.Draw`)."""

    mask: Path
    palette: Palette
    tolerance: int
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return the class values, (height, width).

        Raises:
            DataError: the mask differs in size from its image, or its colours differ too much from the palette.
        """
        image = read_image(self.mask, self.limits)
        check_size(self.mask, image, height, width)
        values, approximated = self.palette.encode(image, str(self.mask), self.tolerance)
        return Drawing(values, notes=Counter({NEAREST_COLOUR: approximated} if approximated else {}))


def _frequent_colours(masks: list[Path], limits: DataParams) -> str:
    """Return the most frequent colours of some masks, in words."""
    counts: Counter[tuple[int, ...]] = Counter()
    for mask in masks:
        try:
            image = read_image(mask, limits)
        except DataError:  # drawing it reports the error
            continue
        colours, pixels = np.unique(image[::4, ::4].reshape(-1, image.shape[-1]), axis=0, return_counts=True)
        counts.update({tuple(map(int, colour)): int(n) for colour, n in zip(colours, pixels, strict=True)})
    return "colours " + ", ".join(" ".join(map(str, colour)) for colour, _ in counts.most_common(_MAX_COLOURS_SHOWN))
