"""The embedded demo data: stained cells under a microscope, drawn by integer arithmetic alone.

Bytes must not depend on the machine or on a library's version, because `data.dvc` pins them: random numbers are raw words of
PCG64 (whose stream is fixed by its definition), there is no floating point anywhere, and `stored_png` compresses nothing.

What is in a picture: light absorbed by dyes (Beer and Lambert), uneven illumination, haze, cells that touch and press against
each other, nuclei of one to three lobes with chromatin texture, debris in the nuclei's colour that counts as background, fibres,
optics blur and sensor noise. Two stains, `pink` and `blue`; twelve slides of each, every slide with its own dye strengths, light
and focus. A `group` is a slide, because images of one slide must not stand in two splits; the stain is the first part of its name
and a column of samples.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, format_classes, format_samples, whole_folder
from segpipe.data.integer_art import EDGE, PASSES, TURNS, Blob, Dice, Plane, blur, smooth, stored_png
from segpipe.files import read_bytes
from segpipe.progress import track
from segpipe.samples import ClassSpec, ClassTable

BACKGROUND, CYTOPLASM, NUCLEUS = 0, 1, 2
DEMO_CLASSES = ClassTable(
    classes=(
        ClassSpec(name="background", value=BACKGROUND, color=(0, 0, 0)),
        ClassSpec(name="cytoplasm", value=CYTOPLASM, color=(86, 180, 233)),
        ClassSpec(name="nucleus", value=NUCLEUS, color=(230, 159, 0)),
    )
)
_SLIDES = 24


@dataclass(frozen=True)
class _Stain:
    """Colours as (R, G, B): light without a specimen, and optical densities (in 1/64) of one unit of each dye."""

    light: tuple[int, int, int]
    cytoplasm: tuple[int, int, int]
    nucleus: tuple[int, int, int]


_STAINS = {
    "pink": _Stain(light=(243, 238, 244), cytoplasm=(6, 37, 19), nucleus=(46, 62, 25)),
    "blue": _Stain(light=(240, 236, 222), cytoplasm=(34, 22, 6), nucleus=(44, 74, 28)),
}


@dataclass(frozen=True)
class _Slide:
    """What all images of a slide share: dyes, light, focus, crowding."""

    name: str
    stain: str
    light: tuple[int, ...]
    cytoplasm: tuple[int, ...]
    nucleus: tuple[int, ...]
    crowd: int
    blur: int
    noise: int
    haze: int
    tilt: tuple[int, int]


def _make_slide(seed: int, index: int) -> _Slide:
    dice = Dice(seed, 1, index)
    name = ("pink", "blue")[index % 2]
    stain = _STAINS[name]
    weak, strong = dice.between(70, 130), dice.between(75, 125)
    return _Slide(
        name=f"{name}-slide-{index // 2 + 1:02d}",
        stain=name,
        light=tuple(v - dice.between(0, 14) for v in stain.light),
        cytoplasm=tuple(max(1, v * weak // 100 + dice.between(-3, 3)) for v in stain.cytoplasm),
        nucleus=tuple(max(1, v * strong // 100 + dice.between(-5, 5)) for v in stain.nucleus),
        crowd=dice.between(55, 130),
        blur=dice.between(1, 2),
        noise=dice.between(3, 9),
        haze=dice.between(20, 90),
        tilt=(dice.between(-60, 60), dice.between(-60, 60)),
    )


@dataclass
class _Scene:
    """One picture in the making: dye densities (256 is one unit) and truth, all (height, width)."""

    height: int
    width: int
    dice: Dice
    cytoplasm: Plane
    nucleus: Plane
    ids: Plane
    labels: Plane
    wobble: Plane
    coarse: Plane
    fine: Plane

    @classmethod
    def empty(cls, dice: Dice, height: int, width: int) -> _Scene:
        """Bare glass."""
        zeros = [np.zeros((height, width), np.int64) for _ in range(4)]
        return cls(height, width, dice, *zeros, *(smooth(dice, height, width, s) for s in (11, 5, 3)))

    def point(self) -> tuple[int, int]:
        """A place (y, x) anywhere."""
        return self.dice.between(0, self.height), self.dice.between(0, self.width)

    def area(self, blob: Blob, amount: int) -> tuple[tuple[slice, slice], Plane]:
        """`Blob.form` in this picture."""
        return blob.form(self.height, self.width, self.wobble, amount)


def _place_cells(dice: Dice, height: int, width: int, crowd: int) -> list[Blob]:
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


def _draw_cells(scene: _Scene, cells: list[Blob]) -> None:
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


def _draw_nucleus(scene: _Scene, cell: Blob, mine: npt.NDArray[np.bool_], window: tuple[slice, slice]) -> None:
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


def _draw_debris(scene: _Scene) -> None:
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


def _expose(scene: _Scene, slide: _Slide) -> npt.NDArray[np.uint8]:
    """From dyes to pixels: absorption, light that falls off, blur, noise. (height, width, 3), RGB."""
    dice, height, width = scene.dice, scene.height, scene.width
    haze = np.clip(smooth(dice, height, width, 61) + 60, 0, 255) * slide.haze // 128
    y = np.arange(height, dtype=np.int64)[:, None] - height // 2
    x = np.arange(width, dtype=np.int64) - width // 2
    lamp_y, lamp_x = y - slide.tilt[0] // 2, x - slide.tilt[1] // 2
    shade = (
        262
        - (lamp_y * lamp_y + lamp_x * lamp_x) * dice.between(30, 75) // (128 * 128)
        + (y * slide.tilt[0] + x * slide.tilt[1]) // 256
    )
    channels = []
    for channel in range(3):
        density = ((scene.cytoplasm + haze) * slide.cytoplasm[channel] + scene.nucleus * slide.nucleus[channel]) >> 8
        channels.append(slide.light[channel] * shade * PASSES[np.clip(density, 0, 511)] >> 24)
    picture = np.stack(channels, 2)  # 16 times the grey level
    for _ in range(2):
        picture = blur(picture, slide.blur if dice.chance(70) else 1)
    picture = picture + dice.bell(height, width, 3) * slide.noise // 8
    return np.clip((picture + 8) // 16, 0, 255).astype(np.uint8)


def draw_demo_image(
    index: int, seed: int
) -> tuple[_Slide, npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Picture number `index`: its slide, image (H, W, 3) RGB, labels (H, W) of class values, instances (H, W) of cell ids."""
    slide = _make_slide(seed, index % _SLIDES)
    dice = Dice(seed, 2, index)
    height, width = dice.between(20, 32) * 8, dice.between(20, 32) * 8
    scene = _Scene.empty(dice, height, width)
    _draw_cells(scene, _place_cells(dice, height, width, slide.crowd))
    _draw_debris(scene)
    image = _expose(scene, slide)
    _, ids = np.unique(np.append(scene.ids.ravel(), 0), return_inverse=True)  # numbers without gaps; 0 stays 0
    return slide, image, scene.labels.astype(np.uint8), ids[:-1].reshape(height, width).astype(np.uint8)


def write_demo(data_dir: Path, images: int = 240, seed: int = 2026) -> None:
    """Write the demo data in the canonical layout; the same bytes on every machine. A smaller set is the beginning of a larger one.

    A folder that holds demo data already is replaced; one that holds anything else is refused (DataError).
    """
    table = "# segpipe's demo data: `segpipe data demo` writes it, always the same\n" + format_classes(DEMO_CLASSES)
    ours = (data_dir / CLASSES_FILE).is_file() and read_bytes(data_dir / CLASSES_FILE, 1 << 20) == table.encode()
    with whole_folder(data_dir, replace=ours) as folder:
        for name in ("images", "masks", "instances"):
            (folder / name).mkdir()
        rows = []
        for index in track(range(images), "demo data", images):
            slide, image, labels, ids = draw_demo_image(index, seed)
            key = f"cells-{index:03d}"
            for name, array in (("images", image), ("masks", labels), ("instances", ids)):
                (folder / name / f"{key}.png").write_bytes(stored_png(array))
            rows.append({"key": key, "group": slide.name, "split": "", "stain": slide.stain})
        (folder / CLASSES_FILE).write_bytes(table.encode())
        (folder / SAMPLES_FILE).write_bytes(format_samples(rows).encode())
