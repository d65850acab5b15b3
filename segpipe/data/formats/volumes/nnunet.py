"""`nnunet`: the raw data of nnU-Net v2, and of the Medical Segmentation Decathlon, which nnU-Net v1 shared.

```
SRC/dataset.json  SRC/imagesTr/KEY_0000.EXT (a file a channel; the Decathlon: KEY.nii.gz with all)  SRC/labelsTr/KEY.EXT
[SRC/imagesTs/  SRC/labelsTs/  SRC/splits_final.json]
```

dataset.json of nnU-Net v2 (https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md): `labels` maps names to
values, `channel_names`, `file_ending`, perhaps `dataset`; the Decathlon's: `labels` maps values to names, `training` lists pairs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.volumes.nnunet_files import DATASET_FILE, TRAINING_IMAGES, NnunetFiles, FileNames
from segpipe.data.formats.volumes.nnunet_labels import read_labels
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES
from segpipe.errors import DataError
from segpipe.files import read_json

FOLDS_FILE = "splits_final.json"
_MAX_BYTES = 64 << 20


def recognise_nnunet(source: Path) -> str | None:
    """Why `source` is of this layout: a dataset.json with `labels` and `channel_names`; None where it is not."""
    return _recognise(source, "channel_names", "nnU-Net v2")


def recognise_msd(source: Path) -> str | None:
    """Why `source` is of the Decathlon's kind: a dataset.json with `labels` and `modality`; None where it is not."""
    return _recognise(source, "modality", "the Medical Segmentation Decathlon")


def _recognise(source: Path, key: str, flavour: str) -> str | None:
    words = peek(source / DATASET_FILE)
    found = all(f'"{word}"'.encode() in words for word in ("labels", key))
    return f"{DATASET_FILE} with `labels` and `{key}`, as of {flavour}" if found else None


def read_nnunet(source: Path, options: ReadOptions) -> ReadResult:
    """Read the files. Channels in files of their own become one file; imagesTs/ with labelsTs/ is the test split, images without
    labels are left out; a single fold of splits_final.json says what is val.

    Raises DataError for a dataset.json that is broken, contradicts itself or names files outside the source.
    """
    path = source / DATASET_FILE
    if not path.is_file():
        raise DataError(
            f"no {DATASET_FILE}", where=source, expected="the raw data of nnU-Net or the Medical Segmentation Decathlon",
            fix="choose another --format (volumes, for two folders of NIfTI)",
        )
    content = read_document(path, _MAX_BYTES)
    found = ReadResult([], classes_from=DATASET_FILE)
    found.classes = read_labels(content.get("labels"), str(path), found.notes)
    files = NnunetFiles(source, path, _ending(content, path), _channels(content, path), options.limits)
    named = _named_pairs(content, path)
    training = named if named is not None else files.pairs_in(TRAINING_IMAGES, "labelsTr", found)
    items = [files.item(pair, found) for pair in training]
    items += [files.item(pair, found, "test") for pair in files.pairs_in("imagesTs", "labelsTs", found)]
    found.items = _with_folds([item for item in items if item], source / FOLDS_FILE, found)
    if unlabelled := files.count_unlabelled():
        found.skipped.append(("imagesTs/", f"{unlabelled} images without labels, of no use in training or judging"))
    return found


def _ending(content: dict[str, Any], path: Path) -> str | None:
    ending = content.get("file_ending")
    if ending is None:
        return None
    if not isinstance(ending, str) or ending.lower() not in (*SUFFIXES, *VOLUME_SUFFIXES):
        raise DataError(
            "a file_ending that is not read", where=path, found=ending, expected=", ".join((*SUFFIXES, *VOLUME_SUFFIXES)),
            fix="convert the files to .nii.gz, and write so",
        )
    return ending.lower()


def _channels(content: dict[str, Any], path: Path) -> int:
    names = content.get("channel_names", content.get("modality"))
    if not isinstance(names, dict) or not names:
        raise DataError(
            "no channels", where=path, found=names, expected='channel_names: {"0": "CT", ...} (or modality)'
        )
    return len(names)


def _named_pairs(content: dict[str, Any], path: Path) -> list[FileNames] | None:
    """The pairs that `training` (Decathlon) or `dataset` (nnU-Net v2) lists; None where neither is there."""
    fix = "correct the entry, or remove it"
    pairs: list[FileNames] = []
    if isinstance(listed := content.get("training"), list):
        for index, entry in enumerate(listed):
            image, label = (entry.get(key) if isinstance(entry, dict) else None for key in ("image", "label"))
            if not isinstance(image, str) or not isinstance(label, str):
                raise DataError(
                    "no pair of image and label", where=f"{path}: training[{index}]", found=str(entry)[:80],
                    expected='{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}', fix=fix,
                )
            if not Path(image).name.startswith("."):
                pairs.append(([image], label))
        return pairs
    if isinstance(listed := content.get("dataset"), dict):
        for case, entry in listed.items():
            images, label = (entry.get(key) if isinstance(entry, dict) else None for key in ("images", "label"))
            if (
                not isinstance(images, list)
                or not images
                or not all(isinstance(i, str) for i in images)
                or not isinstance(label, str)
            ):
                raise DataError(
                    "no images and label", where=f"{path}: dataset.{case}", found=str(entry)[:80],
                    expected='{"images": ["imagesTr/a_0000.png"], "label": "labelsTr/a.png"}', fix=fix,
                )
            pairs.append((images, label))
        return pairs
    return None


def _with_folds(items: list[RawItem], path: Path, found: ReadResult) -> list[RawItem]:
    """Items with their split: `test` where it is given, the others by the one fold of splits_final.json; without such, they are all
    for training where there is a test split, and of no split where there is none.
    """
    held_out = _held_out(path, found) if path.is_file() else None
    if held_out is None and not any(item.split for item in items):
        return items
    names = held_out or set()
    return [
        item if item.split else replace(item, split="val" if Path(item.name).name in names else "train")
        for item in items
    ]


def _held_out(path: Path, found: ReadResult) -> set[str] | None:
    """The validation cases of the one fold there is; None, and a note, where there are several."""
    folds = read_json(path, _MAX_BYTES)
    if not isinstance(folds, list) or not all(isinstance(f, dict) and isinstance(f.get("val"), list) for f in folds):
        raise DataError(
            "are no folds",
            where=path,
            expected='[{"train": [keys], "val": [keys]}]',
            fix="correct the file, or remove it",
        )
    if len(folds) == 1:
        return {str(key) for key in folds[0]["val"]}
    found.notes.append(f"{FOLDS_FILE}: {len(folds)} folds, of which none is taken")
    return None
