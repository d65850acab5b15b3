"""Recognition of a source: the readings that its files allow, among the layouts of `segpipe.data.formats.registry`."""

from __future__ import annotations

import re
from pathlib import Path

from segpipe.data.formats.folder_names import is_part
from segpipe.data.formats.format import Format
from segpipe.data.formats.masks.palette_files import read_palette
from segpipe.data.formats.pairs import has_image_folder
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.expand import Hints, expand_layout
from segpipe.data.formats.readings.mask_kinds import STORED_PALETTE
from segpipe.data.formats.readings.reading import Evidence, Reading
from segpipe.data.formats.registry import AUTO, FORMATS, check_options, find_format
from segpipe.data.formats.source import ReadOptions
from segpipe.data.formats.unread_labels import explain_unread
from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.errors import DataError, SegpipeError
from segpipe.words import listed

_ANY_NAMES = "paired-names"
"""The layout that nearly every folder of images and masks has, also a single folder of another layout."""
_MAX_SUBFOLDERS_CHECKED = 20
_MAX_NAMES_SHOWN, _MAX_NAME_LENGTH = 8, 24


def collect_readings(
    probe: SourceProbe, options: ReadOptions, hints: Hints = Hints(), format: str = AUTO
) -> list[Reading]:
    """Return the readings of a source, the best supported first.

    Args:
        probe: the source.
        options: the user's options; only layouts that use all of them are considered.
        hints: what the user has said about the classes.
        format: the name of a layout, or `auto`.

    Returns:
        At least one reading. Readings with layouts of a higher rank are left out where one of a lower rank is clear.

    Raises:
        DataError: no layout fits; several datasets lie below the source; or the palette is not valid.
        ConfigError: a folder or a palette that the user names does not exist, or the layout does not use an option.
    """
    if options.palette is not None and options.palette != STORED_PALETTE:
        read_palette(options.palette)  # with an invalid palette, its layouts would seem not to fit
    if format != AUTO:
        layout = find_format(format)
        check_options(layout, options)
        return expand_layout(probe, layout, layout.recognise(probe) or f"--format {format}", options, hints)
    if named := _named_folders(probe, options, hints):
        return named
    candidates = _candidates(options)
    reasons = fitting_layouts(probe, options)
    if not reasons:
        if paired := _read_as_pairs(probe, options, hints):
            return paired
        raise _unrecognised(probe, options, candidates)
    ranks = sorted({FORMATS[name].rank for name in reasons})
    readings: list[Reading] = []
    for rank in ranks:
        best = [FORMATS[name] for name in reasons if FORMATS[name].rank == rank]
        _check_one_dataset(probe, best, candidates)
        for layout in best:
            readings += _doubted(probe, layout, expand_layout(probe, layout, reasons[layout.name], options, hints))
        if any(not reading.is_doubtful for reading in readings):
            others = [name for name in reasons if FORMATS[name].rank > rank and name != _ANY_NAMES]
            also = f" ({' and '.join(others)} would fit too)" if others else ""
            readings = [r.model_copy(update={"pairing": r.pairing + also}) for r in readings]
            break
    return sorted(readings, key=lambda reading: reading.is_doubtful)


def _doubted(probe: SourceProbe, layout: Format, readings: list[Reading]) -> list[Reading]:
    """Return readings of a recognised layout, with what speaks against it."""
    doubt = layout.doubt(probe)
    against = () if doubt is None else (Evidence(text=doubt, origin="names", supports=False),)
    return [reading.model_copy(update={"evidence": (*reading.evidence, *against)}) for reading in readings]


def fitting_layouts(probe: SourceProbe, options: ReadOptions) -> dict[str, str]:
    """Return the layouts of any rank that a source has, each with the reason in words.

    Args:
        probe: the source.
        options: the user's options; only layouts that use all of them are considered.
    """
    return {
        format.name: reason
        for format in _candidates(options)
        if format.kind is None and (reason := format.recognise(probe))
    }


def _candidates(options: ReadOptions) -> list[Format]:
    return [format for format in FORMATS.values() if set(options.names_set()) <= set(format.options)]


def _named_folders(probe: SourceProbe, options: ReadOptions, hints: Hints) -> list[Reading]:
    """Return the readings of a source whose masks the user has named by folder, prefix or pattern; none if the user has not.

    Raises:
        DataError: as `SourceProbe.pairs`.
        ConfigError: as `SourceProbe.pairs`.
    """
    names_folder = options.masks is not None and (probe.source / options.masks).is_dir()
    if not (names_folder or options.prefix or options.pattern or options.mask_pattern):
        return []
    return _paired_readings(probe, options, hints, "the named folders" if names_folder else "")


def _read_as_pairs(probe: SourceProbe, options: ReadOptions, hints: Hints) -> list[Reading]:
    """Return the readings of a source that no recogniser knows, but whose files are paired with the user's options."""
    if not (options.images or options.masks or options.suffix):
        return []
    try:
        return _paired_readings(probe, options, hints, "")
    except SegpipeError:  # `_unrecognised` tells why
        return []


def _paired_readings(probe: SourceProbe, options: ReadOptions, hints: Hints, reason: str) -> list[Reading]:
    """Return the readings of pairs of images and masks that the user's options name; none if no layout of pairs uses them all.

    Raises:
        DataError: as `SourceProbe.pairs`.
        ConfigError: as `SourceProbe.pairs`.
    """
    items = [item for item in probe.pairs(options).items if item.mask]
    reason = reason or "; ".join(probe.pairs(options).notes)
    if any(item.mask and suffix_of(item.mask) in VOLUME_SUFFIXES for item in items):
        return [
            Reading(
                layout="volumes",
                evidence=(Evidence(text=f"{reason} hold NIfTI volumes", origin="names"),),
            )
        ]
    if not set(options.names_set()) <= set(FORMATS["folder"].options) or not items:
        return []
    return expand_layout(probe, FORMATS["folder"], reason, options, hints)


def _unrecognised(probe: SourceProbe, options: ReadOptions, candidates: list[Format]) -> DataError:
    """Return the error for a source that no layout fits; the error of `find_pairs` is raised if there are folders of images."""
    source = probe.source
    if not probe.listing.entries(source):
        return DataError("is empty", where=source, fix="give the folder that holds the dataset")
    for format in candidates:
        if error := format.explain(probe):
            return error
    if error := explain_unread(probe.listing, source):
        return error
    if options.images or options.masks or has_image_folder(probe.listing, source):
        probe.pairs(options)
    if datasets := _datasets_below(probe, candidates):
        return DataError(
            "is not a dataset itself, but contains datasets",
            where=source,
            found=", ".join(child.source.name for child in datasets),
            fix=f"import one of them: {datasets[0].source}",
        )
    names = ", ".join(format.name for format in candidates)
    used = "".join(f" --{name}" for name in options.names_set())
    if is_part(source.name):
        fix = f"give the folder that it is a part of ({source.parent})"
    else:
        fix = "compare it with `segpipe data formats`; name the layout (--format), or the folders (--images DIR --masks DIR)"
    return DataError(
        "no layout fits",
        where=source,
        found=_listed_names(probe),
        expected=f"one of the layouts that use{used}: {names}" if used else f"one of the layouts {names}",
        fix=fix,
    )


def _check_one_dataset(probe: SourceProbe, best: list[Format], candidates: list[Format]) -> None:
    """Raise DataError if the recognised files may belong to one of several datasets below the source."""
    if not any(format.in_subfolders != "no" for format in best):
        return
    joint = [format for format in best if format.in_subfolders == "all"]
    if FORMATS[_ANY_NAMES] not in best:
        candidates = [format for format in candidates if format.name != _ANY_NAMES]
    children = [child for child in _datasets_below(probe, candidates) if not is_part(child.source.name)]
    if FORMATS[_ANY_NAMES] in joint and _are_numbered([child.source.name for child in children]):
        joint = [*joint, FORMATS["folder"]]
    if len(children) > 1 and not all(any(format.recognise(child) for format in joint) for child in children):
        raise DataError(
            "several datasets lie below",
            where=probe.source,
            found=", ".join(child.source.name for child in children),
            expected="one",
            fix=f"import one of them ({children[0].source}); or, if it is one dataset, name its layout: "
            + " or ".join(f"--format {format.name}" for format in best),
        )


def _are_numbered(names: list[str]) -> bool:
    """Return whether names differ only by their numbers (site1, site2), as those of the parts of one dataset do."""
    return len({re.sub(r"\d+", "", name.lower()) for name in names}) == 1


def _datasets_below(probe: SourceProbe, candidates: list[Format]) -> list[SourceProbe]:
    """Return the subfolders of a source that are recognised by themselves."""
    folders = probe.listing.folders(probe.source)[:_MAX_SUBFOLDERS_CHECKED]
    children = [probe.child(folder) for folder in folders]
    return [child for child in children if any(format.recognise(child) for format in candidates)]


def _listed_names(probe: SourceProbe) -> str:
    """Return the first names in a source, folders with a slash."""
    names = sorted(
        _short_name(entry.path, entry.kind == "folder")
        for entry in probe.listing.entries(probe.source)
        if not entry.is_hidden
    )
    return listed(names, _MAX_NAMES_SHOWN) or "nothing"


def _short_name(path: Path, is_folder: bool) -> str:
    name = path.name if len(path.name) <= _MAX_NAME_LENGTH else path.name[:_MAX_NAME_LENGTH] + "..."
    return f"{name}/" if is_folder else name
