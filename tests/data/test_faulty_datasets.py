"""Faults of a whole data/ folder: tables, names, splits. Each gives an error that names the file, or a named finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import DataParams, SplitParams, ValidateParams
from segpipe.data.dataset import load_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.errors import SegpipeError
from segpipe.validation.expectations import validate_manifest
from tests.worlds import faulty_data
from tests.worlds.faulty_data import png, put, sample

KEYS = tuple("abcdefgh")


@dataclass(frozen=True)
class Fault:
    """A fault of a whole folder, and what its error or finding must contain."""

    name: str
    apply: Callable[[Path, dict[str, str]], object]
    words: str
    """Words of the error or finding."""
    file: str = ""
    """The file that the error or finding must name."""
    finding: str = ""
    """The expectation that fails; "" for an error while reading."""


def table(text: str | bytes) -> Callable[[Path, dict[str, str]], object]:
    """Write a samples.csv with this text."""
    content = text if isinstance(text, bytes) else text.encode()
    return lambda data, split_of: (data / "samples.csv").write_bytes(content)


def classes(text: str | None) -> Callable[[Path, dict[str, str]], object]:
    """Write a dataset.yaml with this text; None: remove it."""

    def apply(data: Path, split_of: dict[str, str]) -> None:
        (data / "dataset.yaml").unlink()
        if text is not None:
            (data / "dataset.yaml").write_text(text)

    return apply


def two_classes(first: str, second: str) -> Callable[[Path, dict[str, str]], object]:
    return classes(f"classes:\n  - {{{first}}}\n  - {{{second}}}\n")


def splits(**changes: str) -> Callable[[Path, dict[str, str]], object]:
    return lambda data, split_of: faulty_data.write_samples(data, split_of | changes)


def groups(assigned: bool) -> Callable[[Path, dict[str, str]], object]:
    def apply(data: Path, split_of: dict[str, str]) -> None:
        rows = [f"{key},{'patient-7' if key in 'af' else ''},{split}" for key, split in split_of.items()]
        rows[0] = "a,patient-7," if assigned else rows[0]
        (data / "samples.csv").write_text("\n".join(["key,group,split", *rows]))

    return apply


def masks(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[Path, dict[str, str]], object]:
    def apply(data: Path, split_of: dict[str, str]) -> None:
        for seed, key in enumerate(KEYS):
            put(data, key, None, png(change(split_of[key], sample(seed)[1])))

    return apply


BLACK = "color: [0, 0, 0]"
FAULTS = [
    Fault("no images folder", lambda d, s: (d / "images").rename(d / "pictures"), "no images here", "data/images"),
    Fault(
        "empty images folder", lambda d, s: [p.unlink() for p in (d / "images").iterdir()], "no image files", "images"
    ),
    Fault("two images with one key", lambda d, s: put(d, "a", png(sample(9)[0]), None, ".jpg"), "share a key", "a.jpg"),
    Fault("two masks with one key", lambda d, s: (d / "masks/a.tif").write_bytes(b"x"), "share a key", "a.tif"),
    Fault("unknown word for a split", table("key,group,split\na,,testing\n"), "no such split", "samples.csv:2"),
    Fault(
        "a key twice",
        table("key,group,split\na,,train\nb,,val\na,,test\n"),
        "a second row for one image",
        "samples.csv:4",
    ),
    Fault("a row without an image", table("key,group,split\nzz,,train\n"), "a row without an image", "samples.csv:2"),
    Fault(
        "a key that climbs",
        table("key,group,split\n../../etc/passwd,,train\n"),
        "a row without an image",
        "samples.csv:2",
    ),
    Fault("a row without a key", table("key,group,split\n,,train\n"), "a row without a key", "samples.csv:2"),
    Fault("a table without a key column", table("name,split\na,train\n"), "a row without a key", "samples.csv:2"),
    Fault("a table in UTF-16", table("key,group,split\na,,train\n".encode("utf-16")), "not a CSV table", "samples.csv"),
    Fault("a table of bytes", table(b"key,split\n\x00\xff\xfe"), "not a CSV table", "samples.csv"),
    Fault("a table with an open quote", table('key,group,split\n"a,,train\n'), "not a CSV table", "samples.csv"),
    Fault("no class table", classes(None), "the class table is missing", "dataset.yaml"),
    Fault("bad YAML", classes("classes: [{name: a"), "is not valid YAML", "dataset.yaml"),
    Fault("YAML of a list", classes("- a\n- b\n"), "wrong", "dataset.yaml"),
    Fault("empty class table", classes(""), "wrong", "dataset.yaml"),
    Fault("one class", classes(f"classes: [{{name: a, value: 0, {BLACK}}}]"), "at least 2", "dataset.yaml"),
    Fault(
        "two classes with one value",
        two_classes(f"name: a, value: 1, {BLACK}", f"name: b, value: 1, {BLACK}"),
        "pixel values must differ",
        "dataset.yaml",
    ),
    Fault(
        "two classes with one name",
        two_classes(f"name: a, value: 0, {BLACK}", f"name: a, value: 1, {BLACK}"),
        "class names must differ",
        "dataset.yaml",
    ),
    Fault(
        "a value beyond 16 bits",
        two_classes(f"name: a, value: 0, {BLACK}", f"name: b, value: 70000, {BLACK}"),
        "65535",
        "dataset.yaml",
    ),
    Fault(
        "a negative value",
        two_classes(f"name: a, value: -1, {BLACK}", f"name: b, value: 1, {BLACK}"),
        "greater than or equal to 0",
        "dataset.yaml",
    ),
    Fault(
        "an unknown key of a class",
        two_classes(f"name: a, value: 0, colour: red, {BLACK}", f"name: b, value: 1, {BLACK}"),
        "did you mean `color`",
        "dataset.yaml",
    ),
    Fault(
        "a class that is also ignored",
        classes(faulty_data.CLASSES + "ignore: [2]\n"),
        "pixel values must differ",
        "dataset.yaml",
    ),
    Fault(
        "nothing to train on", splits(**dict.fromkeys("abcdgh", "val")), "0 usable image(s) in train", "", "min_images"
    ),
    Fault("nothing to test on", splits(f="train"), "0 usable image(s) in test", "", "min_images"),
    Fault(
        "a class only in test",
        masks(lambda split, mask: mask if split == "test" else mask % 2),
        "class dirt is in val or test",
        "",
        "classes_in_train",
    ),
    Fault(
        "a class that does not occur",
        masks(lambda split, mask: mask % 2),
        "class dirt does not occur",
        "",
        "classes_exist",
    ),
    Fault(
        "a group in two given splits",
        groups(assigned=False),
        "group patient-7 is in train and test",
        "",
        "given_groups_stay_together",
    ),
    Fault(
        "a group in two splits, one assigned by hash",
        groups(assigned=True),
        "group patient-7 is in train and test",
        "",
        "groups_stay_together",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_a_dataset_is_reported(fault: Fault, tmp_path: Path) -> None:
    data = tmp_path / "data"
    split_of = faulty_data.write_valid(data, KEYS)
    faulty_data.write_samples(data, split_of)
    fault.apply(data, split_of)
    if not fault.finding:
        with pytest.raises(SegpipeError) as caught:
            load_dataset(data)
        assert fault.words in str(caught.value)
        assert fault.file in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    dataset = load_dataset(data)
    frame = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
    findings, _, _ = validate_manifest(frame, make_fingerprint(frame, dataset.classes), ValidateParams())
    (finding,) = [f for f in findings if f.expectation == fault.finding]
    assert fault.words in finding.found
    assert fault.file in (finding.file or "")
    assert finding.fix
