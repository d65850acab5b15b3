"""The real datasets come in by themselves, with what their authors say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.images import read_mask
from segpipe.data.importer import ImportOptions, import_dataset

from tests.worlds.small_datasets import LIMITS

CELL_PARTS = ["background", "cytoplasm", "nucleus"]


@pytest.mark.parametrize(
    ("name", "options", "format", "images", "masks", "classes"),
    [
        ("camvid", {"ignore": [11]}, "paired-list", 204, 204, {0: "background", 10: "class 10"}),
        ("em_membranes", {"classes": ["cell=255", "membrane=0"]}, "folder", 30, 30, {255: "cell", 0: "membrane"}),
        ("wbc/dataset1", {"classes": CELL_PARTS}, "folder", 300, 300, {0: "background", 128: "cytoplasm", 255: "nucleus"}),
        ("wbc/dataset2", {"classes": CELL_PARTS}, "folder", 50, 50, {0: "background", 128: "cytoplasm", 255: "nucleus"}),
        ("hippocampus", {"classes": ["background", "anterior", "posterior"]}, "volumes", 200, 200, {1: "anterior"}),
        ("nuclei", {}, "coco", 211, 211, {0: "background", 1: "nucleus"}),
    ],
)
def test_each_is_recognised(
    shared_data: Path, tmp_path: Path, name: str, options: dict, format: str, images: int, masks: int, classes: dict
) -> None:
    report = import_dataset(shared_data / name, tmp_path / "data", "auto", ImportOptions.model_validate(options))
    assert (report.format, report.images, report.masks) == (format, images, masks)
    assert {(spec.value, spec.name) for spec in report.classes.classes} >= {*classes.items()}
    assert [name for name, _ in report.skipped] == (["test/image/"] if name == "em_membranes" else [])
    assert len([item for item in load_dataset(tmp_path / "data").items if item.mask]) == masks


def test_the_class_order_of_membranes_is_the_users(shared_data: Path, tmp_path: Path) -> None:
    options = ImportOptions(classes=["cell=255", "membrane=0"])
    import_dataset(shared_data / "em_membranes", tmp_path / "data", "auto", options)
    dataset = load_dataset(tmp_path / "data")
    item = next(item for item in dataset.items if item.key == "7")
    labels = load_sample(item, dataset.classes, LIMITS).labels
    stored = np.asarray(Image.open(shared_data / "em_membranes" / "train" / "label" / "7.png"))
    np.testing.assert_array_equal(labels, stored == 0)
    assert dataset.classes.names == ["cell", "membrane"]


def test_label_maps_and_coco_of_nuclei_are_the_same_objects(shared_data: Path, tmp_path: Path) -> None:
    sets = {}
    for format in ("label-maps", "coco"):
        import_dataset(shared_data / "nuclei", tmp_path / format / "data", format, ImportOptions())
        sets[format] = {item.key: item for item in load_dataset(tmp_path / format / "data").items}
    assert sets["label-maps"].keys() == sets["coco"].keys()
    for key, ours in sets["label-maps"].items():
        theirs = sets["coco"][key]
        assert ours.mask and theirs.mask and ours.instances and theirs.instances
        np.testing.assert_array_equal(read_mask(ours.mask, LIMITS), read_mask(theirs.mask, LIMITS))
        pair = read_mask(ours.instances, LIMITS).astype(np.int64) << 16 | read_mask(theirs.instances, LIMITS)
        numbers = np.unique(pair)
        assert len(numbers) == len(np.unique(numbers >> 16)) == len(np.unique(numbers & 0xFFFF))
