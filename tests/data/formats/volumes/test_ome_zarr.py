"""OME-Zarr images with label images. The oracle is the arrays that were written with zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.data.images import read_mask
from segpipe.data.images.formats.ome_zarr import read_ome_array, read_ome_image
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import import_source

RNG = np.random.default_rng(3)
LIMITS = DataParams()


def write_image(
    path: Path, array: np.ndarray, axes: str, version: str = "0.4", names: tuple[str, ...] = (), **more: Any
) -> Path:
    """Write a multiscale image with two resolutions, of which the second is all zero."""
    path.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for level in ("0", "1"):
        data = array if level == "0" else np.zeros_like(array)
        group.create_array(level, data=data, chunks=tuple(min(n, 8) for n in array.shape))
    kinds = {"c": "channel", "t": "time"}
    described = [
        {"name": axis, "type": kinds.get(axis, "space"), **({} if axis in kinds else {"unit": "micrometer"})}
        for axis in axes
    ]
    scale = [{"z": 2.0, "y": 0.5, "x": 0.25}.get(axis, 1.0) for axis in axes]
    attributes: dict[str, Any] = {
        "multiscales": [
            {
                "version": version,
                "axes": described,
                "datasets": [
                    {"path": level, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
                    for level in ("0", "1")
                ],
            }
        ],
        **more,
    }
    if names:
        attributes["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs.update(attributes if version == "0.4" else {"ome": {"version": version, **attributes}})
    return path


def add_labels(image: Path, labels: dict[str, np.ndarray], axes: str, version: str = "0.4") -> None:
    group = zarr.open_group(str(image / "labels"), mode="w", zarr_format=2 if version == "0.4" else 3)
    content = {"labels": list(labels)}
    group.attrs.update(content if version == "0.4" else {"ome": content})
    for name, array in labels.items():
        write_image(image / "labels" / name, array, axes, version)


def cells(shape: tuple[int, ...], number: int) -> np.ndarray:
    """Return label ids 1 to `number` in rows."""
    array = np.zeros(shape, np.int32)
    for index in range(number):
        array[..., 2 * index + 1, 2:9] = index + 1
    return array


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "pattern"), [("cyx", "{}.ome.zarr"), ("tczyx", "{}.zarr"), ("cyx", "plate.zarr/A/1/{}")]
)
def test_planes_become_images_with_named_channels(version: str, axes: str, pattern: str, tmp_path: Path) -> None:
    truth = {}
    for number in range(3):
        pixels = RNG.integers(0, 4000, (2, 20, 17)).astype(np.uint16)
        labels = cells((20, 17), 4 + number)
        array = pixels if axes == "cyx" else pixels[None, :, None]
        image = write_image(tmp_path / "src" / pattern.format(number), array, axes, version, ("DAPI", "GFP"))
        stored = labels if axes == "cyx" else labels[None, None, None]
        add_labels(image, {"cells": stored}, "yx" if axes == "cyx" else axes, version)
        truth[number] = (pixels, labels)
    with pytest.raises(UnclearSource, match=r"--kind classes.*--kind instances"):
        import_source(tmp_path / "src", tmp_path / "data")
    report = import_source(tmp_path / "src", tmp_path / "data", read={"kind": "instances"})
    assert (report.format, report.images, report.masks, report.skipped, report.unused) == ("ome-zarr", 3, 3, [], [])
    dataset = load_dataset(tmp_path / "data")
    assert (dataset.channels, dataset.classes.names) == (("DAPI", "GFP"), ["background", "object"])
    for item, (pixels, labels) in zip(dataset.items, truth.values(), strict=True):
        sample = load_sample(item, dataset.classes, LIMITS)
        assert sample.labels is not None and item.mask is not None
        np.testing.assert_array_equal(sample.image, pixels.transpose(1, 2, 0))
        np.testing.assert_array_equal(sample.labels, labels > 0)
        np.testing.assert_array_equal(sample.instances, labels)
        assert sample.image.dtype == np.uint16
    import_source(tmp_path / "src", tmp_path / "data", read={"kind": "classes", "channels": "gfp"}, replace=True)
    item = load_dataset(tmp_path / "data").items[0]
    assert item.mask is not None
    np.testing.assert_array_equal(read_mask(item.mask, LIMITS), truth[0][1])
    sample = load_sample(item, load_dataset(tmp_path / "data").classes, LIMITS)
    np.testing.assert_array_equal(sample.image[..., 0], truth[0][0][1])


@pytest.mark.parametrize("kind", ["classes", "instances"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_stacks_become_volumes(kind: str, version: str, tmp_path: Path) -> None:
    truth = {}
    for number in range(2):
        pixels = RNG.integers(0, 200, (5, 14, 12)).astype(np.uint8)
        truth[f"s{number}"] = (pixels, cells((5, 14, 12), 3))
        image = write_image(tmp_path / "src" / f"s{number}.ome.zarr", pixels, "zyx", version)
        add_labels(image, {"nuclei": truth[f"s{number}"][1]}, "zyx", version)
    report = import_source(tmp_path / "src", tmp_path / "data", read={"kind": kind})
    assert (report.masks, report.skipped, report.unused) == (2, [], [])
    dataset = load_dataset(tmp_path / "data")
    for item in dataset.items:
        sample = load_sample(item, dataset.classes, LIMITS)
        pixels, labels = truth[item.key]
        assert sample.labels is not None
        np.testing.assert_array_equal(sample.image[..., 0], pixels)
        np.testing.assert_array_equal(sample.labels, labels if kind == "classes" else labels > 0)
        if kind == "instances":
            np.testing.assert_array_equal(sample.instances, labels)
        np.testing.assert_allclose(sample.spacing, (0.002, 0.0005, 0.00025), rtol=1e-6)


def test_masks_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for number in range(2):
        write_image(
            tmp_path / "src" / "images" / f"{number}.zarr", RNG.integers(0, 99, (12, 12)).astype(np.uint8), "yx"
        )
        write_image(tmp_path / "src" / "masks" / f"{number}.zarr", cells((12, 12), 1), "yx")
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.masks, report.classes.names, report.unused) == (2, ["background", "foreground"], [])
    assert load_dataset(tmp_path / "data").channels == ()


def test_several_labels_and_other_channels_are_asked_about(tmp_path: Path) -> None:
    for number, names in enumerate([("DAPI", "GFP"), ("GFP", "DAPI"), ("DAPI", "GFP")]):
        pixels = np.stack([np.full((12, 12), 1 + (name == "GFP"), np.uint8) for name in names])
        image = write_image(tmp_path / "src" / f"{number}.zarr", pixels, "cyx", names=names)
        add_labels(image, {"cells": cells((12, 12), 1), "nuclei": cells((12, 12), 1)}, "yx")
    with pytest.raises(UnclearSource, match=r"--label cells.*--label nuclei"):
        import_source(tmp_path / "src", tmp_path / "data")
    import_source(tmp_path / "src", tmp_path / "data", read={"label": "nuclei"})
    dataset = load_dataset(tmp_path / "data")
    for item in dataset.items:  # the channels are in one order
        np.testing.assert_array_equal(load_sample(item, dataset.classes, LIMITS).image[0, 0], [1, 2])
    for read, words in (
        ({"label": "x"}, "--label names labels"),
        ({"channels": "RFP", "label": "cells"}, "no image has"),
    ):
        with pytest.raises(ConfigError, match=words):
            import_source(tmp_path / "src", tmp_path / "data", read=read, replace=True)
    write_image(tmp_path / "src" / "3.zarr", np.zeros((2, 9, 9), np.uint8), "cyx", names=("DAPI", "RFP"))
    with pytest.raises(DataError, match=r"different channels .*DAPI, GFP and DAPI, RFP.*--channels"):
        import_source(tmp_path / "src", tmp_path / "data", read={"label": "cells"}, replace=True)
    report = import_source(
        tmp_path / "src", tmp_path / "data", read={"label": "cells", "channels": "DAPI"}, replace=True
    )
    assert report.images == 3


def test_faults_are_one_line(tmp_path: Path) -> None:
    several = write_image(tmp_path / "t.zarr", np.zeros((2, 9, 9), np.uint8), "tyx")
    order = write_image(tmp_path / "o.zarr", np.zeros((2, 3, 9, 9), np.uint8), "zcyx")
    big = write_image(tmp_path / "b.zarr", np.zeros((200, 90), np.uint8), "yx")
    small_limits = DataParams(max_megapixels=0.01)
    for path, words in ((several, "holds several times"), (order, "unusual order"), (big, "too many pixels")):
        with pytest.raises(DataError, match=words) as error:
            read_ome_array(read_ome_image(path), small_limits)
        assert "\n" not in str(error.value)
    outside = write_image(tmp_path / "out.zarr", np.zeros((9, 9), np.uint8), "yx")
    text = (outside / ".zattrs").read_text().replace('"path": "0"', '"path": "../b.zarr/0"')
    (outside / ".zattrs").write_text(text)
    with pytest.raises(DataError, match="outside its folder"):
        read_ome_image(outside)
    (outside / ".zattrs").write_text('{"multiscales": [3]}')
    with pytest.raises(DataError, match="cannot be decoded"):
        read_ome_image(outside)
    cut = write_image(tmp_path / "c.zarr", RNG.integers(0, 9, (9, 9)).astype(np.uint8), "yx")
    chunk = next(path for path in cut.glob("0/*") if path.name in ("0", "0.0"))
    file = chunk if chunk.is_file() else next(path for path in chunk.rglob("*") if path.is_file())
    file.write_bytes(b"broken")
    with pytest.raises(DataError, match="cannot be decoded"):
        read_ome_array(read_ome_image(cut), LIMITS)
