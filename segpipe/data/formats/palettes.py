"""Palettes: which colour of a mask is which class.

A palette file is JSON, YAML, CSV or text:

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from segpipe.data.measure import bands
from segpipe.errors import ConfigError, DataError
from segpipe.files import read_bytes
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable

RGB = tuple[int, int, int]
Counted = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]

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

IGNORED_NAMES = {"void", "ignore", "ignored", "unlabelled", "unlabeled", "__ignore__", "_ignore_", "ignore label"}

VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes of Pascal VOC, by pixel value; 255 is void."""

_MAX_BYTES = 1 << 20
_SHOWN = 4
_BAND, _BLOCK = 1 << 22, 4096
_FAR = np.iinfo(np.int32).max
_COLOUR_THEN_NAME = re.compile(r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\S.*)")
_NAME_THEN_COLOUR = re.compile(r"(.*?\S)\s*[\s,;:]\s*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)\s*(?::.*)?")


@dataclass(frozen=True)
class Palette:
    """Colours and the file values of their classes.

    classes: the table; a class has the value of its place among the names. colors: (N, 3) RGB. values: (N,), the file value of
    each colour.
    """

    classes: ClassTable
    colors: npt.NDArray[np.uint8]
    values: npt.NDArray[np.uint8]
    origin: str

    def encode(self, image: np.ndarray, where: str, tolerance: int) -> tuple[npt.NDArray[np.uint8], int]:
        """A mask in colours, (H, W, C) uint8, C 1 or 3 -> file values (H, W), uint8, and the number of pixels that are of none of the
        colours, which get that of the nearest one whose channels all differ by `tolerance` at most.

        Raises DataError, naming the colours and their pixels, where there is no such one.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise DataError(
                "is no mask in 8-bit colours", where=where, found=f"{image.dtype}, shape {image.shape}",
                expected="RGB", fix="save it as 8-bit RGB PNG",
            )  # fmt: skip
        parts = bands(np.broadcast_to(image, (*image.shape[:2], 3)), _BAND)
        present, counts = _merge([_count(_codes(part)) for part in parts])
        colours = np.stack([present >> 16, present >> 8 & 255, present & 255], axis=1).astype(np.int32)
        nearest, distance = self._nearest(colours, tolerance)
        if (unknown := nearest < 0).any():
            raise _unknown(where, colours[unknown], counts[unknown], tolerance)
        table = np.empty(1 << 24, np.uint8)  # pages that no colour touches stay virtual
        table[present] = self.values[nearest]
        values = np.concatenate([table[_codes(part)] for part in parts])
        return values, int(counts[distance > 0].sum())

    def _nearest(
        self, colours: npt.NDArray[np.int32], tolerance: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
        """For each colour (N, 3) the place of the nearest one within the tolerance, -1 for none, and its squared distance."""
        nearest, distance = np.empty(len(colours), np.intp), np.empty(len(colours), np.int32)
        for top in range(0, len(colours), _BLOCK):
            part = slice(top, top + _BLOCK)
            apart = np.abs(colours[part, None] - self.colors.astype(np.int32))
            squares = np.where(apart.max(2) <= tolerance, (apart**2).sum(2), _FAR)
            nearest[part], distance[part] = squares.argmin(1), squares.min(1)
        nearest[distance == _FAR] = -1
        return nearest, distance


def _codes(image: np.ndarray) -> npt.NDArray[np.uint32]:
    codes = image[:, :, 0].astype(np.uint32)
    for channel in (1, 2):
        codes <<= 8
        codes |= image[:, :, channel]
    return codes


def _count(codes: npt.NDArray[np.uint32]) -> Counted:
    """The different codes, and how many pixels have each. Rows are collapsed to runs first: sorting all pixels takes far longer."""
    flat = codes.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return _merge([(flat[starts], np.diff(np.append(starts, flat.size)))])


def _merge(counted: list[Counted]) -> Counted:
    """Codes that may come several times, with their counts -> each code once, with the sum."""
    present, inverse = np.unique(np.concatenate([codes for codes, _ in counted]), return_inverse=True)
    counts = np.concatenate([counts for _, counts in counted])
    return present, np.bincount(inverse, counts, len(present)).astype(np.int64)


def _unknown(where: str, colours: np.ndarray, counts: np.ndarray, tolerance: int) -> DataError:
    order = np.argsort(-counts, kind="stable")
    shown = [
        f"{tuple(map(int, colours[k]))} on {counts[k]:,} pixel{'s' if counts[k] > 1 else ''}" for k in order[:_SHOWN]
    ]
    more = f" and {len(order) - _SHOWN} more" if len(order) > _SHOWN else ""
    return DataError(
        "holds colours that are not in the palette", where=where, found=", ".join(shown) + more,
        expected=f"colours of the palette, each channel off by {tolerance} at most",
        fix="add them to the palette, or, where edges are blurred, allow more (--tolerance N)",
    )  # fmt: skip


def read_palette(name: str) -> Palette:
    """A palette by its name (voc, cityscapes) or from a file. Raises ConfigError or DataError with the line that is wrong."""
    if name in KNOWN:
        return make_palette(KNOWN[name](), f"palette {name}")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            "no such palette", found=name, expected="a file, or " + " or ".join(KNOWN), fix="give --palette FILE"
        )
    try:
        text = read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path) from error
    structured = path.suffix.lower() in (".json", ".yaml", ".yml")
    entries = _from_document(text, path) if structured else _from_lines(text, path)
    return make_palette(entries, path.name, path)


def stored_in_colours(path: Path) -> bool:
    """Whether an image file stores colours, and not one channel or indices into a palette; by its header."""
    try:
        with Image.open(path) as header:
            return header.mode in ("RGB", "RGBA", "CMYK", "YCbCr")
    except (OSError, ValueError, SyntaxError):  # decoding will say what is wrong with it
        return False


def find_palette(source: Path) -> Path | None:
    """The palette file that lies in a source."""
    return next((source / name for name in PALETTE_FILES if (source / name).is_file()), None)


def make_palette(entries: list[tuple[str, RGB]], origin: str, where: Path | None = None) -> Palette:
    """A palette of names and colours; DataError where it holds too few or too many classes, or a colour twice."""
    names = list(dict.fromkeys(name for name, _ in entries))
    first = dict(reversed(entries))
    by_colour = {colour: name for name, colour in entries}
    kept = [name for name in names if name.lower() not in IGNORED_NAMES]
    kept = kept if len(kept) > 1 else names
    if not 2 <= len(kept) <= MAX_CLASSES or any(by_colour[colour] != name for name, colour in entries):
        raise DataError(
            "is no palette", where=where or origin, found=", ".join(f"{name} {colour}" for name, colour in entries[:12]) or "nothing",
            expected=f"2 to {MAX_CLASSES} classes, each colour once",
        )  # fmt: skip
    value = {name: index for index, name in enumerate(kept)} | {name: 255 for name in names if name not in kept}
    table = ClassTable(
        classes=tuple(ClassSpec(name=name, value=value[name], color=first[name]) for name in kept),
        ignore=(255,) if len(kept) < len(names) else (),
    )
    colours = np.array([colour for _, colour in entries], np.uint8)
    return Palette(table, colours, np.array([value[name] for name, _ in entries], np.uint8), origin)


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
    from segpipe.data.formats.cityscapes import TRAINED

    return [*((label.name, label.color) for label in TRAINED), ("void", (0, 0, 0))]


KNOWN = {"voc": _voc, "cityscapes": _cityscapes}
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
