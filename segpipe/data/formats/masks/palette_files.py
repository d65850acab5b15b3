"""Palettes in files, and palettes known by name.

A file is JSON, YAML, CSV or text:

```
{"road": [128, 64, 128], "sky": "#4682b4"}                     JSON or YAML; also a list of {name, color}, also under `classes`
name,r,g,b                                                     CSV, with or without the header line
128 64 128   Road                                              text: a colour and a name in either order
road:128,64,128::                                              text as CVAT writes it (labelmap.txt)
```

A class may have several colours. Names such as `void` and `unlabelled` mark ignored pixels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.masks.cityscapes import BENCHMARK_LABELS
from segpipe.data.formats.masks.palettes import RGB, Palette, make_palette
from segpipe.data.yaml_document import parse_yaml
from segpipe.errors import ConfigError, DataError
from segpipe.files import read_bytes

PALETTE_FILES = (
    "labelmap.txt",
    "label_colors.txt",
    "class_dict.csv",
    "class_dict_seg.csv",
    "label_class_dict.csv",
    "palette.json",
    "palette.yaml",
    "palette.csv",
    "palette.txt",
)
"""Names of palette files that are looked for in a source."""

VOC_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The classes of Pascal VOC, by pixel value; 255 is void."""

_MAX_PALETTE_BYTES = 1 << 20
_MAX_DEPTH, _MAX_FOLDERS = 3, 200
_MIN_COLOURS = 3
_COLOUR_THEN_NAME = re.compile(r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\S.*)")
_NAME_THEN_COLOUR = re.compile(r"(.*?\S)\s*[\s,;:]\s*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)\s*(?::.*)?")


def voc_color(index: int) -> RGB:
    """Return the colour of Pascal VOC's colour map for an index 0..255.

    The bits of the index are distributed over the three channels, from the highest bit of each channel down (PASCAL VOC development
    kit, VOClabelcolormap.m).
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


def _voc_entries() -> list[tuple[str, RGB]]:
    return [*((name, voc_color(index)) for index, name in enumerate(VOC_NAMES)), ("void", voc_color(255))]


def _cityscapes_entries() -> list[tuple[str, RGB]]:
    return [*((label.name, label.color) for label in BENCHMARK_LABELS), ("void", (0, 0, 0))]


def _entries(text: str) -> list[tuple[str, RGB]]:
    """Return the entries of a text such as `car ff0, tree 0f0`, in which a hexadecimal digit stands for a channel."""
    named = [entry.strip().rpartition(" ") for entry in text.split(",")]
    return [(name, (int(c[0] * 2, 16), int(c[1] * 2, 16), int(c[2] * 2, 16))) for name, _, c in named]


_ISPRS = "impervious surface fff, building 00f, low vegetation 0ff, tree 0f0, car ff0, clutter f00, void 000"
_DEEPGLOBE = "urban 0ff, agriculture ff0, rangeland f0f, forest 0f0, water 00f, barren fff, unknown 000"
_SUIM = "background 000, diver 00f, plant 0f0, wreck 0ff, robot f00, reef f0f, fish ff0, sea floor fff"

KNOWN_PALETTES = {
    "voc": _voc_entries,
    "cityscapes": _cityscapes_entries,
    "isprs": lambda: _entries(_ISPRS),
    "deepglobe": lambda: _entries(_DEEPGLOBE),
    "suim": lambda: _entries(_SUIM),
}
"""The entries of palettes that are known by name."""


def read_palette(name: str) -> Palette:
    """Return a palette by its name (voc, cityscapes) or from a file.

    Raises:
        ConfigError: there is no such palette.
        DataError: the file is not a valid palette; the error names the line.
    """
    if name in KNOWN_PALETTES:
        return make_palette(KNOWN_PALETTES[name](), f"palette {name}")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            "no such palette",
            found=name,
            expected="a file, or " + " or ".join(KNOWN_PALETTES),
            fix="give --palette FILE",
        )
    try:
        text = read_bytes(path, _MAX_PALETTE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path, fix="save it as UTF-8") from error
    is_document = path.suffix.lower() in (".json", ".yaml", ".yml")
    entries = _parse_document(text, path) if is_document else _parse_lines(text, path)
    return make_palette(entries, path.name, path)


def find_palette(source: Path) -> Path | None:
    """Return the palette file that lies in a source; None if there is none.

    Raises:
        ConfigError: there are several.
    """
    return choose_palette(source, [source / name for name in PALETTE_FILES if (source / name).is_file()])


def find_palettes_below(listing: FolderListing, source: Path) -> tuple[Path, ...]:
    """Return the palette files in a source, or else the nearest in folders below it.

    Raises:
        DataError: a folder cannot be read.
    """
    folders = [source]
    for _ in range(_MAX_DEPTH + 1):
        files = [path for folder in folders for path in listing.files(folder) if path.name.lower() in PALETTE_FILES]
        if files:
            return tuple(files)
        folders = [child for folder in folders for child in listing.folders(folder)][:_MAX_FOLDERS]
    return ()


def choose_palette(source: Path, files: Sequence[Path]) -> Path | None:
    """Return the only one of these palette files; None if there is none.

    Raises:
        ConfigError: there are several.
    """
    if len(files) > 1:
        names = ", ".join(path.relative_to(source).as_posix() for path in files)
        raise ConfigError("several palettes", where=source, found=names, fix=f"name one: --palette {files[0]}")
    return files[0] if files else None


def palettes_with(colours: Sequence[tuple[int, ...]]) -> list[str]:
    """Return the names of the known palettes that have all of these colours, the smallest first; none for fewer than three."""
    if len(colours) < _MIN_COLOURS:
        return []
    fitting = {name: make() for name, make in KNOWN_PALETTES.items()}
    fitting = {name: entries for name, entries in fitting.items() if {*colours} <= {colour for _, colour in entries}}
    return sorted(fitting, key=lambda name: len(fitting[name]))


def _parse_lines(text: str, path: Path) -> list[tuple[str, RGB]]:
    entries: list[tuple[str, RGB]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        where = f"{path}:{number}"
        if not line or line.startswith("#"):
            continue
        if match := _COLOUR_THEN_NAME.fullmatch(line):
            *rgb, name = match.groups()
        elif match := _NAME_THEN_COLOUR.fullmatch(line):
            name, *rgb = match.groups()
        elif number == 1 and not any(character.isdigit() for character in line):
            continue  # the header
        else:
            raise DataError(
                "not a colour and a name", where=where, found=repr(line[:80]), expected="road, 128, 64, 128"
            )
        entries.append((name.strip("\"' "), _parse_colour([int(part) for part in rgb], where)))
    return entries


def _parse_document(text: str, path: Path) -> list[tuple[str, RGB]]:
    try:
        content = json.loads(text) if path.suffix.lower() == ".json" else parse_yaml(text, path)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise DataError(f"cannot be read: {error}", where=path) from error
    if isinstance(content, dict) and isinstance(content.get("classes"), list | dict):
        content = content["classes"]
    if isinstance(content, list) and all(isinstance(row, dict) and "name" in row for row in content):
        pairs = [(row["name"], row.get("color", row.get("colour"))) for row in content]
    elif isinstance(content, dict):
        pairs = list(content.items())
    else:
        raise DataError(
            "is not a valid palette", where=path, found=type(content).__name__, expected='{"road": [128, 64, 128], ...}'
        )
    return [(str(name), _parse_colour(colour, f"{path}: {name}")) for name, colour in pairs]


def _parse_colour(raw: Any, where: str) -> RGB:
    if isinstance(raw, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", raw):
        raw = list(bytes.fromhex(raw[1:]))
    numbers = raw if isinstance(raw, list) else []
    if len(numbers) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in numbers):
        raise DataError(
            "not a colour", where=where, found=repr(raw)[:80], expected="three numbers from 0 to 255, or #rrggbb"
        )
    return numbers[0], numbers[1], numbers[2]
