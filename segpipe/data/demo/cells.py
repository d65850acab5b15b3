"""Draw the scenes of the demo data with integer arithmetic only: cells with nuclei, and debris that counts as background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.data.demo.integer_drawing import EDGE, TURNS, Blob, Plane, RandomIntegers, smooth_noise

BACKGROUND, CYTOPLASM, NUCLEUS = 0, 1, 2


@dataclass
class Scene:
    """A scene that is being drawn. All planes are (height, width).

    Attributes:
        height: in pixels.
        width: in pixels.
        rng: the random integers of the image.
        cytoplasm: density of the dye of the cytoplasm; 256 is one unit.
        nucleus: density of the dye of the nuclei; 256 is one unit.
        ids: instance ids of the cells, 0 for background.
        labels: class ids.
        wobble: smooth noise that deforms outlines.
        coarse: smooth noise for coarse texture.
        fine: smooth noise for fine texture.
    """

    height: int
    width: int
    rng: RandomIntegers
    cytoplasm: Plane
    nucleus: Plane
    ids: Plane
    labels: Plane
    wobble: Plane
    coarse: Plane
    fine: Plane

    @classmethod
    def empty(cls, rng: RandomIntegers, height: int, width: int) -> Scene:
        """Return a scene without any cell."""
        zeros = [np.zeros((height, width), np.int64) for _ in range(4)]
        return cls(height, width, rng, *zeros, *(smooth_noise(rng, height, width, s) for s in (11, 5, 3)))

    def point(self) -> tuple[int, int]:
        """Return a random position (y, x)."""
        return self.rng.between(0, self.height), self.rng.between(0, self.width)

    def area(self, blob: Blob, amount: int) -> tuple[tuple[slice, slice], Plane]:
        """Return `Blob.form` of a blob in this scene."""
        return blob.form(self.height, self.width, self.wobble, amount)


def draw_scene(rng: RandomIntegers, height: int, width: int, crowding: int) -> Scene:
    """Draw cells and debris.

    Args:
        rng: the random integers of the image.
        height: in pixels.
        width: in pixels.
        crowding: the number of cells, in per cent of the usual one.
    """
    scene = Scene.empty(rng, height, width)
    _draw_cells(scene, _place_cells(rng, height, width, crowding))
    _draw_debris(scene)
    return scene


def _place_cells(rng: RandomIntegers, height: int, width: int, crowding: int) -> list[Blob]:
    """Place cells. About half of them touch another one, but their centres stay far enough apart that nuclei do not overlap."""
    count = max(3, height * width * crowding // 100 // 2600)
    cells: list[Blob] = []
    for _ in range(count * 6):
        if len(cells) == count:
            break
        long = rng.between(17, 31)
        cell = Blob(
            rng.between(-4, height + 4),
            rng.between(-4, width + 4),
            long,
            long * rng.between(68, 100) // 100,
            rng.between(0, 15),
        )
        if cells and rng.chance(55):
            other = cells[rng.between(0, len(cells) - 1)]
            cos, sin = TURNS[rng.between(0, 15)]
            distance = (other.short + cell.short) * rng.between(84, 104) // 100
            cell = Blob(
                other.y + distance * sin // 256, other.x + distance * cos // 256, cell.long, cell.short, cell.turn
            )
        apart = all(
            ((cell.y - c.y) ** 2 + (cell.x - c.x) ** 2) * 10000 >= ((cell.short + c.short) * 80) ** 2 for c in cells
        )
        if apart and -6 <= cell.y < height + 6 and -6 <= cell.x < width + 6:
            cells.append(cell)
    return cells


def _draw_cells(scene: Scene, cells: list[Blob]) -> None:
    """Draw the cytoplasm and the nuclei. A pixel inside two outlines belongs to the cell with the smaller form: the border is flat."""
    best = np.full((scene.height, scene.width), EDGE, np.int64)
    for number, cell in enumerate(cells, start=1):
        window, form = scene.area(cell, 190)
        nearer = form < best[window]
        best[window][nearer] = form[nearer]
        scene.ids[window][nearer] = number
    scene.labels[scene.ids > 0] = CYTOPLASM
    rim = np.clip(best - 700, 0, 324) * 60 // 324
    body = 175 + rim + scene.coarse * 50 // 128 + scene.fine * 30 // 128
    for number, cell in enumerate(cells, start=1):
        window, _ = scene.area(cell, 0)
        cell_mask = scene.ids[window] == number
        strength = scene.rng.between(55, 130)
        scene.cytoplasm[window] += cell_mask * body[window] * strength // 100
        _draw_nucleus(scene, cell, cell_mask, window)


def _draw_nucleus(scene: Scene, cell: Blob, cell_mask: npt.NDArray[np.bool_], window: tuple[slice, slice]) -> None:
    """Draw a nucleus: one to three lobes near the centre of a cell, a darker rim, chromatin, and up to two nucleoli."""
    rng = scene.rng
    lobes = 1 if rng.chance(72) else rng.between(2, 3)
    size = cell.short * rng.between(38, 62) // 100
    strength = rng.between(70, 120)
    best = np.full((scene.height, scene.width), EDGE, np.int64)
    cos, sin = TURNS[rng.between(0, 15)]
    for lobe in range(lobes):
        step = 0 if lobes == 1 else (2 * lobe - lobes + 1) * size * 36 // 100
        long = max(4, size if lobes == 1 else size * 62 // 100)
        y = cell.y + step * sin // 256 + rng.between(-2, 2)
        x = cell.x + step * cos // 256 + rng.between(-2, 2)
        blob = Blob(y, x, long, max(3, long * rng.between(72, 100) // 100), rng.between(0, 15))
        region, form = scene.area(blob, 120)
        best[region] = np.minimum(best[region], form)
    inside = (best[window] < EDGE) & cell_mask
    chromatin = (
        185
        + np.clip(best[window] - 650, 0, 374) * 50 // 374
        + scene.fine[window] * 75 // 128
        + scene.coarse[window] * 40 // 128
    )
    scene.nucleus[window] += inside * np.clip(chromatin, 60, 400) * strength // 100
    scene.labels[window][inside] = NUCLEUS
    for _ in range(rng.between(0, 2)):
        spot = Blob(cell.y + rng.between(-4, 4), cell.x + rng.between(-4, 4), 2, 2, 0)
        region, form = scene.area(spot, 0)
        scene.nucleus[region] += ((form < EDGE) & (scene.labels[region] == NUCLEUS)) * 110


def _draw_debris(scene: Scene) -> None:
    """Draw debris, which counts as background: specks and smudges in the colour of the nuclei, pale smears, and fibres."""
    rng = scene.rng
    free = scene.labels == BACKGROUND
    for _ in range(rng.between(3, 10)):
        long = rng.between(2, 8)
        blob = Blob(*scene.point(), long, max(2, long * rng.between(45, 100) // 100), rng.between(0, 15))
        window, form = scene.area(blob, 256)
        scene.nucleus[window] += ((form < EDGE) & free[window]) * (rng.between(120, 260) + scene.fine[window])
    for _ in range(rng.between(1, 4)):
        long = rng.between(14, 34)
        blob = Blob(*scene.point(), long, long * rng.between(40, 90) // 100, rng.between(0, 15))
        window, form = scene.area(blob, 256)
        soft = np.clip(EDGE - form, 0, 700) * rng.between(50, 150) // 700
        scene.cytoplasm[window] += soft * free[window]
    for _ in range(rng.between(0, 2)):
        blob = Blob(*scene.point(), rng.between(30, 90), rng.between(1, 2), rng.between(0, 15))
        window, form = scene.area(blob, 40)
        scene.nucleus[window] += (form < EDGE) * rng.between(60, 150)
