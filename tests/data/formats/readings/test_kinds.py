"""What masks stand for is judged from their pixels: each kind of fault that was reported, and four siblings of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segpipe.data.formats.readings.choose import UnclearSource
from tests.worlds.layouts import import_source, items, mask_of, save

SIZE = (72, 96)
COUNT = 12
Mask = Callable[[int], np.ndarray]


def blank(dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(SIZE, dtype)


def boxes(number: int, seed: int, dtype: type = np.uint8) -> np.ndarray:
    """Return `number` separate boxes with the values 1, 2 ... at random places of a grid."""
    mask = blank(dtype)
    places = np.random.default_rng(seed).permutation(48)[:number]
    for value, place in enumerate(places, start=1):
        y, x = divmod(int(place), 8)
        mask[12 * y + 2 : 12 * y + 9, 12 * x + 2 : 12 * x + 9] = value
    return mask


def disc(seed: int, value: int = 255) -> np.ndarray:
    mask = blank()
    y, x = np.random.default_rng(seed).integers(24, 44, 2).tolist()
    cv2.circle(mask, (x + 10, y), 18, value, -1)
    return mask


def write(source: Path, mask: Mask, count: int = COUNT, ending: str = ".png", image: Mask | None = None) -> None:
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        save(source / "images" / f"{number:02d}.png", noise if image is None else image(number))
        target = source / "masks" / f"{number:02d}{ending}"
        target.parent.mkdir(exist_ok=True)
        array = mask(number)
        if ending == ".tif":
            tifffile.imwrite(target, array)
        else:
            Image.fromarray(array).save(target, **({"quality": 75} if ending == ".jpg" else {}))


def as_jpeg(mask: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


INSTANCES: dict[str, Mask] = {
    "up to 20 objects, 16 bits": lambda n: boxes(8 + n, n, np.uint16),
    "up to 20 objects, 8 bits": lambda n: boxes(8 + n, n),
    "up to 5 objects, 8 bits": lambda n: boxes(1 + n % 5, n),
    "always 4 objects, 16 bits": lambda n: boxes(4, n, np.uint16),
    "objects without gaps, touching": lambda n: (
        np.repeat(np.repeat(np.arange(1, 1 + (n + 2) * 4, dtype=np.uint8).reshape(n + 2, 4), 72 // (n + 2), 0), 24, 1)
        if 72 % (n + 2) == 0
        else boxes(5 + n, n)
    ),
}


@pytest.mark.parametrize("name", INSTANCES)
def test_ids_of_few_instances_are_not_classes(source: Path, data: Path, name: str) -> None:
    write(source, INSTANCES[name])
    report = import_source(source, data)
    assert (report.format, report.reading.kind) == ("label-maps", "instances")
    assert report.classes.names == ["background", "object"]
    assert set(np.unique(mask_of(items(data)["03"])).tolist()) <= {0, 1}


@pytest.mark.parametrize("name", ["always 4 objects, 16 bits", "up to 5 objects, 8 bits"])
@pytest.mark.parametrize("every", [2, 3, 11])
def test_grey_images_among_colour_images_are_compared(source: Path, data: Path, name: str, every: int) -> None:
    def image(number: int) -> np.ndarray:
        noise = np.random.default_rng(number).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        return noise[..., 0] if number % every == 0 else noise

    write(source, INSTANCES[name], image=image)
    report = import_source(source, data)
    assert report.reading.kind == "instances"
    assert report.images == COUNT


def coloured(mask: Mask) -> Mask:
    """Return images in which each value has its own colour."""
    return lambda number: np.stack([mask(number) * 60 + 20, 250 - mask(number) * 50, mask(number) * 10 + 5], 2).astype(
        np.uint8
    )


def scattered(number: int) -> np.ndarray:
    """Return classes 1 to 4 in several parts each."""
    mask = boxes(20, number)
    return np.where(mask > 0, mask % 4 + 1, 0).astype(np.uint8)


def nested(number: int) -> np.ndarray:
    """Return a disc (1) with a cup (2), as in fundus images."""
    mask = disc(number, 1)
    rows, columns = np.nonzero(mask)
    cv2.circle(mask, (int(columns.mean()), int(rows.mean())), 7, 2, -1)
    return mask


CLASSES: dict[str, tuple[Mask, Mask | None]] = {
    "several parts each": (scattered, None),
    "one part each, of the same colour": (nested, coloured(nested)),
    "one part each, absent now and then": (
        lambda n: np.where(boxes(4, 7) == (n % 4) + 1, 0, boxes(4, 7)).astype(np.uint8),
        None,
    ),
    "one object an image": (lambda n: disc(n, 1), None),
    "0 and 255": (disc, None),
}


@pytest.mark.parametrize("name", CLASSES)
def test_class_values_are_not_instance_ids(source: Path, data: Path, name: str) -> None:
    mask, image = CLASSES[name]
    write(source, mask, image=image)
    report = import_source(source, data)
    assert (report.format, report.reading.kind) == ("folder", "classes")
    np.testing.assert_array_equal(mask_of(items(data)["03"]), mask(3))


def test_where_both_readings_fit_the_user_is_asked_and_the_advice_works(source: Path, data: Path) -> None:
    write(source, lambda n: boxes(3, n))
    with pytest.raises(UnclearSource) as caught:
        import_source(source, data)
    assert caught.value.exit_code == 3
    commands = [reading.command("segpipe data import SRC") for reading in caught.value.readings]
    assert commands == [
        "segpipe data import SRC --format label-maps",
        "segpipe data import SRC --format folder --kind classes",
    ]
    assert all(f"`{r.command(caught.value.prefix)}`" in str(caught.value) for r in caught.value.readings)
    assert import_source(source, data, "label-maps").classes.names == ["background", "object"]
    plain = import_source(source, data, "folder", read={"kind": "classes"}, replace=True)
    assert [spec.value for spec in plain.classes.classes] == [0, 1, 2, 3]
    assert import_source(source, data, yes=True, replace=True).format == "label-maps"
    named = import_source(source, data, classes=["background", "a", "b", "c"], replace=True)
    assert named.format == "folder"


LOSSY: dict[str, tuple[Mask, str]] = {
    "JPEG files": (disc, ".jpg"),
    "JPEG files of low quality, saved as PNG": (lambda n: as_jpeg(disc(n), 40), ".png"),
    "JPEG files in RGB": (lambda n: np.dstack([disc(n)] * 3), ".jpg"),
    "smoothed edges": (lambda n: cv2.GaussianBlur(disc(n), (0, 0), 1.0), ".png"),
    "resized with interpolation": (
        lambda n: cv2.resize(disc(n)[::2, ::2], SIZE[::-1], interpolation=cv2.INTER_LINEAR),
        ".png",
    ),
}


@pytest.mark.parametrize("name", LOSSY)
def test_masks_with_lossy_edges_have_two_classes(source: Path, data: Path, name: str) -> None:
    mask, ending = LOSSY[name]
    write(source, mask, ending=ending)
    report = import_source(source, data)
    assert report.reading.kind == "binary"
    assert report.reading.options["threshold"] in range(120, 136)
    assert [spec.value for spec in report.classes.classes] == [0, 255]
    written, truth = mask_of(items(data)["03"]), disc(3)
    assert (written != truth).mean() < 0.03
    edges = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    assert not (written != truth)[~edges].any()


def test_threshold_is_exact_and_may_be_given(source: Path, data: Path) -> None:
    write(source, lambda n: np.tile(np.arange(96, dtype=np.uint8), (72, 1)))
    report = import_source(source, data, read={"threshold": 40})
    assert report.reading.kind == "binary"
    np.testing.assert_array_equal(mask_of(items(data)["00"]), np.where(np.arange(96) >= 40, 255, 0) * np.ones((72, 1)))


def test_jpeg_masks_of_three_levels_are_asked_about(source: Path, data: Path) -> None:
    write(source, lambda n: np.maximum(disc(n), disc(n + 5, 128)), ending=".jpg")
    with pytest.raises(UnclearSource, match=r"no reading is clear.*JPEG files, which change values.*--threshold"):
        import_source(source, data)


def test_shares_are_divided_at_one_half(source: Path, data: Path) -> None:
    write(source, lambda n: cv2.GaussianBlur(disc(n).astype(np.float32) / 255, (0, 0), 0.6), ending=".tif")
    report = import_source(source, data)
    assert report.reading.options == {"threshold": 0.5}
    assert (mask_of(items(data)["02"]) != disc(2)).mean() < 0.02


def bordered(number: int, void: int = 255, width: int = 2) -> np.ndarray:
    mask = blank()
    mask[46:70, 2:40] = 2
    mask[disc(number, 1) > 0] = 1
    contour = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((width + 1, width + 1), np.uint8)) > 0
    return np.where(contour, void, mask).astype(np.uint8)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_255_along_borders_is_ignored_and_said(source: Path, data: Path, width: int) -> None:
    write(source, lambda n: bordered(n, width=width))
    report = import_source(source, data)
    assert report.classes.ignore == (255,)
    assert any("looks like a void border (--ignore 255)" in line for line in report.lines())
    kept = import_source(source, data, "folder", read={"kind": "classes"}, replace=True)
    assert [spec.value for spec in kept.classes.classes] == [0, 1, 2, 255]


def test_regions_of_255_are_asked_about(source: Path, data: Path) -> None:
    write(source, lambda n: np.where(np.arange(96) > 80, 255, bordered(n, 0)).astype(np.uint8))
    with pytest.raises(UnclearSource, match=r"more than one reading.*--ignore 255.*--kind classes"):
        import_source(source, data)
    assert import_source(source, data, "folder", ignore=[255]).classes.ignore == (255,)


def test_a_foreground_that_is_1_in_some_masks_and_255_in_others_is_asked_about(source: Path, data: Path) -> None:
    write(source, lambda n: disc(n, 255 if n % 2 else 1))
    with pytest.raises(UnclearSource, match=r"1 and 255 never occur in the same mask.*--threshold 1`"):
        import_source(source, data)
    import_source(source, data, read={"threshold": 1})
    np.testing.assert_array_equal(mask_of(items(data)["04"]), disc(4))


def indexed(mask: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([part for colour in colours for part in colour])
    return image


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)
PALETTES = {
    "two colours, swapped": ([BLACK, WHITE], [WHITE, BLACK]),
    "three colours, rotated": ([BLACK, RED, BLUE], [BLUE, BLACK, RED]),
    "another order of two classes": ([BLACK, RED, BLUE], [BLACK, BLUE, RED]),
}


@pytest.mark.parametrize("name", PALETTES)
def test_colours_decide_where_palettes_differ(source: Path, data: Path, name: str) -> None:
    first, second = PALETTES[name]
    write(source, disc)
    for number in range(COUNT):
        palette = second if number % 2 else first
        picture = np.array(first, np.uint8)[(boxes(6, number) % len(first))]
        codes = [palette.index(tuple(c)) for c in picture.reshape(-1, 3).tolist()]
        indices = np.array(codes, np.uint8).reshape(SIZE)
        indexed(indices, palette).save(source / "masks" / f"{number:02d}.png")
    report = import_source(source, data)
    assert (report.format, report.reading.options) == ("colour-masks", {"palette": "stored"})
    assert report.classes.names[0] == "background"
    for number in (0, 1):
        truth = (boxes(6, number) % len(first)) > 0
        np.testing.assert_array_equal(mask_of(items(data)[f"{number:02d}"]) > 0, truth)


def test_equal_palettes_are_class_values(source: Path, data: Path) -> None:
    write(source, disc)
    for number in range(COUNT):
        indexed(scattered(number), [BLACK, RED, BLUE, WHITE, (0, 255, 0)]).save(source / "masks" / f"{number:02d}.png")
    assert import_source(source, data).reading.kind == "classes"


@pytest.mark.parametrize(("every", "values"), [(1, (0, 255)), (2, (0, 255)), (3, (0, 255)), (1, (0, 2))])
def test_labels_in_alpha_are_used_where_only_alpha_varies(
    source: Path, data: Path, every: int, values: tuple[int, int]
) -> None:
    write(source, lambda n: disc(n, values[1]))
    for number in range(0, COUNT, every):
        alpha = disc(number, values[1])
        array = np.dstack([np.zeros((*SIZE, 3), np.uint8), alpha])
        Image.fromarray(array, "RGBA").save(source / "masks" / f"{number:02d}.png")
    report = import_source(source, data)
    assert report.reading.kind == "alpha"
    for number in (0, 1):
        np.testing.assert_array_equal(mask_of(items(data)[f"{number:02d}"]), disc(number, values[1]))


def test_an_opaque_alpha_channel_says_nothing(source: Path, data: Path) -> None:
    write(source, disc)
    for number in range(COUNT):
        array = np.dstack([disc(number)] * 3 + [np.full(SIZE, 255, np.uint8)])
        Image.fromarray(array, "RGBA").save(source / "masks" / f"{number:02d}.png")
    assert import_source(source, data).reading.kind == "classes"


def test_the_commands_for_ignored_values_keep_those_that_the_user_ignores_and_the_kind(
    source: Path, data: Path
) -> None:
    def mask(number: int) -> np.ndarray:
        return np.where(np.arange(96) > 80, 255, bordered(number, 0)).astype(np.uint8)

    write(source, lambda n: np.where(np.arange(96) < 10, 3, mask(n)).astype(np.uint8))
    with pytest.raises(UnclearSource) as caught:
        import_source(source, data, ignore=[3])
    first, second = (
        reading.command("segpipe data import SRC --ignore 3 --group a") for reading in caught.value.readings
    )
    assert first == "segpipe data import SRC --group a --format folder --kind classes --ignore 3,255"
    assert second == "segpipe data import SRC --ignore 3 --group a --format folder --kind classes"
    report = import_source(source, data, "folder", ignore=[3, 255], read={"kind": "classes"})
    assert report.classes.ignore == (3, 255) and report.reading.kind == "classes"


def test_rare_classes_beside_a_large_region_of_255_are_not_taken_for_soft_edges(source: Path, data: Path) -> None:
    write(source, lambda n: np.where(np.arange(96) > 60, 255, boxes(5, n)).astype(np.uint8))
    with pytest.raises(UnclearSource) as caught:
        import_source(source, data)
    assert [reading.kind for reading in caught.value.readings] == ["classes", "classes"]


def test_masks_that_are_all_large_files_are_looked_at(
    source: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.data.formats.readings.mask_kinds._MAX_SAMPLE_BYTES", 1)
    write(source, lambda n: boxes(33 + n, n, np.uint16), ending=".tif")
    assert import_source(source, data).reading.kind == "instances"
