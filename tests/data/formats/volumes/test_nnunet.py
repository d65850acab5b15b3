"""nnU-Net v2 and the Medical Segmentation Decathlon: channels, labels, regions, splits, and broken dataset.json files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.data.formats.volumes.nnunet import read_nnunet
from segpipe.data.images import decode_image, encode_nifti, encode_png, encode_tiff, merge_channels
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.errors import DataError
from segpipe.samples import IGNORE
from tests.worlds.layouts import recognised

RNG = np.random.default_rng(4)
LIMITS = DataParams()
V2: dict[str, Any] = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "oedema": 1, "core": 2, "ignore": 3},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
MSD: dict[str, Any] = {
    "name": "Hippocampus",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    "training": [{"image": f"./imagesTr/h_{n:03d}.nii.gz", "label": f"./labelsTr/h_{n:03d}.nii.gz"} for n in (1, 2021)],
    "test": ["./imagesTs/h_009.nii.gz"],
}


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def describe(source: Path, content: Any) -> None:
    put(source / "dataset.json", json.dumps(content).encode())


def voxels(dtype: str = "uint16", shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return (RNG.random(shape) * 250).astype(dtype)


def labels(top: int = 4, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    drawn = RNG.integers(0, top, shape, dtype=np.uint8)
    drawn.flat[:top] = range(top)
    return drawn


@pytest.fixture
def v2(tmp_path: Path) -> tuple[Path, dict[str, tuple[np.ndarray, np.ndarray]]]:
    source, written = tmp_path / "source", {}
    describe(source, V2)
    for part, cases in (("Tr", ["BRATS_001", "BRATS_002"]), ("Ts", ["BRATS_003"])):
        for case in cases:
            image, mask = voxels(shape=(4, 5, 6, 2)), labels()
            for c in range(2):
                put(source / f"images{part}" / f"{case}_{c:04d}.nii.gz", encode_nifti(image[..., c]))
            put(source / f"labels{part}" / f"{case}.nii.gz", encode_nifti(mask))
            written[case] = image, mask
    for c in range(2):
        put(source / "imagesTs" / f"BRATS_004_{c:04d}.nii.gz", encode_nifti(voxels()))
    return source, written


def test_channels_of_nnunet_become_one_image(v2: tuple[Path, dict], tmp_path: Path) -> None:
    source, written = v2
    layout, reason = recognised(SourceProbe(source))
    assert layout == "nnunet"
    assert "channel_names" in reason
    report = import_dataset(source, tmp_path / "data", "auto", ImportOptions())
    assert report.classes.names == ["background", "oedema", "core"]
    assert report.classes.ignore == (3,)
    assert report.skipped == [("imagesTs/", "1 images without labels, which neither training nor evaluation can use")]
    dataset = load_dataset(tmp_path / "data")
    assert [item.key for item in dataset.items] == list(written)
    assert dataset.items[2].split == "test"
    for item in dataset.items:
        sample, (image, mask) = load_sample(item, dataset.classes, LIMITS), written[item.key]
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.labels, np.where(mask == 3, IGNORE, mask))


def test_the_decathlon_lists_its_pairs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    describe(source, MSD)
    for pair in MSD["training"]:
        put(source / pair["image"], encode_nifti(voxels("float32")))
        put(source / pair["label"], encode_nifti(labels(3)))
    put(source / "imagesTr" / "._h_001.nii.gz", b"a file of macOS")
    put(source / "imagesTs" / "h_009.nii.gz", encode_nifti(voxels("float32")))
    assert recognised(SourceProbe(source))[0] == "msd"
    report = import_dataset(source, tmp_path / "data", "msd", ImportOptions())
    assert (report.images, report.masks, report.splits) == (2, 2, {})
    assert report.classes.names == ["background", "Anterior", "Posterior"]
    assert [name for name, _ in report.skipped] == ["imagesTs/"]


def test_files_of_channels_are_found_if_the_list_names_the_case(tmp_path: Path) -> None:
    """dataset.json of nnU-Net v1 names a.nii.gz for the files a_0000.nii.gz and a_0001.nii.gz."""
    describe(tmp_path, MSD | {"modality": {"0": "T1", "1": "T2"}, "training": MSD["training"][:1]})
    for c in range(2):
        put(tmp_path / f"imagesTr/h_001_{c:04d}.nii.gz", encode_nifti(voxels()))
    put(tmp_path / "labelsTr/h_001.nii.gz", encode_nifti(labels(3)))
    (item,) = read_nnunet(SourceProbe(tmp_path), ReadOptions()).items
    assert item.content is not None
    assert item.image.name == "h_001.nii.gz"
    assert decode_image(item.content(), "x", LIMITS).shape == (4, 5, 6, 2)


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_images_are_one_file_per_channel_or_in_colours(ending: str, tmp_path: Path) -> None:
    encode = {".png": encode_png, ".tif": lambda a: encode_tiff(a[:, :, None]), ".bmp": encode_bmp}[ending]
    source = tmp_path / "source"
    describe(
        source,
        {
            "channel_names": {str(c): "RGB"[c] for c in range(3)},
            "labels": {"background": 0, "cell": 1},
            "file_ending": ending,
        },
    )
    image = voxels("uint8", (20, 30, 3))
    for c in range(3):
        put(source / f"imagesTr/separate_{c:04d}{ending}", encode(image[:, :, c]))
    put(source / f"imagesTr/together_0000{ending}", encode_tiff(image) if ending == ".tif" else encode_png(image))
    for case in ("separate", "together"):
        put(source / f"labelsTr/{case}{ending}", encode(labels(2, (20, 30))))
    import_dataset(source, tmp_path / "data", "nnunet", ImportOptions())
    dataset = load_dataset(tmp_path / "data")
    for item in dataset.items:
        np.testing.assert_array_equal(load_sample(item, dataset.classes, LIMITS).image, image)


def encode_bmp(array: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".bmp", array)[1].tobytes()


def test_values_of_regions_become_classes(tmp_path: Path) -> None:
    describe(
        tmp_path,
        V2 | {"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}},
    )
    result = read_nnunet(SourceProbe(tmp_path), ReadOptions())
    assert result.classes is not None
    assert {spec.value: spec.name for spec in result.classes.classes} == {
        0: "background",
        1: "whole",
        2: "whole, core",
        3: "whole, core, enhancing",
    }
    assert result.classes.ignore == (4,)
    assert any("regions" in note for note in result.notes)


@pytest.mark.parametrize(
    ("folds", "splits"),
    [
        (None, ["train", "train", "test"]),
        ([{"train": ["BRATS_001"], "val": ["BRATS_002"]}], ["train", "val", "test"]),
        ([{"train": [], "val": ["BRATS_001"]}, {"train": [], "val": ["BRATS_002"]}], ["train", "train", "test"]),
    ],
)
def test_splits(v2: tuple[Path, dict], folds: Any, splits: list[str]) -> None:
    source, _ = v2
    if folds is not None:
        put(source / "splits_final.json", json.dumps(folds).encode())
    assert [item.split for item in read_nnunet(SourceProbe(source), ReadOptions()).items] == splits


def test_listed_files_may_be_anywhere_in_the_source(tmp_path: Path) -> None:
    describe(
        tmp_path,
        V2 | {"dataset": {"a": {"images": ["raw/a-t1.nii.gz", "raw/a-flair.nii.gz"], "label": "seg/a.nii.gz"}}},
    )
    for name in ("raw/a-t1.nii.gz", "raw/a-flair.nii.gz", "seg/a.nii.gz"):
        put(tmp_path / name, encode_nifti(labels()))
    (item,) = read_nnunet(SourceProbe(tmp_path), ReadOptions()).items
    assert (item.name, item.image.name) == ("raw/a", "a.nii.gz")


def test_cases_with_missing_files_are_left_out_with_the_reason(v2: tuple[Path, dict]) -> None:
    source, _ = v2
    (source / "imagesTr" / "BRATS_001_0000.nii.gz").unlink()
    (source / "imagesTr" / "BRATS_002_0001.nii.gz").rename(source / "imagesTr" / "BRATS_002_0003.nii.gz")
    put(source / "imagesTr" / "BRATS_009_0000.nii.gz", b"")
    put(source / "labelsTr" / "BRATS_008.nii.gz", b"")
    result = read_nnunet(SourceProbe(source), ReadOptions())
    assert [item.name for item in result.items] == ["imagesTs/BRATS_003"]
    assert dict(result.skipped[:4]) == {
        "labelsTr/BRATS_008.nii.gz": "a label without an image",
        "imagesTr/BRATS_009_0000.nii.gz": "an image without a label",
        "imagesTr/BRATS_001_0001.nii.gz": "channels are missing: there are only 0001",
        "imagesTr/BRATS_002_0000.nii.gz": "channels are missing: there are only 0000, 0003",
    }


BROKEN: dict[str, tuple[Any, str]] = {
    "a list": ([], "not a JSON object"),
    "no labels": ({"channel_names": {"0": "CT"}}, "no labels"),
    "one label": (V2 | {"labels": {"background": 0}}, "not a valid class table"),
    "a fraction": (V2 | {"labels": {"background": 0, "a": 1.5}}, "not a class value"),
    "true": (V2 | {"labels": {"background": 0, "a": True}}, "not a class value"),
    "negative": (V2 | {"labels": {"background": 0, "a": -1}}, "not a class value"),
    "far too large": (V2 | {"labels": {"background": 0, "a": 70000}}, "not a class value"),
    "a region of nothing": (V2 | {"labels": {"background": 0, "a": []}}, "without a value"),
    "a value twice": (V2 | {"labels": {"background": 0, "a": 1, "b": 1}}, "two labels with the same value"),
    "ignore is a class": (V2 | {"labels": {"background": 0, "a": 1, "ignore": 1}}, "must differ"),
    "a name twice": (MSD | {"labels": {"0": "a", "1": "a"}}, "two labels with the same name"),
    "an empty name": (V2 | {"labels": {"background": 0, "": 1}}, "not a valid class table"),
    "no channels": ({"labels": V2["labels"]}, "no channels"),
    "an ending of another kind": (V2 | {"file_ending": ".mnc"}, "file_ending that is not supported"),
    "not a pair": (MSD | {"training": ["a.nii.gz"]}, r"training\[0\]"),
    "a case without a label": (V2 | {"dataset": {"a": {"images": ["a.nii.gz"]}}}, r"dataset\.a"),
    "out of the folder": (MSD | {"training": [{"image": "../a.nii.gz", "label": "b.nii.gz"}]}, "outside its folder"),
    "absolute": (MSD | {"training": [{"image": "/etc/passwd", "label": "b.nii.gz"}]}, "outside its folder"),
    "a name with NUL": (MSD | {"training": [{"image": "a\0.nii.gz", "label": "b.nii.gz"}]}, "not a valid file name"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_the_error_of_a_broken_dataset_json_names_the_file(content: Any, message: str, tmp_path: Path) -> None:
    describe(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        read_nnunet(SourceProbe(tmp_path), ReadOptions())
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize("folds", [{}, [[]], [{"val": "a"}]])
def test_broken_folds(v2: tuple[Path, dict], folds: Any) -> None:
    put(v2[0] / "splits_final.json", json.dumps(folds).encode())
    with pytest.raises(DataError, match=r"splits_final\.json: is not a list of folds"):
        read_nnunet(SourceProbe(v2[0]), ReadOptions())


def test_channels_must_have_the_same_voxel_grid(tmp_path: Path) -> None:
    paths = [tmp_path / f"a_000{c}.nii.gz" for c in range(2)]
    array = voxels()
    put(paths[0], encode_nifti(array))
    for wrong in (
        encode_nifti(array[:, :, :5]),
        nibabel.Nifti1Image(array.T, np.diag([1, 1, 1.5, 1])).to_bytes(),
        nibabel.Nifti1Image(array.T, np.diag([-1, 1, 1, 1])).to_bytes(),
        encode_png(array[0]),
    ):
        put(paths[1], wrong)
        with pytest.raises(DataError, match="geometry differs from that of the other channels"):
            merge_channels(paths, LIMITS)
    put(paths[1], encode_nifti(array.astype(np.float32) / 2))
    merged = decode_image(merge_channels(paths, LIMITS), "x", LIMITS)
    np.testing.assert_array_equal(merged, np.stack([array, array / np.float32(2)], axis=-1))
    with pytest.raises(DataError, match="too many voxels"):
        merge_channels(paths * 3, DataParams(max_megapixels=0.0002))
