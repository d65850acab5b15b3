"""The files of each case of a source of volumes: which file is which channel, and which is the label, by their names.

A *role* is what the name of a file has besides the name of its case: `flair` and `seg` in BraTS, `imaging` and `segmentation` in KiTS,
`volume` and `segmentation` in LiTS.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segpipe.data.formats.folder_names import SPLIT_FOLDERS
from segpipe.data.formats.listing import FolderListing
from segpipe.data.images import VOLUME_SUFFIXES, stem_of, suffix_of

MIN_SHARE = 0.2
"""A role in at most this share of the cases, or in one of several cases, is not one of the dataset."""
_FEW_CASES = 2
_SEPARATORS = "_. -"
_LABEL_WORDS = (
    "seg",
    "segmentation",
    "segmentations",
    "segm",
    "label",
    "labels",
    "labelmap",
    "mask",
    "masks",
    "gt",
    "groundtruth",
    "ground_truth",
    "truth",
    "annotation",
    "manual",
    "roi",
    "lesion",
)
_LABEL_NAME = re.compile(rf"(?:^|[{_SEPARATORS}])(?:{'|'.join(_LABEL_WORDS)})$", re.IGNORECASE)
_NUMBERED = re.compile(rf"([^\W\d][^\d]*?)[{_SEPARATORS}]?(\d+)")
_MAX_ROLES = 32


@dataclass
class Case:
    """One case: its name relative to the source, and its files by role.

    duplicates: roles that several files have, with the names of these files.
    """

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None

    def add(self, role: str, path: Path) -> None:
        """Add a file; a second file for a role is kept as a duplicate."""
        if role in self.files:
            self.duplicates[role] = f"{self.files[role].name} and {path.name}"
        self.files.setdefault(role, path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All its files."""
        return tuple(self.files.values())


@dataclass(frozen=True)
class CaseSet:
    """The cases of a source.

    cases: in the order of their names.
    arrangement: how they lie in the source, in words.
    source: the folder of the source, for errors.
    is_paired: whether each case is one image and its label; the roles are then `image` and `label`.
    """

    cases: tuple[Case, ...]
    arrangement: str
    source: Path
    is_paired: bool = False

    def shares(self) -> dict[str, float]:
        """Return the share of the cases that have each role, in the order of names; rare roles are left out."""
        counts = Counter(role for case in self.cases for role in case.files)
        total = len(self.cases)
        return {
            role: n / total
            for role, n in sorted(counts.items())
            if n > MIN_SHARE * total and (n > 1 or total <= _FEW_CASES)
        }


def is_label_role(role: str) -> bool:
    """Return whether a role is named like a label: `seg`, `tumour_mask`, `gt`."""
    return _LABEL_NAME.search(role) is not None


def find_cases(listing: FolderListing, source: Path) -> CaseSet | None:
    """Return the cases of a source: one folder each, or files side by side in one or several folders.

    Args:
        listing: the listing of the source or of a folder above it.
        source: the source.

    Returns:
        The cases; None if the names of the files do not form any.
    """
    folders = {folder: files for folder, files in _volume_folders(listing, source) if files}
    if not folders:
        return None
    return _pairs_in_folders(folders, source) or _one_per_folder(folders, source) or _side_by_side(folders, source)


def _volume_folders(listing: FolderListing, source: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder with the volume files directly in it. Links to folders are followed once."""
    pending, visited = [source], set()
    while pending:
        folder = pending.pop(0)
        if (real := os.path.realpath(folder)) not in visited:
            visited.add(real)
            yield folder, [path for path in listing.files(folder) if suffix_of(path) in VOLUME_SUFFIXES]
            pending += listing.folders(folder)


def _one_per_folder(folders: dict[Path, list[Path]], source: Path) -> CaseSet | None:
    """Return the cases of a source in which each folder is one case; None unless roles recur from folder to folder."""
    cases = []
    for folder, files in folders.items():
        case = _case(folder, source)
        for path in files:
            case.add(_role(path, folder, files), path)
        cases.append(case)
    cases = [case for case in cases if len(case.files) > 1]
    if not cases or (len(cases) == 1 and sum(map(is_label_role, cases[0].files)) != 1):
        return None
    case_set = CaseSet(_grouped(cases), "one folder per case", source)
    common = [role for role, share in case_set.shares().items() if share >= 0.5]
    return case_set if 2 <= len(common) <= _MAX_ROLES else None


def _pairs_in_folders(folders: dict[Path, list[Path]], source: Path) -> CaseSet | None:
    """Return the cases of a source with several images per folder, each with its label (ACDC): `X.nii.gz` and `X_gt.nii.gz`."""
    cases, folders_with_pairs, most = [], 0, 0
    for folder, files in folders.items():
        stems = {stem_of(path): path for path in files}
        pairs = {stem: core for stem in stems if (core := _without_label_word(stem)) in stems}
        if folder == source:
            return None
        for label, image in sorted(pairs.items()):
            case = _case(folder, source)
            case.group, case.name = case.name, f"{case.name}/{image}"
            case.add("image", stems[image])
            case.add("label", stems[label])
            cases.append(case)
        folders_with_pairs += bool(pairs)
        most = max(most, len(pairs))
    if most < 2 or 2 * folders_with_pairs <= len(folders) or folders_with_pairs < 2 or most > _MAX_ROLES:
        return None
    return CaseSet(tuple(cases), "one folder per case, with several images", source, is_paired=True)


def _side_by_side(folders: dict[Path, list[Path]], source: Path) -> CaseSet | None:
    """Return the cases of a source whose files lie side by side: `volume-0.nii` and `segmentation-0.nii`, `a_t1` and `a_seg`."""
    numbered: dict[str, Case] = {}
    suffixed: dict[str, Case] = {}
    n_files = 0
    for folder, files in folders.items():
        n_files += len(files)
        prefix = "" if folder == source else folder.relative_to(source).as_posix() + "/"
        labelled = sorted({core for path in files if (core := _without_label_word(stem_of(path)))}, key=len)
        for path in files:
            stem = stem_of(path)
            if match := _NUMBERED.fullmatch(stem):
                _add(numbered, prefix + match[2], match[1].rstrip(_SEPARATORS), path, source)
            base = next((core for core in reversed(labelled) if stem == core or _extends(stem, core)), None)
            if base is not None:
                _add(suffixed, prefix + base, stem[len(base) :].lstrip(_SEPARATORS) or "image", path, source)
    for cases in (numbered, suffixed):
        complete = [case for case in cases.values() if len(case.files) > 1]
        labels = [role for case in complete for role in case.files if is_label_role(role)]
        n_used = sum(len(case.files) for case in complete)
        is_most = len(labels) >= 0.5 * len(complete) and n_used >= 0.5 * n_files
        if len(complete) > 1 and is_most and len(CaseSet(tuple(complete), "", source).shares()) <= _MAX_ROLES:
            return CaseSet(_grouped(list(cases.values())), "the files of a case side by side", source)
    return None


def _add(cases: dict[str, Case], name: str, role: str, path: Path, source: Path) -> None:
    if name not in cases:
        cases[name] = Case(name, split=split_of(path.parent, source))
    cases[name].add(role, path)


def _case(folder: Path, source: Path) -> Case:
    name = source.name if folder == source else folder.relative_to(source).as_posix()
    return Case(name, split=split_of(folder, source))


def split_of(folder: Path, source: Path) -> str | None:
    """Return the split that a folder between the source and a case names (`train/`); None if none does."""
    names = folder.relative_to(source).parts
    return next((split for name in names if (split := SPLIT_FOLDERS.get(name.lower()))), None)


def _role(path: Path, folder: Path, files: list[Path]) -> str:
    """Return the role of a file in the folder of its case: its name without that of the folder, or without what all names share."""
    stem = stem_of(path)
    if _extends(stem, folder.name):
        return stem[len(folder.name) :].lstrip(_SEPARATORS)
    if any(_extends(stem_of(other), folder.name) for other in files):
        return stem
    common = os.path.commonprefix([stem_of(other) for other in files])  # noqa: RUF071 - of names, not of paths
    end = max((common.rfind(separator) for separator in _SEPARATORS), default=-1)
    return stem[end + 1 :] if len(files) > 1 else stem


def _extends(stem: str, core: str) -> bool:
    return len(stem) > len(core) + 1 and stem.lower().startswith(core.lower()) and stem[len(core)] in _SEPARATORS


def _without_label_word(stem: str) -> str:
    """Return a name without the word for a label at its end; "" if it has none, or nothing before it."""
    match = _LABEL_NAME.search(stem)
    return stem[: match.start()].rstrip(_SEPARATORS) if match else ""


def _grouped(cases: list[Case]) -> tuple[Case, ...]:
    """Return the cases sorted; scans of one patient, `BraTS-GLI-00005-100` and `BraTS-GLI-00005-101`, get a group."""
    matches = [re.fullmatch(r"(?:.*/)?(.*\d{4,})[-_]\d{3}", case.name) for case in cases]
    if all(matches) and 1 < len({match[1] for match in matches if match}) < len(cases):
        for case, match in zip(cases, matches, strict=True):
            case.group = match[1] if match else None
    return tuple(sorted(cases, key=lambda case: case.name))
