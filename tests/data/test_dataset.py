"""The canonical layout: reading it, and errors that name the file and the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.dataset import (
    format_classes,
    load_dataset,
    load_sample,
    load_samples,
    read_classes,
)
from segpipe.data.images import encode_png
from segpipe.errors import DataError, MissingError
from segpipe.samples import IGNORE, ClassTable
from tests.worlds.small_datasets import LIMITS, MakeData


def test_items_in_key_order_with_their_rows(make_data: MakeData) -> None:
    data = make_data(
        3,
        samples=[
            {"key": "im02", "group": "g", "split": "val", "stain": "pink"},
            {"key": "im00", "group": "", "split": ""},
        ],
    )
    (data / "masks" / "im01.png").unlink()
    (data / "masks" / "stray.png").write_bytes(encode_png(np.zeros((4, 4), np.uint8)))
    dataset = load_dataset(data)
    assert [(i.key, i.group, i.split, i.mask is None) for i in dataset.items] == [
        ("im00", None, None, False),
        ("im01", None, None, True),
        ("im02", "g", "val", False),
    ]
    assert [p.name for p in dataset.orphans] == ["stray.png"]


def test_masks_become_class_ids(make_data: MakeData) -> None:
    data = make_data(1)
    mask = np.array([[0, 1, 9, 77]] * 40, np.uint8).repeat(13, axis=1)[:, :50]
    (data / "masks" / "im00.png").write_bytes(encode_png(mask))
    dataset = load_dataset(data)
    sample = load_sample(dataset.items[0], dataset.classes, LIMITS)
    assert sample.labels is not None
    assert np.unique(sample.labels).tolist() == [0, 1, IGNORE]
    assert ((sample.labels == IGNORE) == (mask > 1)).all()
    (data / "masks" / "im00.png").write_bytes(encode_png(mask[:10]))
    with pytest.raises(DataError, match=r"not the size of its image.*50 x 10.*50 x 40"):
        load_sample(dataset.items[0], dataset.classes, LIMITS)


def test_samples_come_in_order_and_an_error_after_the_samples_before_it(make_data: MakeData) -> None:
    data = make_data(12)
    dataset = load_dataset(data)
    keys = [item.key for item in dataset.items]
    for jobs in (1, 3):
        loaded = list(load_samples(dataset.items, dataset.classes, LIMITS, jobs))
        assert [s.key for s in loaded] == keys
        np.testing.assert_array_equal(loaded[5].image, load_sample(dataset.items[5], dataset.classes, LIMITS).image)
    (data / "images" / "im07.png").write_bytes(b"")
    loaded_keys = []
    with pytest.raises(DataError, match=r"im07\.png"):
        for sample in load_samples(dataset.items, dataset.classes, LIMITS, 3):
            loaded_keys.append(sample.key)
    assert loaded_keys == keys[:7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,group,split\nim00,,val\nim00,,val\n", r"samples.csv:3: a second row for one image"),
        ("key,group,split\nother,,val\n", r"samples.csv:2: a row without an image.*other"),
        ("key,group,split\nim00,,dev\n", r"samples.csv:2: no such split.*dev.*train, val, test"),
        ("name,group\nim00,a\n", r"samples.csv:2: a row without a key"),
        ('key,group\n"im00,a\n', "not a CSV table"),
    ],
)
def test_an_invalid_samples_csv_is_refused(make_data: MakeData, text: str, message: str) -> None:
    data = make_data(1)
    (data / "samples.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(data)


def test_missing_files_are_named(tmp_path: Path, make_data: MakeData) -> None:
    with pytest.raises(MissingError, match="segpipe data import"):
        load_dataset(tmp_path / "nowhere")
    data = make_data(1)
    (data / "images" / "im00.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="share a key"):
        load_dataset(data)
    (data / "images" / "im00.jpg").unlink()
    (data / "dataset.yaml").unlink()
    with pytest.raises(MissingError, match="class table"):
        load_dataset(data)


@pytest.mark.parametrize(
    "text",
    ["classes: [", "classes: 3", "[]", "classes: [{name: a, value: 0, color: [0, 0, 0]}]", "classes: []\nclases: 1"],
)
def test_an_invalid_dataset_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"dataset\.yaml"):
        read_classes(path)


def test_class_tables_are_read_back_unchanged(tmp_path: Path) -> None:
    table = ClassTable.from_names(["yes", 'a "b": #c', "Straße", "12"], values=[0, 128, 255, 300], ignore=(7, 9))
    path = tmp_path / "dataset.yaml"
    path.write_text(format_classes(table), encoding="utf-8")
    assert read_classes(path) == table
