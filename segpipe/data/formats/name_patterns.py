"""Regular expressions over the names of files: bounded in time and memory, and the pairing of images with masks by them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import is_image_file, stem_of
from segpipe.errors import ConfigError
from segpipe.words import listed

if TYPE_CHECKING:
    import regex

_MAX_LENGTH = 500
"""The largest number of characters of a pattern."""
_MAX_REPEATS = 10_000
"""The compiled form of `(a{100}){100}` holds this many characters; larger patterns could fill the memory."""
_GROUP_REPEAT = re.compile(r"\)\{(\d+)?(?:,(\d*))?\}")
_REPEAT = re.compile(r"\{(\d+)?(?:,(\d*))?\}")
_MAX_SECONDS = 10.0
"""How long all searches with one pattern may take together, in seconds of wall time."""
_MAX_SEARCH_SECONDS = 2.0
_MAX_NAMES_SHOWN = 3

Key = tuple[str, ...]


class NamePattern:
    """A regular expression that a user gives as the value of an option.

    A pattern whose search takes exponential time, such as `(a|aa)+$`, ends with an error instead of hanging.

    Args:
        option: the option, such as "--group", for errors.
        text: the regular expression.

    Raises:
        ConfigError: it is not a regular expression, or it is too large.
    """

    def __init__(self, option: str, text: str) -> None:
        import regex

        self.option, self.text = option, text
        self._seconds_left = _MAX_SECONDS
        if len(text) > _MAX_LENGTH or _expanded_repeats(text) > _MAX_REPEATS:
            raise ConfigError(
                "the regular expression is too large",
                where=option,
                found=text if len(text) <= _MAX_LENGTH else f"{len(text)} characters",
                expected=f"at most {_MAX_LENGTH} characters, and repeats of at most {_MAX_REPEATS:,}",
                fix="write a simpler one",
            )
        try:
            self.compiled = regex.compile(text)
        except (regex.error, OverflowError, RecursionError, ValueError) as error:
            raise ConfigError(
                f"not a regular expression: {error}",
                where=option,
                found=text,
                fix=f'correct it; for instance {option} "^([^_]+)_" takes what comes before the first underscore',
            ) from error

    @property
    def has_groups(self) -> bool:
        """True if the expression has groups."""
        return self.compiled.groups > 0

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names of the named groups, sorted."""
        return tuple(sorted(self.compiled.groupindex))

    def search(self, name: str) -> regex.Match[str] | None:
        """Return the first match in a name; None if there is none.

        Raises:
            ConfigError: the search takes too long.
        """
        start = time.monotonic()
        try:
            return self.compiled.search(name, timeout=max(1e-3, min(self._seconds_left, _MAX_SEARCH_SECONDS)))
        except TimeoutError as error:
            raise ConfigError(
                "the regular expression takes too long",
                where=self.option,
                found=f"{self.text} on the name {name[:80]}",
                fix="write it without a repeat inside a repeat, such as (a+)+",
            ) from error
        finally:
            self._seconds_left -= time.monotonic() - start

    def first_group(self, name: str) -> str | None:
        """Return the first group of a match, or the whole match if the expression has no groups; None without a match of it."""
        match = self.search(name)
        return match and (match[1] if self.has_groups else match[0])


def _expanded_repeats(text: str) -> int:
    """Return an upper bound for the product of the numbers of repeats that contain each other."""
    product = 1
    for low, high in _GROUP_REPEAT.findall(text):
        product *= max(int(low or 0), int(high or 0), 1)
    return product * max((max(int(low or 0), int(high or 0)) for low, high in _REPEAT.findall(text)), default=1)


def pair_by_patterns(listing: FolderListing, source: Path, options: ReadOptions) -> ReadResult:
    """Return the images of a source with their masks, chosen and paired by two regular expressions.

    Each expression is searched in the path of a file relative to the source (or to the folder that --images or --masks names). What
    it captures pairs the files: the named groups that both have, or else the first group. A file that both match is a mask.

    Args:
        listing: the listing of the source or of a folder above it.
        source: the source folder.
        options: `pattern`, `mask_pattern`, `images` and `masks` are used.

    Raises:
        ConfigError: one of the expressions is missing, not valid or without a group, or no files are paired by them.
    """
    if options.pattern is None or options.mask_pattern is None:
        raise ConfigError(
            "only one of two regular expressions is given",
            where=source,
            expected="one for the images and one for the masks",
            fix=f"add --{'pattern' if options.pattern is None else 'mask-pattern'} REGEX",
        )
    image_pattern = NamePattern("--pattern", options.pattern)
    mask_pattern = NamePattern("--mask-pattern", options.mask_pattern)
    shared = tuple(name for name in image_pattern.group_names if name in mask_pattern.group_names)
    for pattern in (image_pattern, mask_pattern):
        if not pattern.has_groups:
            raise ConfigError(
                "the regular expression has no group, so nothing pairs images and masks",
                where=pattern.option,
                found=pattern.text,
                fix=f"put the part of the name that both have in common in brackets, as in {pattern.option} '(.+)_x'",
            )
    masks = _by_key(listing, source, options.masks, mask_pattern, shared, {})
    all_masks = {path for paths in masks.values() for path in paths}
    images = _by_key(listing, source, options.images, image_pattern, shared, dict.fromkeys(all_masks))
    return _paired(source, images, masks, options)


def _by_key(
    listing: FolderListing,
    source: Path,
    folder: str | None,
    pattern: NamePattern,
    shared: tuple[str, ...],
    without: Mapping[Path, None],
) -> dict[Key, list[Path]]:
    """Return the image files that a pattern matches, by what it captures."""
    root = source / folder if folder else source
    if not root.is_dir():
        raise ConfigError("is not a folder", where=root, fix=f"give a folder, relative to {source} or absolute")
    by_key: dict[Key, list[Path]] = {}
    for path in listing.files_below(root):
        if is_image_file(path) and path not in without:
            match = pattern.search(path.relative_to(root).as_posix())
            key = () if match is None else tuple(match[name] or "" for name in shared) or (match[1] or "",)
            if any(key):
                by_key.setdefault(key, []).append(path)
    return by_key


def _paired(
    source: Path, images: dict[Key, list[Path]], masks: dict[Key, list[Path]], options: ReadOptions
) -> ReadResult:
    result = ReadResult([])
    for key, paths in images.items():
        candidates = masks.get(key, [])
        name, words = _relative(paths[0], source), " ".join(key)
        if len(paths) > 1:
            others = listed([_relative(path, source) for path in paths], _MAX_NAMES_SHOWN)
            result.skipped.append(
                (name, f"several images with the key {words} ({others}): capture more of their names")
            )
            continue
        if len(candidates) > 1:
            others = listed([_relative(path, source) for path in candidates], _MAX_NAMES_SHOWN)
            result.skipped.append((name, f"several masks with the key {words} ({others}): capture more of their names"))
        item_name = (Path(name).parent / stem_of(paths[0])).as_posix()
        result.items.append(RawItem(item_name, paths[0], candidates[0] if len(candidates) == 1 else None))
    for key, paths in masks.items():
        if key not in images:
            result.skipped += [(_relative(path, source), "a mask without an image") for path in paths]
    if not any(item.mask for item in result.items):
        raise ConfigError(
            "no image and mask are paired by these regular expressions",
            where=source,
            found=f"{_keys_in_words('images', images)} and {_keys_in_words('masks', masks)}",
            expected=f"the same key from --pattern {options.pattern} and --mask-pattern {options.mask_pattern}",
            fix=_fix(listed_images=bool(images), listed_masks=bool(masks)),
        )
    result.items.sort(key=lambda item: item.name)
    pairs = sum(item.mask is not None for item in result.items)
    result.notes.append(f"{pairs} pairs of {options.pattern} and {options.mask_pattern}")
    return result


def _fix(listed_images: bool, listed_masks: bool) -> str:
    if not listed_images:
        return "correct --pattern: it matches no image file that --mask-pattern does not match"
    return (
        "let both groups capture the same text" if listed_masks else "correct --mask-pattern: it matches no image file"
    )


def _keys_in_words(what: str, by_key: dict[Key, list[Path]]) -> str:
    if not by_key:
        return f"no {what}"
    keys = listed([" ".join(key) for key in by_key], _MAX_NAMES_SHOWN)
    return f"{len(by_key)} {what} with the keys {keys}"


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else "/".join(path.parts[-2:])
