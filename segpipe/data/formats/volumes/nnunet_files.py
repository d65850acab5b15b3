"""Which files of nnU-Net's layout make an image with its label: a file for each channel, or one with all."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from segpipe.config import DataParams
from segpipe.data.formats.source import RawItem, ReadResult, resolve_inside
from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES, merge_channels, stem_of, suffix_of

DATASET_FILE = "dataset.json"
TRAINING_IMAGES = "imagesTr"
_CHANNEL = re.compile(r"(.+)_(\d{4})")

FileNames = tuple[list[str], str]
"""Names of the files of an image's channels and of its label, relative to the source."""


@dataclass(frozen=True)
class NnunetFiles:
    """The files of a source, by image and label. `ending` is None where each file has its own (the Decathlon)."""

    source: Path
    path: Path
    ending: str | None
    channels: int
    limits: DataParams

    def pairs_in(self, images: str, labels: str, found: ReadResult) -> list[FileNames]:
        """The images of a folder that have a label in another; of the rest, in training folders, each is left out by name."""
        with_label = {stem_of(path): f"{labels}/{path.name}" for path in self._files(labels)}
        by_case = self._by_case(images, with_label)
        found.skipped += [(with_label[c], "a label without an image") for c in with_label if c not in by_case]
        if images == TRAINING_IMAGES:
            found.skipped += [(by_case[c][0], "an image without a label") for c in by_case if c not in with_label]
        return [(by_case[case], label) for case, label in with_label.items() if case in by_case]

    def count_unlabelled(self) -> int:
        """How many images in imagesTs/ have no label in labelsTs/."""
        labelled = {stem_of(path) for path in self._files("labelsTs")}
        return len(self._by_case("imagesTs", labelled).keys() - labelled)

    def item(self, pair: FileNames, found: ReadResult, split: str | None = None) -> RawItem | None:
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
        merged = MergedChannels(tuple(paths), self.limits)
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
            return f"{len(paths)} files of channels, {DATASET_FILE} has {self.channels}"
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
        return resolve_inside(self.source, name, str(self.path))

    def _files(self, folder: str) -> list[Path]:
        if not (self.source / folder).is_dir():
            return []
        files = [p for p in sorted((self.source / folder).iterdir()) if not p.name.startswith(".") and p.is_file()]
        return [p for p in files if (suffix_of(p) == self.ending if self.ending else suffix_of(p) in VOLUME_SUFFIXES)]


@dataclass(frozen=True)
class MergedChannels:
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
