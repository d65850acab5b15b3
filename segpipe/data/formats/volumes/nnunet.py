"""`nnunet` and `msd`: the raw data of nnU-Net v2, and of the Medical Segmentation Decathlon, whose format nnU-Net v1 used.

```
SRC/dataset.json  SRC/imagesTr/KEY_0000.EXT (one file per channel; the Decathlon: KEY.nii.gz with all)  SRC/labelsTr/KEY.EXT
[SRC/imagesTs/  SRC/labelsTs/  SRC/splits_final.json]
```

dataset.json of nnU-Net v2 (https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md): `labels` maps names to
values, `channel_names`, `file_ending`, optionally `dataset`. That of the Decathlon: `labels` maps values to names, `training` lists
pairs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.formats.volumes.nnunet_files import DATASET_FILE, TRAINING_IMAGES, FileNames, NnunetFiles
from segpipe.data.formats.volumes.nnunet_labels import read_labels
from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES
from segpipe.errors import DataError
from segpipe.files import read_json

FOLDS_FILE = "splits_final.json"
_MAX_JSON_BYTES = 64 << 20
_ENTRY_FIX = "correct the entry, or remove it"


def recognise_nnunet(probe: SourceProbe) -> str | None:
    """Return why the source is raw data of nnU-Net: a dataset.json with `labels` and `channel_names`. None if it is not."""
    return _recognise(probe, "channel_names", "nnU-Net v2")


def recognise_msd(probe: SourceProbe) -> str | None:
    """Return why the source has the Decathlon's format: a dataset.json with `labels` and `modality`. None otherwise."""
    return _recognise(probe, "modality", "the Medical Segmentation Decathlon")


def _recognise(probe: SourceProbe, key: str, origin: str) -> str | None:
    content = peek(probe.source / DATASET_FILE)
    has_keys = all(f'"{word}"'.encode() in content for word in ("labels", key))
    return f"{DATASET_FILE} with `labels` and `{key}`, as in {origin}" if has_keys else None


def read_nnunet(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read either format.

    Channels in separate files become one file. imagesTs/ with labelsTs/ is the test split; images without labels are left out. If
    splits_final.json has a single fold, its validation cases are the val split.

    Raises:
        DataError: dataset.json is missing, broken, contradicts itself or names files outside the source.
    """
    source, path = probe.source, probe.source / DATASET_FILE
    if not path.is_file():
        raise DataError(
            f"no {DATASET_FILE}",
            where=source,
            expected="the raw data of nnU-Net or the Medical Segmentation Decathlon",
            fix="choose another --format (volumes, for two folders of NIfTI)",
        )
    content = read_document(path, _MAX_JSON_BYTES)
    result = ReadResult([], classes_from=DATASET_FILE, used_files={path, source / FOLDS_FILE})
    result.classes = read_labels(content.get("labels"), str(path), result.notes)
    names = _channel_names(content, path)
    result.channels = names if len(names) > 1 and len({name.casefold() for name in names}) == len(names) else ()
    files = NnunetFiles(probe, path, _file_ending(content, path), len(names), options.limits)
    listed = _listed_cases(content, path)
    training = listed if listed is not None else files.cases_in(TRAINING_IMAGES, "labelsTr", result)
    items = [files.item(case, result) for case in training]
    items += [files.item(case, result, "test") for case in files.cases_in("imagesTs", "labelsTs", result)]
    result.items = _with_folds([item for item in items if item], source / FOLDS_FILE, result)
    if unlabelled := files.count_unlabelled():
        reason = f"{unlabelled} images without labels, which neither training nor evaluation can use"
        result.skipped.append(("imagesTs/", reason))
    return result


def _file_ending(content: dict[str, Any], path: Path) -> str | None:
    ending = content.get("file_ending")
    if ending is None:
        return None
    if not isinstance(ending, str) or ending.lower() not in (*SUFFIXES, *VOLUME_SUFFIXES):
        raise DataError(
            "a file_ending that is not supported",
            where=path,
            found=ending,
            expected=", ".join((*SUFFIXES, *VOLUME_SUFFIXES)),
            fix="convert the files to .nii.gz, and change file_ending to it",
        )
    return ending.lower()


def _channel_names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Return the names of the channels, in the order of their numbers where the keys are numbers."""
    names = content.get("channel_names", content.get("modality"))
    if not isinstance(names, dict) or not names:
        raise DataError(
            "no channels", where=path, found=names, expected='channel_names: {"0": "CT", ...} (or modality)'
        )
    keys = sorted(names, key=int) if all(str(key).isdecimal() for key in names) else list(names)
    return tuple(str(names[key]) for key in keys)


def _listed_cases(content: dict[str, Any], path: Path) -> list[FileNames] | None:
    """Return the cases that `training` (Decathlon) or `dataset` (nnU-Net v2) lists; None if the file has neither."""
    if isinstance(training := content.get("training"), list):
        return _decathlon_cases(training, path)
    if isinstance(dataset := content.get("dataset"), dict):
        return _dataset_cases(dataset, path)
    return None


def _decathlon_cases(training: list[Any], path: Path) -> list[FileNames]:
    cases: list[FileNames] = []
    for index, entry in enumerate(training):
        image, label = (entry.get(key) if isinstance(entry, dict) else None for key in ("image", "label"))
        if not isinstance(image, str) or not isinstance(label, str):
            raise DataError(
                "not a pair of image and label",
                where=f"{path}: training[{index}]",
                found=str(entry)[:80],
                expected='{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}',
                fix=_ENTRY_FIX,
            )
        if not Path(image).name.startswith("."):
            cases.append(([image], label))
    return cases


def _dataset_cases(dataset: dict[str, Any], path: Path) -> list[FileNames]:
    cases: list[FileNames] = []
    for name, entry in dataset.items():
        images, label = (entry.get(key) if isinstance(entry, dict) else None for key in ("images", "label"))
        if (
            not isinstance(images, list)
            or not images
            or not all(isinstance(image, str) for image in images)
            or not isinstance(label, str)
        ):
            raise DataError(
                "not images and a label",
                where=f"{path}: dataset.{name}",
                found=str(entry)[:80],
                expected='{"images": ["imagesTr/a_0000.png"], "label": "labelsTr/a.png"}',
                fix=_ENTRY_FIX,
            )
        cases.append((images, label))
    return cases


def _with_folds(items: list[RawItem], path: Path, result: ReadResult) -> list[RawItem]:
    """Return the items with their splits.

    Items of the test split keep it; the others are train or val by the only fold of splits_final.json. Without a single fold, they are
    all train if there is a test split, and otherwise have no split.
    """
    val_names = _validation_cases(path, result) if path.is_file() else None
    if val_names is None and not any(item.split for item in items):
        return items
    names = val_names or set()
    return [
        item if item.split else replace(item, split="val" if Path(item.name).name in names else "train")
        for item in items
    ]


def _validation_cases(path: Path, result: ReadResult) -> set[str] | None:
    """Return the validation cases of the only fold; None, and a note in the result, if there are several."""
    folds = read_json(path, _MAX_JSON_BYTES)
    if not isinstance(folds, list) or not all(isinstance(f, dict) and isinstance(f.get("val"), list) for f in folds):
        raise DataError(
            "is not a list of folds",
            where=path,
            expected='[{"train": [keys], "val": [keys]}]',
            fix="correct the file, or remove it",
        )
    if len(folds) == 1:
        return {str(key) for key in folds[0]["val"]}
    result.notes.append(f"{FOLDS_FILE}: {len(folds)} folds, none of which is used")
    return None
