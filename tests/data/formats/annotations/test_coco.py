"""COCO: where images are looked for, how instances are drawn, and files that are broken."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.data.formats.annotations.coco import read_coco, recognise_coco
from segpipe.data.formats.annotations.painter import CLIPPED, OVERLAP
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.data.images import read_mask
from segpipe.errors import ConfigError, DataError
from tests.data.formats.annotations.test_shapes import reference_runs, reference_string
from tests.worlds.layouts import HEIGHT, LIMITS, WIDTH, import_source, instances_of, items, mask_of, photo

BOX = [2, 1, 8, 1, 8, 6, 2, 6]


def document(*names: str, **more: Any) -> dict[str, Any]:
    """Return a COCO file for some images, each with one rectangle of 30 pixels."""
    return {
        "info": {},
        "images": [{"id": k, "file_name": n, "width": WIDTH, "height": HEIGHT} for k, n in enumerate(names, start=10)],
        "annotations": [
            {
                "id": k,
                "image_id": k,
                "category_id": 7,
                "segmentation": [BOX],
                "iscrowd": 0,
                "area": 30,
                "bbox": [2, 1, 6, 5],
            }
            for k, _ in enumerate(names, start=10)
        ],
        "categories": [
            {"id": 7, "name": "cell", "supercategory": "x"},
            {"id": 90, "name": "Kern é", "color": [1, 2, 3]},
        ],
        **more,
    }


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def one(source: Path) -> Path:
    photo(source / "images" / "a.png")
    return source


def annotated(**entry: Any) -> dict[str, Any]:
    """Return a file for one image `a.png`, whose annotation has these entries."""
    content = document("a.png")
    content["annotations"][0] |= entry
    return content


def test_polygons_classes_and_instances(one: Path, data: Path) -> None:
    write_json(one / "annotations.json", document("a.png"))
    report = import_source(one, data, "coco")
    assert [(c.name, c.value) for c in report.classes.classes] == [("background", 0), ("cell", 7), ("Kern é", 90)]
    assert report.classes.classes[2].color == (1, 2, 3)
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[1:6, 2:8] = 1
    assert np.array_equal(mask_of(items(data)["a"]), expected * 7)
    assert np.array_equal(instances_of(items(data)["a"]), expected)


def test_all_forms_of_outlines(one: Path, data: Path) -> None:
    ring = np.zeros((HEIGHT, WIDTH), bool)
    ring[8:17, 10:20] = True
    ring[10:14, 12:16] = False  # a hole
    counts = reference_runs(ring)
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [20, 0, 24, 0, 24, 3, 20, 3]]
    for segmentation, pixels in (
        ({"size": [HEIGHT, WIDTH], "counts": counts}, ring.sum()),
        ({"size": [HEIGHT, WIDTH], "counts": reference_string(counts)}, ring.sum()),
        (parts, 4 + 12),
        (BOX, 30),  # a single part that is not in a list
    ):
        write_json(one / "instances.json", annotated(segmentation=segmentation))
        import_source(one, data, "coco", replace=True)
        drawn = instances_of(items(data)["a"])
        assert drawn.max() == 1
        assert (drawn > 0).sum() == pixels
        if isinstance(segmentation, dict):
            assert np.array_equal(drawn > 0, ring)


def test_crowds_are_ignored(one: Path, data: Path) -> None:
    content = document("a.png")
    content["annotations"].append(
        content["annotations"][0] | {"id": 2, "iscrowd": 1, "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    )
    write_json(one / "instances.json", content)
    report = import_source(one, data, "coco")
    assert report.classes.ignore == (255,)
    values, counts = np.unique(mask_of(items(data)["a"]), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: HEIGHT * WIDTH - 81, 7: 30, 255: 51}


def test_decisions_are_reported(one: Path, data: Path) -> None:
    content = document("a.png")
    content["annotations"].append(
        content["annotations"][0] | {"id": 2, "category_id": 90, "segmentation": [[3, 2, 5, 2, 5, 4, 3, 4]]}
    )
    content["annotations"].append(
        content["annotations"][0] | {"id": 3, "segmentation": [[20, 10, 99, 10, 99, 12, 20, 12]]}
    )
    content["annotations"].append(
        content["annotations"][0] | {"id": 3, "segmentation": [[10, 10, 12, 10, 12, 12, 10, 12]]}
    )
    write_json(one / "instances.json", content)
    report = import_source(one, data, "coco")
    assert f"{OVERLAP}: 4" in report.notes
    assert f"{CLIPPED}: 1" in report.notes
    assert "annotations that share their id with another one, kept: 1" in report.notes
    mask = mask_of(items(data)["a"])
    assert (mask == 90).sum() == 4
    assert (mask == 7).sum() == 26 + 2 * (WIDTH - 20) + 4


LAYOUTS = {
    "coco": {"annotations/instances_train2017.json": "train2017/", "annotations/instances_val2017.json": "val2017/"},
    "images": {"annotations/instances_train.json": "images/train/", "annotations/instances_val.json": "images/val/"},
    "roboflow": {"train/_annotations.coco.json": "train/", "valid/_annotations.coco.json": "valid/"},
    "next to": {"train.json": "images/", "val.json": "images/"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_files_are_splits(source: Path, layout: str) -> None:
    for number, (name, folder) in enumerate(LAYOUTS[layout].items()):
        photo(source / folder / f"im{number}.png")
        write_json(source / name, document(f"im{number}.png"))
    write_json(source / "annotations" / "captions_train2017.json", {"images": [], "annotations": []})
    result = read_coco(SourceProbe(source), ReadOptions())
    assert [(item.image.name, item.split) for item in result.items] == [("im0.png", "train"), ("im1.png", "val")]
    assert result.skipped == []
    assert "categories" in (recognise_coco(SourceProbe(source)) or "")


def test_the_user_names_file_and_folder(source: Path, tmp_path: Path) -> None:
    photo(tmp_path / "elsewhere" / "a.png")
    write_json(source / "odd" / "very" / "deep" / "x.json", document("a.png"))
    with pytest.raises(DataError, match="no COCO annotations"):
        read_coco(SourceProbe(source), ReadOptions())
    options = ReadOptions(masks="odd/very/deep/x.json", images=str(tmp_path / "elsewhere"))
    assert [item.name for item in read_coco(SourceProbe(source), options).items] == ["a"]
    with pytest.raises(ConfigError, match="no such file"):
        read_coco(SourceProbe(source), ReadOptions(masks="nowhere.json"))
    with pytest.raises(ConfigError, match="no such folder"):
        read_coco(SourceProbe(source), ReadOptions(masks="odd/very/deep/x.json", images="nowhere"))


BROKEN_ANNOTATIONS = {
    "two points": ({"segmentation": [[1, 1, 5, 5]]}, "fewer than 3 points"),
    "odd number of coordinates": ({"segmentation": [[1, 1, 5, 5, 9, 9, 3]]}, "odd number of coordinates"),
    "NaN": ({"segmentation": [[1, 1, 5, 5, 9, float("nan")]]}, "NaN or infinite"),
    "infinity": ({"segmentation": [[1, 1, 5, 5, 9, float("inf")]]}, "NaN or infinite"),
    "huge": ({"segmentation": [[0, 0, 1e12, 0, 1e12, 1e12]]}, "much too large"),
    "outside": ({"segmentation": [[900, 900, 950, 900, 950, 950]]}, "outside its image"),
    "words": ({"segmentation": [["a", "b", "c", "d", "e", "f"]]}, "not a flat list"),
    "a box alone": ({"segmentation": []}, "a box is not enough"),
    "no outline": ({"segmentation": None}, "a box is not enough"),
    "another size": ({"segmentation": {"size": [4, 4], "counts": [16]}}, "different size"),
    "too short": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [16]}}, "does not fill"),
    "broken string": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "oooo"}}, "broken"),
    "negative": (
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}},
        "nor a list of counts",
    ),
    "no such category": ({"category_id": 8}, "has no valid category"),
    "no such image": ({"image_id": 99}, "refers to an image that is missing or was left out"),
    "a list for an image": ({"image_id": [10]}, "refers to an image that is missing or was left out"),
}


@pytest.mark.parametrize("fault", BROKEN_ANNOTATIONS)
def test_a_broken_annotation_is_left_out(source: Path, fault: str) -> None:
    for name in ("a.png", "b.png"):
        photo(source / name)
    content = document("a.png", "b.png")
    entry, reason = BROKEN_ANNOTATIONS[fault]
    content["annotations"][0] |= entry
    write_json(source / "x.json", content)
    result = read_coco(SourceProbe(source), ReadOptions())
    assert len(result.items) == 2
    ((name, message),) = result.skipped
    assert name.startswith("x.json: annotation 10")
    assert reason in message
    assert [(i.draw(HEIGHT, WIDTH).mask > 0).sum() for i in result.items if i.draw] == [0, 30]


def without(content: dict[str, Any], *path: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def image(**entry: Any) -> dict[str, Any]:
    content = document("a.png", "b.png")
    content["images"][0] |= entry
    return content


BROKEN_IMAGES = {
    "traversal": (image(file_name="../../etc/passwd"), "outside its folder"),
    "absolute": (image(file_name="/etc/passwd"), "outside its folder"),
    "missing": (image(file_name="missing.png"), "names a missing image"),
    "a folder": (image(file_name="."), "names a missing image"),
    "NUL": (image(file_name="a\0.png"), "not a valid file name"),
    "very long": (image(file_name="x" * 5000), "not a valid file name"),
    "no name": (image(file_name=None), "without a file_name"),
    "no id": (without(image(), "images", 0, "id"), "without an id"),
    "two of one id": (image(id=11), "given to 2 images"),
    "listed twice": (image(file_name="b.png"), "listed 2 times"),
    "not an entry": (
        document("a.png", "b.png") | {"images": ["a.png", *document("a.png", "b.png")["images"][1:]]},
        "without an id",
    ),
}


@pytest.mark.parametrize("fault", BROKEN_IMAGES)
def test_a_broken_image_is_left_out(source: Path, fault: str) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo(source / name)
    content, reason = copy.deepcopy(BROKEN_IMAGES[fault])
    content["images"].append({"id": 77, "file_name": "c.png", "width": WIDTH, "height": HEIGHT})
    content["annotations"].append(content["annotations"][0] | {"id": 77, "image_id": 77})
    write_json(source / "x.json", content)
    result = read_coco(SourceProbe(source), ReadOptions())
    assert any(reason in message for _, message in result.skipped), result.skipped
    assert "c.png" in {item.image.name for item in result.items}
    assert all(item.image.is_relative_to(source.resolve()) for item in result.items)


def test_links_do_not_lead_out_of_the_source(source: Path, tmp_path: Path) -> None:
    photo(tmp_path / "secret.png")
    (source / "out.png").symlink_to(tmp_path / "secret.png")
    (source / "loop.png").symlink_to(source / "loop.png")
    photo(source / "a.png")
    write_json(source / "x.json", document("out.png", "loop.png", "a.png"))
    result = read_coco(SourceProbe(source), ReadOptions())
    assert [item.image.name for item in result.items] == ["a.png"]
    reasons = dict(result.skipped)
    assert "outside its folder" in reasons["out.png"]
    assert "loop.png" in reasons


DEEP = "[" * 100_000
BROKEN_FILES = {
    "text": ("not JSON", "not valid JSON"),
    "cut short": (json.dumps(document("a.png"))[:-20], "not valid JSON"),
    "brackets": ('{"images": ' + DEEP, "not valid JSON"),
    "digits": ('{"images": [], "annotations": [], "categories": [' + "9" * 5000 + "]}", "not valid JSON"),
    "a list": ("[1]", "not a JSON object"),
    "no images": (without(document("a.png"), "images"), "no list `images`"),
    "no annotations": (without(document("a.png"), "annotations"), "no list `annotations`"),
    "categories by id": (document("a.png", categories={"7": "cell"}), "no list `categories`"),
    "a category without a name": (document("a.png", categories=[{"id": 7}]), "without an integer id"),
    "a category id twice": (
        document("a.png", categories=[{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]),
        "two categories with the same id",
    ),
    "no category at all": (document("a.png", categories=[]), "no annotation"),
    "boxes alone": (annotated(segmentation=[]), "no annotation can be used"),
}


@pytest.mark.parametrize("fault", BROKEN_FILES)
def test_a_broken_file(one: Path, fault: str) -> None:
    content, reason = BROKEN_FILES[fault]
    write_json(one / "x.json", content)
    with pytest.raises(DataError, match=reason) as error:
        read_coco(SourceProbe(one), ReadOptions(masks="x.json"))
    assert "x.json" in str(error.value)


def test_a_file_that_is_too_large(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(one / "x.json", document("a.png"))
    monkeypatch.setattr("segpipe.data.formats.annotations.coco.MAX_JSON_BYTES", 100)
    with pytest.raises(DataError, match=r"x\.json: file is too large"):
        read_coco(SourceProbe(one), ReadOptions())


def test_files_that_contradict_each_other(source: Path) -> None:
    for name in ("train", "val"):
        photo(source / f"{name}.png")
        write_json(source / f"{name}.json", document(f"{name}.png"))
    write_json(source / "val.json", document("val.png", categories=[{"id": 7, "name": "dog"}]))
    with pytest.raises(DataError, match=r"val\.json: a category id has two meanings.*dog.*cell"):
        read_coco(SourceProbe(source), ReadOptions())


def test_an_image_in_two_files_and_an_annotation_twice(source: Path) -> None:
    photo(source / "a.png")
    content = document("a.png")
    content["annotations"] *= 2
    for name in ("train.json", "val.json"):
        write_json(source / name, content)
    result = read_coco(SourceProbe(source), ReadOptions())
    assert [item.split for item in result.items] == ["train"]
    assert sorted(message for _, message in result.skipped) == [
        "listed in val.json, and already in train.json",
        *["occurs twice"] * 2,
    ]


def test_an_image_of_another_size_than_annotated(one: Path, data: Path) -> None:
    photo(one / "images" / "b.png")
    content = document("a.png", "b.png")
    content["images"][0]["width"] += 1
    write_json(one / "x.json", content)
    report = import_source(one, data, "coco")
    ((name, reason),) = report.skipped
    assert name.endswith("a.png")
    assert f"found {WIDTH} x {HEIGHT}, expected {WIDTH + 1} x {HEIGHT}" in reason


def test_an_invalid_class_table_is_not_used(one: Path) -> None:
    write_json(one / "x.json", document("a.png", info={"class_table": {"classes": "?"}}))
    assert [c.name for c in read_coco(SourceProbe(one), ReadOptions()).classes.classes] == [
        "background",
        "cell",
        "Kern é",
    ]


def test_real_nuclei_are_equal_in_both_files(shared_data: Path) -> None:
    """instances.json and the label maps in masks/ hold the same nuclei, pixel for pixel; only their ids may differ."""
    source = shared_data / "nuclei"
    result = read_coco(SourceProbe(source), ReadOptions())
    assert (len(result.items), result.skipped) == (211, [])
    nuclei = 0
    for item in result.items:
        stored = read_mask(source / "masks" / item.image.name, LIMITS)
        assert item.draw is not None
        drawing = item.draw(*stored.shape)
        assert np.array_equal(drawing.mask, stored > 0)
        assert drawing.instances is not None
        pairs = np.unique(drawing.instances.astype(np.uint32) << 16 | stored)
        assert len(pairs) == len(set((pairs >> 16).tolist())) == len(set((pairs & 0xFFFF).tolist()))
        nuclei += len(pairs) - 1
    assert nuclei == 8755


def test_images_are_found_by_their_names_anywhere(source: Path) -> None:
    """LIVECell: the annotations lie two folders down, and the images in folders that no name leads to."""
    root = source / "LIVECell_dataset_2021"
    photo(root / "images" / "livecell_train_val_images" / "A172" / "im0.png")
    write_json(root / "annotations" / "LIVECell" / "livecell_coco_train.json", document("im0.png"))
    result = read_coco(SourceProbe(source), ReadOptions())
    assert [(item.image.name, item.split) for item in result.items] == [("im0.png", "train")]
    photo(root / "images" / "livecell_test_images" / "im0.png")
    result = read_coco(SourceProbe(source), ReadOptions())
    assert result.items == []
    assert "names a missing image" in result.skipped[0][1]
