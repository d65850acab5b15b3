"""Damaged exports of annotation tools: an error in one line or something left out, but never a traceback or an empty dataset."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.registry import FORMATS
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import SegpipeError
from tests.data.formats.annotations.tools import test_cvat, test_geojson, test_supervisely, test_via
from tests.worlds.layouts import HEIGHT, WIDTH, photo

N_DAMAGES = 150
VALUES = ("null", "-1", "1e999", "9" * 30, "[]", "{}", '""', '"a"', "NaN", "[[[]]]", r'"\u0000"', '{"a": {}}', "1e308")
ATTRIBUTES = ("", "-1", "nan", "inf", "9" * 30, "a", "../x", "1,2", ";;", "0,0;0,0;0,0", "1e8,1e8;2e8,1e8;1e8,3e8")


def write_cvat(source: Path) -> Path:
    photo(source / "images" / "a.png")
    test_cvat.write_frames(source, range(3))
    entry = test_cvat.image(
        "a.png",
        test_cvat.polygon("leaf", 1, 1, 4, 'z_order="1" group_id="2"'),
        '<mask label="stem" rle="1, 3, 2, 1" left="2" top="10" width="4" height="2"/>',
        '<ellipse label="stem" cx="19" cy="9" rx="3.5" ry="2"/>',
    )
    track = test_cvat.track("leaf", test_cvat.keyframe(0, 1, kind="box"), test_cvat.keyframe(1, 3, outside=1))
    return test_cvat.write_xml(source / "annotations.xml", entry, track, meta=test_cvat.VIDEO)


def write_supervisely(source: Path) -> Path:
    test_supervisely.write_meta(source, ("road", "polygon", "#FF0000"))
    road = test_supervisely.polygon("road", 2, 2, 8, [[4, 4], [6, 4], [6, 6]])
    return test_supervisely.write_annotation(source / "ds", "a.png", [road, test_supervisely.bitmap("car", 4, 4)])


def write_via(source: Path) -> Path:
    photo(source / "a.png")
    regions = [test_via.square(1, 1, 3, kind="1"), test_via.region("circle", {"kind": {"2": True}}, cx=9, cy=9, r=3)]
    return test_via.write_via(source / "a.json", test_via.entry("a.png", regions), project={"region": {}})


def write_geojson(source: Path) -> Path:
    rings = test_geojson.geometry(test_geojson.ring(1, 1, 9), test_geojson.ring(3, 3, 4), plane={"z": 0})
    shapes = [test_geojson.feature(rings, {"name": "a", "colorRGB": -3}), test_geojson.square(12, 1, 4)]
    return test_geojson.write_geojson(source / "a.geojson", *shapes)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "cvat": write_cvat,
    "supervisely": write_supervisely,
    "via": write_via,
    "geojson": write_geojson,
}


def damaged(text: str, is_xml: bool, generator: random.Random) -> str:
    """Return a text with one value, one piece or some characters changed."""
    how = generator.randrange(3)
    if how == 0:
        value = generator.choice(
            list(re.finditer(r'"[^"]*"' if is_xml else r'-?\d+(?:\.\d+)?|"[^"]*"|\[[^\[\]]*\]', text))
        )
        new = f'"{generator.choice(ATTRIBUTES)}"' if is_xml else generator.choice(VALUES)
        return text[: value.start()] + new + text[value.end() :]
    start = generator.randrange(len(text))
    if how == 1:
        return text[:start] + text[start + generator.randint(1, 30) :]
    return text[:start] + chr(generator.randint(1, 255)) + text[start + 1 :]


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files(source: Path, name: str) -> None:
    generator = random.Random(name)
    layout, path = FORMATS[name], WRITERS[name](source)
    sound = path.read_text("utf-8-sig")
    outcomes = {"read": 0, "refused": 0}
    for _ in range(N_DAMAGES):
        path.write_text(damaged(sound, path.suffix == ".xml", generator))
        try:
            layout.recognise(probe := SourceProbe(source))
            result = layout.read(probe, ReadOptions())
        except SegpipeError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error)
            continue
        outcomes["read"] += 1
        assert n_labelled(result.items) > 0
    assert min(outcomes.values()) > N_DAMAGES / 10


def n_labelled(items: list[Any]) -> int:
    """Return the pixels of classes in all images; an image whose size is refused counts as one, since it is left out."""
    total = 0
    for item in items:
        try:
            total += int((item.draw(HEIGHT, WIDTH).mask > 0).sum())
        except SegpipeError:
            total += 1
    return total
