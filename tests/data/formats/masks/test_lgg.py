"""Slices of brain MRI in one folder per patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.worlds.layouts import import_source, items, mask_of, photo, save, values


@pytest.mark.parametrize("inner", ["", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m"])
def test_slices_of_patients(source: Path, data: Path, inner: str) -> None:
    truth = {}
    for patient in ("TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405"):
        for number in (1, 2):
            stem = f"{patient}_{number}"
            photo(source / inner / patient / f"{stem}.tif")
            truth[stem] = values(number, [0, 255])
            save(source / inner / patient / f"{stem}_mask.tif", truth[stem])
    save(source / inner / patient / "orphan_mask.tif", truth[stem])
    report = import_source(source, data)
    assert (report.format, report.images, report.masks, report.groups) == ("lgg", 4, 4, 2)
    assert [(Path(name).name, reason) for name, reason in report.skipped] == [
        ("orphan_mask.tif", "a mask without an image")
    ]
    assert [(spec.name, spec.value) for spec in report.classes.classes] == [("background", 0), ("abnormality", 255)]
    for key, item in items(data).items():
        assert item.group in ("TCGA_CS_4941", "TCGA_DU_5849")
        assert key.startswith(item.group)
        np.testing.assert_array_equal(mask_of(item), truth[key])
