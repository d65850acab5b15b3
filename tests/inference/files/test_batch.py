"""Predicting files: masks, overlays and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from segpipe.config import DataParams
from segpipe.data.images import decode_image, encode_png, read_mask
from segpipe.errors import ConfigError, MissingError
from segpipe.inference.files import batch
from segpipe.inference.files.batch import predict_files
from segpipe.inference.files.output_names import list_files
from segpipe.inference.files.render import class_shares, mask_png
from segpipe.inference.segmenter import Segmenter
from segpipe.samples import ClassTable, Prediction
from tests.worlds.bundles import CLASSES, toy_image, toy_segmenter

LIMITS = DataParams(max_megapixels=0.1)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return toy_segmenter(0)


def write(path: Path, seed: int, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(toy_image(seed, height, 50)))
    return path


def test_masks_overlays_and_a_summary(segmenter: Segmenter, tmp_path: Path) -> None:
    image = write(tmp_path / "a.png", 1)
    rows = predict_files(segmenter, [image], tmp_path / "out", LIMITS)
    ids = segmenter.predict(toy_image(1, 40, 50)).class_ids
    np.testing.assert_array_equal(CLASSES.encode(read_mask(tmp_path / "out" / "masks" / "a.png", LIMITS)), ids)
    assert read_mask(tmp_path / "out" / "masks" / "a.png", LIMITS).max() == 255, "values of mask files, not class ids"
    assert (tmp_path / "out" / "overlays" / "a.png").exists()
    assert rows[0]["classes"] == {name: round(float((ids == i).mean()), 6) for i, name in enumerate(CLASSES.names)}
    summary = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert summary == {
        "model": {"candidate": "unet", "engine": "torch", "lineage": {"plan_hash": "c0ffee"}},
        "images": rows,
    }


def test_one_bad_file_does_not_stop_the_others(segmenter: Segmenter, tmp_path: Path) -> None:
    good = [write(tmp_path / "a.png", 1), write(tmp_path / "z.png", 2)]
    bad = tmp_path / "m.png"
    bad.write_bytes(b"these are words")
    deep = write(tmp_path / "large.png", 3, height=4000)
    rows = predict_files(segmenter, [good[0], bad, deep, tmp_path / "absent.png", good[1]], tmp_path / "out", LIMITS)
    assert ["error" in row for row in rows] == [False, True, True, True, False]
    assert all(str(Path(row["file"])) in row["error"] for row in rows if "error" in row), "each error names its file"
    assert sorted(p.name for p in (tmp_path / "out" / "masks").iterdir()) == ["a.png", "z.png"]


def test_the_error_of_an_image_with_wrong_channels_names_the_file(tmp_path: Path) -> None:
    grey = toy_segmenter(0, channels=1)
    rows = predict_files(grey, [write(tmp_path / "colour.png", 1)], tmp_path / "out", LIMITS)
    assert "colour.png" in rows[0]["error"] and "channels" in rows[0]["error"]


def test_folders_are_searched_and_outputs_have_unique_names(segmenter: Segmenter, tmp_path: Path) -> None:
    for seed, name in enumerate(("b/x.png", "a/x.png", "a/x-2.png", "a/odd name!.png", "a/.hidden.png", "notes.txt")):
        write(tmp_path / "in" / name, seed)
    out = tmp_path / "in" / "out"
    first = predict_files(segmenter, [tmp_path / "in"], out, LIMITS)
    masks = [row["mask"] for row in first]
    assert masks == ["masks/a/odd name!.png", "masks/a/x-2.png", "masks/a/x.png", "masks/b/x.png"]
    again = predict_files(segmenter, [tmp_path / "in"], out, LIMITS, "overwrite")
    assert again == first, "outputs are not read as inputs"
    rows = predict_files(segmenter, [tmp_path / "in" / "a", tmp_path / "in" / "a" / "x.png"], tmp_path / "2", LIMITS)
    assert len(rows) == 3, "each file once"


def test_files_with_one_stem_keep_their_endings_and_several_folders_their_names(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    for seed, name in enumerate(("site1/img.png", "site2/img.png", "site2/a b.png")):
        write(tmp_path / "in" / name, seed)
    (tmp_path / "in/site1/img.jpg").write_bytes(cv2.imencode(".jpg", toy_image(7, 30, 40))[1].tobytes())
    rows = predict_files(segmenter, [tmp_path / "in"], tmp_path / "out", LIMITS)
    masks = {row["file"].removeprefix(f"{tmp_path}/in/"): row["mask"] for row in rows}
    assert masks == {
        "site1/img.jpg": "masks/site1/img.jpg.png",
        "site1/img.png": "masks/site1/img.png.png",
        "site2/a b.png": "masks/site2/a b.png",
        "site2/img.png": "masks/site2/img.png",
    }
    for row in rows:  # each mask is that of its own file
        image = decode_image(Path(row["file"]).read_bytes(), "x", LIMITS)
        mask = CLASSES.encode(read_mask(tmp_path / "out" / row["mask"], LIMITS))
        np.testing.assert_array_equal(mask, segmenter.predict(image).class_ids)
    rows = predict_files(segmenter, [tmp_path / "in/site1", tmp_path / "in/site2"], tmp_path / "both", LIMITS)
    assert [row["mask"] for row in rows][-1] == "masks/site2/img.png"


def test_an_earlier_run_is_not_mixed_with_a_new_one(segmenter: Segmenter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = write(tmp_path / "in/a.png", 1), write(tmp_path / "in/b.png", 2)
    predict_files(segmenter, [first], out, LIMITS)
    with pytest.raises(ConfigError, match=r"holds the results of an earlier run .*--resume.*--overwrite"):
        predict_files(segmenter, [second], out, LIMITS)
    before = (out / "masks/a.png").stat().st_mtime_ns
    rows = predict_files(segmenter, [tmp_path / "in"], out, LIMITS, "resume")
    assert [row["mask"] for row in rows] == ["masks/a.png", "masks/b.png"]
    assert (out / "masks/a.png").stat().st_mtime_ns == before, "not predicted again"
    other = Segmenter(segmenter.spec.model_copy(update={"lineage": {"plan_hash": "other"}}), segmenter.engine)
    with pytest.raises(ConfigError, match="another model"):
        predict_files(other, [tmp_path / "in"], out, LIMITS, "resume")
    (out / "masks/mine.png").write_bytes(b"of the user")
    predict_files(segmenter, [second], out, LIMITS, "overwrite")
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["b.png", "mine.png"]


def test_a_killed_run_continues_where_it_was(segmenter: Segmenter, tmp_path: Path, monkeypatch) -> None:
    for number in range(3):
        write(tmp_path / f"in/{number}.png", number)
    out, calls = tmp_path / "out", []
    predict = batch._predict_file

    def until_second(*arguments: object) -> dict:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(batch, "_predict_file", until_second)
    with pytest.raises(KeyboardInterrupt):
        predict_files(segmenter, [tmp_path / "in"], out, LIMITS)
    with pytest.raises(ConfigError, match="earlier run"):
        predict_files(segmenter, [tmp_path / "in"], out, LIMITS)
    rows = predict_files(segmenter, [tmp_path / "in"], out, LIMITS, "resume")
    assert len(calls) == 4, "one before the kill, one that was killed, two after it"
    assert [row["mask"] for row in rows] == ["masks/0.png", "masks/1.png", "masks/2.png"]
    assert sorted(path.name for path in out.iterdir()) == ["masks", "overlays", "predictions.json"]


def test_a_mask_that_no_run_made_is_not_replaced(segmenter: Segmenter, tmp_path: Path) -> None:
    image, mask = write(tmp_path / "a.png", 1), tmp_path / "out/masks/a.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"of the user")
    with pytest.raises(ConfigError, match="a mask of this name exists already"):
        predict_files(segmenter, [image], tmp_path / "out", LIMITS)
    assert mask.read_bytes() == b"of the user"


def test_a_folder_without_images_is_an_error(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no images.*\.png"):
        predict_files(segmenter, [tmp_path], tmp_path / "out", LIMITS)


def test_masks_keep_values_above_255() -> None:
    table = ClassTable.from_names(["a", "b"], [7, 4000])
    prediction = Prediction(np.array([[0, 1], [1, 1]], np.uint8))
    from segpipe.data.images import decode_image

    mask = decode_image(mask_png(prediction, table), "mask", 1)[:, :, 0]
    assert mask.dtype == np.uint16 and mask.tolist() == [[7, 4000], [4000, 4000]]
    assert [(s.name, s.pixels, s.share) for s in class_shares(prediction, table)] == [("a", 1, 0.25), ("b", 3, 0.75)]


def test_a_folder_of_dicom_slices_is_one_volume(tmp_path: Path) -> None:
    from segpipe.data.images.formats.dicom import dicom_files, series_volume
    from tests.data.images.formats.test_dicom import slice_bytes

    for case in ("a", "b/c"):
        (tmp_path / "in" / case).mkdir(parents=True)
        for number in range(3):
            plane = np.full((8, 9), 100 * number)
            (tmp_path / "in" / case / f"{number}.dcm").write_bytes(slice_bytes(plane, (0, 0, 2.0 * number)))
    files = list_files([tmp_path / "in"], tmp_path / "out", 3)
    assert files == {"a": tmp_path / "in/a", "b/c": tmp_path / "in/b/c"}
    image = decode_image(series_volume(dicom_files(files["a"]), LIMITS), "x", LIMITS)
    assert image.shape == (3, 8, 9, 1)


def test_the_mask_of_a_geotiff_has_the_place_of_its_image(segmenter: Segmenter, tmp_path: Path) -> None:
    image = toy_image(3, 40, 50)
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4649776.0, 0.0), True),
        (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True),
        (34737, "s", 0, "WGS 84 / UTM zone 33N|", True),
    ]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extratags=tags)
    (row,) = predict_files(segmenter, [tmp_path / "a.tif"], tmp_path / "out", LIMITS)
    assert row["mask"] == "masks/a.tif"
    with tifffile.TiffFile(tmp_path / "out" / row["mask"]) as file:
        for number, _, _, value, _ in tags:
            assert file.pages[0].tags.valueof(number) == value
        np.testing.assert_array_equal(CLASSES.encode(file.asarray()), segmenter.predict(image).class_ids)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_masks_of_turned_images_fit_them_as_viewers_show_them(
    segmenter: Segmenter, tmp_path: Path, ending: str, orientation: int
) -> None:
    stored, path = toy_image(1, 40, 50), tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    if ending == "tif":
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        Image.fromarray(stored).save(tmp_path / "b.png", exif=exif)
    else:
        Image.fromarray(stored).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    with Image.open(tmp_path / "b.png" if ending == "tif" else path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    (row,) = predict_files(segmenter, [path], tmp_path / "out", LIMITS)
    mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
    np.testing.assert_array_equal(CLASSES.encode(mask), segmenter.predict(upright).class_ids)
    overlay = Image.open(tmp_path / "out" / row["overlay"])
    assert overlay.size == upright.shape[1::-1] and overlay.getexif().get(0x0112, 1) == 1
