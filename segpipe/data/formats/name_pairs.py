"""Pairing of images and masks whose names differ by more than a known ending: `image_1` with `mask_1`, `p0/a` with `a`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from segpipe.data.formats.source import ReadOptions
from segpipe.errors import ConfigError

_MIN_PAIRS = 2
_MIN_PAIRED_SHARE = 0.9


def pair_by_core(images: Sequence[str], masks: Sequence[str]) -> tuple[dict[str, str], str] | None:
    """Pair names by what is left of them without their folders, or without the beginning and the ending that all of them share.

    Args:
        images: the names of images: their paths without the ending of the file.
        masks: the names of masks.

    Returns:
        {image: mask}, and how the names differ, in words; None unless nearly all names of the shorter list have a partner, and no name
        has two.
    """
    for keys, words in ((_base_names, "folders"), (_cores, "beginning and ending")):
        image_keys, mask_keys = keys(images), keys(masks)
        unique_images, unique_masks = _unique(image_keys), _unique(mask_keys)
        pairs = {unique_images[key]: unique_masks[key] for key in unique_images if key in unique_masks}
        if len(pairs) >= max(_MIN_PAIRS, _MIN_PAIRED_SHARE * min(len(images), len(masks))):
            image, mask = next(iter(pairs.items()))
            return pairs, f"names are paired without their {words}: {image} with {mask}"
    return None


def mask_stem(stem: str, prefix: str, on_images: bool) -> str:
    """Return the path of a mask without its ending: that of its image, with a prefix before the name of the file.

    Args:
        stem: the path of the image without its ending, relative to the folder of images.
        prefix: the prefix.
        on_images: True if the image has the prefix, and the mask has not.
    """
    folder, slash, base = stem.rpartition("/")
    return folder + slash + (base.removeprefix(prefix) if on_images else prefix + base)


def prefix_is_on_images(images: Iterable[str], masks: Container[str], prefix: str, suffix: str) -> bool:
    """Return whether images have the prefix: only if no mask is an image's name with the prefix, and a mask is one without it."""
    stems = list(images)
    if any(mask_stem(stem, prefix, False) + suffix in masks for stem in stems):
        return False
    return any(
        stem.rpartition("/")[2].startswith(prefix) and mask_stem(stem, prefix, True) + suffix in masks for stem in stems
    )


def no_mask_error(folder: Path, options: ReadOptions, image: str, mask: str) -> ConfigError:
    """Return the error for a prefix and a suffix that no mask has.

    Args:
        folder: the folder of masks.
        options: `prefix` and `suffix` are used.
        image: the name of an image without its ending.
        mask: the name of a mask without its ending.
    """
    affixes = {name: text for name, text in (("prefix", options.prefix), ("suffix", options.suffix)) if text}
    return ConfigError(
        f"no mask has this {' and '.join(affixes)}",
        where=folder,
        found=f"{' '.join(f'--{name} {text}' for name, text in affixes.items())} and the mask {mask}",
        expected=f"a mask called {mask_stem(image, options.prefix or '', False)}{options.suffix or ''}",
        fix="correct it, or pair the names with regular expressions: --pattern REGEX --mask-pattern REGEX",
    )


def _base_names(names: Sequence[str]) -> dict[str, str]:
    return {name: name.rpartition("/")[2] for name in names}


def _cores(names: Sequence[str]) -> dict[str, str]:
    """Return each name without its folders, and without the beginning and the ending of all names. Digits are never cut off."""
    bases = _base_names(names)
    beginning = os.path.commonprefix(list(bases.values())).rstrip("0123456789")  # noqa: RUF071  characters are meant
    ending = os.path.commonprefix([base[::-1] for base in bases.values()])[::-1].lstrip("0123456789")  # noqa: RUF071
    return {name: base[len(beginning) : len(base) - len(ending)] for name, base in bases.items()}


def _unique(keys: dict[str, str]) -> dict[str, str]:
    """Return {key: name} of the keys that are not empty and that only one name has."""
    counts = Counter(keys.values())
    return {key: name for name, key in keys.items() if key and counts[key] == 1}
