"""Every check fails once, in a manifest that passes all other checks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segpipe.config import DataParams, SplitParams, ValidateParams
from segpipe.data.dataset import load_dataset
from segpipe.data.demo.write import write_demo
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.errors import ConfigError, DataError
from segpipe.pages.validation import write_validation
from segpipe.samples import ClassTable
from segpipe.validation.checks import CHECKS
from segpipe.validation.expectations import validate_manifest
from segpipe.validation.findings import Finding, blocking_findings, quarantined_files
from segpipe.validation.frames import _split_errors
from tests.worlds.manifests import TABLE, judge, set_values, sound_manifest


def _class_only_in_test(frame: pd.DataFrame) -> None:
    for row in range(12):
        set_values(frame, row, class_pixels=np.array([120, 80, 0]) if row else np.array([100, 80, 20]))


def _class_nowhere(frame: pd.DataFrame) -> None:
    for row in range(12):
        set_values(frame, row, class_pixels=np.array([120, 80, 0]))


def _rare_class(frame: pd.DataFrame) -> None:
    for row in range(12):
        set_values(frame, row, class_pixels=np.array([120_000, 79_900, 100]))


def _no_val(frame: pd.DataFrame) -> None:
    frame["split"] = frame["split"].replace("val", "train")


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], object], list[tuple[str, str, str | None, str]]]] = {
    "unreadable": (
        lambda f: set_values(
            f, 5, error="images/k05.png: the file is empty. Fix: restore it", mask_height=pd.NA, mask_width=pd.NA
        ),
        [("readable_files", "error", "images/k05.png", "the file is empty")],
    ),
    "no mask": (
        lambda f: set_values(
            f,
            5,
            mask_path=None,
            mask_height=pd.NA,
            mask_width=pd.NA,
            mask_sha256=None,
            class_pixels=None,
            unknown_values=None,
        ),
        [("masks_present", "error", "images/k05.png", "no mask")],
    ),
    "other size": (lambda f: set_values(f, 5, mask_width=21), [("sizes_match", "error", "images/k05.png", "21 x 10")]),
    "unknown values": (
        lambda f: set_values(f, 5, unknown_values='{"7": 3, "99": 12}'),
        [("known_classes", "error", "images/k05.png", "unknown values 99 (12 pixels), 7 (3 pixels)")],
    ),
    "one channel": (
        lambda f: set_values(f, 5, channels=1, mean=np.ones(1), std=np.ones(1), low=np.ones(1), high=np.ones(1)),
        [("same_channels", "error", "images/k05.png", "1 channel")],
    ),
    "16 bit": (lambda f: set_values(f, 5, dtype="uint16"), [("same_dtype", "error", "images/k05.png", "uint16")]),
    "copy in another split": (
        lambda f: set_values(f, 0, sha256=f.at[5, "sha256"], mask_sha256=f.at[5, "mask_sha256"]),
        [
            ("no_copies_across_splits", "error", "images/k00.png", "images/k05.png"),
            ("no_copies_across_splits", "error", "images/k05.png", "images/k00.png"),
        ],
    ),
    "two masks": (
        lambda f: set_values(f, 6, sha256=f.at[5, "sha256"]),
        [
            ("one_mask_an_image", "error", "images/k05.png", "images/k06.png"),
            ("one_mask_an_image", "error", "images/k06.png", "images/k05.png"),
        ],
    ),
    "copy in the same split": (
        lambda f: set_values(f, 6, sha256=f.at[5, "sha256"], mask_sha256=f.at[5, "mask_sha256"]),
        [
            ("unique_content", "warning", "images/k05.png", "images/k06.png"),
            ("unique_content", "warning", "images/k06.png", "images/k05.png"),
        ],
    ),
    "empty split": (_no_val, [("min_images", "error", None, "0 usable image(s) in val")]),
    "class not in train": (
        _class_only_in_test,
        [("classes_in_train", "error", None, "class dirt is in val or test (20 pixels)")],
    ),
    "class not in val": (
        lambda f: [set_values(f, row, class_pixels=np.array([120, 80, 0])) for row in (2, 3)],
        [("classes_in_every_split", "error", None, "class dirt does not occur in val (")],
    ),
    "class nowhere": (_class_nowhere, [("classes_exist", "error", None, "class dirt does not occur")]),
    "rare class": (_rare_class, [("class_imbalance", "warning", None, "class dirt has 0.050%")]),
    "group in two splits": (
        lambda f: set_values(f, 0, group="g5", split_given=True),
        [("groups_stay_together", "error", None, "group g5 is in train and test")],
    ),
    "given group in two splits": (
        lambda f: (set_values(f, 0, group="g5", split_given=True), set_values(f, 5, split_given=True)),
        [("given_groups_stay_together", "error", None, "group g5 is in train and test")],
    ),
    "blank": (
        lambda f: set_values(f, 5, std=np.zeros(3)),
        [("blank_images", "warning", "images/k05.png", "the same value")],
    ),
    "empty mask": (
        lambda f: set_values(f, 5, class_pixels=np.array([200, 0, 0])),
        [("near_empty_masks", "warning", "images/k05.png", "0.000% of the mask is another class than background")],
    ),
    "all ignored": (
        lambda f: set_values(f, 5, class_pixels=np.array([0, 0, 0]), ignored_pixels=200),
        [("near_empty_masks", "warning", "images/k05.png", "another class than ignored")],
    ),
    "nearly the same in another split": (
        lambda f: set_values(f, 0, phash=f.at[5, "phash"]),
        [
            (
                "near_duplicates",
                "warning",
                "images/k00.png",
                "(test) as images/k05.png (train): perceptual hashes differ in 0 of 64",
            )
        ],
    ),
    "far brighter": (
        lambda f: set_values(f, 5, mean=np.full(3, 240.0)),
        [("outlier_intensity", "warning", "images/k05.png", "mean by channel: 240, 240, 240")],
    ),
    "far larger": (
        lambda f: set_values(f, 5, height=50, mask_height=50),
        [("outlier_size", "warning", "images/k05.png", "20 x 50: an edge is 5.0 times")],
    ),
    "blurred": (
        lambda f: set_values(f, 5, sharpness=0.0002),
        [("blurred_images", "warning", "images/k05.png", "robust deviations below")],
    ),
    "tiny instances": (
        lambda f: set_values(
            f, 5, height=200, width=400, mask_height=200, mask_width=400, instance_areas=np.array([1, 4, 900])
        ),
        [
            ("outlier_size", "warning", "images/k05.png", ""),
            ("tiny_objects", "warning", "images/k05.png", "is 1.0% of that of a training crop"),
        ],
    ),
    "a volume among images": (
        lambda f: set_values(f, 5, depth=4, mask_depth=4),
        [("same_axes", "error", "images/k05.png", "3D data")],
    ),
    "a label of another depth": (
        lambda f: set_values(f, 5, mask_depth=4),
        [("sizes_match", "error", "images/k05.png", "a mask of 20 x 10 x 4")],
    ),
    "voxels of another size": (
        lambda f: set_values(f, 5, spacing=np.array([1.0, 1.0, 1.0]), mask_spacing=np.array([1.5, 1.0, 1.0])),
        [("spacings_match", "error", "images/k05.png", "a label with voxels of 1.5 x 1 x 1 mm")],
    ),
    "the same voxels as float32": (
        lambda f: set_values(
            f, 5, spacing=np.array([0.7, 1.0, 1.0]), mask_spacing=np.array([np.float32(0.7), 1.0, 1.0], float)
        ),
        [],
    ),
    "another orientation": (
        lambda f: set_values(f, 5, orientation="RAS", mask_orientation="LPS"),
        [("orientations_match", "error", "images/k05.png", "a label in LPS")],
    ),
    "another position": (
        lambda f: set_values(
            f,
            5,
            spacing=np.ones(3),
            mask_spacing=np.ones(3),
            orientation="RAS",
            mask_orientation="RAS",
            mask_offset=3.25,
        ),
        [("origins_match", "warning", "images/k05.png", "puts it 3.25 voxels away")],
    ),
    "another order of voxels at the same position": (
        lambda f: set_values(
            f,
            5,
            spacing=np.ones(3),
            mask_spacing=np.ones(3),
            orientation="RAS",
            mask_orientation="LPS",
            mask_offset=0.0,
        ),
        [],
    ),
    "two voxel sizes in one header": (
        lambda f: set_values(
            f, 5, notes=np.array(["voxels of 0.5 x 0.5 x 0.5 mm as the affine says, not 1 x 1 x 1 mm as pixdim says"])
        ),
        [
            ("voxel_sizes_agree", "warning", "images/k05.png", "not 1 x 1 x 1 mm as pixdim says"),
            ("converted_images", "note", "images/k05.png", "as the affine says"),
        ],
    ),
    "half a voxel away": (
        lambda f: set_values(
            f,
            5,
            spacing=np.ones(3),
            mask_spacing=np.ones(3),
            orientation="RAS",
            mask_orientation="RAS",
            mask_offset=0.5,
        ),
        [],
    ),
    "converted": (
        lambda f: set_values(f, 5, notes=np.array(["EXIF rotation applied"])),
        [("converted_images", "note", "images/k05.png", "EXIF rotation applied")],
    ),
}


def test_a_sound_manifest_has_no_findings() -> None:
    assert judge(sound_manifest()) == []


@pytest.mark.parametrize(("corrupt", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_and_nothing_else(
    corrupt: Callable[[pd.DataFrame], object], expected: list[tuple[str, str, str | None, str]]
) -> None:
    frame = sound_manifest()
    corrupt(frame)
    findings = judge(frame)
    assert [(f.expectation, f.severity, f.file) for f in findings] == [row[:3] for row in expected]
    for finding, row in zip(findings, expected, strict=True):
        assert row[3] in finding.found
        assert finding.expected
        assert finding.fix


def test_every_check_fails_once() -> None:
    tested = {row[0] for _, expected in FAULTS.values() for row in expected} | {
        "polarity",
        "volume_dtypes",
        "drift",
        "labels_not_all_background",
        "split_sizes",
    }
    assert tested == {check.name for check in CHECKS}


@pytest.mark.parametrize(("n_groups", "n_val", "expected"), [(4, 1, ["val"]), (4, 3, []), (30, 1, [])])
def test_splits_of_few_groups_with_one_image_are_a_finding(n_groups: int, n_val: int, expected: list[str]) -> None:
    frame = sound_manifest(30)
    for row in range(30):
        split = "val" if row < n_val else "test" if row < 10 else "train"
        group = f"{split}{row}" if n_groups == 30 else split
        set_values(frame, row, split=split, split_given=False, group=group)
    findings = [f for f in judge(frame) if f.expectation == "split_sizes"]
    assert [f.found for f in findings] == [f"{split} has {n_val} of 30 images" for split in expected]
    assert all(f.severity == "warning" for f in findings)


def test_labels_that_are_all_background_are_an_error_unless_the_severity_is_lowered() -> None:
    frame = sound_manifest()
    for row in range(12):
        set_values(frame, row, class_pixels=np.array([200, 0, 0]))
    (finding,) = [f for f in judge(frame) if f.expectation == "labels_not_all_background"]
    assert (finding.severity, finding.found) == ("error", "all labels are background")
    lowered = judge(frame, severity={"labels_not_all_background": "warning", "classes_exist": "warning"})
    assert "error" not in {f.severity for f in lowered}


def test_braces_in_file_names_are_not_templates() -> None:
    frame = sound_manifest(40)
    for row in range(10, 40):
        set_values(
            frame, row, key=f"img{{{row}}}", path=f"images/img{{{row}}}.png", notes=np.array(["alpha channel dropped"])
        )
    (finding,) = [f for f in judge(frame) if f.expectation == "converted_images"]
    assert "(images/img{10}.png, images/img{11}.png, images/img{12}.png and 27 more)" in finding.found


def test_inverted_masks_are_suspected() -> None:
    frame = sound_manifest()
    for row in range(12):
        set_values(frame, row, class_pixels=np.array([40, 160]))
    (finding,) = judge(frame, ClassTable.from_names(["background", "cell"]))
    assert (finding.expectation, finding.severity) == ("polarity", "warning")
    assert "20%" in finding.found
    assert judge(frame, ClassTable.from_names(["sky", "cell"])) == []


def test_volumes_may_be_stored_in_several_number_types() -> None:
    frame = sound_manifest(30)
    for row in range(30):
        set_values(frame, row, depth=4, mask_depth=4, dtype="uint8" if row % 3 else "float32")
    findings = judge(frame, many=9)
    assert [(f.expectation, f.severity, f.file) for f in findings] == [("volume_dtypes", "warning", None)]
    assert "10 of 30 volumes are not uint8: values range from 0 to 255" in findings[0].found
    assert "images/k00.png, images/k03.png, images/k06.png and 7 more" in findings[0].found
    assert len(judge(frame)) == 10


def test_a_summary_names_its_files_unchanged() -> None:
    frame = sound_manifest()
    for row in (5, 6):
        set_values(frame, row, path=f"images/{{{row}}}.png", notes=np.array(["EXIF rotation applied"]))
    (finding,) = judge(frame, many=1)
    assert finding.found.endswith(" (images/{5}.png, images/{6}.png)")


def test_unknown_values_are_listed_with_their_pixels() -> None:
    frame = sound_manifest()
    set_values(frame, 5, unknown_values=json.dumps({str(v): v for v in range(20, 60)}))
    (finding,) = judge(frame)
    assert finding.found.startswith("unknown values 59 (59 pixels), 58 (58 pixels)")
    assert finding.found.endswith(" 54 (54 pixels) and 34 more")


@pytest.mark.parametrize(
    ("unknown", "fix"),
    [
        ('{"3": 50}', "number classes from 1"),
        ('{"255": 50}', "255 often means ignored"),
        (json.dumps({str(v): 2 for v in range(20, 60)}), "without interpolation"),
        ('{"17": 4}', r"ignore: \[17\]"),
    ],
)
def test_the_fix_for_unknown_values_names_their_usual_cause(unknown: str, fix: str) -> None:
    frame = sound_manifest()
    set_values(frame, 5, unknown_values=unknown)
    (finding,) = judge(frame)
    assert re.search(fix, finding.fix)


def test_min_images_and_severities_follow_params() -> None:
    frame = sound_manifest()
    assert [f.found.split()[0] for f in judge(frame, min_images=3)] == ["2", "2"]
    set_values(frame, 5, mask_width=21)
    set_values(frame, 6, class_pixels=np.array([200, 0, 0]))
    assert [f.expectation for f in judge(frame, severity={"sizes_match": "warning", "near_empty_masks": "error"})] == [
        "near_empty_masks",
        "sizes_match",
    ]
    assert judge(frame, severity={"sizes_match": "off", "near_empty_masks": "off"}) == []
    with pytest.raises(ConfigError, match=r"no such check.*size_match.*sizes_match"):
        judge(frame, severity={"size_match": "off"})


def test_the_results_of_great_expectations_are_returned() -> None:
    frame = sound_manifest()
    set_values(frame, 5, mask_width=21)
    findings, gx_result, _ = validate_manifest(frame, make_fingerprint(frame, TABLE), ValidateParams())
    json.dumps(gx_result, allow_nan=False)
    assert gx_result["success"] is False
    failed = [r for r in gx_result["results"] if not r["success"]]
    assert [r["check"] for r in failed] == [f.expectation for f in findings] == ["sizes_match"]
    assert failed[0]["expectation"] == "expect_column_pair_values_to_be_equal"
    assert failed[0]["result"]["unexpected_count"] == 1
    assert {r["check"] for r in gx_result["results"]} == {check.name for check in CHECKS}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The report of a demo dataset with faults, written twice."""
    folder = tmp_path_factory.mktemp("validation")
    data = folder / "data"
    write_demo(data, images=24)
    (data / "images" / "cells-003.png").write_text("no image")
    (data / "masks" / "cells-004.png").unlink()
    (data / "images" / "a <b>&.png").write_bytes((data / "images" / "cells-005.png").read_bytes())
    dataset = load_dataset(data)
    frame = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
    findings, gx_result, _ = validate_manifest(frame, make_fingerprint(frame, dataset.classes), ValidateParams())
    write_validation(folder / "out", findings, gx_result, frame, data)
    write_validation(folder / "again", findings, gx_result, frame, data)
    return folder / "out", folder / "again"


def test_the_report_is_the_same_for_the_same_data(written: tuple[Path, Path]) -> None:
    out, again = written
    assert {p.name for p in out.iterdir()} == {"findings.json", "gx.json", "index.html"}
    for path in out.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    assert not re.search(
        rb"20\d\d-\d\d-\d\dT|/tmp/", b"".join(p.read_bytes() for p in out.iterdir() if p.suffix == ".json")
    )


def test_findings_json_and_the_page_agree(written: tuple[Path, Path]) -> None:
    out, _ = written
    content = json.loads((out / "findings.json").read_text())
    assert content["passed"] is False
    findings = [Finding.model_validate(f) for f in content["findings"]]
    assert [f.severity for f in findings] == sorted(f.severity for f in findings)
    page = (out / "index.html").read_text()
    HTMLParser().feed(page)
    for finding in findings:
        assert f'id="{finding.expectation}"' in page
    assert "images/cells-003.png" in page
    assert "a &lt;b&gt;&amp;.png" in page
    assert "<b>&.png" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "http" not in page
    assert page.count('src="data:image/') >= 2


def test_the_page_stays_small(tmp_path: Path) -> None:
    frame = sound_manifest(400)
    for row in range(400):
        set_values(frame, row, mask_width=21 if row > 5 else 20)
    findings, gx_result, _ = validate_manifest(frame, make_fingerprint(frame, TABLE), ValidateParams())
    assert len(findings) == 394
    write_validation(tmp_path, findings, gx_result, frame, tmp_path / "data")
    page = (tmp_path / "index.html").read_text()
    assert 0 < page.count('class="finding"') < 20
    assert "382 more in findings.json." in page


CELL_PARTS = {"classes": ["background", "cytoplasm", "nucleus"]}


@pytest.mark.parametrize(
    ("name", "options", "check", "files"),
    [
        ("nuclei", {}, "", []),
        ("wbc/dataset1", CELL_PARTS, "one_mask_an_image", ["images/112.png", "images/139.png"]),
        ("wbc/dataset2", CELL_PARTS, "known_classes", ["images/035.png", "images/047.png"]),
        ("em_membranes", {"classes": ["membrane", "inside"]}, "", []),
    ],
)
def test_real_datasets_have_only_their_known_faults(
    shared_data: Path, tmp_path: Path, name: str, options: dict, check: str, files: list[str]
) -> None:
    import_dataset(shared_data / name, tmp_path / "data", "folder", ImportOptions(**options))
    dataset = load_dataset(tmp_path / "data")
    frame = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
    findings, _, _ = validate_manifest(frame, make_fingerprint(frame, dataset.classes), ValidateParams())
    assert [(f.expectation, f.file) for f in findings if f.severity == "error"] == [(check, file) for file in files]


def test_quarantine_leaves_files_out_and_checks_the_others() -> None:
    frame = sound_manifest()
    for row in (0, 1):
        set_values(frame, row, unknown_values='{"9": 1}')
    for row in range(12):
        set_values(frame, row, class_pixels=np.array([120, 60, 20 if row in (2, 6) else 0]))
    set_values(frame, 6, mask_width=21)
    findings = judge(frame, quarantine=True)
    assert quarantined_files(findings) == ["images/k00.png", "images/k01.png", "images/k06.png"]
    stops = blocking_findings(findings, ValidateParams(quarantine=True))
    assert [(f.expectation, f.file) for f in stops] == [("min_images", None), ("classes_in_train", None)]
    assert stops[0].found == "0 usable image(s) in test"
    whole = judge(frame)
    assert "min_images" not in {f.expectation for f in whole}
    # Row 6 is unusable with and without quarantine.
    assert len(blocking_findings(whole, ValidateParams())) == len(quarantined_files(whole)) + 1


def test_instances_are_compared_with_the_training_crop() -> None:
    """The median instance is 2 pixels wide: 1.6 % of a crop of 128 pixels, 1 % of one of 192; images are 200 pixels high."""
    frame = sound_manifest()
    for row in range(12):
        set_values(
            frame, row, height=200, width=400, mask_height=200, mask_width=400, instance_areas=np.array([4, 4, 400])
        )
    assert judge(frame, crop=128) == []
    findings = judge(frame, crop=192)
    assert {finding.expectation for finding in findings} == {"tiny_objects"}
    assert "1.0% of that of a training crop" in findings[0].found


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            DataError("the file is empty", where="images/k05.png", fix="restore it"),
            ("the file is empty", "a usable file", "restore it"),
        ),
        (
            DataError("is (no) image", where="images/k05.png", expected="PNG, or (rarely) BMP"),
            ("is (no) image", "PNG, or (rarely) BMP", "restore the file, or remove it from the data"),
        ),
        (
            DataError("too large", where="images/k05.png", found="5 x 5 (3D)", expected="4", fix="cut it"),
            ("too large (found 5 x 5 (3D))", "4", "cut it"),
        ),
    ],
)
def test_the_error_of_a_broken_file_is_split_into_its_parts(error: DataError, parts: tuple[str, str, str]) -> None:
    frame = pd.DataFrame({"path": ["images/k05.png"], "error": [str(error)]})
    assert [words[0] for words in _split_errors(frame)] == list(parts)
