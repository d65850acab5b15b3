"""The words in names of folders and files by which images, masks and splits are recognised.

A name is cut at separators, at changes of case and at digits: `trainLabels_8bit` is train, labels, 8, bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from segpipe.data.formats.folder_names import SPLIT_FOLDERS

Role = Literal["image", "mask"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGE_WORDS = _words(
    "image images img imgs input inputs photo photos picture pictures original originals orig sat "
    "satellite ortho slide slides tissue frame frames raw top"
)
MASK_WORDS = _words(
    "mask masks label labels lab labs labelled labeled annot annots annotation annotations annotated "
    "anno annos gt gts groundtruth groundtruths truth seg segs segm segmentation segmentations "
    "segmented sem semantic trimap trimaps target targets manual ho matte mattes"
)
COLOUR_WORDS = _words(
    "rgb color colors colour colours colormap colormaps colored coloured vis viz visual "
    "visualization visualisation overlay overlays blend preview"
)
"""In the name of a mask: a picture of the labels for people, if there are masks without these words."""
INSTANCE_WORDS = _words("instance instances inst ins panoptic bitmask bitmasks")
"""In the name of a mask: instances, which are taken if there are no class values."""
OTHER_WORDS = _words(
    "depth edge edges contour contours boundary boundaries fov bbox bboxes heatmap heatmaps "
    "parts skeleton attribute attributes rles polygons disparity confidence"
)
"""In the name of a mask: something that is no class mask."""
SECOND_WORDS = _words("2nd 3rd second third")
"""In the name of a mask: that of a further annotator."""
FIRST_WORDS = _words("1st first")
FILLERS = _words("png jpg jpeg tif tiff bmp gif ppm the and of all data")
"""Words that neither tell a role nor distinguish parts of a dataset."""

_ROLE_WORDS = IMAGE_WORDS | MASK_WORDS | COLOUR_WORDS | INSTANCE_WORDS | OTHER_WORDS | SECOND_WORDS | FIRST_WORDS
_NUMBERED = MASK_WORDS | OTHER_WORDS
_KIND_WORDS = _ROLE_WORDS - IMAGE_WORDS
_PIECES = re.compile(r"\d+(?:st|nd|rd|th)(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_]+")
_GROUND_TRUTH = re.compile(r"ground[ _-]?truth", re.IGNORECASE)
_JOINED_ENDINGS = ("annotations", "annotation", "annot", "masks", "mask", "labels", "label", "images", "crop", "set")


@lru_cache(maxsize=1 << 18)
def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case; words that are written together (`trainannot`) are cut."""
    words: list[str] = []
    for piece in _PIECES.findall(_GROUND_TRUTH.sub(" groundtruth ", name)):
        words += _cut(piece.lower())
    return tuple(words)


def _cut(word: str) -> list[str]:
    if word in _ROLE_WORDS or word in SPLIT_FOLDERS:
        return [word]
    ending = next((ending for ending in _JOINED_ENDINGS if word.endswith(ending) and word != ending), None)
    return [word] if ending is None else [word.removesuffix(ending), ending]


def role_of(names: Iterable[str]) -> Role | None:
    """Return the role of a file, from the innermost of its names that tells one; None if none does.

    A name with a word for masks and one for images (`label_images`) is that of masks.

    Args:
        names: the names of its folders, the outermost first.
    """
    for name in reversed([*names]):
        words = set(words_of(name))
        if words & (MASK_WORDS | INSTANCE_WORDS):
            return "mask"
        if words & IMAGE_WORDS:
            return "image"
    return None


def split_of(names: Iterable[str]) -> str | None:
    """Return the split that the innermost of these names tells; None if none does, or if it names two (`train_val`)."""
    for name in reversed([*names]):
        splits = {SPLIT_FOLDERS[word] for word in words_of(name) if word in SPLIT_FOLDERS}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None


def split_of_beginning(stem: str) -> str | None:
    """Return the split that the name of a file begins with (`testA_1`); None if it begins otherwise."""
    words = words_of(stem)
    return SPLIT_FOLDERS.get(words[0]) if len(words) > 1 else None


def mask_words(name: str) -> tuple[str, ...]:
    """Return the words of a name that tell that it is a mask, and which one."""
    words = words_of(name)
    if not {*words} & (MASK_WORDS | INSTANCE_WORDS):
        return ()
    return tuple(word for word in words if word in _ROLE_WORDS and word not in IMAGE_WORDS)


def kind_words(name: str) -> tuple[str, ...]:
    """Return the words of the name of a folder of masks that tell which kind of masks it holds."""
    return tuple(word for word in words_of(name) if word in _KIND_WORDS)


def other_words(words: Sequence[str], with_splits: bool = False, with_numbers: bool = True) -> tuple[str, ...]:
    """Return the words that an image and its mask have in common: those that tell no role.

    Args:
        words: the words of a name.
        with_splits: whether names of splits are kept.
        with_numbers: whether a number after a word for masks (`manual1`) is kept.
    """
    common = []
    for before, word in zip(("", *words), words, strict=False):
        if word in _ROLE_WORDS or word in FILLERS or (word in SPLIT_FOLDERS and not with_splits):
            continue
        if word.isdigit() and before in _NUMBERED and not with_numbers:
            continue
        common.append(word)
    return tuple(common)


def preference(words: Iterable[str], has_manual: bool) -> int | None:
    """Return how far masks are from plain class masks (0): 1 a further annotator, 2 colours for people, 3 instances.

    Args:
        words: the words of their folders and files.
        has_manual: whether others of the same images are called manual; those called mask are then fields of view, as in datasets of
            the fundus of the eye.

    Returns:
        The distance; None if they are no class masks.
    """
    words = {*words}
    if words & OTHER_WORDS or (has_manual and "manual" not in words and words & {"mask", "masks"}):
        return None
    if words & INSTANCE_WORDS:
        return 3
    if words & COLOUR_WORDS:
        return 2
    return 1 if words & SECOND_WORDS else 0
