"""DICOM series as volumes, with labels as SEG, NIfTI or one mask per slice. The oracle is the arrays that were written."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.data.images import encode_png
from segpipe.data.importer import ImportReport
from segpipe.errors import DataError
from tests.worlds.dicom import GAP, uid, write_seg, write_series
from tests.worlds.layouts import import_source

RNG = np.random.default_rng(5)
SHAPE = (6, 9, 11)


def scan() -> np.ndarray:
    return RNG.integers(0, 3000, SHAPE).astype(np.uint16)


def regions() -> tuple[np.ndarray, np.ndarray]:
    """Return two segments that do not overlap."""
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[1:4, 2:5, 3:8], second[2:5, 6:8, 1:5] = 1, 1
    return first, second


def loaded(data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return image and labels of each sample, (D, H, W), in the order of DICOM (LPS): turned back from RAS."""
    dataset = load_dataset(data)
    samples = [load_sample(item, dataset.classes, DataParams()) for item in dataset.items]
    return {s.key: (s.image[:, ::-1, ::-1, 0], s.labels[:, ::-1, ::-1]) for s in samples if s.labels is not None}


def left_out(report: ImportReport) -> str:
    return "\n".join(f"{name}: {reason}" for name, reason in report.skipped)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("by", [("uid",), ("position",), ("uid", "position")])
@pytest.mark.parametrize("referenced", [True, False])
def test_segmentations_lie_on_the_slices_of_their_series(
    kind: str, by: tuple[str, ...], referenced: bool, tmp_path: Path
) -> None:
    volumes, (first, second) = {}, regions()
    for number in range(3):
        name = f"case{number}"
        volumes[name] = scan()
        write_series(tmp_path / "src" / name, volumes[name], name, "IM!")
        liver, tumour = (2, 1) if number else (1, 2)  # the numbers of segments differ between files, the labels do not
        segments = {liver: ("liver", first), tumour: ("tumour", second)}
        if kind == "FRACTIONAL":  # 0.5 is inside, 0.4 is not
            faint = np.zeros(SHAPE)
            faint[5, 0, :4] = 0.4
            segments = {liver: ("liver", first * 0.5 + second * 0.6 + faint), tumour: ("tumour", second * 0.9)}
        if kind == "LABELMAP":
            segments = {liver: ("liver", first * liver + second * tumour), tumour: ("tumour", first * 0)}
        write_seg(tmp_path / "src" / name / "seg.dcm", segments, name, kind, by, referenced)
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.format, report.images, report.masks, report.groups) == ("dicom-series", 3, 3, 3)
    assert (report.skipped, report.unused) == ([], [])
    assert report.classes.names == ["background", "liver", "tumour"]
    for name, (image, labels) in loaded(tmp_path / "data").items():
        np.testing.assert_array_equal(image, volumes[name] - 1024.0)
        np.testing.assert_array_equal(labels, first + 2 * second)
    assert all(item.group and "case" not in item.group for item in load_dataset(tmp_path / "data").items)


def test_overlapping_segments_are_counted(tmp_path: Path) -> None:
    first, second = regions()
    second[1:4, 2:5, 3:5] = 1
    write_series(tmp_path / "src" / "a", scan(), "a")
    write_seg(tmp_path / "src" / "seg" / "a.dcm", {1: ("liver", first), 2: ("tumour", second)}, "a")
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (
        f"voxels in two segments: the segment with the higher number counts: {int((first & second).sum())}"
        in report.notes
    )
    np.testing.assert_array_equal(loaded(tmp_path / "data")["a"][1], np.where(second, 2, first))


def test_two_files_of_segments_are_joined(tmp_path: Path) -> None:
    first, second = regions()
    write_series(tmp_path / "src" / "a", scan(), "a")
    write_seg(tmp_path / "src" / "a" / "seg1.dcm", {1: ("liver", first)}, "a")
    write_seg(tmp_path / "src" / "a" / "seg2.dcm", {1: ("tumour", second)}, "a")
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert report.classes.names == ["background", "liver", "tumour"]
    np.testing.assert_array_equal(loaded(tmp_path / "data")["a"][1], first + 2 * second)


def test_several_series_in_one_folder(tmp_path: Path) -> None:
    first, second = regions()
    volumes = {"venous": scan(), "arterial": scan()}
    for number, (name, volume) in enumerate(volumes.items()):
        write_series(tmp_path / "src" / "p1", volume, name, f"{name}-", SeriesNumber=number + 4, PatientID="p1")
        write_seg(tmp_path / "src" / "p1" / f"{name}.seg.dcm", {1: ("liver", second if number else first)}, name)
    write_series(tmp_path / "src" / "p1", scan()[:2], "scout", "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path / "src" / "p1", scan()[:1], "single", "single")
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.images, report.groups) == (2, 0)
    samples = loaded(tmp_path / "data")
    assert sorted(samples) == ["p1-4", "p1-5"]
    np.testing.assert_array_equal(samples["p1-4"][0], volumes["venous"] - 1024.0)
    np.testing.assert_array_equal(samples["p1-5"][1], second)
    assert "a localizer" in left_out(report) and "a single slice, not a volume" in left_out(report)


@pytest.mark.parametrize("place", ["labels/{}.nii.gz", "{}/seg.nii.gz", "masks/{}_seg.nii.gz"])
def test_labels_as_nifti(place: str, tmp_path: Path) -> None:
    truth = {}
    for number in range(2):
        name = f"case{number}"
        write_series(tmp_path / "src" / name / "dicom", scan(), name)
        labels = RNG.integers(0, 3, SHAPE).astype(np.uint8)
        truth[name] = labels
        affine = np.array([[-0.5, 0, 0, 3], [0, -0.7, 0, -4], [0, 0, GAP, 0], [0, 0, 0, 1]])
        path = tmp_path / "src" / place.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.Nifti1Image(labels.T, affine).to_filename(path)
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.format, report.masks, report.unused) == ("dicom-series", 2, [])
    for name, (_, labels) in loaded(tmp_path / "data").items():
        np.testing.assert_array_equal(labels, truth[name])


def test_one_mask_per_slice(tmp_path: Path) -> None:
    truth = {}
    for number in range(2):
        name = f"case{number}"
        paths = write_series(tmp_path / "src" / "images" / name, scan(), name)
        truth[name] = RNG.integers(0, 2, SHAPE).astype(np.uint8) * 255
        for path, mask in zip(paths, truth[name], strict=True):
            target = tmp_path / "src" / "masks" / name / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encode_png(mask))
    with pytest.raises(UnclearSource, match=r"--format folder.*--format dicom-series"):  # slices, or volumes?
        import_source(tmp_path / "src", tmp_path / "data")
    report = import_source(tmp_path / "src", tmp_path / "data", "dicom-series")
    assert (report.masks, report.unused, [s.value for s in report.classes.classes]) == (2, [], [0, 255])
    for name, (_, labels) in loaded(tmp_path / "data").items():
        np.testing.assert_array_equal(labels, truth[name] // 255)
    (tmp_path / "src" / "masks" / "case0" / "s3.png").unlink()
    report = import_source(tmp_path / "src", tmp_path / "data", "dicom-series", replace=True)
    assert report.images == 1
    assert "slices have no mask (found 1: s3.dcm" in left_out(report)


def test_faults_of_one_series_are_told_and_leave_the_others(tmp_path: Path) -> None:
    first, _ = regions()
    faults = {
        "gap": "slices are missing, or not at equal distances .*the most unequal between s5.dcm and s3.dcm",
        "twice": "two slices lie at one position .*found s4.dcm and s4b.dcm",
        "turned": "the slices are not parallel .*",
        "cut": "cannot be decoded",
        "resampled": "the frames do not have the size of the slices",
        "shifted": "a frame does not lie on a slice of the series .*found frame 1 at",
        "contradiction": "a frame refers to one slice and lies on another",
    }
    for name in ("good", *faults):
        folder = tmp_path / "src" / name
        paths = write_series(folder, scan(), name)
        seg = write_seg(folder / "seg.dcm", {1: ("liver", first)}, name)
        dataset = pydicom.dcmread(seg)
        frame = dataset.PerFrameFunctionalGroupsSequence[0]
        if name == "gap":
            paths[2].unlink()
        elif name == "twice":
            slice_ = pydicom.dcmread(paths[2])
            slice_.SOPInstanceUID = uid("another")
            slice_.save_as(folder / "s4b.dcm")
        elif name == "turned":
            slice_ = pydicom.dcmread(paths[2])
            slice_.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
            slice_.save_as(paths[2])
        elif name == "cut":
            paths[0].write_bytes(paths[0].read_bytes()[:-60])
        elif name == "resampled":
            dataset.Rows = 5
        elif name == "shifted":
            frame.PlanePositionSequence[0].ImagePositionPatient = [-3, 4, 1.2]
        elif name == "contradiction":
            frame.PlanePositionSequence[0].ImagePositionPatient = [-3, 4, 0]
        dataset.save_as(seg)
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert [item.key for item in load_dataset(tmp_path / "data").items] == ["good"]
    for name, words in faults.items():
        reasons = "\n".join(f"{file}: {reason}" for file, reason in report.skipped if f"/{name}/" in f"{file}/{reason}")
        assert reasons, name
        with pytest.raises(ValueError, match=words):
            raise ValueError(reasons)
        assert "Fix: " in reasons


def test_what_is_not_read_is_told(tmp_path: Path) -> None:
    first, _ = regions()
    write_series(tmp_path / "src" / "a", scan(), "a")
    write_seg(tmp_path / "src" / "a" / "seg.dcm", {1: ("liver", first)}, "a")
    write_seg(tmp_path / "src" / "lost.dcm", {1: ("liver", first)}, "another series")
    write_series(tmp_path / "src" / "b", scan(), "b")
    write_series(tmp_path / "src" / "contours", scan()[:1], "rt", Modality="RTSTRUCT")
    write_series(tmp_path / "src" / "cine", scan()[:1], "cine", NumberOfFrames=2)
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert report.images == 1
    text = left_out(report)
    assert "a segmentation of a series that is not in the source" in text
    assert "RTSTRUCT is not read; convert contours to DICOM SEG or NIfTI" in text
    assert "a multi-frame image is not read; convert it to NIfTI (dcm2niix)" in text
    assert any("without a mask: 1, for example b" in note for note in report.notes)


def test_values_follow_each_slice_and_its_interpretation(tmp_path: Path) -> None:
    volume, (first, _) = scan(), regions()
    paths = write_series(tmp_path / "src" / "a", volume, "a", BitsStored=12)
    for index, path in enumerate(paths):  # as in PET: a slope of its own for each slice
        slice_ = pydicom.dcmread(path)
        slice_.RescaleSlope, slice_.RescaleIntercept = 1 + index, 0
        slice_.PhotometricInterpretation = "MONOCHROME1"
        slice_.save_as(path)
    write_seg(tmp_path / "src" / "a" / "seg.dcm", {1: ("liver", first)}, "a")
    import_source(tmp_path / "src", tmp_path / "data")
    image = loaded(tmp_path / "data")["a"][0]
    np.testing.assert_array_equal(image, (4095.0 - volume) * np.arange(1, 7)[:, None, None])


def test_series_without_any_label_are_not_recognised(tmp_path: Path) -> None:
    write_series(tmp_path / "src" / "a", scan(), "a")
    with pytest.raises(DataError, match=r"no layout fits|no masks"):
        import_source(tmp_path / "src", tmp_path / "data")
