"""The sets of image files below a source: which hold images and which hold masks, and which files of two sets belong together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.masks.name_words import (
    OTHER_WORDS,
    Role,
    kind_words,
    mask_words,
    other_words,
    role_of,
    split_of,
    split_of_beginning,
    words_of,
)
from segpipe.data.formats.name_pairs import pair_by_core
from segpipe.data.images import VOLUME_SUFFIXES, is_image_file, stem_of, suffix_of

_MIN_COVERAGE = 0.9
_MIN_SHARE_BY_WORDS = 0.5
_MAX_COMPARED = 4000
"""At most this many pairs of sets in different folders are compared."""
_MIN_NAMED_GROUPS = 8
"""Folders without a number in their names are taken for groups (sites, patients) only if there are many; few are rather classes."""
_NO_GROUP_WORDS = frozenset(["part", "batch", "chunk", "fold", "version", "v"])
WITHOUT_OBJECTS = "good"
"""The name of a folder of images of flawless parts, beside folders of defects."""
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".png")
"""If two files of one folder differ only by their ending, the earlier ending of these is that of the image."""


@dataclass(eq=False)
class FileSet:
    """Files of one folder that have the same role.

    Attributes:
        folder: the folder.
        parts: the names of the folders from the source down to it.
        role: whether they are images or masks.
        words: the words of the file names that tell that they are masks, and which.
        location: the words of the folders, without those for roles and splits: an image and its mask have the same.
        split: the split that the folders name.
        files: the files.
    """

    folder: Path
    parts: tuple[str, ...]
    role: Role
    words: tuple[str, ...]
    location: tuple[str, ...]
    split: str | None
    files: list[Path] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The name of the innermost folder that tells which masks these are; empty if only the names of files do."""
        return next((part for part in reversed(self.parts) if kind_words(part)), "")

    def all_words(self) -> set[str]:
        """Return the words of its masks: those of the folder and of the file names."""
        return {*self.words, *words_of(self.label)}


def find_file_sets(listing: FolderListing, source: Path) -> list[FileSet]:
    """Return the sets of 2D image files below a source, in the order of their folders.

    Raises:
        DataError: a folder cannot be read.
    """
    by_folder: dict[Path, list[Path]] = {}
    for path in listing.files_below(source):
        if is_image_file(path) and suffix_of(path) not in VOLUME_SUFFIXES:
            by_folder.setdefault(path.parent, []).append(path)
    if not by_folder:
        return []
    common = Path(os.path.commonpath(by_folder))
    sets: list[FileSet] = []
    for folder, files in by_folder.items():
        inner = folder.relative_to(common).parts
        role = role_of(inner)
        location = tuple(word for part in inner for word in other_words(words_of(part)))
        parts = folder.relative_to(source).parts
        for set_role, words, members in _divide(files, role):
            sets.append(FileSet(folder, parts, set_role, words, location, split_of(parts), members))
    return sets


def _divide(files: list[Path], role: Role | None) -> Iterator[tuple[Role, tuple[str, ...], list[Path]]]:
    """Yield the sets of the files of one folder: masks by the words in their names, and the images."""
    by_words: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        by_words.setdefault(mask_words(stem_of(path)), []).append(path)
    if role == "mask":
        yield from (("mask", words, members) for words, members in by_words.items())
        return
    plain = by_words.pop((), [])
    plain, others = _without_pictures_of_other_kinds(plain)
    cores = {other_words(words_of(stem_of(path))) for path in plain}
    by_words |= others
    for words, members in by_words.items():
        belonging = sum(other_words(words_of(stem_of(p)), with_numbers=False) in cores for p in members)
        if (role is None and words not in others) or 2 * belonging >= len(members):
            yield "mask", words, members
        else:  # a photograph of a mask in a folder of images
            plain += members
    if role is None and not by_words and (twins := _twins(plain)):
        yield "mask", (), twins
        plain = sorted({*plain} - {*twins})
    if plain:
        yield "image", (), sorted(plain)


def _without_pictures_of_other_kinds(files: list[Path]) -> tuple[list[Path], dict[tuple[str, ...], list[Path]]]:
    """Return the files without those that words such as `parts` or `edges` mark, and these by their words."""
    plain: list[Path] = []
    others: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        words = tuple(word for word in words_of(stem_of(path)) if word in OTHER_WORDS)
        if words:
            others.setdefault(words, []).append(path)
        else:
            plain.append(path)
    return plain, others


def _twins(files: list[Path]) -> list[Path]:
    """Return the files of which another has the same name with the ending of an image; none if that is so for few names."""
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(stem_of(path), []).append(path)
    pairs = [paths for paths in by_stem.values() if len(paths) == 2]
    if 2 * len(pairs) < len(by_stem):
        return []

    def rank(path: Path) -> int:
        suffix = suffix_of(path)
        return _IMAGE_SUFFIXES.index(suffix) if suffix in _IMAGE_SUFFIXES else len(_IMAGE_SUFFIXES)

    return [max(paths, key=rank) for paths in pairs if rank(paths[0]) != rank(paths[1])]


@dataclass(frozen=True)
class Match:
    """A set of images with a set of masks.

    Attributes:
        images: the images.
        masks: the masks.
        pairs: the mask of each image that has one.
    """

    images: FileSet
    masks: FileSet
    pairs: dict[Path, Path]


def match_sets(sets: list[FileSet]) -> list[Match]:
    """Return each set of images with each set of masks that has masks of its images.

    Sets whose folders have the same location belong together. Masks without such a partner are compared with images that have none either,
    and with images in a folder beside them.
    """
    masks_by_location: dict[tuple[str, ...], list[FileSet]] = {}
    for masks in (one for one in sets if one.role == "mask"):
        masks_by_location.setdefault(masks.location, []).append(masks)
    images = [one for one in sets if one.role == "image"]
    matches: list[Match] = []
    for image_set in images:
        for masks in masks_by_location.get(image_set.location, []):
            matches += _match(image_set, masks)
    matched = {id(one) for match in matches for one in (match.images, match.masks)}
    free_images = [one for one in images if id(one) not in matched]
    free_masks = [one for one in sets if one.role == "mask" and id(one) not in matched]
    siblings: dict[Path, list[FileSet]] = {}
    for one in (one for one in images if id(one) in matched):
        siblings.setdefault(one.folder.parent, []).append(one)
    compared = [(i, m) for m in free_masks for i in free_images + siblings.get(m.folder.parent, [])][:_MAX_COMPARED]
    return matches + [match for image_set, masks in compared for match in _match(image_set, masks)]


def _match(images: FileSet, masks: FileSet) -> list[Match]:
    """Return the match of two sets; none if no file of one belongs to one of the other, or if they are of different splits."""
    if images.split and masks.split and images.split != masks.split:
        return []
    pairs = _pair(images.files, masks.files)
    return [Match(images, masks, pairs)] if pairs else []


Key = Callable[[Path], object]


def _words(path: Path, with_splits: bool, with_numbers: bool) -> tuple[str, ...]:
    return other_words(words_of(stem_of(path)), with_splits, with_numbers)


_KEYS: tuple[Key, ...] = (
    lambda path: stem_of(path).lower(),
    lambda path: _words(path, True, True),
    lambda path: _words(path, False, True),
    lambda path: _words(path, False, False),
)
"""What an image and its mask have in common, the strictest first."""


def _pair(images: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """Return {image: mask} by the strictest rule that pairs nearly all, or else by the one that pairs most."""
    fewest = min(len(images), len(masks))
    best: dict[Path, Path] = {}
    for number, key in enumerate(_KEYS):
        image_keys, mask_keys = _unique(images, key), _unique(masks, key)
        pairs = {path: mask_keys[k] for k, path in image_keys.items() if k in mask_keys}
        if len(pairs) >= _MIN_COVERAGE * fewest:
            return pairs
        if len(pairs) > len(best) and (number == 0 or len(pairs) >= _MIN_SHARE_BY_WORDS * fewest):
            best = pairs
    if not best:
        image_names, mask_names = _unique(images, stem_of), _unique(masks, stem_of)
        by_core = pair_by_core([str(name) for name in image_names], [str(name) for name in mask_names])
        best = {image_names[i]: mask_names[m] for i, m in by_core[0].items()} if by_core else {}
    return best


def _unique(files: list[Path], key: Key) -> dict[object, Path]:
    """Return {key: file} of the keys that are not empty and that only one file has."""
    keys = [key(path) for path in files]
    counts = Counter(keys)
    return {k: path for k, path in zip(keys, files, strict=True) if k and counts[k] == 1}


def splits_of(images: list[FileSet]) -> dict[Path, str | None]:
    """Return the split of each image: that of its folder, or that with which the names of all files without one begin."""
    plain = [path for one in images if one.split is None for path in one.files]
    by_name = {path: split_of_beginning(stem_of(path)) for path in plain}
    are_named = all(by_name.values())
    return {path: one.split or (by_name[path] if are_named else None) for one in images for path in one.files}


def groups_of(images: list[FileSet]) -> dict[int, str]:
    """Return the group of each set of images, by its `id`: the numbered folder (site, patient, sequence) in which it lies.

    Empty if a group would be in several splits, or if the folders rather are classes or parts of an archive.
    """
    locations = {one.location for one in images}
    words = {word for one in images for part in one.parts for word in words_of(part)}
    are_numbered = all(any(word[0].isdigit() for word in location) for location in locations)
    if len(locations) < 2 or () in locations or words & _NO_GROUP_WORDS or WITHOUT_OBJECTS in words:
        return {}
    if not are_numbered and len(locations) < _MIN_NAMED_GROUPS:
        return {}
    shared = set.intersection(*({*one.parts} for one in images))
    names = {id(one): "_".join(p for p in one.parts if p not in shared and other_words(words_of(p))) for one in images}
    splits: dict[str, set[str | None]] = {}
    for one in images:
        splits.setdefault(names[id(one)], set()).add(one.split)
    return {} if any(len(of_group) > 1 for of_group in splits.values()) else names
