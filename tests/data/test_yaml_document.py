"""Untrusted YAML: every fault is one error, and nothing small becomes large."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe.data.yaml_document import parse_yaml, read_yaml
from segpipe.errors import DataError
from tests.worlds.layouts import import_source
from tests.worlds.mutation_seeds import Source, tables, yolo
from tests.worlds.mutation_trials import write_source

FILE = Path("data.yaml")
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
"""Text of 700 bytes that stands for ten billion values."""


def test_plain_yaml_is_read() -> None:
    text = "names: {0: cell, 1: 'é'}\nlist: [1, 2.5, null, true]\n"
    assert parse_yaml(text, FILE) == {"names": {0: "cell", 1: "é"}, "list": [1, 2.5, None, True]}
    assert parse_yaml(text.encode("utf-16"), FILE) == parse_yaml(text.encode("utf-8-sig"), FILE)
    assert parse_yaml("", FILE) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, r"data\.yaml: is YAML with aliases \(found \*a0\)"),
        ("a: &a [*a]", "aliases"),
        ("a: &a {b: 1}\nc: {<<: *a}", "aliases"),
        ("[" * 60 + "]" * 60, "nested too deep"),
        ("[" * 100_000, "nested too deep"),
        ("- " * 5000 + "x", "nested too deep"),
        ("a: 2024-13-45", "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("a: 0b_", "is not valid YAML"),
        ("a: [", "is not valid YAML"),
        ("a: \0", "is not valid YAML"),
        ("{[1]: 2}", "is not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"\xff\xff\xfe", "is not valid YAML"),
    ],
)
def test_every_fault_is_one_error(text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_yaml(text, FILE)


@pytest.mark.parametrize(
    ("seed", "name", "text"),
    [
        (yolo, "data.yaml", "train: images/train\nval: images/val\nnames: *a9\n"),
        (yolo, "data.yaml", "train: *a9\nval: images/val\nnames: [cell, dirt]\n"),
        (yolo, "data.yaml", "path: *a9\ntrain: images/train\nnames: [cell, dirt]\n"),
        (yolo, "data.yaml", "train: images/train\nnames: {0: *a9, 1: dirt}\n"),
        (tables, "dataset.yaml", "classes: *a9\n"),
        (tables, "dataset.yaml", "classes: [{name: *a9, value: 0, color: [0, 0, 0]}]\n"),
    ],
)
def test_sources_with_few_bytes_for_billions_of_values_are_refused(
    seed: Callable[[], Source], name: str, text: str, tmp_path: Path
) -> None:
    write_source(tmp_path / "source", seed() | {name: (BOMB + text).encode()})
    before = time.process_time()
    with pytest.raises(DataError, match=r"dataset.yaml: is YAML with aliases|data.yaml: is YAML with aliases"):
        import_source(tmp_path / "source", tmp_path / "data")
    assert time.process_time() - before < 5


def test_a_file_beyond_the_limit_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n" * 1000)
    with pytest.raises(DataError):
        read_yaml(tmp_path / "a.yaml", 100)
