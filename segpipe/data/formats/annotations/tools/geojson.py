"""`geojson`: one GeoJSON file for each image, in pixels, as QuPath exports its objects.

```
SRC/a.tif   SRC/a.geojson            also a.ome.tif with a.ome.geojson or a.geojson, and a.tif.geojson
SRC/images/a.tif   SRC/geojson/a.geojson
```

Polygons and multipolygons, with holes. The class is `properties.classification.name`, or a property that `--attribute` names. Classes
`Ignore*` mark ignored pixels; regions of analysis (class `Region*`, or annotations without a class around other objects), tiles and the
cores of tissue arrays are not drawn. Of cells the outline of the cell is drawn. The format: RFC 7946, and
https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from segpipe.data.formats.annotations.json_document import peek, read_json
from segpipe.data.formats.annotations.painter import CLIPPED
from segpipe.data.formats.annotations.tools.class_attribute import choose_attribute
from segpipe.data.formats.annotations.tools.geojson_features import Feature, check_pixels, parse_features
from segpipe.data.formats.annotations.tools.image_finder import ImageFinder
from segpipe.data.formats.annotations.tools.labelled_images import (
    LabelledImage,
    LabelledShape,
    LabelTable,
    add_items,
    is_ignored_label,
)
from segpipe.data.formats.annotations.tools.outlines import with_holes
from segpipe.data.formats.folder_names import SPLIT_FOLDERS
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.errors import DataError

REGIONS = "regions of analysis (class Region*, or without a class around other objects), not drawn"
WITHOUT_CLASS = "shapes without a class, whose pixels are ignored"
UNNAMED_CLASS = "object"
_MAX_JSON_BYTES = 1 << 30
_MAX_FILES_CHECKED = 3
_ENDINGS = (".geojson", ".json")
_TYPES = (b'"FeatureCollection"', b'"Feature"', b'"Polygon"', b'"MultiPolygon"')
_MAX_PIXELS = 1e9
"""Coordinates beyond this are cut off where sizes are compared: such shapes cannot be drawn."""
_MAX_REGIONS_CHECKED = 2000
"""At most this many unclassified shapes of an image, the largest ones, are compared with all others."""


@dataclass(frozen=True)
class _File:
    """The content of one file and its image."""

    name: str
    image: Path
    size: tuple[int, int]
    features: list[Feature]


def recognise_geojson(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a GeoJSON file in it, or one folder down. None otherwise."""
    for folder in (probe.source, *probe.listing.folders(probe.source)):
        for ending in _ENDINGS:
            for path in probe.listing.matching(folder, f"*{ending}")[:_MAX_FILES_CHECKED]:
                if _is_geojson(path):
                    return f"{path.relative_to(probe.source).as_posix()} is GeoJSON"
    return None


def _is_geojson(path: Path) -> bool:
    content = peek(path)
    has_shapes = b'"coordinates"' in content or b'"features"' in content
    return (
        content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"{", b"[") and has_shapes and any(t in content for t in _TYPES)
    )


def read_geojson(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read every GeoJSON file of the source with its image. A broken shape is left out with the reason, and a broken file too.

    Args:
        probe: the source.
        options: `images` names the folder of images, `attribute` the property that holds the class.

    Raises:
        DataError: there is no such file; its coordinates are geographic; no shape can be drawn; or several properties could be the
            class.
        ConfigError: the folder of images does not exist, or no shape has the property that the user names.
    """
    source = probe.source.resolve()
    result = ReadResult([])
    finder, counts, files = ImageFinder(probe, options), Counter[str](), []
    for path in probe.listing.files_below(probe.source):
        if path.suffix.lower() in _ENDINGS and _is_geojson(path):
            name = path.relative_to(probe.source)
            try:
                files.append(_read_file(source / name, source, finder, result, counts))
                result.used_files.add(path)
            except DataError as error:
                if isinstance(error, GeographicError):
                    raise
                result.skipped.append((name.as_posix(), str(error)))
    if not files:
        raise DataError(
            "no GeoJSON with an image of its name",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else None,
            expected="a.geojson for a.tif",
            fix="give both the same name, name the folder of images (--images DIR), or choose another --format",
        )
    files = _with_classes(files, options.attribute, source, result)
    labels = LabelTable()
    for feature in sorted((f for file in files for f in file.features), key=lambda f: f.label or ""):
        if feature.label and not _is_region(feature.label):
            labels.add(_label(feature.label), feature.color)
    images = [_labelled_image(file, finder, result, counts) for file in files]
    add_items(result, images, labels, counts + finder.counts, source, options)
    return result


class GeographicError(DataError):
    """The coordinates of a file are those of a map, and not pixels."""


def _read_file(path: Path, source: Path, finder: ImageFinder, result: ReadResult, counts: Counter[str]) -> _File:
    name = path.relative_to(source)
    image = finder.find(name.with_suffix("").as_posix(), [path.parent], name.as_posix())
    size = finder.size_of(image)
    content = read_json(path, _MAX_JSON_BYTES)
    features = parse_features(content, name.as_posix(), result.skipped, counts)
    if reason := check_pixels(content, features):
        raise GeographicError(
            "the coordinates are geographic, not pixels",
            where=path,
            found=reason,
            expected=f"pixels of {image.name}, {size[1]} x {size[0]}",
            fix="convert them to pixels of the image (with its affine transform), and remove the member `crs`",
        )
    return _File(name.as_posix(), image, size, features)


def _with_classes(files: list[_File], attribute: str | None, source: Path, result: ReadResult) -> list[_File]:
    """Return the files with the label of each shape: its classification, or a property; one class if there is neither."""
    features = [feature for file in files for feature in file.features]
    result.classes_from = "the classifications of the objects"
    if attribute is None and any(feature.label for feature in features):
        return files
    key = choose_attribute([feature.properties for feature in features], attribute, source, "property", min_names=2)
    if key is not None:
        result.classes_from = f"the property {key}"
        return [replace(f, features=[replace(s, label=s.properties.get(key)) for s in f.features]) for f in files]
    result.classes_from = "one class, because no object has a classification"
    kinds = {feature.kind for feature in features}
    inner = kinds & {"cell", "detection"}
    names = {kind: kind for kind in inner} if inner else dict.fromkeys(kinds, UNNAMED_CLASS)
    return [replace(f, features=[replace(s, label=names.get(s.kind)) for s in f.features]) for f in files]


def _is_region(label: str) -> bool:
    return label.strip().lower() == "region*"


def _label(label: str) -> str:
    """Return the class name: QuPath marks classes that it does not count, such as `Ignore*`, with an asterisk."""
    return label.rstrip("*") if is_ignored_label(label.rstrip("*")) else label


def _labelled_image(file: _File, finder: ImageFinder, result: ReadResult, counts: Counter[str]) -> LabelledImage:
    regions = _regions(file.features)
    shapes = []
    for number, feature in enumerate(file.features):
        if number in regions or (feature.label and _is_region(feature.label)):
            counts[REGIONS] += 1
            continue
        try:
            shape, is_clipped = with_holes(feature.parts, *file.size)
        except DataError as error:
            result.skipped.append((feature.name, str(error)))
            continue
        counts[CLIPPED] += is_clipped
        counts[WITHOUT_CLASS] += not feature.label
        label = _label(feature.label) if feature.label else UNNAMED_CLASS
        shapes.append(LabelledShape(label, shape, ignored=not feature.label))
    folders = file.image.relative_to(finder.root).parts[:-1]
    split = next((SPLIT_FOLDERS[part.lower()] for part in folders if part.lower() in SPLIT_FOLDERS), None)
    return LabelledImage(finder.name_of(file.image), file.image, file.size, shapes, split)


def _regions(features: list[Feature]) -> set[int]:
    """Return the indices of annotations without a class whose box holds that of another object."""
    import numpy as np

    boxes = np.array([feature.box() for feature in features]).reshape(-1, 4).clip(-_MAX_PIXELS, _MAX_PIXELS)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    unclassified = [n for n, f in enumerate(features) if not f.label and f.kind not in ("cell", "detection")]
    unclassified.sort(key=lambda n: -float(areas[n]))
    regions = set()
    for number in unclassified[:_MAX_REGIONS_CHECKED]:
        box = boxes[number]
        inside = (boxes[:, :2] >= box[:2]).all(axis=1) & (boxes[:, 2:] <= box[2:]).all(axis=1)
        if inside.sum() > 1:
            regions.add(number)
    return regions
