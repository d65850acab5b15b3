"""Volumes with one file per channel: the layouts of BraTS, KiTS, LiTS, ACDC and PROMISE12, and their usual faults."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from segpipe.cli.data.import_options import SourceOptions, import_options
from segpipe.config import DataParams, SplitParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.data.importer import ImportReport
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import import_source

SHAPE = (7, 6, 5)
RNG = np.random.default_rng(4)


def put(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1]) if affine is None else affine).to_filename(path)
    return path


def scan(path: Path) -> np.ndarray:
    array = RNG.integers(-50, 900, SHAPE).astype(np.int16)
    put(path, array)
    return array


def label(path: Path, values: tuple[int, ...] = (0, 1, 2, 4), dtype: type = np.uint8) -> np.ndarray:
    array = RNG.choice(np.array(values, dtype), SHAPE)
    array[0, 0, : len(values)] = values
    put(path, array)
    return array


def loaded(data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the image (x, y, z, channels) and the class values (x, y, z) of each imported case."""
    dataset = load_dataset(data)
    table = np.array([spec.value for spec in dataset.classes.classes])
    samples = [load_sample(item, dataset.classes, DataParams()) for item in dataset.items]
    return {s.key: (s.image.transpose(2, 1, 0, 3), table[s.labels].T) for s in samples if s.labels is not None}


def left_out(report: ImportReport) -> str:
    return "\n".join(f"{name}: {reason}" for name, reason in report.skipped)


@pytest.mark.parametrize(
    ("pattern", "channels"),
    [
        ("{case}/{case}_{role}.nii.gz", ["flair", "t1", "t1ce", "t2"]),
        ("{case}/{case}-{role}.nii.gz", ["t1c", "t1n", "t2f", "t2w"]),  # BraTS 2023
        ("HGG/{case}/{case}_{role}.nii", ["flair", "t1", "t1ce", "t2"]),  # BraTS 2018
        ("{case}/{role}.nii.gz", ["ADC", "DWI"]),
        ("{case}/VSD.Brain.{case}.{role}.nii.gz", ["MR_Flair", "MR_T1"]),
        ("{case}_{role}.nii.gz", ["flair", "t1"]),  # all in one folder
        ("batch{case}/{case}.{role}.nii.gz", ["pd", "t2"]),
    ],
)
def test_the_files_of_a_case_become_one_volume(pattern: str, channels: list[str], tmp_path: Path) -> None:
    truth = {}
    for number in range(4):
        case = f"P_{number:03}"
        scans = [scan(tmp_path / "src" / pattern.format(case=case, role=role)) for role in channels]
        truth[case] = (np.stack(scans, -1), label(tmp_path / "src" / pattern.format(case=case, role="seg")))
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.format, report.images, report.masks, report.skipped, report.unused) == ("cases", 4, 4, [], [])
    assert [spec.value for spec in report.classes.classes] == [0, 1, 2, 4]
    dataset = load_dataset(tmp_path / "data")
    assert dataset.channels == tuple(channels)
    samples = loaded(tmp_path / "data")
    assert len(samples) == 4
    for (image, labels), (name, (true_image, true_labels)) in zip(samples.values(), truth.items(), strict=True):
        np.testing.assert_array_equal(image, true_image, err_msg=name)
        np.testing.assert_array_equal(labels, true_labels)
    manifest = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
    assert [list(names) for names in manifest["channel_names"]] == [channels] * 4
    assert make_fingerprint(manifest, dataset.classes).channel_names == channels


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("case_{:05}/imaging.nii.gz", "case_{:05}/segmentation.nii.gz"),  # KiTS
        ("volume-{}.nii", "segmentation-{}.nii"),  # LiTS
        ("Training Batch 1/volume-{}.nii", "Training Batch 1/segmentation-{}.nii"),
        ("img{:04}.nii.gz", "label{:04}.nii.gz"),  # BTCV in one folder
        ("Case{:02}.nii", "Case{:02}_segmentation.nii"),  # PROMISE12
        ("train/{:03}/{:03}_ct.nii.gz", "train/{:03}/{:03}_ct_gt.nii.gz"),
    ],
)
def test_one_image_and_its_label(image: str, mask: str, tmp_path: Path) -> None:
    truth = []
    for number in range(3):
        names = [name.replace("{:", f"{{{0}:").replace("{}", "{0}") for name in (image, mask)]
        image_path, mask_path = (tmp_path / "src" / name.format(number) for name in names)
        truth.append((scan(image_path), label(mask_path, (0, 1, 2), np.float32)))
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.format, report.images, report.masks, report.skipped, report.unused) == ("cases", 3, 3, [], [])
    assert bool(report.splits) == image.startswith("train/")
    assert load_dataset(tmp_path / "data").channels == ()
    for (read_image, read_labels), (true_image, true_labels) in zip(
        loaded(tmp_path / "data").values(), truth, strict=True
    ):
        np.testing.assert_array_equal(read_image[..., 0], true_image)
        np.testing.assert_array_equal(read_labels, true_labels)


def test_the_parts_of_a_kits_case_that_are_no_volumes_of_it_are_counted(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "src" / f"case_{number:05}"
        scan(folder / "imaging.nii.gz")
        label(folder / "segmentation.nii.gz")
        label(folder / "instances" / "kidney_instance-1_annotation-1.nii.gz")
    (tmp_path / "src" / "kits23.json").write_text("[]")
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert report.images == 2
    assert {(group.kind, group.files) for group in report.unused} == {(".nii.gz", 2), (".json", 1)}


def test_several_images_of_a_patient_are_one_group(tmp_path: Path) -> None:
    truth = {}
    for number in range(3):
        name = f"patient{number:03}"
        for frame in (1, 10 + number):  # ACDC
            stem = f"{name}_frame{frame:02}"
            scan(tmp_path / "src" / name / f"{stem}.nii.gz")
            truth[stem] = label(tmp_path / "src" / name / f"{stem}_gt.nii.gz", (0, 1, 2, 3))
        put(tmp_path / "src" / name / f"{name}_4d.nii.gz", np.zeros((*SHAPE, 3), np.int16))
        (tmp_path / "src" / name / "Info.cfg").write_text("ED: 1")
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.images, report.masks, report.groups) == (6, 6, 3)
    assert [(group.kind, group.files) for group in report.unused] == [(".cfg", 3), (".nii.gz", 3)]
    for key, (_, labels) in loaded(tmp_path / "data").items():
        np.testing.assert_array_equal(labels, truth[key])
    with pytest.raises(ConfigError, match=r"--label and --channels do not fit.*omit them"):
        import_source(tmp_path / "src", tmp_path / "data", read={"label": "gt"}, replace=True)


def test_scans_of_one_patient_are_one_group(tmp_path: Path) -> None:
    for case in ("BraTS-GLI-00002-000", "BraTS-GLI-00002-001", "BraTS-GLI-00003-000"):
        scan(tmp_path / "src" / case / f"{case}-t1n.nii.gz")
        scan(tmp_path / "src" / case / f"{case}-t2w.nii.gz")
        label(tmp_path / "src" / case / f"{case}-seg.nii.gz")
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert {item.key: item.group for item in load_dataset(tmp_path / "data").items} == {
        "BraTS-GLI-00002-000": "BraTS-GLI-00002",
        "BraTS-GLI-00002-001": "BraTS-GLI-00002",
        "BraTS-GLI-00003-000": "BraTS-GLI-00003",
    }
    assert "groups: the patient, for example BraTS-GLI-00002" in report.notes


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    for number in range(5):
        case = f"B_{number:03}"
        for role in ("flair", "t1"):
            scan(tmp_path / "src" / case / f"{case}_{role}.nii.gz")
        label(tmp_path / "src" / case / f"{case}_seg.nii.gz")
    return tmp_path / "src"


def test_a_case_without_a_channel_is_left_out_and_told(brats: Path, tmp_path: Path) -> None:
    (brats / "B_002" / "B_002_t1.nii.gz").unlink()
    report = import_source(brats, tmp_path / "data")
    assert report.images == report.masks == 4
    assert "a file of the case is missing (found B_002_flair.nii.gz, B_002_seg.nii.gz, expected a file for t1)" in (
        left_out(report)
    )
    assert [(group.reason, group.files) for group in report.unused] == [("left out", 2)]
    report = import_source(brats, tmp_path / "data", read={"channels": "flair"}, replace=True)  # what the error advises
    assert (report.images, report.skipped) == (5, [])


def test_a_label_of_another_name_is_told(brats: Path, tmp_path: Path) -> None:
    (brats / "B_002" / "B_002_seg.nii.gz").rename(brats / "B_002" / "W39_1998.09.19_Segm.nii.gz")  # as in BraTS 2020
    report = import_source(brats, tmp_path / "data")
    assert report.images == 4
    assert any("without a mask: 1, for example B_002" in note for note in report.notes)
    assert sum(group.files for group in report.unused) == 3


def test_two_files_for_one_channel_are_told(brats: Path, tmp_path: Path) -> None:
    scan(brats / "B_001" / "B_001_t1.nii")
    report = import_source(brats, tmp_path / "data")
    assert report.images == 4
    assert "two files of the case have one role (found B_001_t1.nii and B_001_t1.nii.gz)" in left_out(report)


def test_channels_on_different_grids_are_told_with_both_names(brats: Path, tmp_path: Path) -> None:
    put(brats / "B_000" / "B_000_t1.nii.gz", np.ones((9, 6, 5), np.int16))
    put(brats / "B_001" / "B_001_t1.nii.gz", np.ones(SHAPE, np.int16), np.diag([1, 1, 3, 1]))
    report = import_source(brats, tmp_path / "data")
    assert report.images == 3
    for case in ("B_000", "B_001"):
        assert f"{case}_t1.nii.gz: the geometry differs from that of the other channels" in left_out(report)
        assert f"as in {case}_flair.nii.gz). Fix: resample the channels to one grid" in left_out(report)


def test_options_choose_channels_and_their_order(brats: Path, tmp_path: Path) -> None:
    options = import_options("segpipe data import SRC", SourceOptions(channels="T1, flair", label="seg"))
    report = import_source(brats, tmp_path / "data", read=options.read)
    assert load_dataset(tmp_path / "data").channels == ("t1", "flair")
    first = nibabel.load(brats / "B_000" / "B_000_t1.nii.gz").get_fdata()
    np.testing.assert_array_equal(loaded(tmp_path / "data")["B_000"][0][..., 0], first)
    for read, words in (
        ({"channels": "t1,t3"}, "--channels names a file that no case has .*found t3, expected one of flair, seg, t1"),
        ({"channels": "t1,seg"}, "must name each channel once, without the label"),
        ({"channels": "t1,T1"}, "must name each channel once"),
        ({"label": "mask"}, "--label names a file that no case has"),
    ):
        with pytest.raises(ConfigError, match=words):
            import_source(brats, tmp_path / "data", read=read, replace=True)
    assert report.images == 5


def test_two_possible_labels_are_asked_about(brats: Path, tmp_path: Path) -> None:
    for number in range(5):
        label(brats / f"B_{number:03}" / f"B_{number:03}_brain_mask.nii.gz", (0, 1))
    with pytest.raises(UnclearSource, match=r"--label brain_mask.*--label seg") as error:
        import_source(brats, tmp_path / "data")
    seg = next(reading for reading in error.value.readings if reading.options == {"label": "seg"})
    report = import_source(brats, tmp_path / "data", seg.layout, read=seg.options)  # what the error advises
    assert (report.images, load_dataset(tmp_path / "data").channels) == (5, ("flair", "t1"))
    assert len(report.classes.classes) == 4
    assert [group.files for group in report.unused] == [5]


def test_a_label_is_not_guessed_from_pixels(brats: Path, tmp_path: Path) -> None:
    for path in brats.rglob("*_seg.nii.gz"):
        path.rename(path.with_name(path.name.replace("_seg", "_wmh")))
    with pytest.raises(UnclearSource, match=r"no reading is clear.*wmh holds 4 whole numbers.*--label wmh"):
        import_source(brats, tmp_path / "data")
    assert import_source(brats, tmp_path / "data", read={"label": "wmh"}).masks == 5
    for path in brats.rglob("*_wmh.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"no file of the cases is a label .*found flair, t1"):
        import_source(brats, tmp_path / "data", replace=True)


def test_a_channel_of_half_of_the_cases_is_asked_about(brats: Path, tmp_path: Path) -> None:
    for number in range(2):
        scan(brats / f"B_{number:03}" / f"B_{number:03}_pet.nii.gz")
    with pytest.raises(UnclearSource, match=r"5 of 5 cases have flair, t1.*2 of 5 cases have flair, pet, t1"):
        import_source(brats, tmp_path / "data")
    assert import_source(brats, tmp_path / "data", read={"channels": "flair,t1"}).images == 5
    assert import_source(brats, tmp_path / "data", read={"channels": "flair,pet,t1"}, replace=True).images == 2


def test_other_layouts_are_not_cases(tmp_path: Path) -> None:
    for number in range(3):
        scan(tmp_path / "src" / "images" / f"c{number}.nii.gz")
        label(tmp_path / "src" / "labels" / f"c{number}.nii.gz")
    assert import_source(tmp_path / "src", tmp_path / "data").format == "volumes"
