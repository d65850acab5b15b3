"""`ome-zarr`: images of OME-Zarr with their label images.

```
SRC/a.ome.zarr/labels/cells/            label images inside the image, as the specification has them; also in plates: A/1/0/labels/
SRC/images/a.zarr  SRC/masks/a.zarr     images and label images in two folders, by equal names
```

Images of one plane become TIFF files, stacks become NIfTI files. Only the full resolution is read.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.folder_names import MASK_FOLDERS
from segpipe.data.formats.mask_labels import INSTANCE_CLASSES
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.reading import Evidence, Variant
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, VolumeDrawing, check_size
from segpipe.data.formats.volumes.case_files import split_of
from segpipe.data.images import class_values, encode_nifti, encode_tiff
from segpipe.data.images.formats.ome_zarr import (
    OmeImage,
    is_multiscale,
    plane_count,
    read_ome_array,
    read_ome_image,
    volume_geometry,
)
from segpipe.errors import ConfigError, DataError
from segpipe.samples import ClassTable
from segpipe.words import listed

_SUFFIXES = (".ome.zarr", ".zarr")
_MAX_FOLDERS = 100_000
_SAMPLE = 3
_MAX_CLASSES = 250


def recognise_ome_zarr(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: groups of OME-Zarr with labels. None otherwise."""
    pairs = list(_pairs(probe))
    labelled = sum(bool(labels) for _, labels in pairs)
    if not labelled:
        return None
    names = sorted({name for _, labels in pairs for name in labels if name})
    return f"{len(pairs)} images of OME-Zarr, {labelled} with labels" + (f" ({listed(names, 4)})" if names else "")


def ome_zarr_variants(probe: SourceProbe, options: ReadOptions) -> list[Variant]:
    """Return which label images are used, and what their values stand for; several if the files leave it open.

    Raises:
        DataError: no image has labels, or a label image cannot be read.
        ConfigError: no image has the labels that the user names.
    """
    pairs = list(_pairs(probe))
    names = [options.label] if options.label is not None else _label_names(pairs)
    variants = []
    for name in names:
        chosen = {"label": name} if name and options.label is None and len(names) > 1 else {}
        evidence = tuple(
            Evidence(text=f"the images have the labels {word}", origin="names") for word in chosen.values()
        )
        sample = [folder for _, labels in pairs if (folder := labels.get(name))][:_SAMPLE]
        if options.kind is not None:
            variants.append(Variant(options=chosen, evidence=evidence))
            continue
        largest = _largest(sample)
        kinds = [kind for kind, fits in (("classes", largest <= _MAX_CLASSES), ("instances", largest > 1)) if fits]
        for kind in kinds:
            text = f"the labels hold values up to {largest:,}, which may be {kind}"
            more = Evidence(text=text, origin="pixels")
            variants.append(Variant(options=chosen | {"kind": kind}, evidence=(*evidence, more)))
    return variants


def read_ome_zarr(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout.

    Raises:
        DataError: there is no image with labels, or the names of channels differ between images.
        ConfigError: no image has the labels or channels that the user names.
    """
    pairs = list(_pairs(probe))
    label = options.label if options.label is not None else _label_names(pairs)[0]
    if not any(label in labels for _, labels in pairs):
        raise ConfigError(
            "--label names labels that no image has", found=label, expected=f"one of {', '.join(_label_names(pairs))}"
        )
    result = ReadResult([])
    images: list[tuple[OmeImage, Path | None]] = []
    for folder, labels in pairs:
        try:
            images.append((read_ome_image(folder), labels.get(label)))
        except DataError as error:
            result.skipped.append((_name(folder, probe.source), str(error)))
    if not images:
        raise DataError(
            "no images of OME-Zarr",
            where=probe.source,
            found=": ".join(result.skipped[0]),
            fix="repair it, or choose another --format",
        )
    chosen, result.channels = _channels([image for image, _ in images], options)
    if result.channels:
        result.notes.append(f"channels: {', '.join(result.channels)}")
    is_instances = options.kind == "instances"
    for image, mask in images:
        is_stack = plane_count(image) > 1
        content = ZarrContent(image.path, chosen, options.limits)
        suffix = ".nii.gz" if is_stack else ".tif"
        name = _name(image.path, probe.source)
        path = image.path.with_name(name.rpartition("/")[2] + suffix)
        labels_of = ZarrLabels(mask, is_instances, options.limits) if mask is not None else None
        result.items.append(
            RawItem(
                name, path, split=split_of(image.path.parent, probe.source), content=content,
                draw=labels_of.draw if labels_of and not is_stack else None,
                draw_volume=labels_of if is_stack else None,
            )
        )  # fmt: skip
    result.classes = (
        INSTANCE_CLASSES if is_instances else _classes([mask for _, mask in images if mask], options.limits)
    )
    result.classes_from = "one class for all instances" if is_instances else "the values of the labels"
    result.used_files |= {image.path for image, _ in images} | {mask for _, mask in images if mask}
    return result


@dataclass(frozen=True)
class ZarrContent:
    """The content of an image file that an image of OME-Zarr becomes (`RawItem.content`).

    channels: the names of the channels to keep, in order; empty to keep all.
    """

    path: Path
    channels: tuple[str, ...]
    limits: DataParams

    def __call__(self) -> bytes:
        """Return the bytes of a TIFF file, or of a gzipped NIfTI file for a stack.

        Raises:
            DataError: the image cannot be read.
        """
        image = read_ome_image(self.path)
        array = read_ome_array(image, self.limits)
        if self.channels:
            names = [name.casefold() for name in image.channels]
            if missing := [name for name in self.channels if name.casefold() not in names]:
                raise DataError(
                    "has no such channel", where=self.path, found=", ".join(image.channels) or "channels without names",
                    expected=missing[0], fix="choose channels that all images have (--channels)",
                )  # fmt: skip
            array = array[..., [names.index(name.casefold()) for name in self.channels]]
        if array.dtype not in (np.uint8, np.uint16, np.float32):
            array = array.astype(np.float32)
        return encode_nifti(array, volume_geometry(image)) if array.ndim == 4 else encode_tiff(array)


@dataclass(frozen=True)
class ZarrLabels:
    """Draws a label image (`RawItem.draw` and `RawItem.draw_volume`)."""

    path: Path
    is_instances: bool
    limits: DataParams
    value_files: tuple[Path, ...] = ()

    def draw(self, height: int, width: int) -> Drawing:
        """Draw the labels of an image of one plane; errors as in `read_ome_array`."""
        values = self._values()[0]
        if values.ndim != 2:
            raise DataError(
                "is a stack", where=self.path, found=f"{values.shape[0]} planes", expected="one, as its image"
            )
        check_size(self.path, values, height, width)
        if not self.is_instances:
            return Drawing(values)
        return Drawing((values > 0).astype(np.uint8), values.astype(np.uint16))

    def __call__(self) -> VolumeDrawing:
        """Draw the labels of a stack; errors as in `read_ome_array`."""
        values, image = self._values()
        encode = partial(encode_nifti, geometry=volume_geometry(image))
        if not self.is_instances:
            return VolumeDrawing(encode(values))
        return VolumeDrawing(encode((values > 0).astype(np.uint8)), Counter(), encode(values.astype(np.uint16)))

    def _values(self) -> tuple[np.ndarray, OmeImage]:
        image = read_ome_image(self.path)
        return class_values(read_ome_array(image, self.limits), str(self.path)), image


def _pairs(probe: SourceProbe) -> Iterator[tuple[Path, dict[str, Path]]]:
    """Yield each image with its label images by name; the name is "" for labels in a folder of masks."""
    folders = list(_multiscale_folders(probe))
    by_stem = {(_stem(folder), _is_in_mask_folder(folder, probe.source)): folder for folder in folders}
    for folder in folders:
        if _is_in_mask_folder(folder, probe.source):
            continue
        try:
            labels = {name: folder / "labels" / name for name in read_ome_image(folder).labels}
        except DataError:
            labels = {}
        if not labels and (mask := by_stem.get((_stem(folder), True))) is not None:
            labels = {"": mask}
        yield folder, labels


def _multiscale_folders(probe: SourceProbe) -> Iterator[Path]:
    """Yield the images of OME-Zarr below the source; what lies inside them is not searched."""
    pending, checked = [probe.source], 0
    while pending and checked < _MAX_FOLDERS:
        folder = pending.pop(0)
        checked += 1
        names = {entry.path.name for entry in probe.listing.entries(folder)}
        if names & {".zattrs", "zarr.json"} and is_multiscale(folder):
            yield folder
        elif ".zarray" not in names:
            pending += probe.listing.folders(folder)


def _label_names(pairs: list[tuple[Path, dict[str, Path]]]) -> list[str]:
    counts = Counter(name for _, labels in pairs for name in labels)
    if not counts:
        raise DataError(
            "no image of OME-Zarr has labels", where="ome-zarr", expected="labels/NAME in each image, or masks/ with equal names",
            fix="add the labels, or choose another --format",
        )  # fmt: skip
    return sorted(counts, key=lambda name: (-counts[name], name))


def _channels(images: list[OmeImage], options: ReadOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the channels to select by name (none: all as they are), and the names of the channels of the dataset."""
    named = {image.channels for image in images}
    if options.channels is not None:
        chosen = tuple(name.strip() for name in options.channels.split(",") if name.strip())
        known = {name.casefold() for names in named for name in names}
        if missing := [name for name in chosen if name.casefold() not in known]:
            raise ConfigError(
                "--channels names a channel that no image has", found=missing[0],
                expected=f"some of {', '.join(next(iter(named)))}" if known else "channels with names, which these images have not",
            )  # fmt: skip
        return chosen, chosen
    if len(named) == 1:
        return (), next(iter(named))
    same = {tuple(sorted(names, key=str.casefold)) for names in named}
    if len(same) == 1:  # the same channels in another order
        return images[0].channels, images[0].channels
    shown = " and ".join(", ".join(names) or "none" for names in sorted(named)[:2])
    raise DataError(
        "the images have different channels", where="ome-zarr", found=shown, expected="the same names in all images",
        fix="choose channels that all images have (--channels), or import one kind of images at a time",
    )  # fmt: skip


def _classes(masks: list[Path], limits: DataParams) -> ClassTable:
    """Return the classes of the values of all label images."""
    values: set[int] = {0}
    for mask in masks:
        try:
            array = class_values(read_ome_array(read_ome_image(mask), limits), str(mask))
        except DataError:  # drawing it reports the error
            continue
        values |= set(np.unique(array).tolist())
    if len(values) > _MAX_CLASSES:
        raise ConfigError(
            "too many values for classes", found=len(values), fix="read them as instances: --kind instances"
        )
    if len(values) == 1:
        raise DataError("the labels hold only 0", where="ome-zarr", expected="labels of at least one class")
    ordered = sorted(values)
    names = ["foreground"] if len(ordered) == 2 else [f"class {value}" for value in ordered[1:]]
    return ClassTable.from_names(["background", *names], ordered)


def _largest(folders: list[Path]) -> int:
    largest = 0
    for folder in folders:
        with contextlib.suppress(DataError):  # drawing it reports the error
            largest = max(largest, int(read_ome_array(read_ome_image(folder), DataParams()).max()))
    return largest


def _is_in_mask_folder(folder: Path, source: Path) -> bool:
    return any(name.lower() in MASK_FOLDERS for name in folder.relative_to(source).parts[:-1])


def _stem(folder: Path) -> str:
    return next((folder.name[: -len(suffix)] for suffix in _SUFFIXES if folder.name.endswith(suffix)), folder.name)


def _name(folder: Path, source: Path) -> str:
    if folder == source:
        return _stem(folder)
    return (folder.relative_to(source).parent / _stem(folder)).as_posix()
