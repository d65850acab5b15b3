"""Draw docs/house.svg from the code's own imports: ``python docs/draw_house.py`` (``--check`` fails where the picture is old).

A box is a room (a package or a module directly under segpipe/), its width tells how many modules it holds; a line is an import between
rooms. No lines of code are counted, so the picture grows old by a change of structure only.
The floors are those that import-linter enforces (pyproject.toml).
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "house.svg"
WIDTH, FLOOR_HEIGHT, MARGIN = 1060, 78, 24
STYLE = (
    ".room{fill:#fff;stroke:#33475b}.import{fill:none;stroke:#8a9bb0;stroke-opacity:.45}"
    ".name{font-size:14px;font-weight:600;fill:#1d2b3a}.count{font-size:10px;text-anchor:end;fill:#6b7a89}"
    ".modules{font-size:10px;fill:#4a5b6c}"
)


@dataclass(frozen=True)
class Room:
    """A box: where it stands, which modules are in it."""

    name: str
    x: float
    y: float
    width: float
    height: float
    modules: tuple[str, ...]


def floors() -> list[list[str]]:
    """The layers of the import contract, from the top of the house to the ground."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    return [[part.strip() for part in layer.split(":")] for layer in contract["layers"]]


def room_of(module: str) -> str:
    """segpipe.data.formats.masks.folder -> segpipe.data; flows.retrain -> flows."""
    return ".".join(module.split(".")[:2]) if module.startswith("segpipe.") else module.split(".")[0]


def rooms(graph: grimp.ImportGraph) -> dict[str, Room]:
    """Place each room on its floor, the wider the more modules it holds."""
    members: dict[str, list[str]] = {}
    for module in sorted(graph.modules):
        path = ROOT / Path(*module.split("."))
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if file.name != "__init__.py" and module != room_of(module):
            members.setdefault(room_of(module), []).append(
                module.split(".", 2)[2 if module.startswith("segpipe") else 1]
            )
    placed: dict[str, Room] = {}
    for level, names in enumerate(floors()):
        x = float(MARGIN)
        step = (WIDTH - 2 * MARGIN) / len(names)
        for name in names:
            share = min(1.0, 0.32 + len(members.get(name, ())) / 16)
            width = max(step * share - 12, 110.0)
            left = x + (step - width) / 2
            placed[name] = Room(
                name,
                left,
                MARGIN + level * FLOOR_HEIGHT,
                width,
                FLOOR_HEIGHT - 34,
                tuple(members.get(name, ())),
            )
            x += step
    return placed


def arrows(graph: grimp.ImportGraph) -> dict[tuple[str, str], int]:
    """Imports between rooms, counted."""
    counted: dict[tuple[str, str], int] = {}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = room_of(module), room_of(imported)
            if pair[0] != pair[1]:
                counted[pair] = counted.get(pair, 0) + 1
    return counted


def draw() -> str:
    """The picture as SVG text."""
    graph = grimp.build_graph("segpipe", "flows")
    placed = rooms(graph)
    height = MARGIN * 2 + len(floors()) * FLOOR_HEIGHT - 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">',
        "<title>The house: rooms by floor, imports only run down</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fbfaf7"/>',
    ]
    for (source, target), count in sorted(arrows(graph).items()):
        if source not in placed or target not in placed:
            continue
        a, b = placed[source], placed[target]
        x1, y1, x2, y2 = a.x + a.width / 2, a.y + a.height, b.x + b.width / 2, b.y
        bend = (hash_free(source + target) - 0.5) * 360
        out.append(
            f'<path d="M{x1:.0f},{y1:.0f} C{x1 + bend:.0f},{(y1 + y2) / 2:.0f} {x2 + bend:.0f},{(y1 + y2) / 2:.0f} {x2:.0f},{y2:.0f}" '
            f'class="import" stroke-width="{min(0.6 + count / 3, 4):.1f}">'
            f"<title>{escape(source)} imports {escape(target)} ({count})</title></path>"
        )
    for room in placed.values():
        title = room.name.removeprefix("segpipe.")
        words = ", ".join(room.modules)
        limit = max(8, int(room.width / 5.4))
        words = words if len(words) <= limit else words[: limit - 1] + "…"
        x, y, right = round(room.x), round(room.y), round(room.x + room.width)
        out.append(
            f"<g><title>{escape(room.name)}: {escape(', '.join(room.modules) or 'one module')}</title>"
            f'<rect class="room" x="{x}" y="{y}" width="{right - x}" height="{room.height}" rx="7"/>'
            f'<text class="name" x="{x + 10}" y="{y + 18}">{escape(title)}</text>'
            f'<text class="count" x="{right - 8}" y="{y + 18}">{max(1, len(room.modules))}</text>'
            f'<text class="modules" x="{x + 10}" y="{y + 34}">{escape(words)}</text></g>'
        )
    return "\n".join([*out, "</svg>", ""])


def hash_free(text: str) -> float:
    """A number in 0..1 that depends on the text alone, the same on every run."""
    return sum(ord(c) * (i + 7) for i, c in enumerate(text)) % 101 / 100


def main() -> None:
    """Write the picture, or check that it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 where docs/house.svg differs from the code")
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
