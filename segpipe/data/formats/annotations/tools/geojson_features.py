"""The features of a GeoJSON file: their outlines, classes and kinds. Each is checked; broken ones are left out with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.shapes import parse_polygon
from segpipe.data.formats.annotations.tools.cvat_shapes import NOT_DRAWN
from segpipe.errors import DataError

NUCLEI = "nuclei of cells, not drawn: the outline of the cell is"
OTHER_PLANES = "shapes on other planes than the first, not drawn"
_KINDS_NOT_DRAWN = ("tile", "tma_core", "root")
_OWN_PROPERTIES = ("objectType", "object_type", "color", "isLocked")
_MAX_LONGITUDE, _MAX_LATITUDE = 180, 90
_WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Feature:
    """A shape of a GeoJSON file.

    parts: its parts; each is a list of outlines (n, 2) of x, y in pixels, the outer one and then its holes.
    label: the name of its classification; None if it has none.
    kind: what QuPath calls it, in lower case, such as `annotation` or `cell`; "" if the file does not say.
    color: RGB 0..255; None if the file has none.
    properties: its further properties that are texts.
    name: its name for the user.
    """

    parts: list[list[npt.NDArray[np.float64]]]
    label: str | None
    kind: str
    color: tuple[int, int, int] | None
    properties: dict[str, str]
    name: str

    def box(self) -> tuple[float, float, float, float]:
        """Return the smallest and the largest x and y: (left, top, right, bottom)."""
        points = np.concatenate([part[0] for part in self.parts])
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return left, top, right, bottom


def parse_features(content: object, where: str, skipped: list[tuple[str, str]], counts: Counter[str]) -> list[Feature]:
    """Return the features of a file that have an area.

    Args:
        content: a FeatureCollection, a feature, a geometry, or a list of these.
        where: the file's name for the user.
        skipped: gets (feature, reason) for each one that is broken.
        counts: gets the numbers of features that are not drawn, by kind.

    Raises:
        DataError: it is anything else.
    """
    features = []
    for number, raw in enumerate(_raw_features(content, 0)):
        name = f"{where}: feature {number}"
        try:
            features += _parse_feature(raw, name, counts)
        except DataError as error:
            skipped.append((name, str(error)))
    return features


def _raw_features(content: object, depth: int) -> Iterator[Any]:
    if depth > _MAX_DEPTH:
        raise DataError("is nested too deeply", expected="a FeatureCollection")
    if isinstance(content, list):
        for entry in content:
            yield from _raw_features(entry, depth + 1) if isinstance(entry, dict) else [entry]
    elif isinstance(content, dict) and content.get("type") == "FeatureCollection":
        features = content.get("features")
        if not isinstance(features, list):
            raise DataError("has no list `features`", expected="a FeatureCollection")
        yield from features
    elif isinstance(content, dict) and "type" in content:
        yield content
    else:
        raise DataError("is not GeoJSON", found=repr(content)[:40], expected="a FeatureCollection")


def _parse_feature(raw: Any, name: str, counts: Counter[str]) -> list[Feature]:
    """Return a feature, in a list; nothing if it is not drawn."""
    if not isinstance(raw, dict):
        raise DataError("is not a feature", found=repr(raw)[:40])
    geometry = raw.get("geometry") if raw.get("type") == "Feature" else raw
    properties = raw.get("properties") if isinstance(raw.get("properties"), dict) else {}
    assert isinstance(properties, dict)
    kind = _kind(raw, properties)
    counts[NUCLEI] += isinstance(raw.get("nucleusGeometry"), dict)
    if kind in _KINDS_NOT_DRAWN:
        counts[NOT_DRAWN.format(kind=kind)] += 1
        return []
    if not isinstance(geometry, dict):
        raise DataError("has no geometry", found=repr(geometry)[:40])
    plane = geometry.get("plane")
    if isinstance(plane, dict) and any(isinstance(plane.get(axis), int) and plane[axis] > 0 for axis in ("z", "t")):
        counts[OTHER_PLANES] += 1
        return []
    parts = _parse_geometry(geometry, counts, 0)
    if not parts:
        return []
    label, color = _classification(properties.get("classification"))
    texts = {str(k): v.strip() for k, v in properties.items() if isinstance(v, str) and v.strip()}
    texts = {key: value for key, value in texts.items() if key not in (*_OWN_PROPERTIES, "classification")}
    return [Feature(parts, label, kind, color or _color(properties.get("color")), texts, name)]


def _kind(raw: dict[str, Any], properties: dict[str, Any]) -> str:
    """Return what kind of object QuPath calls a feature; before version 0.3 its id says so (`PathCellObject`)."""
    kind = properties.get("objectType") or properties.get("object_type")
    identity = raw.get("id")
    if not isinstance(kind, str) and isinstance(identity, str) and identity.startswith("Path"):
        kind = identity.removeprefix("Path").removesuffix("Object")
    return kind.strip().lower() if isinstance(kind, str) else ""


def _classification(raw: object) -> tuple[str | None, tuple[int, int, int] | None]:
    """Return the name and the colour of a classification: an object, or just a name."""
    if isinstance(raw, str):
        return raw.strip() or None, None
    if not isinstance(raw, dict):
        return None, None
    name, names = raw.get("name"), raw.get("names")
    if not isinstance(name, str) and isinstance(names, list):
        name = ": ".join(str(part) for part in names)
    color = _color(raw.get("color")) or _packed_color(raw.get("colorRGB"))
    return (name.strip() or None) if isinstance(name, str) else None, color


def _color(raw: object) -> tuple[int, int, int] | None:
    if isinstance(raw, list) and len(raw) == 3 and all(type(part) is int and 0 <= part <= 255 for part in raw):
        return (raw[0], raw[1], raw[2])
    return None


def _packed_color(raw: object) -> tuple[int, int, int] | None:
    """Return the colour of an integer 0xAARRGGBB, which is signed in QuPath's files."""
    if type(raw) is not int:
        return None
    return (raw >> 16) & 255, (raw >> 8) & 255, raw & 255


def _parse_geometry(geometry: dict[str, Any], counts: Counter[str], depth: int) -> list[list[npt.NDArray[np.float64]]]:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "GeometryCollection":
        children = geometry.get("geometries")
        if depth > _MAX_DEPTH or not isinstance(children, list):
            raise DataError("is a collection of geometries that cannot be read")
        parsed = [_parse_geometry(child, counts, depth + 1) for child in children if isinstance(child, dict)]
        return [part for parts in parsed for part in parts]
    if kind not in ("Polygon", "MultiPolygon", *_WITHOUT_AREA):
        raise DataError("has an unknown type of geometry", found=repr(kind)[:40], expected="Polygon or MultiPolygon")
    if kind in _WITHOUT_AREA:
        counts[NOT_DRAWN.format(kind=str(kind)[:40])] += 1
        return []
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(polygons, list) or not all(isinstance(rings, list) and rings for rings in polygons):
        raise DataError("has no coordinates", found=repr(coordinates)[:40], expected="[[[x, y], ...], ...]")
    return [[_ring(ring) for ring in rings] for rings in polygons]


def _ring(raw: object) -> npt.NDArray[np.float64]:
    """Return a ring as (n, 2), without the last point if it repeats the first one, and without heights."""
    if not isinstance(raw, list) or not all(isinstance(point, list) and len(point) in (2, 3) for point in raw):
        raise DataError("has points that are not pairs", found=repr(raw)[:40], expected="[[x, y], ...]")
    points = raw[:-1] if len(raw) > 1 and raw[0] == raw[-1] else raw
    return parse_polygon([number for point in points for number in point[:2]])


def check_pixels(content: object, features: list[Feature]) -> str | None:
    """Return why the coordinates of a file are geographic, in words; None if they can be pixels.

    Geographic are those with a reference system (`crs`), and degrees of longitude and latitude that lie left of or above the image, or
    in which every shape is smaller than a pixel.
    """
    if isinstance(content, dict) and isinstance(content.get("crs"), dict):
        properties = content["crs"].get("properties")
        name = properties.get("name") if isinstance(properties, dict) else None
        return f"the reference system {str(name)[:60]}"
    boxes = np.array([feature.box() for feature in features]).reshape(-1, 4)
    if not len(boxes) or (np.abs(boxes) > (_MAX_LONGITUDE, _MAX_LATITUDE) * 2).any():
        return None
    is_tiny = (boxes[:, 2] - boxes[:, 0] < 1).all() and (boxes[:, 3] - boxes[:, 1] < 1).all()
    is_negative = (boxes[:, 2:] <= 0).any(axis=1).all()
    if not is_tiny and not is_negative:
        return None
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
    return f"x {left:g} to {right:g} and y {top:g} to {bottom:g}, as longitudes and latitudes"
