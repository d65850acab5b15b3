"""`colour-masks`: images and RGB masks in folders side by side, and a palette that says which colour is which class.

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
from segpipe.data.formats.mask_kinds import recognise_pairs
from segpipe.data.formats.pairs import find_pairs
from segpipe.data.formats.masks.palette_files import PALETTE_FILES, find_palette, read_palette
from segpipe.data.formats.masks.palettes import Palette
from segpipe.data.formats.source import Drawing, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_image
from segpipe.errors import ConfigError, DataError

NEAREST_COLOUR = "pixels of a colour near to one of the palette, taken for that"
_LISTED = 12


def recognise_colour_masks(source: Path) -> str | None:
    """Why `source` is of this layout: folders of images and of masks in colours; None where it is not."""
    found = recognise_pairs(source, "colours")
    return f"{found} in colours" if found else None


def read_colour_masks(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; errors as of `find_pairs` and `draw_by_palette`."""
    found = find_pairs(source, options)
    draw_by_palette(found, source, options)
    return found


def draw_by_palette(found: ReadResult, source: Path, options: ReadOptions) -> None:
    """Have the masks of a source drawn by the palette that the user gives or that lies in the source.

    Raises ConfigError, with the colours found, where there is none; errors as of `read_palette`.
    """
    file = options.palette or find_palette(source)
    if file is None:
        masks = [item.mask for item in found.items if item.mask][:_LISTED]
        raise ConfigError(
            "which colour is which class?", where=source, found=_colours(masks, options.limits), expected="a palette",
            fix=f"write lines such as `128 64 128 road` and give them as --palette FILE, or as {PALETTE_FILES[-1]}",
        )
    palette = read_palette(str(file))
    found.items = [
        replace(item, mask=None, instances=None, draw=ColourMask(item.mask, palette, options.tolerance or 0, options.limits))
        if item.mask else item
        for item in found.items
    ]
    found.classes, found.classes_from = palette.classes, palette.origin


@dataclass(frozen=True)
class ColourMask:
    """Draws the labels of a mask in colours (a `segpipe.data.formats.source.Draw`)."""

    mask: Path
    palette: Palette
    tolerance: int
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """The class values, (height, width); DataError for a mask of another size, or with colours that are too far off."""
        image = read_image(self.mask, self.limits)
        check_size(self.mask, image, height, width)
        values, snapped = self.palette.encode(image, str(self.mask), self.tolerance)
        return Drawing(values, notes=Counter({NEAREST_COLOUR: snapped} if snapped else {}))


def _colours(masks: list[Path], limits: DataParams) -> str:
    """The most frequent colours of some masks, in words."""
    counts: Counter[tuple[int, ...]] = Counter()
    for mask in masks:
        try:
            image = read_image(mask, limits)
        except DataError:  # it will be listed when it is drawn
            continue
        colours, pixels = np.unique(image[::4, ::4].reshape(-1, image.shape[-1]), axis=0, return_counts=True)
        counts.update({tuple(map(int, colour)): int(n) for colour, n in zip(colours, pixels, strict=True)})
    return "colours " + ", ".join(" ".join(map(str, colour)) for colour, _ in counts.most_common(_LISTED))
