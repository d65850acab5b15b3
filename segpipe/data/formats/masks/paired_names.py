"""`paired-names`: images and masks anywhere below a source, distinguished by the words in the names of folders or files.

```
SRC/train/a.jpg            SRC/train_masks/a_mask.gif         folders whose names differ by a word for masks
SRC/Original/1.png         SRC/Ground Truth/1.png
SRC/a.jpg                  SRC/a_mask.png                     both in one folder; also a.jpg with a.png
SRC/seq1/Images/a.png      SRC/seq1/Labels/a.png              the same folders in each of seq1/, seq2/ ...
```

Folders named after splits are splits. Other numbered folders in which the same folders occur again are groups.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE
from segpipe.data.formats.class_lists import find_class_list
from segpipe.data.formats.mask_labels import NoObjects
from segpipe.data.formats.masks.file_sets import (
    WITHOUT_OBJECTS,
    FileSet,
    Match,
    find_file_sets,
    groups_of,
    match_sets,
    splits_of,
)
from segpipe.data.formats.masks.name_words import MASK_WORDS, preference, role_of, split_of, words_of
from segpipe.data.formats.masks.palette_files import find_palettes_below
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.reading import Evidence, Variant
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import is_image_file, stem_of
from segpipe.data.images.formats.dicom_headers import scan_headers
from segpipe.errors import ConfigError, DataError, MissingError, SegpipeError
from segpipe.words import listed

_MAX_SETS = 20_000
_MAX_CHOICES = 6
_UNUSUAL = 9
"""The rank of masks of an unusual kind that the user has named."""


@dataclass
class NamedPairs:
    """The images of a source with their masks.

    Attributes:
        sets: all sets of files.
        masks: the mask of each image.
        choices: the options that choose among several masks of the same images, each with the name of one of the sets; empty if there
            is nothing to choose.
        notes: which folders belong together, in words.
        rejected: masks that are no class masks.
        ambiguous: images with one of several masks, or with a mask that belongs to several images; they are left out.
    """

    sets: list[FileSet] = field(default_factory=list)
    masks: dict[Path, Path] = field(default_factory=dict)
    choices: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejected: set[Path] = field(default_factory=set)
    ambiguous: dict[Path, Path] = field(default_factory=dict)


def recognise_paired_names(probe: SourceProbe) -> str | None:
    """Return which folders belong together by the words in their names. None if `folder` finds as many masks, or none belong together."""
    try:
        items = probe.pairs().items
    except SegpipeError as error:
        tables = (probe.source / CLASSES_FILE, probe.source / SAMPLES_FILE)
        if any(str(error.where or "").startswith(str(table)) for table in tables):
            return None
        items = []
    theirs = {item.mask for item in items if item.mask}
    if theirs and len(theirs) == len(items) and _n_image_files(probe) == len(theirs) + len(items):
        return None  # every file is used
    pairs = find_named_pairs(probe)
    if not pairs.masks or _are_several_datasets(pairs) or _are_dicom_segmentations([*pairs.masks.values()]):
        return None
    if len(theirs) >= len(pairs.masks) and not theirs & pairs.rejected:
        return None
    return listed(pairs.notes, 3)


def _are_dicom_segmentations(masks: list[Path]) -> bool:
    """Return whether masks are DICOM SEG objects, which hold the segments of a whole series."""
    first = [path for path in masks if path.suffix.lower() == ".dcm"][:1]
    with contextlib.suppress(MissingError):  # pydicom is not installed; reading the masks says so
        return bool(first and scan_headers(first).segmentations)
    return False


def _n_image_files(probe: SourceProbe) -> int:
    return sum(map(is_image_file, probe.listing.files_below(probe.source)))


def variants_of_masks(probe: SourceProbe, options: ReadOptions) -> list[Variant]:
    """Return the options that choose among several masks of the same images; a single variant if there is nothing to choose."""
    try:
        choices = find_named_pairs(probe, options).choices
    except SegpipeError:  # reading the source raises it again
        choices = {}
    variants = [
        Variant(options={name: value}, evidence=(Evidence(text=f"the masks are {words}", origin="names"),))
        for (name, value), words in choices.items()
    ]
    return variants[:_MAX_CHOICES] or [Variant()]


def read_paired_names(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout.

    Raises:
        DataError: no file of masks belongs to an image.
        ConfigError: no folder, or no mask, has the name that the user gives.
    """
    source = probe.source
    pairs = find_named_pairs(probe, options)
    if not pairs.masks:
        raise DataError(
            "no masks with the names of images",
            where=source,
            expected="folders such as train/ and train_masks/, or a.jpg with a_mask.png",
            fix="name the folders (--images DIR --masks DIR), or choose another --format",
        )
    images = [one for one in pairs.sets if one.role == "image"]
    groups, splits = groups_of(images), splits_of(images)
    result = ReadResult([], notes=[*pairs.notes])
    result.palettes = find_palettes_below(probe.listing, source)
    flawless = any(WITHOUT_OBJECTS in one.parts for one in images)
    for one in images:
        draw = NoObjects() if flawless and WITHOUT_OBJECTS in one.parts else None
        for path in one.files:
            name = (path.relative_to(source).parent / stem_of(path)).as_posix()
            mask = pairs.masks.get(path)
            if path in pairs.ambiguous:
                continue
            result.items.append(
                RawItem(name, path, mask, group=groups.get(id(one)), split=splits[path], draw=None if mask else draw)
            )
    if flawless:
        _without_splits(result)
    for image, mask in pairs.ambiguous.items():
        names = [path.relative_to(source).as_posix() for path in (image, mask)]
        result.skipped.append((names[0], f"several masks for one image, or one for several ({names[1]})"))
    used = {*pairs.masks.values(), *pairs.ambiguous.values()}
    for masks in (one for one in pairs.sets if one.role == "mask"):
        if used & {*masks.files}:
            unused = [path for path in masks.files if path not in used]
            result.skipped += [(path.relative_to(source).as_posix(), "a mask without an image") for path in unused]
    labels = [one.label for one in pairs.sets if one.role == "mask"]
    find_class_list(probe.listing, source, labels, lambda: {*probe.sample(result.items).pixels_by_value()}, result)
    return result


def find_named_pairs(probe: SourceProbe, options: ReadOptions = ReadOptions()) -> NamedPairs:
    """Return the images below a source with their masks, by the words in the names of folders and files.

    Args:
        probe: the source.
        options: `images` and `masks` are names of folders at any depth; `suffix` ends the names of masks.

    Raises:
        DataError: a folder cannot be read.
        ConfigError: there are no files with the names that the user gives.
    """
    key = f"named pairs {options.images} {options.masks} {options.suffix}"
    return probe.cached(key, lambda: _find(probe, options))


def _find(probe: SourceProbe, options: ReadOptions) -> NamedPairs:
    sets = find_file_sets(probe.listing, probe.source)
    if len(sets) > _MAX_SETS:
        return NamedPairs()
    sets = _restricted(sets, probe.source, options)
    matches = match_sets(sets)
    result = NamedPairs(sets)
    by_images: dict[int, list[Match]] = {}
    for match in matches:
        by_images.setdefault(id(match.images), []).append(match)
    times = Counter(mask for match in matches for mask in match.pairs.values())
    for candidates in by_images.values():
        _choose(candidates, result, is_named=bool(options.masks or options.suffix))
    several = _with_several_masks(matches)
    result.ambiguous = {image: mask for image, mask in result.masks.items() if times[mask] > 1 or image in several}
    result.masks = {image: mask for image, mask in result.masks.items() if image not in result.ambiguous}
    result.notes = _described(matches, result, probe.source)
    return result


def _with_several_masks(matches: list[Match]) -> set[Path]:
    """Return the images of which a set holds a second mask, whose name continues that of the first (`a_mask`, `a_mask_1`)."""
    several: set[Path] = set()
    for match in matches:
        image_of = {stem_of(mask): image for image, mask in match.pairs.items()}
        for path in {*match.masks.files} - {*match.pairs.values()}:
            words, stem = words_of(stem_of(path)), stem_of(path)
            first = next((stem[:end] for end in range(len(stem) - 1, 0, -1) if stem[:end] in image_of), None)
            if first is not None and words[-1].isdigit() and {*words_of(first)} & MASK_WORDS:
                several.add(image_of[first])
    return several


def _restricted(sets: list[FileSet], source: Path, options: ReadOptions) -> list[FileSet]:
    """Return the sets that have the names which the user gives."""

    def is_named(one: FileSet, name: str) -> bool:
        folder = one.folder.relative_to(source).as_posix().lower()
        return name.lower().strip("/") in (folder, *(part.lower() for part in one.parts))

    names = {"image": options.images, "mask": options.masks}
    selected = [one for one in sets if (name := names[one.role]) is None or is_named(one, name)]
    if options.suffix is not None:
        selected = [one for one in selected if one.role == "image" or _ends(one, options.suffix)]
    for role, name in names.items():
        if name is not None and not any(one.role == role for one in selected):
            others = listed(sorted({one.label or one.folder.name for one in sets if one.role == role}), 4)
            raise ConfigError(f"no {role}s in a folder of this name", where=source, found=name, expected=others or None)
    return selected


def _ends(masks: FileSet, suffix: str) -> bool:
    return all(stem_of(path).endswith(suffix) for path in masks.files)


def _choose(candidates: list[Match], result: NamedPairs, is_named: bool) -> None:
    """Add the masks of one set of images: those of the most plain kind. Several of one kind are a choice of the user."""
    has_manual = any("manual" in match.masks.all_words() for match in candidates)
    ranked: dict[int, list[Match]] = {}
    for match in candidates:
        rank = preference(match.masks.all_words(), has_manual)
        if rank is None and is_named:
            rank = _UNUSUAL
        if rank is None:
            result.rejected |= {*match.masks.files}
        else:
            ranked.setdefault(rank, []).append(match)
    if not ranked:
        return
    first, *others = ranked[min(ranked)]
    chosen = dict(first.pairs)
    for match in others:
        if chosen.keys() & match.pairs.keys():
            result.choices |= _choice(first, match) | _choice(match, first)
        chosen = match.pairs | chosen
    result.masks |= chosen


def _choice(match: Match, other: Match) -> dict[tuple[str, str], str]:
    """Return the option that chooses a set of masks and not the other one, with its name in words."""
    image, mask = next(iter(match.pairs.items()))
    ending = stem_of(mask).removeprefix(stem_of(image))
    if match.masks.folder == other.masks.folder and ending not in ("", stem_of(mask)):
        return {("suffix", ending): f"files *{ending}"}
    differing = [part for part in match.masks.parts if part not in other.masks.parts]
    folder = differing[-1] if differing else match.masks.label or match.masks.folder.name
    return {("masks", folder): f"{folder}/"}


def _described(matches: list[Match], result: NamedPairs, source: Path) -> list[str]:
    """Return which folders belong together, in words: one example of each pair of names."""
    examples: dict[tuple[str, str], str] = {}
    number: Counter[tuple[str, str]] = Counter()
    for match in matches:
        image = next((path for path, mask in match.pairs.items() if result.masks.get(path) == mask), None)
        if image is not None:
            mask = match.pairs[image]
            shown = [path.relative_to(source).as_posix() for path in (image, mask)]
            key = (match.images.parts[-1] if match.images.parts else "", match.masks.label)
            examples.setdefault(key, f"{shown[0]} with {shown[1]}")
            number[key] += 1
    return [
        text + (f" (and {number[key] - 1} more folders)" if number[key] > 1 else "") for key, text in examples.items()
    ]


def _without_splits(result: ReadResult) -> None:
    """Remove splits of which training holds only images without objects, and add notes about flawless images."""
    n_flawless = sum(isinstance(item.draw, NoObjects) for item in result.items)
    result.notes.append(f"images in {WITHOUT_OBJECTS}/ show no defects, so that they are all background: {n_flawless}")
    in_train = [item for item in result.items if item.split == "train"]
    if in_train and all(isinstance(item.draw, NoObjects) for item in in_train):
        result.items = [replace(item, split=None) for item in result.items]
        result.notes.append("its training images show no defects, so its splits are not used: images are split by hash")


def _are_several_datasets(pairs: NamedPairs) -> bool:
    """Return whether the folders of a source are separate datasets: complete ones, of different structures or called datasets."""
    used = {*pairs.masks, *pairs.masks.values()}
    structures: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for one in pairs.sets:
        if len(one.parts) and split_of(one.parts[:1]) is None and used & {*one.files}:
            inner = tuple(part.lower() for part in one.parts[1:] if role_of([part]) or split_of([part]))
            structures.setdefault(one.parts[0], set()).add((one.role, inner))
    complete = {name: inner for name, inner in structures.items() if len({role for role, _ in inner}) == 2}
    if len(complete) < 2:
        return False
    if any("dataset" in name.lower() for name in complete):
        return True
    return len({frozenset(inner) for inner in complete.values()}) > 1
