"""`nnunet`: the raw data of nnU-Net v2, and of the Medical Segmentation Decathlon, which nnU-Net v1 shared.

```
SRC/dataset.json  SRC/imagesTr/KEY_0000.EXT (a file a channel; the Decathlon: KEY.nii.gz with all)  SRC/labelsTr/KEY.EXT
[SRC/imagesTs/  SRC/labelsTs/  SRC/splits_final.json]
```

dataset.json of nnU-Net v2 (https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md): `labels` maps names to
values, `channel_names`, `file_ending`, perhaps `dataset`; the Decathlon's: `labels` maps values to names, `training` lists pairs.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segpipe.config import DataParams
from segpipe.data.formats.documents import peek, read_document
from segpipe.data.formats.nnunet_labels import read_labels
from segpipe.data.formats.source import RawItem, ReadOptions, Source, inside
from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES, merge_channels, stem_of, suffix_of
from segpipe.errors import DataError
from segpipe.files import read_json

DATASET, FOLDS = "dataset.json", "splits_final.json"
_MAX_BYTES = 64 << 20
_TRAINING = "imagesTr"
_CHANNEL = re.compile(r"(.+)_(\d{4})")


def recognise_nnunet(source: Path) -> str | None:
    """Why `source` is of this layout: a dataset.json with `labels` and `channel_names`; None where it is not."""
    return _recognise(source, "channel_names", "nnU-Net v2")


def recognise_msd(source: Path) -> str | None:
    """Why `source` is of the Decathlon's kind: a dataset.json with `labels` and `modality`; None where it is not."""
    return _recognise(source, "modality", "the Medical Segmentation Decathlon")


def _recognise(source: Path, key: str, flavour: str) -> str | None:
    words = peek(source / DATASET)
    found = all(f'"{word}"'.encode() in words for word in ("labels", key))
    return f"{DATASET} with `labels` and `{key}`, as of {flavour}" if found else None


def read_nnunet(source: Path, options: ReadOptions) -> Source:
    """Read the layout. Channels in files of their own become one file; imagesTs/ with labelsTs/ is the test split, images without
    labels are left out; a single fold of splits_final.json says what is val.

    Raises DataError for a dataset.json that is broken, contradicts itself or names files outside the source.
    """
    path = source / DATASET
    if not path.is_file():
        raise DataError(
            f"no {DATASET}", where=source, expected="the raw data of nnU-Net or the Medical Segmentation Decathlon",
            fix="choose another --format (volumes, for two folders of NIfTI)",
        )  # fmt: skip
    content = read_document(path, _MAX_BYTES)
    found = Source([], classes_from=DATASET)
    found.classes = read_labels(content.get("labels"), str(path), found.notes)
    layout = _Layout(source, path, _ending(content, path), _channels(content, path), options.limits)
    named = _named_pairs(content, path)
    training = named if named is not None else layout.pairs_in(_TRAINING, "labelsTr", found)
    items = [layout.item(pair, found) for pair in training]
    items += [layout.item(pair, found, "test") for pair in layout.pairs_in("imagesTs", "labelsTs", found)]
    found.items = _with_folds([item for item in items if item], source / FOLDS, found)
    if unlabelled := layout.count_unlabelled():
        found.skipped.append(("imagesTs/", f"{unlabelled} images without labels, of no use in training or judging"))
    return found


Pair = tuple[list[str], str]
"""Names of the files of an image's channels and of its label, relative to the source."""


@dataclass(frozen=True)
class _Layout:
    """Where the files of a source lie. `ending` is None where each file has its own (the Decathlon)."""

    source: Path
    path: Path
    ending: str | None
    channels: int
    limits: DataParams

    def pairs_in(self, images: str, labels: str, found: Source) -> list[Pair]:
        """The images of a folder that have a label in another; of the rest, in training folders, each is left out by name."""
        with_label = {stem_of(path): f"{labels}/{path.name}" for path in self._files(labels)}
        by_case = self._by_case(images, with_label)
        found.skipped += [(with_label[c], "a label without an image") for c in with_label if c not in by_case]
        if images == _TRAINING:
            found.skipped += [(by_case[c][0], "an image without a label") for c in by_case if c not in with_label]
        return [(by_case[case], label) for case, label in with_label.items() if case in by_case]

    def count_unlabelled(self) -> int:
        """How many images in imagesTs/ have no label in labelsTs/."""
        labelled = {stem_of(path) for path in self._files("labelsTs")}
        return len(self._by_case("imagesTs", labelled).keys() - labelled)

    def item(self, pair: Pair, found: Source, split: str | None = None) -> RawItem | None:
        """An image with its label; None, and a line in `skipped`, where files are missing or too many."""
        images, label = pair
        mask = self._existing(label)
        paths = self._with_siblings([self._existing(name) for name in images])
        if reason := self._fault(paths, mask):
            found.skipped.append((images[0], reason))
            return None
        name = Path(images[0]).parent / stem_of(mask)
        if len(paths) == 1:
            return RawItem(name.as_posix(), paths[0], mask, split=split)
        merged = Merged(tuple(paths), self.limits)
        return RawItem(
            name.as_posix(), paths[0].with_name(name.name + merged.suffix), mask, split=split, content=merged
        )

    def _with_siblings(self, paths: list[Path]) -> list[Path]:
        """A file that is not there stands for the files of its channels, as in dataset.json of nnU-Net v1."""
        if len(paths) > 1 or paths[0].is_file() or not paths[0].parent.is_dir():
            return paths
        stem, suffix = stem_of(paths[0]), suffix_of(paths[0])
        siblings = [
            p for p in sorted(paths[0].parent.iterdir()) if suffix_of(p) == suffix and _channel(p, stem) is not None
        ]
        return siblings or paths

    def _fault(self, paths: list[Path], mask: Path) -> str | None:
        if missing := [path.name for path in (*paths, mask) if not path.is_file()]:
            return f"names a file that is not there: {missing[0]}"
        if unread := [path.name for path in (*paths, mask) if suffix_of(path) not in (*SUFFIXES, *VOLUME_SUFFIXES)]:
            return f"{unread[0]} is of no kind that is read"
        numbers = [n for path in paths if (n := _channel(path, stem_of(mask))) is not None]
        if numbers and numbers != list(range(len(numbers))):
            return f"channels are missing: there are {', '.join(f'{n:04d}' for n in numbers)}"
        if len(paths) not in (1, self.channels):
            return f"{len(paths)} files of channels, {DATASET} has {self.channels}"
        return None

    def _by_case(self, folder: str, labelled: Collection[str]) -> dict[str, list[str]]:
        """Names of image files by the key of their label, in the order of their channels."""
        by_case: dict[str, list[str]] = {}
        for path in self._files(folder):
            stem = stem_of(path)
            numbered = _CHANNEL.fullmatch(stem)
            case = numbered[1] if numbered and stem not in labelled else stem
            by_case.setdefault(case, []).append(f"{folder}/{path.name}")
        return by_case

    def _existing(self, name: str) -> Path:
        return inside(self.source, name, str(self.path))

    def _files(self, folder: str) -> list[Path]:
        if not (self.source / folder).is_dir():
            return []
        files = [p for p in sorted((self.source / folder).iterdir()) if not p.name.startswith(".") and p.is_file()]
        return [p for p in files if (suffix_of(p) == self.ending if self.ending else suffix_of(p) in VOLUME_SUFFIXES)]


@dataclass(frozen=True)
class Merged:
    """The content of a file that holds the channels of several (`RawItem.content`)."""

    paths: tuple[Path, ...]
    limits: DataParams

    @property
    def suffix(self) -> str:
        """How the name of such a file ends."""
        return ".nii.gz" if suffix_of(self.paths[0]) in VOLUME_SUFFIXES else ".tif"

    def __call__(self) -> bytes:
        """The bytes; DataError as of `merge_channels`."""
        return merge_channels(self.paths, self.limits)


def _channel(path: Path, case: str) -> int | None:
    """The number of the channel that a file of a case holds; None where its name says none."""
    numbered = _CHANNEL.fullmatch(stem_of(path))
    return int(numbered[2]) if numbered and numbered[1] == case else None


def _ending(content: dict[str, Any], path: Path) -> str | None:
    ending = content.get("file_ending")
    if ending is None:
        return None
    if not isinstance(ending, str) or ending.lower() not in (*SUFFIXES, *VOLUME_SUFFIXES):
        raise DataError(
            "a file_ending that is not read", where=path, found=ending, expected=", ".join((*SUFFIXES, *VOLUME_SUFFIXES)),
            fix="convert the files to .nii.gz, and write so",
        )  # fmt: skip
    return ending.lower()


def _channels(content: dict[str, Any], path: Path) -> int:
    names = content.get("channel_names", content.get("modality"))
    if not isinstance(names, dict) or not names:
        raise DataError(
            "no channels", where=path, found=names, expected='channel_names: {"0": "CT", ...} (or modality)'
        )
    return len(names)


def _named_pairs(content: dict[str, Any], path: Path) -> list[Pair] | None:
    """The pairs that `training` (Decathlon) or `dataset` (nnU-Net v2) lists; None where neither is there."""
    fix = "correct the entry, or remove it"
    pairs: list[Pair] = []
    if isinstance(listed := content.get("training"), list):
        for index, entry in enumerate(listed):
            image, label = (entry.get(key) if isinstance(entry, dict) else None for key in ("image", "label"))
            if not isinstance(image, str) or not isinstance(label, str):
                raise DataError(
                    "no pair of image and label", where=f"{path}: training[{index}]", found=str(entry)[:80],
                    expected='{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}', fix=fix,
                )  # fmt: skip
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
                )  # fmt: skip
            pairs.append((images, label))
        return pairs
    return None


def _with_folds(items: list[RawItem], path: Path, found: Source) -> list[RawItem]:
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


def _held_out(path: Path, found: Source) -> set[str] | None:
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
    found.notes.append(f"{FOLDS}: {len(folds)} folds, of which none is taken")
    return None
