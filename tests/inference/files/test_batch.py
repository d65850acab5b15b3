"""Predicting files: masks, overlays and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.images import encode_png, read_mask
from segpipe.errors import MissingError
from segpipe.inference.files.batch import predict_files
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
    for seed, name in enumerate(("b/x.png", "a/x.png", "a/x-2.png", "a/..odd name!.png", "notes.txt")):
        write(tmp_path / "in" / name, seed)
    out = tmp_path / "in" / "out"
    first = predict_files(segmenter, [tmp_path / "in"], out, LIMITS)
    masks = [row["mask"] for row in first]
    assert masks == ["masks/odd_name_.png", "masks/x-2.png", "masks/x.png", "masks/x-3.png"]
    assert predict_files(segmenter, [tmp_path / "in"], out, LIMITS) == first, "outputs are not read as inputs"
    assert len(predict_files(segmenter, [tmp_path / "in" / "a", tmp_path / "in" / "a" / "x.png"], out, LIMITS)) == 3, (
        "each file once"
    )


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
