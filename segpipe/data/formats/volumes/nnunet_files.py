"""Group the files of nnU-Net's format into images with labels. An image is one file per channel, or one file with all channels."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from segpipe.config import DataParams
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadResult, resolve_inside
from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES, merge_channels, stem_of, suffix_of

DATASET_FILE = "dataset.json"
TRAINING_IMAGES = "imagesTr"
_NUMBERED_NAME = re.compile(r"(.+)_(\d{4})")

FileNames = tuple[list[str], str]
"""The files of one case: those of the image's channels, and that of its label, relative to the source."""


@dataclass(frozen=True)
class NnunetFiles:
    """The files of a source.

    probe: the source.
    dataset_file: dataset.json, for errors.
    ending: the ending of all files; None if each file has its own (the Decathlon).
    n_channels: the number of channels according to dataset.json.
    limits: limits for the files whose channels are merged.
    """

    probe: SourceProbe
    dataset_file: Path
    ending: str | None
    n_channels: int
    limits: DataParams

    def cases_in(self, images: str, labels: str, result: ReadResult) -> list[FileNames]:
        """Return the cases whose images and labels lie in these two folders.

        Labels without an image and, in the training folder, images without a label are added to `result.skipped`.
        """
        label_names = {stem_of(path): f"{labels}/{path.name}" for path in self._files(labels)}
        image_names = self._images_by_case(images, label_names)
        result.skipped += [
            (label, "a label without an image") for case, label in label_names.items() if case not in image_names
        ]
        if images == TRAINING_IMAGES:
            result.skipped += [
                (names[0], "an image without a label") for case, names in image_names.items() if case not in label_names
            ]
        return [(image_names[case], label) for case, label in label_names.items() if case in image_names]

    def count_unlabelled(self) -> int:
        """Return how many images in imagesTs/ have no label in labelsTs/."""
        labelled = {stem_of(path) for path in self._files("labelsTs")}
        return len(self._images_by_case("imagesTs", labelled).keys() - labelled)

    def item(self, case: FileNames, result: ReadResult, split: str | None = None) -> RawItem | None:
        """Return the item of a case; None, and a line in `result.skipped`, if its files are missing or too many."""
        images, label = case
        mask = self._resolve(label)
        paths = self._with_siblings([self._resolve(name) for name in images])
        if reason := self._fault(paths, mask):
            result.skipped.append((images[0], reason))
            return None
        name = Path(images[0]).parent / stem_of(mask)
        if len(paths) == 1:
            return RawItem(name.as_posix(), paths[0], mask, split=split)
        merged = MergedChannels(tuple(paths), self.limits)
        image = paths[0].with_name(name.name + merged.suffix)
        return RawItem(name.as_posix(), image, mask, split=split, content=merged)

    def _with_siblings(self, paths: list[Path]) -> list[Path]:
        """Replace a missing file by the files of its channels, as dataset.json of nnU-Net v1 means it."""
        if len(paths) > 1 or paths[0].is_file() or not paths[0].parent.is_dir():
            return paths
        stem, suffix, folder = stem_of(paths[0]), suffix_of(paths[0]), paths[0].parent
        listed_folder = self.probe.source / folder.relative_to(self.probe.source.resolve())
        siblings = [
            folder / path.name
            for path in self.probe.listing.files(listed_folder)
            if suffix_of(path) == suffix and _channel_number(path, stem) is not None
        ]
        return siblings or paths

    def _fault(self, paths: list[Path], mask: Path) -> str | None:
        """Return what is wrong with the files of a case; None if nothing is."""
        if missing := [path.name for path in (*paths, mask) if not path.is_file()]:
            return f"names a missing file: {missing[0]}"
        unsupported = [path.name for path in (*paths, mask) if suffix_of(path) not in (*SUFFIXES, *VOLUME_SUFFIXES)]
        if unsupported:
            return f"{unsupported[0]} is not in a supported file format"
        numbers = [n for path in paths if (n := _channel_number(path, stem_of(mask))) is not None]
        if numbers and numbers != list(range(len(numbers))):
            return f"channels are missing: there are only {', '.join(f'{n:04d}' for n in numbers)}"
        if len(paths) not in (1, self.n_channels):
            return f"{len(paths)} files of channels, but {DATASET_FILE} has {self.n_channels} channels"
        return None

    def _images_by_case(self, folder: str, labelled: Collection[str]) -> dict[str, list[str]]:
        """Return the names of image files by the key of their label, in the order of their channels."""
        by_case: dict[str, list[str]] = {}
        for path in self._files(folder):
            stem = stem_of(path)
            numbered = _NUMBERED_NAME.fullmatch(stem)
            case = numbered[1] if numbered and stem not in labelled else stem
            by_case.setdefault(case, []).append(f"{folder}/{path.name}")
        return by_case

    def _resolve(self, name: str) -> Path:
        return resolve_inside(self.probe.source, name, str(self.dataset_file))

    def _files(self, folder: str) -> list[Path]:
        endings = (self.ending,) if self.ending else VOLUME_SUFFIXES
        return [path for path in self.probe.listing.files(self.probe.source / folder) if suffix_of(path) in endings]


@dataclass(frozen=True)
class MergedChannels:
    """The content of a file that holds the channels of several files (`RawItem.content`)."""

    paths: tuple[Path, ...]
    limits: DataParams

    @property
    def suffix(self) -> str:
        """The suffix of such a file."""
        return ".nii.gz" if suffix_of(self.paths[0]) in VOLUME_SUFFIXES else ".tif"

    def __call__(self) -> bytes:
        """Return the bytes of the file; errors as in `segpipe.data.images.merge_channels`."""
        return merge_channels(self.paths, self.limits)


def _channel_number(path: Path, case: str) -> int | None:
    """Return the number of the channel that a file of a case holds; None if its name has none."""
    numbered = _NUMBERED_NAME.fullmatch(stem_of(path))
    return int(numbered[2]) if numbered and numbered[1] == case else None
