"""Small inputs after public reports of misread datasets: each gives its right answer, or an error that says what to do."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from segpipe.config import DataParams, SplitParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.exporters.registry import export_dataset
from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.data.images import read_image, read_mask
from segpipe.data.importer import ImportReport
from segpipe.data.manifest.build import build_manifest
from segpipe.errors import DataError
from segpipe.samples import Sample
from tests.worlds.layouts import LIMITS, import_source, items, mask_of

Read = Callable[..., ImportReport]
CASES = Path(__file__).resolve().parents[4] / "shared" / "cases"


@pytest.fixture
def cases() -> Path:
    """The folder of the cases. The test is skipped where it is absent."""
    if not CASES.is_dir():
        pytest.skip("the reported cases (../shared/cases) are not on this machine")
    return CASES


@pytest.fixture
def read(cases: Path, data: Path) -> Read:
    """A function that imports a case."""
    return lambda case, **options: import_source(cases / case, data, **options)


def pixels(data: Path) -> list[int]:
    """Return the pixels of each value in all masks together."""
    return sum(np.bincount(mask_of(item).ravel(), minlength=256) for item in items(data).values()).tolist()


@pytest.mark.parametrize(
    ("case", "layout", "kind", "names"),
    [
        ("W02_palette_order_per_file", "colour-masks", "colours", ["background", "foreground"]),
        ("W04_voc_background_not_first", "voc", None, ["background", "cat", "dog"]),
        ("W05_jpeg_masks", "folder", "binary", ["background", "foreground"]),
        ("W10_ultralytics_yaml_beside_masks", "folder", "classes", ["background", "class 1"]),
        ("W14_label_maps_of_few_objects", "label-maps", "instances", ["background", "object"]),
        ("W18_labels_in_alpha", "folder", "alpha", ["background", "foreground"]),
        ("W21_void_255", "folder", "classes", ["background", "class 1", "class 2"]),
        ("M01b_string_category_ids", "coco", None, ["background", "part"]),
        ("M03_suffix_advice", "folder", "classes", ["background", "foreground"]),
        ("M05_flat_masks_nested_images", "folder", "classes", ["background", "foreground"]),
        ("W07_yolo_labels_beside_images", "yolo-seg", None, ["background", "cell"]),
        ("W11_coco_normalised_polygons", "coco", None, ["background", "part"]),
        ("X01_labelstudio_windows_paths", "coco", None, ["background", "part"]),
        ("M08_oxford_trimaps", "folder", "classes", ["background", "foreground"]),
        ("X11_carvana_gif", "paired-names", "classes", ["background", "class 1"]),
        ("X12_cvat_camvid", "paired-names", "colours", ["background", "road"]),
        ("X03_labelstudio_yolo", "yolo-seg", None, ["background", "cell", "nucleus"]),
        ("X04_roboflow_semantic_masks", "roboflow-masks", None, ["background", "leaf"]),
        ("X05_labelme_ai_mask", "labelme", None, ["background", "nucleus"]),
        ("X06_labelme_other_folder", "labelme", None, ["background", "cell"]),
        ("X07_prefix_names", "folder", "classes", ["background", "foreground"]),
        ("X10_cvat_xml", "cvat", None, ["background", "leaf"]),
        ("X10c_geojson", "geojson", None, ["background", "Tumor"]),
        ("X13_coco_no_size", "coco", None, ["background", "part"]),
        ("X08_brats", "cases", None, ["background", "class 1", "class 2"]),
        ("M04_npy_alone", "folder", "classes", ["background", "foreground"]),
        ("M07_nifti_4d_label", "volumes", None, ["background", "class 1", "class 2"]),
        ("T04_other_voxel_order/src", "volumes", None, ["background", "class 1", "class 2"]),
        ("T04b_mixed_voxel_order", "volumes", None, ["background", "class 1", "class 2"]),
        ("W19_nifti_sform_pixdim", "volumes", None, ["background", "class 1", "class 2"]),
        ("W20_geotiff_nodata", "folder", "classes", ["background", "class 1", "class 2"]),
    ],
)
def test_the_right_answer(read: Read, data: Path, case: str, layout: str, kind: str | None, names: list[str]) -> None:
    report = read(case)
    assert (report.format, report.reading.kind, report.classes.names) == (layout, kind, names)
    assert report.masks == report.images > 0
    counts = pixels(data)
    assert all(counts[spec.value] > 0 for spec in report.classes.classes)
    assert counts[report.classes.classes[0].value] == max(counts)


@pytest.mark.parametrize("case", ["X10_cvat_xml", "X10c_geojson"])
def test_pixels_of_annotation_tools(read: Read, data: Path, case: str) -> None:
    report = read(case)
    assert report.images == 12
    assert report.skipped == []
    for item in items(data).values():
        mask = mask_of(item)
        assert (mask[10:30, 12:40] == 1).all()
        assert int(mask.sum()) == 20 * 28


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("W01_all_iscrowd", "all annotations are crowds.*12 annotations"),
        ("W09_yolo_no_labels", "none of them has a label file"),
        ("M12_coco_linked_images", r"images: is a link that was saved as a text file.*core\.symlinks"),
        ("W06_yolo_symlinks", r"is a link that was saved as a text file.*core\.symlinks"),
        ("T07_faulty_dataset_yaml", r"dataset\.yaml.*expected at least 2"),
    ],
)
def test_the_error_says_what_is_wrong(read: Read, data: Path, case: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(case)
    assert not data.exists()


def test_masks_beside_turned_images_are_asked_about(read: Read, data: Path) -> None:
    with pytest.raises(UnclearSource, match=r"EXIF orientation.*--exif apply.*--exif ignore"):
        read("W17_exif_upside_down")
    read("W17_exif_upside_down", read={"exif": "ignore"})
    turned = {key: mask_of(item) for key, item in items(data).items()}
    read("W17_exif_upside_down", read={"exif": "apply"}, replace=True)
    for key, item in items(data).items():
        np.testing.assert_array_equal(turned[key], mask_of(item)[::-1, ::-1])


def test_files_that_are_not_read_are_counted(read: Read) -> None:
    report = read("W13_unread_kinds_lost_npy")
    unused = sum(group.files for group in report.unused)
    assert unused + 2 * report.images == 24


def with_links(case: Path, copy: Path) -> Path:
    """Copy a case with the links that its text files stand for."""
    for path in sorted(case.rglob("*")):
        target = copy / path.relative_to(case)
        if path.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        if content.startswith(b"../") and len(content) < 200:
            target.symlink_to(content.decode().strip())
        else:
            target.write_bytes(content)
    return copy


def test_labels_beside_the_links_to_their_images(cases: Path, tmp_path: Path, data: Path) -> None:
    report = import_source(with_links(cases / "W06_yolo_symlinks", tmp_path / "case"), data)
    assert (report.format, report.masks, report.unused) == ("yolo-seg", 12, [])
    assert all(mask_of(item).any() for item in items(data).values())


def test_a_folder_of_images_that_is_a_link_and_the_advice(cases: Path, tmp_path: Path, data: Path) -> None:
    source = with_links(cases / "M12_coco_linked_images", tmp_path / "case")
    folder = (source / "images").readlink().name
    shutil.copytree(cases / folder, tmp_path / folder)
    with pytest.raises(DataError, match=rf"a link that leads out of the source.*--images {tmp_path / folder}"):
        import_source(source, data)
    report = import_source(source, data, read={"images": str(tmp_path / folder)})
    assert report.masks == 12
    assert pixels(data)[1] > 0


def test_masks_without_the_names_of_their_images_are_asked_about(read: Read, cases: Path, data: Path) -> None:
    case = "X02_labelstudio_brush_png"
    with pytest.raises(UnclearSource, match=r"task 1 with 8a7b0000-a0\.png.*--format label-studio-masks"):
        read(case)
    report = read(case, format="label-studio-masks")
    assert (report.masks, report.classes.names) == (12, ["background", "tree"])
    for number in range(12):
        brush = cases / case / "brush" / f"task-{number + 1}-annotation-{number + 2}-by-1-tag-tree-0.png"
        (item,) = [item for key, item in items(data).items() if key.endswith(f"-a{number}")]
        np.testing.assert_array_equal(mask_of(item) > 0, read_mask(brush, LIMITS) > 0)


def test_masks_of_labelme_lie_where_they_were_drawn(read: Read, cases: Path, data: Path) -> None:
    read("X05_labelme_ai_mask")
    for key, item in items(data).items():
        (shape, *_) = json.loads((cases / "X05_labelme_ai_mask" / f"{key}.json").read_text())["shapes"]
        (x, y), _ = shape["points"]
        part = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
        expected = np.zeros_like(mask_of(item), bool)
        expected[int(y) : int(y) + part.shape[0], int(x) : int(x) + part.shape[1]] = part
        np.testing.assert_array_equal(mask_of(item) > 0, expected)


def samples(data: Path) -> dict[str, Sample]:
    """Return the imported samples by key."""
    dataset = load_dataset(data)
    return {item.key: load_sample(item, dataset.classes, DataParams()) for item in dataset.items}


def test_a_folder_a_case_has_one_channel_per_file(read: Read, data: Path) -> None:
    read("X08_brats")
    assert load_dataset(data).channels == ("flair", "t1", "t1ce", "t2")
    for key, sample in samples(data).items():
        for channel, name in enumerate(load_dataset(data).channels):
            stored = nibabel.load(CASES / "X08_brats" / key / f"{key}_{name}.nii.gz").get_fdata()
            np.testing.assert_array_equal(sample.image[..., channel], stored.T)
        np.testing.assert_array_equal(
            sample.labels, nibabel.load(CASES / "X08_brats" / key / f"{key}_seg.nii.gz").get_fdata().T
        )


def test_volumes_of_labels_are_one_hot(read: Read, data: Path) -> None:
    report = read("M07_nifti_4d_label")
    assert "8 masks of 3 volumes of 0 and 1: each volume read as one class" in report.notes
    for key, sample in samples(data).items():
        stored = nibabel.load(CASES / "M07_nifti_4d_label/labels" / f"{key}.nii.gz").get_fdata()
        np.testing.assert_array_equal(sample.labels, stored.argmax(-1).T)


def test_the_affine_decides_the_size_of_voxels(read: Read, data: Path) -> None:
    read("W19_nifti_sform_pixdim")
    assert {sample.spacing for sample in samples(data).values()} == {(1.0, 0.5, 0.5)}
    manifest = build_manifest(load_dataset(data), DataParams(), SplitParams(), jobs=1)
    assert all(any("as the affine says" in note for note in notes) for notes in manifest["notes"])


@pytest.mark.parametrize("case", ["T04_other_voxel_order/src", "T04b_mixed_voxel_order"])
def test_volumes_of_any_voxel_order_are_turned_alike(read: Read, data: Path, case: str) -> None:
    read(case)
    for key, sample in samples(data).items():
        for folder, array in (("images", sample.image[..., 0]), ("labels", sample.labels)):
            image = nibabel.as_closest_canonical(nibabel.load(CASES / case / folder / f"{key}.nii.gz"))
            np.testing.assert_array_equal(array, image.get_fdata().T)


def test_pixels_without_data_count_in_no_class(read: Read, data: Path) -> None:
    read("W20_geotiff_nodata")
    manifest = build_manifest(load_dataset(data), DataParams(), SplitParams(), jobs=1)
    n_missing = 0
    for row in manifest.to_dict("records"):
        missing = (tifffile.imread(CASES / "W20_geotiff_nodata" / row["path"]) == -9999).all(axis=2)
        mask = mask_of(items(data)[row["key"]])
        assert row["class_pixels"].tolist() == np.bincount(mask[~missing], minlength=3).tolist()
        assert row["ignored_pixels"] == missing.sum()
        n_missing += int(missing.sum())
    assert n_missing > 0


@pytest.mark.parametrize("format", ["coco", "voc", "folder", "nnunet"])
def test_exports_of_turned_images_fit_their_masks(read: Read, data: Path, tmp_path: Path, format: str) -> None:
    read("W16_export_of_turned_jpeg")
    export_dataset(load_dataset(data), tmp_path / "out", format, DataParams())
    folder = tmp_path / "out" / {"voc": "JPEGImages", "nnunet": "imagesTr"}.get(format, "images")
    masks = {key: mask_of(item).shape for key, item in items(data).items()}
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert (
                image.size[::-1] == masks[path.stem.removesuffix("_0000").removesuffix("_0001").removesuffix("_0002")]
            )
            assert image.getexif().get(0x0112, 1) == 1


def test_grey_images_among_colour_ones_become_rgb(read: Read, data: Path) -> None:
    report = read("X09_grey_among_colour")
    assert {read_image(item.image, DataParams()).shape[2] for item in items(data).values()} == {3}
    assert any("grey images that are stored as RGB" in note and ": 2;" in note for note in report.notes)
    read("X09_grey_among_colour", to="grey", replace=True)
    assert {read_image(item.image, DataParams()).shape[2] for item in items(data).values()} == {1}


@pytest.mark.parametrize("case", ["X15_cityscapes_two_archives", "M10_cityscapes_polygons_alone"])
def test_cityscapes(read: Read, data: Path, case: str) -> None:
    report = read(case)
    assert (report.format, report.images, report.masks, report.groups) == ("cityscapes", 12, 12, 2)
    assert pixels(data)[0] == 12 * 28 * 20  # the road, as in the maps of label ids
