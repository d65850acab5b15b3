"""Palettes in files, and those known by name.

A file is JSON, YAML, CSV or text:

```
{"road": [128, 64, 128], "sky": "#4682b4"}                     JSON or YAML; also a list of {name, color}, also under `classes`
name,r,g,b                                                     CSV, with or without the first line
128 64 128   Road                                              text: a colour and a name in either order
road:128,64,128::                                              text as CVAT writes it (labelmap.txt)
```

A class may have several colours. Names such as `void` and `unlabelled` mark what counts nowhere.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from segpipe.data.formats.masks.palettes import RGB, Palette, make_palette
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
"""Names by which palettes are found in a source."""

VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
"""The classes of Pascal VOC, by pixel value; 255 is void."""

_MAX_BYTES = 1 << 20
_COLOUR_THEN_NAME = re.compile(r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\S.*)")
_NAME_THEN_COLOUR = re.compile(r"(.*?\S)\s*[\s,;:]\s*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)\s*(?::.*)?")


def read_palette(name: str) -> Palette:
    """A palette by its name (voc, cityscapes) or from a file. Raises ConfigError or DataError with the line that is wrong."""
    if name in KNOWN_PALETTES:
        return make_palette(KNOWN_PALETTES[name](), f"palette {name}")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            "no such palette", found=name, expected="a file, or " + " or ".join(KNOWN_PALETTES), fix="give --palette FILE"
        )
    try:
        text = read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path) from error
    structured = path.suffix.lower() in (".json", ".yaml", ".yml")
    entries = _from_document(text, path) if structured else _from_lines(text, path)
    return make_palette(entries, path.name, path)


def find_palette(source: Path) -> Path | None:
    """The palette file that lies in a source; ConfigError where there are several."""
    there = [source / name for name in PALETTE_FILES if (source / name).is_file()]
    if len(there) > 1:
        raise ConfigError(
            "several palettes", where=source, found=", ".join(path.name for path in there), fix=f"name one: --palette {there[0]}"
        )
    return there[0] if there else None


def voc_color(index: int) -> RGB:
    """The colour of Pascal VOC's colormap for an index 0..255: its bits, dealt out to the channels from the highest bit on."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


def _voc() -> list[tuple[str, RGB]]:
    return [*((name, voc_color(index)) for index, name in enumerate(VOC_NAMES)), ("void", voc_color(255))]


def _cityscapes() -> list[tuple[str, RGB]]:
    from segpipe.data.formats.masks.cityscapes import BENCHMARK_LABELS

    return [*((label.name, label.color) for label in BENCHMARK_LABELS), ("void", (0, 0, 0))]


KNOWN_PALETTES = {"voc": _voc, "cityscapes": _cityscapes}
"""Palettes that are known by name."""


def _from_lines(text: str, path: Path) -> list[tuple[str, RGB]]:
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
            continue  # the names of the columns
        else:
            raise DataError(
                "not a colour and a name", where=where, found=repr(line[:80]), expected="road, 128, 64, 128"
            )
        entries.append((name.strip("\"' "), _color([int(part) for part in rgb], where)))
    return entries


def _from_document(text: str, path: Path) -> list[tuple[str, RGB]]:
    try:
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read: {error}", where=path) from error
    if isinstance(content, dict) and isinstance(content.get("classes"), list | dict):
        content = content["classes"]
    if isinstance(content, list) and all(isinstance(row, dict) and "name" in row for row in content):
        pairs = [(row["name"], row.get("color", row.get("colour"))) for row in content]
    elif isinstance(content, dict):
        pairs = list(content.items())
    else:
        raise DataError(
            "is no palette", where=path, found=type(content).__name__, expected='{"road": [128, 64, 128], ...}'
        )
    return [(str(name), _color(colour, f"{path}: {name}")) for name, colour in pairs]


def _color(given: Any, where: str) -> RGB:
    if isinstance(given, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", given):
        given = list(bytes.fromhex(given[1:]))
    numbers = given if isinstance(given, list) else []
    if len(numbers) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in numbers):
        raise DataError(
            "no colour", where=where, found=repr(given)[:80], expected="three numbers from 0 to 255, or #rrggbb"
        )
    return numbers[0], numbers[1], numbers[2]
