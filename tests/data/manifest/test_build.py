"""The manifest and the fingerprint, compared with plain numpy over all decoded pixels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segpipe import concurrency
from segpipe.config import SplitParams
from segpipe.data.dataset import load_dataset
from segpipe.data.images import encode_png
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import Fingerprint, make_fingerprint
from segpipe.data.manifest.table import read_manifest, usable, write_manifest
from segpipe.data.splits import assign_split
from segpipe.errors import DataError
from tests.worlds.small_datasets import LIMITS, SPLIT, TABLE, MakeData


def build(data: Path, jobs: int = 1, split: SplitParams = SPLIT) -> pd.DataFrame:
    return build_manifest(load_dataset(data), LIMITS, split, jobs)


def test_every_column_of_the_demo_data(demo: Path) -> None:
    frame = build(demo)
    assert frame["key"].tolist() == [f"cells-{i:03d}" for i in range(24)]
    for row in frame.to_dict("records"):
        image, mask, ids = (np.asarray(Image.open(demo / row[c])) for c in ("path", "mask_path", "instances_path"))
        flat = image.reshape(-1, 3).astype(np.float64)
        assert (row["height"], row["width"], row["channels"], row["dtype"]) == (*image.shape, "uint8")
        assert (row["mask_height"], row["mask_width"]) == mask.shape
        np.testing.assert_allclose(row["mean"], flat.mean(0))
        np.testing.assert_allclose(row["std"], flat.std(0))
        for column, percent in (("low", 0.5), ("high", 99.5)):
            np.testing.assert_array_equal(row[column], np.percentile(flat, percent, axis=0, method="inverted_cdf"))
        assert row["class_pixels"].tolist() == [(mask == c).sum() for c in range(3)]
        assert (row["ignored_pixels"], row["unknown_values"]) == (0, "{}")
        assert row["n_instances"] == len(np.unique(ids)) - 1
        for column, path in (("sha256", "path"), ("mask_sha256", "mask_path"), ("instances_sha256", "instances_path")):
            assert row[column] == hashlib.sha256((demo / row[path]).read_bytes()).hexdigest()
        assert row["split"] == assign_split(row["group"], SPLIT)
        assert row["group"].split("-")[0] in ("pink", "blue")
        assert row["split_given"] is False
    assert frame["error"].isna().all()
    assert frame["phash"].is_unique
    assert usable(frame).all()


def test_the_fingerprint_of_the_demo_data(demo: Path) -> None:
    frame = build(demo)
    fingerprint = make_fingerprint(frame, load_dataset(demo).classes)
    train = frame[frame["split"] == "train"]
    pixels = np.concatenate([np.asarray(Image.open(demo / p)).reshape(-1, 3) for p in train["path"]]).astype(np.float64)
    np.testing.assert_allclose(fingerprint.mean, pixels.mean(0))
    np.testing.assert_allclose(fingerprint.std, pixels.std(0))
    np.testing.assert_array_equal(fingerprint.low, np.median(np.stack(train["low"]), 0))
    assert (np.array(fingerprint.high) > fingerprint.low).all()
    assert fingerprint.n_images == frame["split"].value_counts().to_dict()
    for split in ("train", "val", "test"):
        masks = [np.asarray(Image.open(demo / p)).ravel() for p in frame.loc[frame["split"] == split, "mask_path"]]
        assert fingerprint.class_pixels[split] == np.bincount(np.concatenate(masks), minlength=3).tolist()
    heights = sorted(frame["height"])
    assert (fingerprint.height.min, fingerprint.height.median, fingerprint.height.max) == (
        heights[0],
        heights[11],
        heights[-1],
    )
    assert (fingerprint.groups, fingerprint.instances, fingerprint.channels, fingerprint.dtype) == (
        24,
        True,
        3,
        "uint8",
    )


def test_worker_processes_do_not_change_the_rows(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(12)
    in_one_process = build(data)
    monkeypatch.setattr(concurrency, "TRIAL_S", 0.0)
    monkeypatch.setattr(concurrency, "MIN_REMAINING_S", 0.0)
    pd.testing.assert_frame_equal(build(data, jobs=2), in_one_process)


def test_the_same_rows_give_the_same_bytes(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(5)
    (data / "images" / "im01.png").write_bytes(b"")
    frame = build(data)
    for name in ("a", "b"):
        write_manifest(frame, tmp_path / name)
    again = read_manifest(tmp_path / "a")
    pd.testing.assert_frame_equal(again, frame)
    write_manifest(again, tmp_path / "c")
    assert len({(tmp_path / n).read_bytes() for n in "abc"}) == 1
    (tmp_path / "a").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a manifest"):
        read_manifest(tmp_path / "a")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "b")
    with pytest.raises(DataError, match="another version"):
        read_manifest(tmp_path / "b")


def test_bad_files_are_rows_without_absolute_paths(make_data: MakeData) -> None:
    data = make_data(8)
    (data / "images" / "im00.png").write_bytes((data / "images" / "im00.png").read_bytes()[:900])
    (data / "masks" / "im01.png").write_bytes(b"")
    (data / "masks" / "im02.png").unlink()
    (data / "masks" / "im03.png").write_bytes(encode_png(np.zeros((3, 4), np.uint8)))
    (data / "masks" / "im04.png").write_bytes(encode_png(np.array([[0, 1, 9, 77, 77]] * 44, np.uint8).repeat(10, 1)))
    (data / "masks" / "zz.png").write_bytes(encode_png(np.zeros((3, 4), np.uint8)))
    (data / "instances").mkdir()
    (data / "instances" / "im05.png").write_bytes(encode_png(np.zeros((3, 4), np.uint8)))
    frame = build(data).set_index("key")
    assert usable(frame).to_dict() == dict.fromkeys(
        ["im00", "im01", "im02", "im03", "im05", "zz"], False
    ) | dict.fromkeys(["im04", "im06", "im07"], True)
    errors = frame["error"].dropna()
    assert sorted(errors.index) == ["im00", "im01", "im05", "zz"]
    assert errors["im00"].startswith("images/im00.png: cannot be decoded")
    assert errors["im01"].startswith("masks/im01.png: the file is empty")
    assert errors["im05"].startswith("instances/im05.png: not the size")
    assert "a mask without an image" in errors["zz"]
    assert not errors.str.contains(str(data)).any()
    assert frame.loc["im01", "height"] == 41
    assert frame.loc["im00", "sha256"] == hashlib.sha256((data / "images" / "im00.png").read_bytes()).hexdigest()
    row = frame.loc["im04"]
    assert row["class_pixels"].tolist() == [440, 440]
    assert row["ignored_pixels"] == 440
    assert json.loads(row["unknown_values"]) == {"77": 880}
    fingerprint = make_fingerprint(build(data), TABLE)
    assert sum(fingerprint.n_images.values()) == 3
    assert not fingerprint.instances


def test_a_fingerprint_without_usable_rows_is_an_error(make_data: MakeData) -> None:
    data = make_data(1)
    (data / "images" / "im00.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image can be used for training.*the file is empty"):
        make_fingerprint(build(data), TABLE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_data_hash_changes_with_samples_masks_and_classes(make_data: MakeData, dtype: type) -> None:
    data = make_data(4, dtype=dtype)

    def data_hash(split: SplitParams = SPLIT) -> str:
        return make_fingerprint(build(data, split=split), load_dataset(data).classes).data_hash

    first = data_hash()
    assert data_hash() == first
    (data / "samples.csv").write_text("key,group,split\nim00,a,test\n")
    second = data_hash()
    (data / "masks" / "im02.png").write_bytes(encode_png(np.ones((42, 50), np.uint8)))
    third = data_hash()
    (data / "dataset.yaml").write_text((data / "dataset.yaml").read_text().replace("cell", "nucleus"))
    assert len({first, second, third, data_hash()}) == 4


def test_adding_images_does_not_change_the_split_of_others(make_data: MakeData) -> None:
    data = make_data(9)
    before = build(data).set_index("key")["split"]
    for index, image in enumerate(np.random.default_rng(9).integers(0, 256, (6, 40, 50, 3), dtype=np.uint8)):
        (data / "images" / f"a{index}.png").write_bytes(encode_png(image))
        (data / "masks" / f"a{index}.png").write_bytes(encode_png(image[:, :, 0] // 128))
    after = build(data).set_index("key")["split"]
    assert after[before.index].to_dict() == before.to_dict()
    (data / "images" / "im03.png").rename(data / "images" / "renamed.png")
    (data / "masks" / "im03.png").rename(data / "masks" / "renamed.png")
    assert build(data).set_index("key")["split"]["renamed"] == before["im03"]


def test_given_splits_and_groups_are_respected(make_data: MakeData) -> None:
    rows = [{"key": f"im{i:02d}", "group": "ab"[i % 2], "split": "val" if i < 2 else ""} for i in range(10)]
    frame = build(make_data(12, samples=rows))
    assert frame["split"].tolist()[:2] == ["val", "val"]
    assert frame["split_given"].tolist() == [True, True] + [False] * 10
    for group in "ab":
        drawn = frame[(frame["group"] == group) & ~frame["split_given"]]
        assert drawn["split"].unique().tolist() == [assign_split(group, SPLIT)]
    for row in frame[10:].to_dict("records"):
        assert row["split"] == assign_split(row["sha256"], SPLIT)


def test_fingerprints_of_constant_images_can_be_written_and_read(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(3)
    for path in (data / "images").iterdir():
        path.write_bytes(encode_png(np.full((40 + int(path.stem[2:]), 50), 7, np.uint8)))
    frame = build(data).assign(split="test")
    fingerprint = make_fingerprint(frame, TABLE)
    assert (fingerprint.mean, fingerprint.std, fingerprint.low, fingerprint.high) == ([7.0], [0.0], [7.0], [8.0])
    fingerprint.write(tmp_path / "f.json")
    assert Fingerprint.read(tmp_path / "f.json") == fingerprint
    (tmp_path / "f.json").write_text('{"data_hash": 3}')
    with pytest.raises(ValueError, match=r"f\.json"):
        Fingerprint.read(tmp_path / "f.json")
