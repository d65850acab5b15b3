"""The palettes of all masks of an import are compared: a class value must have the same colour in every file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segpipe.data.formats.readings.mask_kinds import STORED_PALETTE
from segpipe.data.formats.source import RawItem
from segpipe.data.images import suffix_of
from segpipe.data.images.raster import raster_header
from segpipe.data.mask_content import MaskReader
from segpipe.data.mask_facts import RGB
from segpipe.errors import DataError

_PALETTE_SUFFIXES = (".png", ".gif", ".bmp")


def check_palettes(source: Path, items: Sequence[RawItem], reader: MaskReader, command: str) -> None:
    """Check that a value has the same colour in all palette images among the masks.

    Recognition looks at a sample of the masks. This compares all of them: from their headers, and where palettes differ, for the
    values that occur.

    Args:
        source: the source, for errors.
        items: the items whose mask files are class values.
        reader: decodes the masks whose palettes differ.
        command: the command that errors advise, without the options that decide.

    Raises:
        DataError: a value that occurs has two colours.
    """
    palettes = {item.mask: palette for item in items if item.mask and (palette := _stored_palette(item.mask))}
    different = set(palettes.values())
    if len(different) < 2 or _agree(different):
        return
    first_colour: dict[int, tuple[RGB, Path]] = {}
    for path, palette in palettes.items():
        for value in sorted(reader.read(path).counts):
            if 3 * value + 3 > len(palette):
                continue
            colour = (palette[3 * value], palette[3 * value + 1], palette[3 * value + 2])
            other_colour, other = first_colour.setdefault(value, (colour, path))
            if other_colour != colour:
                raise DataError(
                    "the palettes of the masks differ, so either colours or values are the classes",
                    where=source,
                    found=f"value {value} is {_words(other_colour)} in {other.name} and {_words(colour)} in {path.name}",
                    expected=f"the same colour in all {len(palettes)} palette images",
                    fix=f"choose: colours are classes: `{command} --palette {STORED_PALETTE}`, or values are: `{command} --kind classes`",
                )


def _stored_palette(path: Path) -> bytes | None:
    """Return the palette of an image file as bytes r, g, b, r, g, b ... from its header; None if it has none."""
    if suffix_of(path) not in _PALETTE_SUFFIXES:
        return None
    try:
        with raster_header(path, path) as image:
            if image.mode != "P" or image.palette is None:
                return None
            mode, content = image.palette.getdata()
    except DataError:  # reading the mask reports it
        return None
    if mode.startswith("BGRX"):
        content = b"".join(content[k : k + 3][::-1] for k in range(0, len(content), 4))
    elif mode.startswith("BGR"):
        content = b"".join(content[k : k + 3][::-1] for k in range(0, len(content), 3))
    return bytes(content)


def _agree(palettes: set[bytes]) -> bool:
    """Return whether shorter palettes are beginnings of the longest one."""
    longest = max(palettes, key=len)
    return all(longest.startswith(palette) for palette in palettes)


def _words(colour: RGB) -> str:
    return " ".join(map(str, colour))
