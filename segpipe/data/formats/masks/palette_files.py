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
from pathlib import Path
from typing import Any

from segpipe.data.formats.masks.cityscapes import BENCHMARK_LABELS
from segpipe.data.formats.masks.palettes import RGB, Palette, make_palette
from segpipe.data.yaml_document import parse_yaml
from segpipe.errors import ConfigError, DataError
from segpipe.files import read_bytes

PALETTE_FILES = (
    "labelmap.txt",
    "label_colors.txt",
    "class_dict.csv",
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


KNOWN_PALETTES = {"voc": _voc_entries, "cityscapes": _cityscapes_entries}
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
    files = [source / name for name in PALETTE_FILES if (source / name).is_file()]
    if len(files) > 1:
        raise ConfigError(
            "several palettes",
            where=source,
            found=", ".join(path.name for path in files),
            fix=f"name one: --palette {files[0]}",
        )
    return files[0] if files else None


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
