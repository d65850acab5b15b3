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

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, format_classes, format_samples
from segpipe.data.demo.cells import BACKGROUND, CYTOPLASM, NUCLEUS, Scene, draw_scene
from segpipe.data.demo.integer_drawing import TRANSMISSION, RandomIntegers, blur, smooth, stored_png
from segpipe.files import atomic_folder, read_bytes
from segpipe.progress import track
from segpipe.samples import ClassSpec, ClassTable

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
    dice = RandomIntegers(seed, 1, index)
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


def _expose(scene: Scene, slide: _Slide) -> npt.NDArray[np.uint8]:
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
        channels.append(slide.light[channel] * shade * TRANSMISSION[np.clip(density, 0, 511)] >> 24)
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
    dice = RandomIntegers(seed, 2, index)
    height, width = dice.between(20, 32) * 8, dice.between(20, 32) * 8
    scene = draw_scene(dice, height, width, slide.crowd)
    image = _expose(scene, slide)
    _, ids = np.unique(np.append(scene.ids.ravel(), 0), return_inverse=True)  # numbers without gaps; 0 stays 0
    return slide, image, scene.labels.astype(np.uint8), ids[:-1].reshape(height, width).astype(np.uint8)


def write_demo(data_dir: Path, images: int = 240, seed: int = 2026) -> None:
    """Write the demo data in the canonical layout; the same bytes on every machine. A smaller set is the beginning of a larger one.

    A folder that holds demo data already is replaced; one that holds anything else is refused (DataError).
    """
    table = "# segpipe's demo data: `segpipe data demo` writes it, always the same\n" + format_classes(DEMO_CLASSES)
    ours = (data_dir / CLASSES_FILE).is_file() and read_bytes(data_dir / CLASSES_FILE, 1 << 20) == table.encode()
    with atomic_folder(data_dir, replace=ours) as folder:
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
