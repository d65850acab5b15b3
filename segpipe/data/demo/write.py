"""Write the demo data: images of stained cells under a microscope, drawn with integer arithmetic only.

Their bytes must not depend on the machine or on the version of a library, because `data.dvc` contains their hash. Random numbers are
raw words of PCG64, whose stream is fixed by its definition; there is no floating point; and `stored_png` does not compress.

A picture shows light absorbed by dyes (Beer-Lambert law), uneven illumination, haze, cells that touch, nuclei of one to three lobes
with chromatin texture, debris in the colour of the nuclei that counts as background, fibres, optical blur and sensor noise. There are
two stains, `pink` and `blue`, with twelve slides each; every slide has its own dye strengths, light and focus. A slide is a `group`,
because images of one slide must not be in two splits. The stain is the first part of the name of the slide, and a column of
samples.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, format_classes, format_samples
from segpipe.data.demo.cells import BACKGROUND, CYTOPLASM, NUCLEUS, Scene, draw_scene
from segpipe.data.demo.integer_drawing import TRANSMISSION, RandomIntegers, blur, smooth_noise, stored_png
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
    """A stain, as (R, G, B).

    Attributes:
        light: grey levels without a specimen, 0..255.
        cytoplasm: optical density of one unit of the dye of the cytoplasm, in 1/64.
        nucleus: optical density of one unit of the dye of the nuclei, in 1/64.
    """

    light: tuple[int, int, int]
    cytoplasm: tuple[int, int, int]
    nucleus: tuple[int, int, int]


_STAINS = {
    "pink": _Stain(light=(243, 238, 244), cytoplasm=(6, 37, 19), nucleus=(46, 62, 25)),
    "blue": _Stain(light=(240, 236, 222), cytoplasm=(34, 22, 6), nucleus=(44, 74, 28)),
}


@dataclass(frozen=True)
class _Slide:
    """The properties that all images of a slide share: dyes, light, focus and number of cells."""

    name: str
    stain: str
    light: tuple[int, ...]
    cytoplasm: tuple[int, ...]
    nucleus: tuple[int, ...]
    crowding: int
    blur: int
    noise: int
    haze: int
    tilt: tuple[int, int]


def _make_slide(seed: int, index: int) -> _Slide:
    rng = RandomIntegers(seed, 1, index)
    name = ("pink", "blue")[index % 2]
    stain = _STAINS[name]
    weak, strong = rng.between(70, 130), rng.between(75, 125)
    return _Slide(
        name=f"{name}-slide-{index // 2 + 1:02d}",
        stain=name,
        light=tuple(v - rng.between(0, 14) for v in stain.light),
        cytoplasm=tuple(max(1, v * weak // 100 + rng.between(-3, 3)) for v in stain.cytoplasm),
        nucleus=tuple(max(1, v * strong // 100 + rng.between(-5, 5)) for v in stain.nucleus),
        crowding=rng.between(55, 130),
        blur=rng.between(1, 2),
        noise=rng.between(3, 9),
        haze=rng.between(20, 90),
        tilt=(rng.between(-60, 60), rng.between(-60, 60)),
    )


def _expose(scene: Scene, slide: _Slide) -> npt.NDArray[np.uint8]:
    """Render the dyes of a scene as pixels: absorption, uneven illumination, blur and noise. Returns (height, width, 3), uint8, RGB."""
    rng, height, width = scene.rng, scene.height, scene.width
    haze = np.clip(smooth_noise(rng, height, width, 61) + 60, 0, 255) * slide.haze // 128
    y = np.arange(height, dtype=np.int64)[:, None] - height // 2
    x = np.arange(width, dtype=np.int64) - width // 2
    lamp_y, lamp_x = y - slide.tilt[0] // 2, x - slide.tilt[1] // 2
    shade = (
        262
        - (lamp_y * lamp_y + lamp_x * lamp_x) * rng.between(30, 75) // (128 * 128)
        + (y * slide.tilt[0] + x * slide.tilt[1]) // 256
    )
    channels = []
    for channel in range(3):
        density = ((scene.cytoplasm + haze) * slide.cytoplasm[channel] + scene.nucleus * slide.nucleus[channel]) >> 8
        channels.append(slide.light[channel] * shade * TRANSMISSION[np.clip(density, 0, 511)] >> 24)
    picture = np.stack(channels, 2)  # 16 times the grey level
    for _ in range(2):
        picture = blur(picture, slide.blur if rng.chance(70) else 1)
    picture = picture + rng.near_normal(height, width, 3) * slide.noise // 8
    return np.clip((picture + 8) // 16, 0, 255).astype(np.uint8)


def draw_demo_image(
    index: int, seed: int
) -> tuple[_Slide, npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw one image of the demo data.

    Args:
        index: the number of the image.
        seed: the seed of the dataset.

    Returns:
        The slide of the image.
        image: (H, W, 3), uint8, RGB.
        labels: (H, W), uint8 class ids.
        instances: (H, W), uint8 ids of cells, 0 for background.
    """
    slide = _make_slide(seed, index % _SLIDES)
    rng = RandomIntegers(seed, 2, index)
    height, width = rng.between(20, 32) * 8, rng.between(20, 32) * 8
    scene = draw_scene(rng, height, width, slide.crowding)
    image = _expose(scene, slide)
    _, ids = np.unique(np.append(scene.ids.ravel(), 0), return_inverse=True)  # ids without gaps; 0 stays 0
    return slide, image, scene.labels.astype(np.uint8), ids[:-1].reshape(height, width).astype(np.uint8)


def write_demo(data_dir: Path, images: int = 240, seed: int = 2026) -> None:
    """Write the demo data in the canonical layout, with the same bytes on every machine.

    Args:
        data_dir: the folder to write. If it holds demo data already, it is replaced.
        images: the number of images. A smaller dataset consists of the first images of a larger one.
        seed: another seed draws other images.

    Raises:
        DataError: if the folder holds anything else.
    """
    # The wording is part of the bytes that data.dvc pins.
    table = "# segpipe's demo data: `segpipe data demo` writes it, always the same\n" + format_classes(DEMO_CLASSES)
    is_demo = (data_dir / CLASSES_FILE).is_file() and read_bytes(data_dir / CLASSES_FILE, 1 << 20) == table.encode()
    fix = "move your data away, or make the demo in a workspace of its own: segpipe demo"
    with atomic_folder(data_dir, replace=is_demo, fix=fix) as folder:
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
