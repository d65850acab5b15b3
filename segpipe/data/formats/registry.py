"""One module a layout; each reads where things lie in a source folder, and the importer writes them in the canonical layout.

To add a layout: a module with a reader and a recogniser, and a line in `FORMATS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segpipe.data.formats.masks.cityscapes import read_cityscapes, recognise_cityscapes
from segpipe.data.formats.annotations.coco import read_coco, recognise_coco
from segpipe.data.formats.masks.colour_masks import read_colour_masks, recognise_colour_masks
from segpipe.data.formats.masks.folder import read_folder, recognise_folder
from segpipe.data.formats.masks.label_maps import read_label_maps, recognise_label_maps
from segpipe.data.formats.annotations.labelme import read_labelme, recognise_labelme
from segpipe.data.formats.masks.lgg import read_lgg, recognise_lgg
from segpipe.data.formats.mask_kinds import recognise_named
from segpipe.data.formats.masks.mask_per_class import read_mask_per_class, recognise_mask_per_class
from segpipe.data.formats.masks.mask_per_instance import read_mask_per_instance, recognise_mask_per_instance
from segpipe.data.formats.volumes.nnunet import read_nnunet, recognise_msd, recognise_nnunet
from segpipe.data.formats.masks.paired_list import read_paired_list, recognise_paired_list
from segpipe.data.formats.pairs import explain_pairs, is_part
from segpipe.data.formats.masks.palette_files import read_palette
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.data.formats.masks.voc import read_voc, recognise_voc
from segpipe.data.formats.volumes.nifti_pairs import read_volumes, recognise_volumes
from segpipe.data.formats.annotations.yolo_seg import read_yolo_seg, recognise_yolo_seg
from segpipe.errors import ConfigError, DataError

AUTO = "auto"
_LOOKED_INTO = 20
_LISTED, _SHOWN = 8, 24


@dataclass(frozen=True)
class Format:
    """A layout that can be imported.

    name: what `--format` calls it.
    summary: one line: what it looks like.
    read: finds the items of a source; DataError where it is not of this layout.
    recognise: why a source looks like this layout, in words, from names and small files alone; None where it does not.
    options: the names of the `ReadOptions` that `read` heeds.
    rank: where `auto` finds several layouts, the lowest rank decides: 0 for trees that nobody makes by chance, which may hold
        a general layout too, 1 for the general ones. Two of one rank are for the user to decide.
    below: whether it is found in folders of any name below a source, too: in one of them, or together in all. Where several
        datasets lie side by side, it would take the first for the whole, so that `auto` looks for others.
    """

    name: str
    summary: str
    read: Callable[[Path, ReadOptions], ReadResult]
    recognise: Callable[[Path], str | None]
    options: tuple[str, ...] = ()
    rank: int = 1
    below: Literal["nothing", "one", "all"] = "nothing"


FORMATS = {
    format.name: format
    for format in (
        Format(
            "folder", "images/ and masks/ with equal file names; also under train/, val/, test/",
            read_folder, recognise_folder, ("images", "masks", "suffix", "overlapping"),
        ),
        Format(
            "label-maps", "images/ and masks/ of object numbers (8 or 16 bits), one kind of object",
            read_label_maps, recognise_label_maps, ("images", "masks", "suffix"),
        ),
        Format(
            "colour-masks", "images/ and masks/ in RGB, and a palette: labelmap.txt, label_colors.txt, palette.csv or --palette",
            read_colour_masks, recognise_colour_masks, ("images", "masks", "suffix", "palette", "tolerance"),
        ),
        Format(
            "voc", "JPEGImages/, SegmentationClass/, perhaps SegmentationObject/ and ImageSets/Segmentation/SPLIT.txt",
            read_voc, recognise_voc, ("palette",), rank=0, below="one",
        ),
        Format(
            "cityscapes", "leftImg8bit/SPLIT/CITY/ and gtFine/SPLIT/CITY/ with labelIds, instanceIds",
            read_cityscapes, recognise_cityscapes, rank=0,
        ),
        Format(
            "mask-per-class", "images/ and masks/CLASS/ with equal file names, a mask for each class (--overlapping)",
            read_mask_per_class, recognise_mask_per_class, ("images", "masks", "overlapping"), rank=0,
        ),
        Format(
            "mask-per-instance", "ID/images/ID.png and ID/masks/*.png, a file for each object",
            read_mask_per_instance, recognise_mask_per_instance, rank=0,
        ),
        Format(
            "lgg", "TCGA_*/ with *_N.tif and *_N_mask.tif; a patient is a group",
            read_lgg, recognise_lgg, rank=0, below="one",
        ),
        Format(
            "paired-list", "train.txt, val.txt, test.txt with a line `image label` for each pair",
            read_paired_list, recognise_paired_list, ("palette", "tolerance"), rank=0,
        ),
        Format(
            "coco", "a JSON of images, annotations (polygons or run-length codes) and categories, one for each split",
            read_coco, recognise_coco, ("images", "masks", "overlapping"), rank=0, below="one",
        ),
        Format(
            "yolo-seg", "data.yaml, images/SPLIT/ and labels/SPLIT/*.txt with polygons",
            read_yolo_seg, recognise_yolo_seg, rank=0,
        ),
        Format(
            "nnunet", "dataset.json with imagesTr/ and labelsTr/, a file a channel (_0000), as of nnU-Net",
            read_nnunet, recognise_nnunet, rank=0,
        ),
        Format(
            "msd", "the same of the Medical Segmentation Decathlon: dataset.json lists pairs of NIfTI volumes",
            read_nnunet, recognise_msd, rank=0,
        ),
        Format(
            "volumes", "images/ and labels/ (or imagesTr/, labelsTr/) of NIfTI volumes with equal file names",
            read_volumes, recognise_volumes, ("images", "masks", "suffix", "overlapping"),
        ),
        Format("labelme", "a JSON of shapes beside each image", read_labelme, recognise_labelme, rank=0, below="all"),
    )
}


def find_format(name: str) -> Format:
    """The layout of this name; ConfigError lists those there are."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name.lower(), [AUTO, *FORMATS], n=1)
        fix = f"did you mean `{near[0]}`?" if near else "`segpipe data formats` shows what each looks like"
        raise ConfigError("no such format", found=name, expected=" or ".join([AUTO, *FORMATS]), fix=fix)
    return FORMATS[name]


def recognise_format(source: Path, options: ReadOptions) -> tuple[Format, str]:
    """The layout of a source and why it was taken for that, out of those that heed what the user has said.

    Raises DataError where none fits, or several as well as each other; for a palette errors as of `read_palette`.
    """
    if options.palette is not None:
        read_palette(options.palette)  # a palette that is none would make its layouts seem not to fit
    if named := recognise_named(source, options):
        return find_format(named[0]), named[1]
    able = [format for format in FORMATS.values() if set(options.given()) <= set(format.options)]
    reasons = {format.name: reason for format in able if (reason := format.recognise(source))}
    if not reasons:
        if not any(source.iterdir()):
            raise DataError("is empty", where=source, fix="give the folder that holds the dataset")
        explain_pairs(source, options)
        if below := _datasets_below(source, able):
            raise DataError(
                "holds no dataset itself, but folders do", where=source, found=", ".join(child.name for child in below),
                fix=f"import one of them: {below[0]}",
            )
        heeding = "".join(f" --{name}" for name in options.given())
        raise DataError(
            "no layout fits", where=source, found=_listing(source),
            expected=", ".join(format.name for format in able) + (f", which heed{heeding}" if heeding else ""),
            fix=f"give the folder that it is a part of ({source.parent})" if is_part(source.name)
            else "compare it with `segpipe data formats`; name the layout (--format), or the folders (--images DIR --masks DIR)",
        )
    lowest = min(FORMATS[name].rank for name in reasons)
    best = [name for name in reasons if FORMATS[name].rank == lowest]
    _refuse_collection(source, [FORMATS[name] for name in best], able)
    if len(best) > 1:
        raise DataError(
            "more than one layout fits", where=source, found="; ".join(f"{name}: {reasons[name]}" for name in best),
            fix="choose one: " + " or ".join(f"--format {name}" for name in best),
        )
    others = [name for name in reasons if name != best[0]]
    also = f" ({' and '.join(others)} would fit too)" if others else ""
    return FORMATS[best[0]], reasons[best[0]] + also


def _refuse_collection(source: Path, best: list[Format], able: list[Format]) -> None:
    """DataError where what was recognised may lie in one of several datasets below a source."""
    if not any(format.below != "nothing" for format in best):
        return
    together = [format for format in best if format.below == "all"]
    below = [child for child in _datasets_below(source, able) if not is_part(child.name)]
    if len(below) > 1 and not all(any(format.recognise(child) for format in together) for child in below):
        raise DataError(
            "several datasets lie below", where=source, found=", ".join(child.name for child in below), expected="one",
            fix=f"import one of them ({below[0]}); or, if it is one dataset, name its layout: "
            + " or ".join(f"--format {format.name}" for format in best),
        )


def _datasets_below(source: Path, able: list[Format]) -> list[Path]:
    """Folders in a source that are recognised by themselves."""
    return [child for child in _folders(source) if any(format.recognise(child) for format in able)]


def _listing(source: Path) -> str:
    """The first names in a folder, folders with a slash."""
    names = sorted(
        path.name[:_SHOWN] + "..." * (len(path.name) > _SHOWN) + "/" * path.is_dir()
        for path in source.iterdir()
        if not path.name.startswith(".")
    )
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "nothing") + more


def _folders(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))[:_LOOKED_INTO]


def check_options(format: Format, options: ReadOptions) -> None:
    """ConfigError for an option that this layout does not heed, with the layouts that do."""
    for name in options.given():
        if name not in format.options:
            knowing = [other.name for other in FORMATS.values() if name in other.options]
            raise ConfigError(
                f"--{name} means nothing to the layout {format.name}", expected="one of the layouts " + ", ".join(knowing),
                fix=f"leave --{name} out, or choose another --format",
            )
