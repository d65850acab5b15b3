"""Tables of run-length codes, as competitions of Kaggle have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.run_length_table import RunLengths, parse_code
from segpipe.errors import DataError
from tests.worlds.layouts import import_source, instances_of, items, mask_of
from tests.worlds.public_layouts import HEIGHT, WIDTH, code, objects, photo, write_csv


def write_images(source: Path, count: int = 4) -> None:
    for n in range(count):
        photo(source / "train_images" / f"im{n}.jpg", n)


@pytest.mark.parametrize("by_columns", [True, False])
def test_the_order_of_pixels_is_that_with_shorter_outlines(source: Path, data: Path, by_columns: bool) -> None:
    write_images(source)
    masks = [objects(n) == 1 for n in range(4)]
    rows = [(f"im{n}.jpg", code(mask if by_columns else mask.T)) for n, mask in enumerate(masks)]
    write_csv(source / "train.csv", [("ImageId", "EncodedPixels"), *rows])
    report = import_source(source, data)
    assert (report.format, report.images, report.classes.names) == ("run-length-table", 4, ["background", "foreground"])
    words = "column by column" if by_columns else "row by row"
    assert any(words in note for note in report.notes)
    for n, mask in enumerate(masks):
        np.testing.assert_array_equal(mask_of(items(data)[f"im{n}"]), mask)


@pytest.mark.parametrize(
    ("header", "image"),
    [
        (("ImageId_ClassId", "EncodedPixels"), "im{}.jpg_{}"),
        (("Image_Label", "EncodedPixels"), "im{}.jpg_{}"),
        (("id", "class", "rle"), "im{}"),
    ],
)
def test_columns_of_other_competitions(source: Path, data: Path, header: tuple[str, ...], image: str) -> None:
    write_images(source)
    rows: list[tuple[str, ...]] = []
    for n in range(4):
        for k, name in ((1, "Fish"), (2, "Sugar")):
            row = code(objects(n) == k) if (n, k) != (0, 2) else ""
            rows.append((image.format(n, name), row) if len(header) == 2 else (image.format(n), name, row))
    write_csv(source / "train.csv", [header, *rows])
    write_csv(source / "sample_submission.csv", [header, *rows[:1]])
    report = import_source(source, data)
    assert report.classes.names == ["background", "Fish", "Sugar"]
    ids = objects(1)
    np.testing.assert_array_equal(mask_of(items(data)["im1"]), np.where(ids <= 2, ids, 0))
    assert set(np.unique(mask_of(items(data)["im0"]))) == {0, 1}


def test_several_rows_about_an_image_are_instances(source: Path, data: Path) -> None:
    write_images(source)
    rows = [(f"im{n}.jpg", code(objects(n) == k)) for n in range(1, 4) for k in range(1, objects(n).max() + 1)]
    write_csv(source / "train.csv", [("ImageId", "EncodedPixels"), *rows, ("im0.jpg", ""), ("missing.jpg", "1 2")])
    report = import_source(source, data)
    assert report.images == 4
    assert ("train.csv", "names no image, or several: 'missing.jpg'") in report.skipped
    np.testing.assert_array_equal(instances_of(items(data)["im2"]), objects(2))
    assert mask_of(items(data)["im0"]).max() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "start without a length"),
        ("a b", "not a list of numbers"),
        ("9" * 30 + " 1", "not a list of numbers"),
        ("0 4", "leads out of the image"),
        (f"{HEIGHT * WIDTH} 2", "leads out of the image"),
        ("5 -1", "leads out of the image"),
        (f"{2**62} {2**62}", "leads out of the image"),
    ],
)
def test_codes_that_are_not_valid(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_code(text, HEIGHT * WIDTH, "a.jpg")


def test_a_code_covers_its_pixels() -> None:
    draw = RunLengths((("1", "1 2 5 1"), ("2", "2 1"), ("1", "-1")), (("1", 1), ("2", 2)), False, True, "a.jpg")
    drawing = draw(2, 4)
    assert drawing.instances is not None
    assert drawing.mask.tolist() == [[1, 2, 0, 0], [1, 0, 0, 0]]
    assert drawing.instances.tolist() == [[1, 2, 0, 0], [1, 0, 0, 0]]


def test_a_broken_table_is_one_error(source: Path, data: Path) -> None:
    write_images(source)
    (source / "train.csv").write_text("ImageId,EncodedPixels\nim0.jpg,1 2,3\n")
    with pytest.raises(DataError, match=r"train\.csv:2.*another number of columns"):
        import_source(source, data)
    (source / "train.csv").write_text("ImageId,EncodedPixels\n")
    with pytest.raises(DataError, match="too few or too many classes"):
        import_source(source, data)
