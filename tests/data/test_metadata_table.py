"""Metadata tables: found in a source, matched with its images, and copied to samples.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.data.dataset import load_dataset
from segpipe.data.importer import ImportOptions, ImportReport, import_dataset
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import import_source, save, values


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source of three images, in two folders."""
    for name in ("x/a", "x/b", "y/a"):
        for folder in ("images", "masks"):
            path = tmp_path / "source" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.resize(np.array([0, 1], np.uint8), (4, 5))).save(path)
    return tmp_path / "source"


def run_import(source: Path, **options: object) -> tuple[ImportReport, list[dict[str, str]]]:
    """Import the source; return the report and the rows of samples.csv."""
    report = import_dataset(source, source.parent / "data", "folder", ImportOptions.model_validate(options))
    path = source.parent / "data" / "samples.csv"
    return report, list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


@pytest.mark.parametrize("pattern", ["images/{}", "images/{}.png", "images/{}.PNG"])
def test_columns_are_copied_to_samples_csv(source: Path, pattern: str) -> None:
    lines = [f"{pattern.format(name)},{index},stain {index % 2}" for index, name in enumerate(("x/a", "y/a"))]
    (source / "images.csv").write_text("file,number,stain\n" + "\n".join(lines))
    report, rows = run_import(source)
    assert "images.csv: number, stain for 2 of 3 images; no row for images/x/b" in report.notes
    assert {row["key"]: (row["number"], row["stain"]) for row in rows} == {
        "x-a": ("0", "stain 0"),
        "y-a": ("1", "stain 1"),
        "b": ("", ""),
    }
    assert len(load_dataset(source.parent / "data").items) == 3


def test_a_table_given_by_the_user(source: Path, tmp_path: Path) -> None:
    (source / "images.csv").write_text("key,colour\nb,red\n")
    table = tmp_path / "far.csv"
    table.write_text("id,site,split\nb,Bern,train\nelsewhere,Basel,test\n", encoding="utf-8-sig")
    report, rows = run_import(source, table=table)
    assert [(row["key"], row["site"], row["split"]) for row in rows] == [
        ("b", "Bern", "train"),
        ("x-a", "", ""),
        ("y-a", "", ""),
    ]
    assert "far.csv: site, split for 1 of 3 images; no row for images/x/a, images/y/a" in report.notes
    table.write_text("site\nBern\n")
    with pytest.raises(ConfigError, match=r"far\.csv: no column names the images \(found site"):
        run_import(source, table=table, replace=True)
    table.write_bytes(b"id,\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        run_import(source, table=table, replace=True)


def test_unrelated_tables_in_the_source_are_skipped(source: Path) -> None:
    (source / "images.csv").write_bytes(b"\xff\xfe\x00")
    (source / "samples.csv").write_text("who,when\nme,today\n")
    report, rows = run_import(source)
    assert rows == []
    assert [Path(name).name for name, _ in report.skipped] == ["images.csv"]


def test_further_columns_survive_a_second_import(source: Path, tmp_path: Path) -> None:
    (source / "images.csv").write_text("name,stain\nb,violet\n")
    run_import(source, group="images/(.)/")
    second = tmp_path / "again" / "data"
    import_dataset(source.parent / "data", second, "auto", ImportOptions())
    assert (second / "samples.csv").read_text() == (source.parent / "data" / "samples.csv").read_text()


def test_modalities_of_nuclei(shared_data: Path, tmp_path: Path) -> None:
    options = ImportOptions.model_validate({"classes": ["nucleus"]})
    import_dataset(shared_data / "nuclei", tmp_path / "data", "label-maps", options)
    with (tmp_path / "data" / "samples.csv").open() as stream:
        modalities = [row["modality"] for row in csv.DictReader(stream)]
    assert {name: modalities.count(name) for name in set(modalities)} == {
        "fluorescence": 155,
        "histology_purple_on_white": 28,
        "histology_purple": 26,
        "brightfield_gray": 2,
    }


def test_columns_split_and_group_assign_images(tmp_path: Path) -> None:
    source, data = tmp_path / "source", tmp_path / "data"
    for name in "abcd":
        save(source / "images" / f"{name}.png", values(0, [0, 90]))
        save(source / "masks" / f"{name}.png", values(0, [0, 1]))
    (source / "images.csv").write_text("file,Split,group\na.png,train,p1\nb.png,Validation,p2\nc.png,fold3,p1\n")
    report = import_source(source, data, "folder")
    items = {item.key: (item.split, item.group) for item in load_dataset(data).items}
    assert items == {"a": ("train", "p1"), "b": ("val", "p2"), "c": (None, "p1"), "d": (None, None)}
    assert "images.csv: group, split for 3 of 4 images; no row for images/d" in [
        note.replace("split, group", "group, split") for note in report.notes
    ]
    assert any("1 values of the column split are not used: fold3" in note for note in report.notes)
    by_name = import_source(source, tmp_path / "other", "folder", group="^(.)")
    assert by_name.groups == 4, "the user's groups count more than those of a table that lies in the source"


def test_rows_about_one_image_that_differ_are_refused(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "far.csv"
    table.write_text("id,site\nb.png,Bern\nelsewhere,Basel\nb,Basel\n")
    with pytest.raises(DataError, match=r"far\.csv: two rows about one image differ in column site \(found b"):
        run_import(source, table=table)
    (source / "images.csv").write_text(table.read_text())
    report, rows = run_import(source)
    assert rows == [] and any("two rows about one image" in reason for _, reason in report.skipped)


def test_rows_about_one_image_that_agree_count_once(source: Path) -> None:
    (source / "images.csv").write_text("id,site\nb.png,Bern\nb.png,Bern\nelsewhere,x\nelsewhere,y\n")
    _, rows = run_import(source)
    assert {row["key"]: row["site"] for row in rows}["b"] == "Bern"


def test_a_name_without_folders_says_nothing_about_images_in_several_folders(source: Path) -> None:
    (source / "images.csv").write_text("file,site,split\na.png,Bern,test\nb.png,Basel,train\n")
    report, rows = run_import(source)
    assert {row["key"]: (row["site"], row["split"]) for row in rows} == {
        "b": ("Basel", "train"),
        "x-a": ("", ""),
        "y-a": ("", ""),
    }
    assert "images.csv: site, split for 1 of 3 images; no row for images/x/a, images/y/a" in report.notes


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_spreadsheet_programs_are_read(source: Path, delimiter: str) -> None:
    lines = [["file", "area", "site"], ["x/a.png", "1.5", "Bern"], ["x/b.png", "2.5", "Basel"]]
    (source / "images.csv").write_text("\n".join(map(delimiter.join, lines)))
    _, rows = run_import(source)
    assert [(row["key"], row["area"], row["site"]) for row in rows] == [
        ("b", "2.5", "Basel"),
        ("x-a", "1.5", "Bern"),
        ("y-a", "", ""),
    ]


def numbered(source: Path, names: list[str], rows: list[str]) -> ImportReport:
    """Import images of these names with a table of these ids, each with its number as the age."""
    for folder in ("images", "masks"):
        for path in (source / folder).rglob("*.png"):
            path.unlink()
        for name in names:
            save(source / folder / f"{name}.png", values(0, [0, 90]))
    table = source / "images.csv"
    table.write_text(
        "patient,age\n" + "".join(f"{row},{500 + int(row.removesuffix('.png').strip('p_'))}\n" for row in rows)
    )
    return run_import(source)[0]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["001", "002", "010", "100"], ["1", "2", "10", "100"]),
        (["1", "2", "10", "100"], ["001", "002", "010", "100"]),
        (["p_01", "p_02", "p_11"], ["p_1", "p_2", "p_11"]),
        (["0001", "0002"], ["01.png", "02.png"]),
    ],
)
def test_numbers_with_and_without_leading_zeros_are_joined(source: Path, names: list[str], rows: list[str]) -> None:
    numbered(source, names, rows)
    written = csv.DictReader((source.parent / "data" / "samples.csv").read_text().splitlines())
    assert {row["key"]: int(row["age"]) for row in written} == {name: 500 + int(name.strip("p_")) for name in names}


def test_numbers_that_are_not_unique_without_zeros_are_not_joined(source: Path) -> None:
    report = numbered(source, ["01", "001", "2", "3", "4"], ["1", "2", "3", "4"])
    assert "images.csv: age for 3 of 5 images; no row for images/001, images/01" in report.notes


def test_a_table_of_which_most_rows_belong_to_no_image_is_refused(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "far.csv"
    table.write_text("id,site\nb,Bern\n" + "".join(f"scan{n},Basel\n" for n in range(5)))
    with pytest.raises(
        ConfigError, match=r"most rows belong to no image.*scan0, scan1, scan2 and 2 more.*a, a without"
    ):
        run_import(source, table=table)
    table.rename(source / "images.csv")
    report, rows = run_import(source)
    assert rows == [] and any("most rows belong to no image" in reason for _, reason in report.skipped)
