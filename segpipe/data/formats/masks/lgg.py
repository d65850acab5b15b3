"""`lgg`: slices of brain MRI in a folder for each patient, a mask beside each (the LGG segmentation data, kaggle_3m).

```
SRC/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif, TCGA_CS_4941_19960909_1_mask.tif
```

A patient is a group.
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import image_files, stem_of
from segpipe.errors import DataError
from segpipe.samples import ClassTable

_ENDING = "_mask"
_INNER = ("", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m")
_PATIENT_PARTS = 3
"""TCGA, the institution, the patient; a date follows."""


def recognise_lgg(source: Path) -> str | None:
    """Why `source` is of this layout: folders of patients with slices and masks; None where it is not."""
    patients = _patients(source)
    for patient in patients[:5]:
        if any(stem_of(path).endswith(_ENDING) for path in image_files(patient)):
            return f"{len(patients)} folders TCGA_*, with slices and their {_ENDING}.tif"
    return None


def read_lgg(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; DataError where there is no folder of a patient."""
    patients = _patients(source)
    if not patients:
        raise DataError(
            "no folder of a patient", where=source, expected="TCGA_*/ with *.tif and *_mask.tif",
            fix="give the folder kaggle_3m, or choose another --format",
        )
    found = ReadResult([], ClassTable.from_names(["background", "abnormality"], [0, 255]), classes_from="the layout lgg")
    for patient in patients:
        files = {stem_of(path): path for path in image_files(patient)}
        group = "_".join(patient.name.split("_")[:_PATIENT_PARTS])
        for stem, path in files.items():
            if not stem.endswith(_ENDING):
                name = (path.relative_to(source).parent / stem).as_posix()
                found.items.append(RawItem(name, path, files.get(stem + _ENDING), group=group))
            elif stem.removesuffix(_ENDING) not in files:
                found.skipped.append((path.relative_to(source).as_posix(), "a mask without an image"))
    return found


def _patients(source: Path) -> list[Path]:
    """The folders of patients, in the source or in the folder that the archive unpacks to."""
    for inner in _INNER:
        if patients := sorted(path for path in (source / inner).glob("TCGA_*") if path.is_dir()):
            return patients
    return []
