"""CVAT for images and for videos: shapes, order, groups, names of images, tracks, and broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.annotations.tools.cvat import read_cvat
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo

SIZE = f'width="{WIDTH}" height="{HEIGHT}"'
META = """<version>1.1</version><meta><task><labels>
<label><name>leaf</name><color>#ff8000</color><type>any</type><attributes></attributes></label>
<label><name>stem</name><color>#00ff00</color><type>any</type></label>
</labels></task></meta>"""


def polygon(label: str, x: float, y: float, edge: float, more: str = "") -> str:
    points = ";".join(f"{a:.2f},{b:.2f}" for a, b in [(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)])
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" {more}></polygon>'


def image(name: str, *shapes: str, more: str = SIZE) -> str:
    return f'<image id="0" name="{name}" {more}>{"".join(shapes)}</image>'


def write_xml(path: Path, *entries: str, meta: str = META) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{"".join(entries)}</annotations>')
    return path


def counts(mask: np.ndarray) -> dict[int, int]:
    return {value: int((mask == value).sum()) for value in np.unique(mask).tolist() if value}


def test_shapes_of_every_kind(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    write_xml(
        source / "annotations.xml",
        image(
            "a.png",
            polygon("leaf", 1, 1, 4),
            '<box label="stem" xtl="8" ytl="1" xbr="12" ybr="3" rotation="90.0" z_order="0"/>',
            '<mask label="leaf" rle="1, 3, 2, 1" left="2" top="10" width="4" height="2" z_order="0"/>',
            '<ellipse label="stem" cx="19" cy="9" rx="3.5" ry="2" rotation="90"/>',
            '<polyline label="leaf" points="1,1;5,5"/><points label="leaf" points="1,1"/><tag label="leaf"/>',
            '<skeleton label="leaf"><points label="p" points="1,1"/></skeleton>',
        ),
    )
    report = import_source(source, data)
    assert report.format == "cvat"
    assert [(c.name, c.value, c.color) for c in report.classes.classes][1:] == [
        ("leaf", 1, (255, 128, 0)),
        ("stem", 2, (0, 255, 0)),
    ]
    mask = mask_of(items(data)["a"])
    expected = np.zeros_like(mask)
    expected[1:5, 1:5] = 1
    expected[0:4, 9:11] = 2  # 4 x 2 about (10, 2), turned by a quarter
    expected[10, 3:6] = 1  # row by row: 1 clear, 3 set, 2 clear, 1 set, 1 clear
    expected[11, 4] = 1
    np.testing.assert_array_equal(np.where(np.arange(WIDTH) < 14, mask, 0), expected)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot((columns - 19) / 2, (rows - 9) / 3.5)  # higher than wide: it is turned
    assert (mask[distance < 0.85] == 2).all()
    assert not (mask[(distance > 1.2) & (columns > 14)] == 2).any()
    for kind in ("polyline", "points", "tag", "skeleton"):
        assert any(note == f"shapes without an area, not drawn ({kind}): 1" for note in report.notes)
    assert "boxes, drawn as filled rectangles: 1" in report.notes
    assert len(np.unique(instances_of(items(data)["a"]))) == 5


def test_boxes_turn_clockwise(source: Path) -> None:
    photo(source / "a.png")
    box = '<box label="leaf" xtl="6" ytl="8" xbr="18" ybr="10" rotation="45"/>'
    write_xml(source / "annotations.xml", image("a.png", box))
    (item,) = read_cvat(SourceProbe(source), ReadOptions()).items
    assert item.draw is not None
    mask = item.draw(HEIGHT, WIDTH).mask
    assert abs(int(mask.sum()) - 24) <= 3
    assert mask[12, 15] == mask[5, 8] == 1  # its right end goes down
    assert mask[5, 15] == mask[12, 8] == 0


def test_z_order_decides_and_groups_are_one_instance(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    write_xml(
        source / "annotations.xml",
        image(
            "a.png",
            polygon("leaf", 2, 2, 3, 'z_order="0"'),
            polygon("stem", 1, 1, 8, 'z_order="1"'),
            polygon("leaf", 12, 2, 2, 'group_id="7"'),
            polygon("leaf", 16, 2, 2, 'group_id="7"'),
            polygon("stem", 12, 8, 6),
            polygon("leaf", 13, 9, 2),
        ),
    )
    report = import_source(source, data)
    mask, instances = mask_of(items(data)["a"]), instances_of(items(data)["a"])
    assert counts(mask) == {1: 4 + 4 + 4, 2: 64 + 36 - 4}
    assert instances[2, 12] == instances[2, 16] != 0
    assert any(
        n.startswith("pixels where instances overlap: the upper one") and n.endswith(": 13") for n in report.notes
    )
    assert any(note.startswith("instances that are completely covered by upper ones") for note in report.notes)


@pytest.mark.parametrize(
    ("name", "file", "more"),
    [
        ("a.png", "a.png", ""),
        ("a.png", "images/train/a.png", 'subset="train"'),
        ("deep/er/a b.png", "images/train/deep/er/a b.png", 'subset="train"'),
        ("deep\\a.png", "images/deep/a.png", ""),
        ("upload/set1/a.png", "pictures/a.png", ""),
        ("frame_000003", "images/frame_000003.png", ""),
        ("a.jpg", "images/a.png", ""),
        ("https://host/bucket/a%20b.png?x=1", "images/a b.png", ""),
    ],
)
def test_names_of_images(source: Path, name: str, file: str, more: str) -> None:
    path = photo(source / file)
    write_xml(source / "annotations.xml", image(name, polygon("leaf", 1, 1, 4), more=f"{SIZE} {more}"))
    result = read_cvat(SourceProbe(source), ReadOptions())
    assert result.skipped == []
    assert [(item.image, item.split) for item in result.items] == [(path, "train" if "subset" in more else None)]


def test_several_jobs_ignored_pixels_and_the_background(source: Path, data: Path) -> None:
    for task in ("task_1", "task_2"):
        photo(source / task / "images" / f"{task}.png")
    overlap = image("../task_1/images/task_1.png", polygon("leaf", 1, 1, 4))
    write_xml(
        source / "task_1" / "annotations.xml",
        image("task_1.png", polygon("leaf", 1, 1, 4), polygon("Ignore", 8, 8, 3), polygon("background", 2, 2, 1)),
    )
    write_xml(source / "task_2" / "annotations.xml", image("task_2.png", polygon("stem", 1, 1, 5)), overlap)
    report = import_source(source, data)
    assert report.classes.names == ["background", "leaf", "stem"]
    assert report.images == 1  # the other image has two different annotations
    assert report.skipped == [
        (
            "task_1/images/task_1",
            "2 annotations of this image differ: keep one of their files",
        )
    ]
    write_xml(source / "task_2" / "annotations.xml", image("task_2.png", polygon("stem", 1, 1, 5)), image("task_1.png"))
    report = import_source(source, data, replace=True)
    assert "several files imported together, from task_1, task_2" in report.notes
    assert counts(mask_of(items(data)["task_1"])) == {1: 15, 255: 9}
    assert counts(mask_of(items(data)["task_2"])) == {2: 25}


def test_one_of_several_exports_and_overlapping_classes(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    write_xml(source / "old.xml", image("a.png", polygon("leaf", 1, 1, 4)))
    write_xml(source / "new.xml", image("a.png", polygon("leaf", 1, 1, 6), polygon("stem", 2, 2, 2)))
    with pytest.raises(DataError, match=r"no annotated image can be used.*differ: keep one of their files"):
        import_source(source, data)
    import_source(source, data, read={"masks": "new.xml"})
    assert counts(mask_of(items(data)["a"])) == {1: 32, 2: 4}
    report = import_source(source, data, read={"masks": "new.xml", "overlapping": True}, replace=True)
    assert report.classes.overlapping
    assert counts(mask_of(items(data)["a"])) == {1: 32, 3: 4}
    with pytest.raises(ConfigError, match="no such file"):
        import_source(source, data, read={"masks": "newer.xml"}, replace=True)


def test_a_shape_that_cannot_be_drawn_does_not_become_background(source: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(source / name)
    cuboid = '<cuboid label="leaf" xtl1="1" ytl1="1"/>'
    write_xml(source / "annotations.xml", image("a.png", polygon("leaf", 1, 1, 4)), image("b.png", cuboid))
    result = read_cvat(SourceProbe(source), ReadOptions())
    assert [item.name for item in result.items] == ["a"]
    ((name, reason),) = result.skipped
    assert (name, "found cuboid" in reason) == ("annotations.xml: b.png", True)


def test_labels_of_points_are_no_classes(source: Path) -> None:
    photo(source / "a.png")
    meta = META.replace("stem", "joint").replace(
        "<type>any</type></label>\n</labels>", "<type>points</type></label></labels>"
    )
    write_xml(source / "annotations.xml", image("a.png", polygon("leaf", 1, 1, 4)), image("b.png"), meta=meta)
    result = read_cvat(SourceProbe(source), ReadOptions())
    assert result.classes is not None
    assert result.classes.names == ["background", "leaf"]
    assert "classes of shapes that are not drawn, left out: joint" in result.notes
    ((name, reason),) = result.skipped
    assert name == "annotations.xml: b.png"
    assert "missing image" in reason


BROKEN = {
    "two points": ('<polygon label="leaf" points="1,1;2,2"/>', "fewer than 3 points"),
    "words": ('<polygon label="leaf" points="a,b;c,d;e,f"/>', "points that cannot be read"),
    "NaN": ('<box label="leaf" xtl="nan" ytl="1" xbr="4" ybr="4"/>', "no valid `xtl`"),
    "no area": ('<box label="leaf" xtl="4" ytl="1" xbr="4" ybr="4"/>', "without an area"),
    "no label": ('<box xtl="1" ytl="1" xbr="4" ybr="4"/>', "no label"),
    "a bomb": ('<mask label="leaf" rle="0, 9999999999" left="0" top="0" width="4" height="4"/>', "does not fill"),
    "a huge mask": ('<mask label="leaf" rle="0, 4" left="0" top="0" width="99999" height="99999"/>', "larger than its"),
    "a mask of words": ('<mask label="leaf" rle="a" left="0" top="0" width="4" height="4"/>', "cannot be read"),
    "a mask outside": ('<mask label="leaf" rle="0, 4" left="90" top="0" width="2" height="2"/>', "outside its image"),
    "an empty mask": ('<mask label="leaf" rle="4" left="0" top="0" width="2" height="2"/>', "without pixels"),
    "outside": (polygon("leaf", 90, 90, 3), "outside its image"),
    "a radius": ('<ellipse label="leaf" cx="1" cy="1" rx="0" ry="1"/>', "invalid centre or radius"),
    "an order": (polygon("leaf", 1, 1, 3, 'z_order="x"'), "no valid `z_order`"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_shape_is_left_out(source: Path, fault: str) -> None:
    broken, reason = BROKEN[fault]
    photo(source / "a.png")
    write_xml(source / "annotations.xml", image("a.png", polygon("leaf", 1, 1, 4), broken))
    result = read_cvat(SourceProbe(source), ReadOptions())
    ((name, message),) = result.skipped
    assert name.startswith("annotations.xml: a.png: ")
    assert reason in message
    (item,) = result.items
    assert item.draw is not None
    assert counts(item.draw(HEIGHT, WIDTH).mask) == {1: 16}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations><image name="a.png"/></annotations>', "document type or entities"),
        ('<!DOCTYPE x SYSTEM "x.dtd"><annotations><image name="a.png"/></annotations>', "document type or entities"),
        ('<annotations><image name="a.png">', "not valid XML"),
        ("<annotations><image name='\xe9'/></annotations>", "not a text in UTF-8"),
        ("<annotations><meta></meta><image >" + "<a>" * 500 + "</a>" * 500 + "</image></annotations>", "too deeply"),
        ('<annotations><meta></meta><image name="../../x.png"></image></annotations>', "outside its folder"),
        ("<annotations><meta></meta><image /></annotations>", "missing image"),
    ],
)
def test_a_broken_file_is_an_error_in_one_line(source: Path, text: str, reason: str) -> None:
    photo(source / "a.png")
    photo(source.parent / "x.png")
    (source / "annotations.xml").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=reason) as raised:
        read_cvat(SourceProbe(source), ReadOptions())
    assert "\n" not in str(raised.value)


def test_a_dataset_without_areas_is_an_error(source: Path, data: Path) -> None:
    photo(source / "a.png")
    write_xml(source / "annotations.xml", image("a.png", '<tag label="leaf"/>', '<points label="leaf" points="1,1"/>'))
    with pytest.raises(DataError, match=r"all pixels would be background.*\(points\): 1"):
        import_source(source, data)
    assert not data.exists()


def test_images_elsewhere(source: Path, tmp_path: Path, data: Path) -> None:
    photo(tmp_path / "pictures" / "a.png")
    write_xml(source / "annotations.xml", image("a.png", polygon("leaf", 1, 1, 4)))
    with pytest.raises(DataError, match=r"missing image.*--images"):
        import_source(source, data)
    assert import_source(source, data, read={"images": str(tmp_path / "pictures")}).masks == 1
    with pytest.raises(ConfigError, match="is not a folder"):
        import_source(source, data, read={"images": "nowhere"})


def keyframe(frame: int, x: float, outside: int = 0, kind: str = "polygon", more: str = "") -> str:
    if kind == "box":
        return f'<box frame="{frame}" outside="{outside}" keyframe="1" xtl="{x}" ytl="1" xbr="{x + 4}" ybr="5" {more}/>'
    points = f"{x},1;{x + 4},1;{x + 4},5;{x},5"
    return f'<polygon frame="{frame}" outside="{outside}" keyframe="1" occluded="0" points="{points}" {more}/>'


def track(label: str, *shapes: str, more: str = "") -> str:
    return f'<track id="0" label="{label}" {more}>{"".join(shapes)}</track>'


def write_frames(source: Path, numbers: range, name: str = "frame_{:06d}.PNG") -> None:
    for number in numbers:
        photo(source / "images" / name.format(number), number)


VIDEO = META.replace(
    "</task>",
    "<start_frame>0</start_frame><stop_frame>5</stop_frame></task>"
    f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>",
)


def test_tracks_are_drawn_where_they_are_stated(source: Path, data: Path) -> None:
    write_frames(source, range(6))
    write_xml(
        source / "annotations.xml",
        track("leaf", keyframe(0, 1), keyframe(1, 3), keyframe(2, 3, outside=1)),
        track("stem", keyframe(4, 10, kind="box"), keyframe(4, 10, outside=1)),
        meta=VIDEO,
    )
    report = import_source(source, data)
    drawn = {key[-1]: counts(mask_of(item)) for key, item in items(data).items()}
    # frame 5 is left out: the second track is visible in frame 4, and the file does not say where it is afterwards
    assert drawn == {"0": {1: 16}, "1": {1: 16}, "2": {}, "3": {}, "4": {2: 16}}
    assert any(note.startswith("frames left out: a visible track") and note.endswith(": 1") for note in report.notes)
    assert (mask_of(items(data)["frame_000001"]) == 1)[1:5, 3:7].all()


def test_frames_between_keyframes_are_not_invented(source: Path) -> None:
    write_frames(source, range(5))
    write_xml(source / "annotations.xml", track("leaf", keyframe(0, 1), keyframe(4, 9), keyframe(9, 9)), meta=VIDEO)
    result = read_cvat(SourceProbe(source), ReadOptions())
    assert [item.name[-1] for item in result.items] == ["0", "4"]
    assert "frames with annotations, but without an image file: 1" in result.notes


def test_only_the_annotated_part_of_a_video_is_imported(source: Path) -> None:
    write_frames(source, range(9))
    part = VIDEO.replace("<start_frame>0", "<start_frame>2")
    write_xml(source / "annotations.xml", track("leaf", keyframe(3, 1), keyframe(4, 1, outside=1)), meta=part)
    result = read_cvat(SourceProbe(source), ReadOptions())
    assert [item.name[-1] for item in result.items] == ["2", "3", "4", "5"]
    assert "frames before or after the annotated part of the video, left out: 5" in result.notes
    assert any("--group" in note for note in result.notes)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no frames", r"no files of its frames.*ffmpeg"),
        ("other names", r"no files of its frames.*CVAT for images 1\.1"),
        ("from one", "numbered otherwise.*frame_000001.PNG to frame_000006.PNG, expected frames 0 to 5"),
        ("own numbers", "numbered otherwise.*frame_000020.PNG to frame_000025.PNG"),
        ("tasks", r"several tasks.*tasks 3, 4"),
        ("twice", "could be the same frame"),
    ],
)
def test_frames_that_cannot_be_assigned(source: Path, fault: str, words: str) -> None:
    source.mkdir(exist_ok=True)
    more = ("", "")
    if fault == "other names":
        photo(source / "images" / "a.png")
    elif fault == "from one":
        write_frames(source, range(1, 7))
    elif fault == "own numbers":
        write_frames(source, range(20, 26))
    elif fault != "no frames":
        write_frames(source, range(6))
    if fault == "tasks":
        more = ('task_id="3"', 'task_id="4"')
    if fault == "twice":
        photo(source / "again" / "frame_000000.png")
    write_xml(
        source / "annotations.xml",
        *(track("leaf", keyframe(0, 1), keyframe(5, 1), more=text) for text in more),
        meta=VIDEO,
    )
    with pytest.raises(DataError, match=words):
        read_cvat(SourceProbe(source), ReadOptions())
