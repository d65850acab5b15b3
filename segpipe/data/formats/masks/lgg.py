"""`lgg`: slices of brain MRI in one folder per patient, each with a mask next to it (the LGG segmentation data, kaggle_3m).

```
SRC/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif, TCGA_CS_4941_19960909_1_mask.tif
```

Each patient is a group.
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import stem_of
from segpipe.errors import DataError
from segpipe.samples import ClassTable

_MASK_ENDING = "_mask"
_INNER_FOLDERS = ("", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m")
_PATIENT_NAME_PARTS = 3
"""TCGA, the institution and the patient; a date follows."""
_MAX_PATIENTS_CHECKED = 5


def recognise_lgg(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of patients with slices and masks. None otherwise."""
    patients = _patient_folders(probe)
    for patient in patients[:_MAX_PATIENTS_CHECKED]:
        if any(stem_of(path).endswith(_MASK_ENDING) for path in probe.listing.image_files(patient)):
            return f"{len(patients)} folders TCGA_*, with slices and their {_MASK_ENDING}.tif"
    return None


def read_lgg(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout.

    Raises:
        DataError: there is no patient folder.
    """
    source, patients = probe.source, _patient_folders(probe)
    if not patients:
        raise DataError(
            "no patient folder",
            where=source,
            expected="TCGA_*/ with *.tif and *_mask.tif",
            fix="give the folder kaggle_3m, or choose another --format",
        )
    result = ReadResult(
        [], ClassTable.from_names(["background", "abnormality"], [0, 255]), classes_from="the layout lgg"
    )
    for patient in patients:
        files = {stem_of(path): path for path in probe.listing.image_files(patient)}
        group = "_".join(patient.name.split("_")[:_PATIENT_NAME_PARTS])
        for stem, path in files.items():
            if not stem.endswith(_MASK_ENDING):
                name = (path.relative_to(source).parent / stem).as_posix()
                result.items.append(RawItem(name, path, files.get(stem + _MASK_ENDING), group=group))
            elif stem.removesuffix(_MASK_ENDING) not in files:
                result.skipped.append((path.relative_to(source).as_posix(), "a mask without an image"))
    return result


def _patient_folders(probe: SourceProbe) -> list[Path]:
    """Return the folders of patients, in the source or in the folder that the archive unpacks to."""
    for inner in _INNER_FOLDERS:
        folder = probe.source / inner
        if probe.listing.is_folder(folder):
            patients = [path for path in probe.listing.folders(folder) if path.name.startswith("TCGA_")]
            if patients:
                return patients
    return []
