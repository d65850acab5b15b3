"""Draw docs/house.svg, the packages of the code by floor: ``python docs/draw_house.py`` (``--check`` fails if the picture is out of date).

Everything in the picture comes from the code: the floors from the import contract in pyproject.toml, the purpose of a room from the first
line of its docstring, the names in it from its folders and modules, its imports from the import graph. It depends on no line count, so it
changes only when the structure or a purpose changes.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "house.svg"

WIDTH, MARGIN, GAP, PADDING = 1100, 20, 12, 12
ARROW_WIDTH = 34
"""Space at the left for the arrow that says in which direction imports go."""
MAX_IN_ROW = 4
"""Rooms of a floor that are drawn side by side; a floor with more gets several rows."""
GROUND_FLOORS = 3
"""How many of the lowest floors are left out of the lists of imports, because nearly every room imports them."""
CHARACTER_WIDTH = 0.54
"""Mean width of a character of a sans-serif font, as a share of the font size (rounded up: fonts differ)."""
NAME_SIZE, PURPOSE_SIZE, SMALL_SIZE = 15, 12.5, 11
CHIP_HEIGHT = 18
STYLE = (
    ".room{fill:#fff;stroke:#33475b}.ground{fill:#f3f1ea}.chip{fill:#e3ecf5}"
    f".name{{font-size:{NAME_SIZE}px;font-weight:600;fill:#1d2b3a}}.purpose{{font-size:{PURPOSE_SIZE}px;font-weight:400;fill:#1d2b3a}}"
    f".inner{{font-size:{SMALL_SIZE}px;fill:#1d3a5b}}.small{{font-size:{SMALL_SIZE}px;fill:#5d6b79}}"
    ".arrow{stroke:#8a9bb0;stroke-width:2;fill:none}"
)


@dataclass(frozen=True)
class Room:
    """A package or a single module directly under segpipe/, and the package flows/."""

    name: str
    purpose: str
    inner_rooms: tuple[str, ...]
    modules: tuple[str, ...]
    imports: tuple[str, ...]


def read_floors() -> list[list[str]]:
    """Return the layers of the import contract, from the top of the house to the ground."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    return [[name.strip() for name in layer.split(":")] for layer in contract["layers"]]


def room_of(module: str) -> str:
    """Return the room of a module: segpipe.data.formats.masks.folder -> segpipe.data; flows.retrain -> flows."""
    return ".".join(module.split(".")[:2]) if module.startswith("segpipe.") else module.split(".")[0]


def read_room(name: str, imported: dict[str, set[str]], ground: set[str]) -> Room:
    """Read what the picture shows of a room."""
    folder = ROOT / Path(*name.split("."))
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text())) or ""
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    return Room(
        name.removeprefix("segpipe."),
        docstring.partition("\n")[0].replace("`", "").rstrip("."),
        tuple(path.name for path in children if (path / "__init__.py").exists()),
        tuple(path.stem for path in children if path.suffix == ".py" and not path.stem.startswith("__")),
        tuple(sorted(room.removeprefix("segpipe.") for room in imported.get(name, set()) - ground)),
    )


def imports_between_rooms(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Return for each room the other rooms that its modules import."""
    rooms: dict[str, set[str]] = {}
    for module in graph.modules:
        for target in graph.find_modules_directly_imported_by(module):
            if room_of(module) != room_of(target) and room_of(target) != "segpipe":
                rooms.setdefault(room_of(module), set()).add(room_of(target))
    return rooms


def wrap(text: str, width: float, size: float) -> list[str]:
    """Break a text into lines that fit in a width, in pixels, at a font size."""
    return textwrap.wrap(text, max(10, int(width / (size * CHARACTER_WIDTH))), break_long_words=False)


@dataclass
class Box:
    """A drawn room: SVG elements relative to its top left corner, and the height that they need."""

    elements: list[str]
    height: float


def draw_room(room: Room, width: float) -> Box:
    """Draw the inside of a room: name and purpose, inner rooms as chips, modules, imports."""
    inside = width - 2 * PADDING
    elements, y = [], 22.0
    fits_on_line = len(wrap(room.purpose, inside - len(room.name) * NAME_SIZE * 0.62 - 14, PURPOSE_SIZE)) <= 1
    purpose = f'<tspan class="purpose" dx="14">{escape(room.purpose)}</tspan>' if fits_on_line else ""
    elements.append(f'<text class="name" x="{PADDING}" y="{y:.0f}">{escape(room.name)}{purpose}</text>')
    for line in [] if fits_on_line else wrap(room.purpose, inside, PURPOSE_SIZE):
        y += 17
        elements.append(_text("purpose", PADDING, y, line))
    if room.inner_rooms:
        y += 10
        for x, row, name, chip_width in _chips(room.inner_rooms, inside):
            top = y + row * (CHIP_HEIGHT + 5)
            elements.append(
                f'<rect class="chip" x="{PADDING + x:.0f}" y="{top:.0f}" width="{chip_width:.0f}" height="{CHIP_HEIGHT}" rx="4"/>'
                + _text("inner", PADDING + x + 7, top + 13, name)
            )
        y = top + CHIP_HEIGHT
    for words in (", ".join(room.modules), f"imports {', '.join(room.imports)}" if room.imports else ""):
        for number, line in enumerate(wrap(words, inside, SMALL_SIZE)):
            y += 14 if number else 18
            elements.append(_text("small", PADDING, y, line))
    return Box(elements, y + 11)


def _chips(names: tuple[str, ...], width: float) -> Iterator[tuple[float, int, str, float]]:
    """Place the chips of inner rooms in rows: x, row, name and width of each."""
    x, row = 0.0, 0
    for name in names:
        chip_width = len(name) * SMALL_SIZE * 0.56 + 14
        if x and x + chip_width > width:
            x, row = 0.0, row + 1
        yield x, row, name, chip_width
        x += chip_width + 6


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def draw_floor(rooms: list[Room], y: float, is_ground: bool) -> tuple[list[str], float]:
    """Draw the rooms of a floor side by side, in as many rows as needed: the SVG elements, and the y below them."""
    out: list[str] = []
    n_rows = -(-len(rooms) // MAX_IN_ROW)
    per_row = -(-len(rooms) // n_rows)
    left = MARGIN + ARROW_WIDTH
    for start in range(0, len(rooms), per_row):
        row = rooms[start : start + per_row]
        width = (WIDTH - MARGIN - left - GAP * (len(row) - 1)) / len(row)
        boxes = [draw_room(room, width) for room in row]
        height = max(box.height for box in boxes)
        for number, box in enumerate(boxes):
            x = left + number * (width + GAP)
            out.append(f'<g transform="translate({x:.0f},{y:.0f})">')
            kind = "room ground" if is_ground else "room"
            out.append(f'<rect class="{kind}" width="{width:.0f}" height="{height:.0f}" rx="7"/>')
            out += [*box.elements, "</g>"]
        y += height + GAP
    return out, y


def draw() -> str:
    """Return the picture as SVG text."""
    floors = read_floors()
    ground = {name for floor in floors[-GROUND_FLOORS:] for name in floor}
    imported = imports_between_rooms(grimp.build_graph("segpipe", "flows"))
    body: list[str] = []
    y = float(MARGIN)
    for level, names in enumerate(floors):
        rooms = [read_room(name, imported, ground) for name in names]
        elements, y = draw_floor(rooms, y, level >= len(floors) - GROUND_FLOORS)
        body += elements
    note = "Shaded: the ground floors, which nearly every room imports; they are left out of the lists of imports."
    height = round(y + 24)
    x, bottom = MARGIN + 12, y - GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' font-family="system-ui, sans-serif">',
            "<title>The rooms of segpipe by floor: imports only run down</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fbfaf7"/>',
            f'<path class="arrow" d="M{x},{MARGIN} V{bottom:.0f} m-6,-10 l6,10 l6,-10"/>',
            f'<g transform="translate({x - 6},{height / 2:.0f}) rotate(-90)">',
            '<text class="small" text-anchor="middle">imports only run down</text></g>',
            *body,
            _text("small", MARGIN + ARROW_WIDTH, y + 8, note),
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """Write the picture, or check that it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if docs/house.svg differs from the code")
    options = parser.parse_args()
    picture = draw()
    if options.check:
        if not PICTURE.exists() or PICTURE.read_text() != picture:
            sys.exit("docs/house.svg is older than the code. Fix: python docs/draw_house.py")
        return
    PICTURE.write_text(picture)
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
