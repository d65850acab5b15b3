"""`cases`: volumes with one file per channel and one for the label, in one folder per case or side by side.

```
SRC/CASE/CASE_flair.nii.gz, CASE_t1.nii.gz, CASE_seg.nii.gz          BraTS; since 2023 CASE-t2f.nii.gz, CASE-seg.nii.gz
SRC/case_00000/imaging.nii.gz, segmentation.nii.gz                   KiTS
SRC/volume-0.nii, SRC/segmentation-0.nii                             LiTS, also in several folders
SRC/patient001/patient001_frame01.nii.gz, patient001_frame01_gt...   ACDC: several images per case, each with its label
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.reading import Evidence, Variant
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.formats.volumes.case_files import Case, CaseSet, find_cases, is_label_role
from segpipe.data.formats.volumes.nifti_pairs import recognise_volumes
from segpipe.data.formats.volumes.nnunet_files import DATASET_FILE, MergedChannels
from segpipe.data.images import read_stored
from segpipe.errors import ConfigError, DataError
from segpipe.words import listed

_USUAL_SHARE = 0.8
"""A role that at least this share of the cases has is a channel of the dataset; cases without it are left out."""
_MAX_LABEL_VALUES = 64
_NAMES_SHOWN = 8


def recognise_cases(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: names of files that form cases. None otherwise."""
    if probe.listing.is_file(probe.source / DATASET_FILE) or recognise_volumes(probe):
        return None
    case_set = find_cases(probe.listing, probe.source)
    if case_set is None:
        return None
    roles = listed(list(case_set.shares()), _NAMES_SHOWN)
    return f"{case_set.arrangement}: {len(case_set.cases)} cases with {roles}"


def case_variants(probe: SourceProbe, options: ReadOptions) -> list[Variant]:
    """Return which files can be the label and the channels, as options of the import; several if the names leave it open.

    Raises:
        DataError: no file can be the label, or there are no cases.
        ConfigError: a case has no file for a channel or label that the user names.
    """
    case_set = _cases(probe)
    if case_set.is_paired:
        _reject_roles(options, case_set)
        return [Variant()]
    variants = []
    for label, evidence in _labels(case_set, options):
        for channels, more in _channel_choices(case_set, label, options):
            chosen = {"label": label} if evidence else {}
            chosen |= {"channels": ",".join(channels)} if more else {}
            variants.append(Variant(options=chosen, evidence=(*evidence, *more)))
    return variants


def read_cases(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the cases. The channels of a case become one volume; a case without one of them is left out.

    Raises:
        DataError: no file can be the label, or there are no cases.
        ConfigError: a case has no file for a channel or label that the user names.
    """
    case_set = _cases(probe)
    result = ReadResult([])
    if case_set.is_paired:
        _reject_roles(options, case_set)
        label, channels = "label", ["image"]
    else:
        label = _labels(case_set, options)[0][0]
        channels = _channel_choices(case_set, label, options)[0][0]
    result.items = [_item(case, channels, label, options.limits) for case in case_set.cases]
    if len(channels) > 1:
        result.channels = tuple(channels)
        result.notes.append(f"channels: {', '.join(channels)}; label: {label}")
    elif not case_set.is_paired:
        result.notes.append(f"image: {channels[0]}; label: {label}")
    if any(item.group for item in result.items):
        result.notes.append(
            f"groups: the patient, for example {next(item.group for item in result.items if item.group)}"
        )
    return result


@dataclass(frozen=True)
class IncompleteCase:
    """The content of a case that cannot be imported (`RawItem.content`): its error is raised when the case is written."""

    paths: tuple[Path, ...]
    error: DataError

    def __call__(self) -> NoReturn:
        """Raise the error."""
        raise self.error


def _item(case: Case, channels: list[str], label: str, limits: DataParams) -> RawItem:
    mask = case.files.get(label)
    missing = [channel for channel in channels if channel not in case.files]
    doubled = [role for role in (*channels, label) if role in case.duplicates]
    any_path = case.paths[0]
    if not missing and not doubled:
        paths = tuple(case.files[channel] for channel in channels)
        if len(paths) == 1:
            return RawItem(case.name, paths[0], mask, group=case.group, split=case.split)
        merged = MergedChannels(paths, limits)
        image = any_path.with_name(f"{case.name.rpartition('/')[2]}{merged.suffix}")
        return RawItem(case.name, image, mask, group=case.group, split=case.split, content=merged)
    if missing:
        error = DataError(
            "a file of the case is missing", found=listed([path.name for path in case.paths], _NAMES_SHOWN),
            expected=f"a file for {', '.join(missing)}", fix="restore it, or choose channels that all cases have (--channels)",
        )  # fmt: skip
    else:
        error = DataError(
            "two files of the case have one role", found=case.duplicates[doubled[0]], fix="remove one of them"
        )
    incomplete = IncompleteCase(case.paths, error)
    image = any_path.with_name(f"{case.name.rpartition('/')[2]}.nii.gz")
    return RawItem(case.name, image, mask, group=case.group, split=case.split, content=incomplete)


def _cases(probe: SourceProbe) -> CaseSet:
    case_set = find_cases(probe.listing, probe.source)
    if case_set is None:
        raise DataError(
            "no cases",
            where=probe.source,
            expected="folders such as CASE/CASE_flair.nii.gz, CASE/CASE_seg.nii.gz",
            fix="choose another --format (volumes, for two folders)",
        )
    return case_set


def _labels(case_set: CaseSet, options: ReadOptions) -> list[tuple[str, tuple[Evidence, ...]]]:
    """Return the roles that may be the label, each with evidence; without evidence if there is no doubt."""
    shares = case_set.shares()
    if options.label is not None:
        return [(_role_named(options.label, case_set, "label"), ())]
    by_name = [role for role in shares if is_label_role(role)]
    if len(by_name) == 1:
        return [(by_name[0], ())]
    if by_name:
        return [(role, (Evidence(text=f"{role} is named like a label", origin="names"),)) for role in by_name]
    candidates: list[tuple[str, tuple[Evidence, ...]]] = []
    for role in shares:
        values = _count_values(next(case.files[role] for case in case_set.cases if role in case.files))
        if values is not None:
            text = f"{role} holds {values} whole numbers"
            doubt = Evidence(text="its name does not say that it is a label", origin="names", supports=False)
            candidates.append((role, (Evidence(text=text, origin="pixels"), doubt)))
    if not candidates:
        raise DataError(
            "no file of the cases is a label",
            where=case_set.source,
            found=listed(list(shares), _NAMES_SHOWN),
            expected="a file named like seg, label or mask in each case",
            fix="name the file with --label, or give the training part of the dataset",
        )
    return candidates


def _channel_choices(
    case_set: CaseSet, label: str, options: ReadOptions
) -> list[tuple[list[str], tuple[Evidence, ...]]]:
    """Return the channels that the images may have, with evidence; without evidence if there is no doubt."""
    if options.channels is not None:
        names = [name.strip() for name in options.channels.split(",") if name.strip()]
        channels = [_role_named(name, case_set, "channels") for name in names]
        if not channels or len(set(channels)) < len(channels) or label in channels:
            others = [role for role in case_set.shares() if role != label]
            raise ConfigError(
                "--channels must name each channel once, without the label",
                found=options.channels,
                expected=f"some of {', '.join(others)}",
                fix=f"for instance --channels {','.join(others)}",
            )
        return [(channels, ())]
    shares = {role: share for role, share in case_set.shares().items() if role != label and not is_label_role(role)}
    usual = [role for role, share in shares.items() if share >= _USUAL_SHARE]
    if len(usual) == len(shares) and usual:
        return [(usual, ())]
    choices: list[tuple[list[str], tuple[Evidence, ...]]] = []
    for channels in (usual, list(shares)):
        if channels:
            complete = sum(all(channel in case.files for channel in channels) for case in case_set.cases)
            text = f"{complete} of {len(case_set.cases)} cases have {', '.join(channels)}"
            choices.append((channels, (Evidence(text=text, origin="names"),)))
    if not choices:
        raise DataError(
            "the cases hold only labels", where=case_set.source, found=listed(list(case_set.shares()), _NAMES_SHOWN),
            expected="at least one file per case that is not a label", fix="name the files with --channels and --label",
        )  # fmt: skip
    return choices


def _role_named(name: str, case_set: CaseSet, option: str) -> str:
    roles = {role for case in case_set.cases for role in case.files}
    match = next((role for role in sorted(roles) if role.casefold() == name.casefold()), None)
    if match is None:
        shown = list(case_set.shares())
        raise ConfigError(
            f"--{option} names a file that no case has",
            found=name,
            expected=f"one of {', '.join(shown)}",
            fix=f"for instance --{option} {shown[0]}",
        )
    return match


def _reject_roles(options: ReadOptions, case_set: CaseSet) -> None:
    if options.label or options.channels:
        raise ConfigError(
            "--label and --channels do not fit cases with several images, each with a label of its own",
            found=case_set.cases[0].name,
            fix="omit them",
        )


def _count_values(path: Path) -> int | None:
    """Return how many values a file holds, if they could be classes: few whole numbers that are not negative. None otherwise."""
    try:
        values = np.unique(read_stored(path, DataParams()))
    except DataError:
        return None
    are_classes = len(values) <= _MAX_LABEL_VALUES and (values == np.round(values)).all() and values.min() >= 0
    return len(values) if are_classes else None
