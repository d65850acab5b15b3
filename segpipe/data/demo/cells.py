"""What lies under the microscope of the demo data: cells with nuclei, and debris that is none, in integers alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.data.demo.integer_drawing import EDGE, TURNS, Blob, RandomIntegers, Plane, smooth

BACKGROUND, CYTOPLASM, NUCLEUS = 0, 1, 2


@dataclass
class Scene:
    """One picture in the making: dye densities (256 is one unit) and truth, all (height, width)."""

    height: int
    width: int
    dice: RandomIntegers
    cytoplasm: Plane
    nucleus: Plane
    ids: Plane
    labels: Plane
    wobble: Plane
    coarse: Plane
    fine: Plane

    @classmethod
    def empty(cls, dice: RandomIntegers, height: int, width: int) -> Scene:
        """Bare glass."""
        zeros = [np.zeros((height, width), np.int64) for _ in range(4)]
        return cls(height, width, dice, *zeros, *(smooth(dice, height, width, s) for s in (11, 5, 3)))

    def point(self) -> tuple[int, int]:
        """A place (y, x) anywhere."""
        return self.dice.between(0, self.height), self.dice.between(0, self.width)

    def area(self, blob: Blob, amount: int) -> tuple[tuple[slice, slice], Plane]:
        """`Blob.form` in this picture."""
        return blob.form(self.height, self.width, self.wobble, amount)


def draw_scene(dice: RandomIntegers, height: int, width: int, crowd: int) -> Scene:
    """Cells, `crowd` per cent as many as usual, and debris between them."""
    scene = Scene.empty(dice, height, width)
    _draw_cells(scene, _place_cells(dice, height, width, crowd))
    _draw_debris(scene)
    return scene


def _place_cells(dice: RandomIntegers, height: int, width: int, crowd: int) -> list[Blob]:
    """Outlines of cells. Half of them are put against another one; centres keep far enough apart for nuclei to stay whole."""
    wanted = max(3, height * width * crowd // 100 // 2600)
    cells: list[Blob] = []
    for _ in range(wanted * 6):
        if len(cells) == wanted:
            break
        long = dice.between(17, 31)
        cell = Blob(
            dice.between(-4, height + 4),
            dice.between(-4, width + 4),
            long,
            long * dice.between(68, 100) // 100,
            dice.between(0, 15),
        )
        if cells and dice.chance(55):
            other = cells[dice.between(0, len(cells) - 1)]
            cos, sin = TURNS[dice.between(0, 15)]
            far = (other.short + cell.short) * dice.between(84, 104) // 100
            cell = Blob(other.y + far * sin // 256, other.x + far * cos // 256, cell.long, cell.short, cell.turn)
        apart = all(
            ((cell.y - c.y) ** 2 + (cell.x - c.x) ** 2) * 10000 >= ((cell.short + c.short) * 80) ** 2 for c in cells
        )
        if apart and -6 <= cell.y < height + 6 and -6 <= cell.x < width + 6:
            cells.append(cell)
    return cells


def _draw_cells(scene: Scene, cells: list[Blob]) -> None:
    """Cytoplasm, then nuclei. Where outlines meet, a pixel belongs to the cell whose form is smaller: cells press flat."""
    best = np.full((scene.height, scene.width), EDGE, np.int64)
    for number, cell in enumerate(cells, start=1):
        window, form = scene.area(cell, 190)
        won = form < best[window]
        best[window][won] = form[won]
        scene.ids[window][won] = number
    scene.labels[scene.ids > 0] = CYTOPLASM
    rim = np.clip(best - 700, 0, 324) * 60 // 324
    body = 175 + rim + scene.coarse * 50 // 128 + scene.fine * 30 // 128
    for number, cell in enumerate(cells, start=1):
        window, _ = scene.area(cell, 0)
        mine = scene.ids[window] == number
        strength = scene.dice.between(55, 130)
        scene.cytoplasm[window] += mine * body[window] * strength // 100
        _draw_nucleus(scene, cell, mine, window)


def _draw_nucleus(scene: Scene, cell: Blob, mine: npt.NDArray[np.bool_], window: tuple[slice, slice]) -> None:
    """One to three lobes near the centre of a cell, a darker rim, chromatin, one or two nucleoli."""
    dice = scene.dice
    lobes = 1 if dice.chance(72) else dice.between(2, 3)
    size = cell.short * dice.between(38, 62) // 100
    strength = dice.between(70, 120)
    best = np.full((scene.height, scene.width), EDGE, np.int64)
    cos, sin = TURNS[dice.between(0, 15)]
    for lobe in range(lobes):
        step = 0 if lobes == 1 else (2 * lobe - lobes + 1) * size * 36 // 100
        long = max(4, size if lobes == 1 else size * 62 // 100)
        y = cell.y + step * sin // 256 + dice.between(-2, 2)
        x = cell.x + step * cos // 256 + dice.between(-2, 2)
        blob = Blob(y, x, long, max(3, long * dice.between(72, 100) // 100), dice.between(0, 15))
        region, form = scene.area(blob, 120)
        best[region] = np.minimum(best[region], form)
    inside = (best[window] < EDGE) & mine
    chromatin = (
        185
        + np.clip(best[window] - 650, 0, 374) * 50 // 374
        + scene.fine[window] * 75 // 128
        + scene.coarse[window] * 40 // 128
    )
    scene.nucleus[window] += inside * np.clip(chromatin, 60, 400) * strength // 100
    scene.labels[window][inside] = NUCLEUS
    for _ in range(dice.between(0, 2)):
        spot = Blob(cell.y + dice.between(-4, 4), cell.x + dice.between(-4, 4), 2, 2, 0)
        region, form = scene.area(spot, 0)
        scene.nucleus[region] += ((form < EDGE) & (scene.labels[region] == NUCLEUS)) * 110


def _draw_debris(scene: Scene) -> None:
    """What is not a cell and counts as background: specks and bare smudges in the nuclei's colour, pale smears, fibres."""
    dice = scene.dice
    free = scene.labels == BACKGROUND
    for _ in range(dice.between(3, 10)):
        long = dice.between(2, 8)
        blob = Blob(*scene.point(), long, max(2, long * dice.between(45, 100) // 100), dice.between(0, 15))
        window, form = scene.area(blob, 256)
        scene.nucleus[window] += ((form < EDGE) & free[window]) * (dice.between(120, 260) + scene.fine[window])
    for _ in range(dice.between(1, 4)):
        long = dice.between(14, 34)
        blob = Blob(*scene.point(), long, long * dice.between(40, 90) // 100, dice.between(0, 15))
        window, form = scene.area(blob, 256)
        soft = np.clip(EDGE - form, 0, 700) * dice.between(50, 150) // 700
        scene.cytoplasm[window] += soft * free[window]
    for _ in range(dice.between(0, 2)):
        blob = Blob(*scene.point(), dice.between(30, 90), dice.between(1, 2), dice.between(0, 15))
        window, form = scene.area(blob, 40)
        scene.nucleus[window] += (form < EDGE) * dice.between(60, 150)
