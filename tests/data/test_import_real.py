"""Real datasets are recognised and imported with the numbers that their authors publish."""

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
        (
            "wbc/dataset1",
            {"classes": CELL_PARTS},
            "folder",
            300,
            300,
            {0: "background", 128: "cytoplasm", 255: "nucleus"},
        ),
        (
            "wbc/dataset2",
            {"classes": CELL_PARTS},
            "folder",
            50,
            50,
            {0: "background", 128: "cytoplasm", 255: "nucleus"},
        ),
        ("hippocampus", {"classes": ["background", "anterior", "posterior"]}, "volumes", 200, 200, {1: "anterior"}),
        ("nuclei", {}, "coco", 211, 211, {0: "background", 1: "nucleus"}),
    ],
)
def test_real_datasets_are_recognised(
    shared_data: Path, tmp_path: Path, name: str, options: dict, format: str, images: int, masks: int, classes: dict
) -> None:
    report = import_dataset(shared_data / name, tmp_path / "data", "auto", ImportOptions.model_validate(options))
    assert (report.format, report.images, report.masks) == (format, images, masks)
    assert {(spec.value, spec.name) for spec in report.classes.classes} >= {*classes.items()}
    assert [name for name, _ in report.skipped] == (["test/image/"] if name == "em_membranes" else [])
    assert len([item for item in load_dataset(tmp_path / "data").items if item.mask]) == masks


def test_the_user_decides_the_class_order_of_membranes(shared_data: Path, tmp_path: Path) -> None:
    options = ImportOptions(classes=["cell=255", "membrane=0"])
    import_dataset(shared_data / "em_membranes", tmp_path / "data", "auto", options)
    dataset = load_dataset(tmp_path / "data")
    item = next(item for item in dataset.items if item.key == "7")
    labels = load_sample(item, dataset.classes, LIMITS).labels
    stored = np.asarray(Image.open(shared_data / "em_membranes" / "train" / "label" / "7.png"))
    np.testing.assert_array_equal(labels, stored == 0)
    assert dataset.classes.names == ["cell", "membrane"]


def test_label_maps_and_coco_of_nuclei_are_the_same_instances(shared_data: Path, tmp_path: Path) -> None:
    items = {}
    for format in ("label-maps", "coco"):
        import_dataset(shared_data / "nuclei", tmp_path / format / "data", format, ImportOptions())
        items[format] = {item.key: item for item in load_dataset(tmp_path / format / "data").items}
    assert items["label-maps"].keys() == items["coco"].keys()
    for key, from_map in items["label-maps"].items():
        from_coco = items["coco"][key]
        assert from_map.mask and from_coco.mask and from_map.instances and from_coco.instances
        np.testing.assert_array_equal(read_mask(from_map.mask, LIMITS), read_mask(from_coco.mask, LIMITS))
        pairs = read_mask(from_map.instances, LIMITS).astype(np.int64) << 16 | read_mask(from_coco.instances, LIMITS)
        pairs = np.unique(pairs)
        assert len(pairs) == len(np.unique(pairs >> 16)) == len(np.unique(pairs & 0xFFFF))
