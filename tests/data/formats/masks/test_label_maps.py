"""Masks of instance ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo, save, values


def write_label_maps(source: Path, counts: dict[str, int], dtype: type = np.uint16) -> dict[str, np.ndarray]:
    """Write images and masks with instance ids 0 .. n; return the masks."""
    masks = {}
    for name, count in counts.items():
        photo(source / "images" / f"{name}.png")
        masks[name] = np.resize(np.arange(count + 1, dtype=dtype), (HEIGHT, WIDTH))
        save(source / "masks" / f"{name}.png", masks[name])
    return masks


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_instance_ids_are_recognised_and_kept(source: Path, data: Path, dtype: type) -> None:
    masks = write_label_maps(source, {"a": 40, "b": 3, "c": 190, "d": 1}, dtype)
    report = import_source(source, data, classes=["nucleus"])
    assert report.format == "label-maps"
    assert report.classes.names == ["background", "nucleus"]
    for key, item in items(data).items():
        np.testing.assert_array_equal(mask_of(item), masks[key] > 0)
        np.testing.assert_array_equal(instances_of(item), masks[key])


def test_gaps_are_allowed_if_the_layout_is_named(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    ids = values(1, [0, 3, 900, 65535], np.uint16)
    save(source / "masks" / "a.png", ids)
    report = import_source(source, data, "label-maps")
    assert report.classes.names == ["background", "object"]
    np.testing.assert_array_equal(instances_of(items(data)["a"]), ids)


def test_a_few_classes_are_not_instances(source: Path, data: Path) -> None:
    for index in range(6):
        photo(source / "images" / f"{index}.png")
        save(source / "masks" / f"{index}.png", values(index, [*range(index + 1)], np.uint16))
    assert import_source(source, data).format == "folder"


def test_a_mask_of_another_size_is_left_out(source: Path, data: Path) -> None:
    write_label_maps(source, {"a": 40, "b": 3})
    save(source / "masks" / "b.png", np.zeros((HEIGHT, WIDTH + 1), np.uint16))
    report = import_source(source, data, "label-maps", unlabelled="keep")
    assert [(Path(name).name, "26 x 18, expected 25 x 18" in reason) for name, reason in report.skipped] == [
        ("b.png", True)
    ]
    assert items(data)["b"].mask is None


def test_nuclei(shared_data: Path, data: Path) -> None:
    report = import_source(
        shared_data / "nuclei", data, read={"images": "images", "masks": "masks"}, classes=["nucleus"]
    )
    assert (report.format, report.images, report.masks, report.skipped) == ("label-maps", 211, 211, [])
    for key, item in [*items(data).items()][::40]:
        ids = instances_of(item)
        assert item.mask is not None
        np.testing.assert_array_equal(mask_of(item), ids > 0)
        np.testing.assert_array_equal(ids, _read(shared_data / "nuclei" / "masks" / f"{key}.png"))


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path))
