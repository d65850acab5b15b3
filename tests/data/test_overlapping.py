"""Overlapping classes: folders of masks, COCO, sums of bits, and the errors of layouts without overlap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.exporters.registry import export_dataset
from segpipe.data.formats.source import ReadOptions
from segpipe.data.images import encode_nifti, encode_png
from segpipe.data.importer import ImportOptions, ImportReport, import_dataset
from segpipe.data.manifest.describe import describe_item
from segpipe.errors import ConfigError, DataError
from segpipe.samples import IGNORE

LIMITS = DataParams()
CELL = np.zeros((12, 16), bool)
CELL[2:10, 3:13] = True
NUCLEUS = np.zeros_like(CELL)
NUCLEUS[4:7, 5:9] = True
SMUDGE = np.zeros_like(CELL)
SMUDGE[0:3, 12:16] = True
"""Overlaps the corner of the cell by one pixel."""


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(array.astype(np.uint8) * 255 if array.dtype == bool else array))


def import_source(source: Path, data: Path, format: str = "auto", **more: object) -> ImportReport:
    read = ReadOptions(overlapping=bool(more.pop("overlapping", True)) or None)
    return import_dataset(source, data, format, ImportOptions(read=read, **more), jobs=1)


def labels_of(data: Path, key: str = "a") -> tuple[list[str], np.ndarray]:
    dataset = load_dataset(data)
    item = next(item for item in dataset.items if item.key == key)
    labels = load_sample(item, dataset.classes, LIMITS).labels
    assert labels is not None
    return dataset.classes.names, labels


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    source = tmp_path / "folders"
    for key in "abc":
        write_png(source / "images" / f"{key}.png", np.full((12, 16, 3), 7, np.uint8))
        write_png(source / "masks" / "cell" / f"{key}.png", CELL)
    write_png(source / "masks" / "nucleus" / "a.png", NUCLEUS)
    write_png(source / "masks" / "ignore" / "a.png", SMUDGE)
    return source


def test_folders_of_masks(folders: Path, tmp_path: Path) -> None:
    report = import_source(folders, tmp_path / "data")
    assert report.format == "mask-per-class" and report.masks == 3
    names, labels = labels_of(tmp_path / "data")
    assert names == ["background", "cell", "nucleus"]
    expected = np.where(SMUDGE, IGNORE, CELL + 2 * NUCLEUS)
    np.testing.assert_array_equal(labels, expected)
    assert "overlapping: true" in (tmp_path / "data" / "dataset.yaml").read_text()
    np.testing.assert_array_equal(labels_of(tmp_path / "data", "b")[1], CELL)


def test_folders_of_masks_need_the_option(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--overlapping"):
        import_source(folders, tmp_path / "data", overlapping=False)


def test_a_mask_of_another_size_is_left_out(folders: Path, tmp_path: Path) -> None:
    write_png(folders / "masks" / "nucleus" / "b.png", NUCLEUS[1:])
    report = import_source(folders, tmp_path / "data")
    assert report.masks == 2 and "not the size" in report.skipped[0][1]


def write_coco(source: Path) -> None:
    write_png(source / "images" / "a.png", np.full((12, 16, 3), 7, np.uint8))

    def box(top: int, bottom: int, left: int, right: int) -> list[list[int]]:
        return [[left, top, right, top, right, bottom, left, bottom]]

    boxes = [(1, box(2, 10, 3, 13)), (2, box(4, 7, 5, 9))]
    (source / "instances.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 16, "height": 12}],
                "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "nucleus"}],
                "annotations": [
                    {"id": n, "image_id": 1, "category_id": c, "iscrowd": 0, "segmentation": s}
                    for n, (c, s) in enumerate(boxes)
                ],
            }
        )
    )


def test_coco_annotations_that_overlap_keep_all_pixels(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    report = import_source(tmp_path / "coco", tmp_path / "data")
    names, labels = labels_of(tmp_path / "data")
    assert report.format == "coco" and names == ["background", "cell", "nucleus"]
    np.testing.assert_array_equal(labels, CELL + 2 * NUCLEUS)
    assert not (tmp_path / "data" / "instances").exists()
    import_source(tmp_path / "coco", tmp_path / "plain", overlapping=False)
    np.testing.assert_array_equal(labels_of(tmp_path / "plain")[1], np.where(NUCLEUS, 2, CELL))


@pytest.mark.parametrize(("dtype", "all_bits"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize(
    "names", [None, ["cell", "nucleus"], ["background", "cell", "nucleus"], ["cell=1", "nucleus=4"]]
)
def test_sums_of_bits(tmp_path: Path, dtype: type, all_bits: int, names: list[str] | None) -> None:
    mask = (CELL + 4 * NUCLEUS if names and "=" in names[0] else CELL + 2 * NUCLEUS).astype(dtype)
    mask[SMUDGE] = all_bits
    for key in "abc":
        write_png(tmp_path / "source" / "images" / f"{key}.png", np.full((12, 16, 3), 7, np.uint8))
        write_png(tmp_path / "source" / "masks" / f"{key}.png", mask)
    import_source(tmp_path / "source", tmp_path / "data", "folder", classes=names)
    class_names, labels = labels_of(tmp_path / "data")
    assert class_names == ["background", *(["class 1", "class 2"] if names is None else ["cell", "nucleus"])]
    np.testing.assert_array_equal(labels, np.where(SMUDGE, IGNORE, CELL + 2 * NUCLEUS))


def test_bits_without_a_name_are_an_error(tmp_path: Path) -> None:
    write_png(tmp_path / "source" / "images" / "a.png", np.full((12, 16, 3), 7, np.uint8))
    write_png(tmp_path / "source" / "masks" / "a.png", (CELL + 8 * NUCLEUS).astype(np.uint8))
    with pytest.raises(ConfigError, match="bits without a name"):
        import_source(tmp_path / "source", tmp_path / "data", "folder", classes=["cell", "nucleus"])


def test_volumes_of_bits(tmp_path: Path) -> None:
    for folder, array in (
        ("images", np.zeros((4, 12, 16, 1), np.uint8)),
        ("labels", np.stack([CELL + 2 * NUCLEUS] * 4)),
    ):
        (tmp_path / "source" / folder).mkdir(parents=True)
        (tmp_path / "source" / folder / "a.nii.gz").write_bytes(encode_nifti(array.astype(np.uint8)))
    import_source(tmp_path / "source", tmp_path / "data", "volumes", classes=["whole", "core"])
    np.testing.assert_array_equal(labels_of(tmp_path / "data")[1][2], CELL + 2 * NUCLEUS)


def test_layouts_with_one_class_per_pixel_refuse_the_option(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--overlapping is not used by the layout voc.*mask-per-class"):
        import_source(folders, tmp_path / "data", "voc")
    import_source(folders, tmp_path / "data")
    with pytest.raises(ConfigError, match=r"voc cannot store.*coco or folder or mask-per-class"):
        export_dataset(load_dataset(tmp_path / "data"), tmp_path / "out", "voc", LIMITS)


def test_a_table_without_overlap_is_not_overruled(folders: Path, tmp_path: Path) -> None:
    import_source(folders, tmp_path / "data")
    table = tmp_path / "data" / "dataset.yaml"
    table.write_text(table.read_text().replace("overlapping: true", ""))
    with pytest.raises(ConfigError, match="do not overlap"):
        import_source(tmp_path / "data", tmp_path / "again", "folder")


def test_instances_are_refused(folders: Path, tmp_path: Path) -> None:
    import_source(folders, tmp_path / "data")
    write_png(tmp_path / "data" / "instances" / "a.png", np.zeros((12, 16), np.uint16))
    with pytest.raises(DataError, match="a dataset with overlapping classes cannot have instances"):
        load_dataset(tmp_path / "data")


def test_the_manifest_counts_every_class(folders: Path, tmp_path: Path) -> None:
    import_source(folders, tmp_path / "data")
    mask = tmp_path / "data" / "masks" / "a.png"
    stored = (CELL + 2 * NUCLEUS).astype(np.uint8)
    stored[SMUDGE], stored[11, 0] = 255, 64
    mask.write_bytes(encode_png(stored))
    dataset = load_dataset(tmp_path / "data")
    row = describe_item(dataset.items[0], dataset.root, dataset.classes, LIMITS)
    cell = int((CELL & ~SMUDGE).sum())
    assert row["class_pixels"] == [CELL.size - cell - int(SMUDGE.sum()) - 1, cell, int(NUCLEUS.sum())]
    assert row["ignored_pixels"] == SMUDGE.sum() and row["unknown_values"] == '{"64": 1}'
    assert row["smallest_component"] == NUCLEUS.sum(), "the nucleus, and not the ring around it"
