"""Import: layouts, the ways in which classes are found, and the report of everything that is left out."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.config import DataParams, ValidateParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.formats.format import Format
from segpipe.data.formats.registry import FORMATS
from segpipe.data.formats.source import Drawing, RawItem, ReadResult
from segpipe.data.images import encode_png, read_mask
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.errors import ConfigError, DataError
from segpipe.samples import ClassTable
from segpipe.validation.expectations import validate_manifest
from tests.worlds.layouts import import_source
from tests.worlds.small_datasets import LIMITS, SPLIT

RNG = np.random.default_rng(5)


def picture(path: Path, mask: Path | None = None, values: tuple[int, ...] = (0, 1)) -> None:
    """Write a random image, and a mask that contains each of these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = RNG.integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(image).save(path)
    if mask is not None:
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.resize(np.array(values, np.uint8), (16, 20))).save(mask)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    source = tmp_path / "source"
    source.mkdir()
    return source, tmp_path / "work" / "data"


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("imgs", "gt"), ("Image", "Label")])
@pytest.mark.parametrize("ending", ["", "_mask"])
def test_folder_by_names(folders: tuple[Path, Path], images: str, masks: str, ending: str) -> None:
    source, data = folders
    for name in ("a", "b c"):
        picture(source / images / f"{name}.png", source / masks / f"{name}{ending}.png")
    report = import_source(source, data, "folder")
    assert (report.images, report.masks, report.skipped) == (2, 2, [])
    assert f"{images}/ with {masks}/" in report.notes
    assert [item.key for item in load_dataset(data).items] == ["a", "b_c"]
    assert (data / "images" / "a.png").read_bytes() == (source / images / "a.png").read_bytes()
    assert (data / "masks" / "b_c.png").read_bytes() == (source / masks / f"b c{ending}.png").read_bytes()


def test_unpaired_files_are_reported(folders: tuple[Path, Path]) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png")
    picture(source / "images" / "unlabelled.png")
    picture(source / "images" / "b.png", source / "masks" / "b.png")
    (source / "images" / "b.png").unlink()
    report = import_source(source, data, "folder", unlabelled="keep")
    assert report.skipped == [("masks/b.png", "a mask without an image")]
    assert any("without a mask: 1, for example images/unlabelled" in note for note in report.notes)
    assert any("left out: masks/b.png" in line for line in report.lines())
    frame = build_manifest(load_dataset(data), LIMITS, SPLIT, jobs=1)
    findings, _, _ = validate_manifest(frame, make_fingerprint(frame, report.classes), ValidateParams())
    assert [(f.expectation, f.severity, f.file) for f in findings if f.file] == [
        ("masks_present", "error", "images/unlabelled.png")
    ]


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ((0, 255), {}, [("background", 0), ("foreground", 255)]),
        ((0, 1, 2), {}, [("background", 0), ("class 1", 1), ("class 2", 2)]),
        ((3, 200), {}, [("class 3", 3), ("class 200", 200)]),
        ((0, 128, 255), {"classes": ["bg", "x", "y"]}, [("bg", 0), ("x", 128), ("y", 255)]),
        ((0, 2), {"classes": ["a", "b", "c"]}, [("a", 0), ("b", 1), ("c", 2)]),
        ((0, 1, 9), {"ignore": [9]}, [("background", 0), ("class 1", 1)]),
        ((0, 1, 11), {"classes": ["a", "b"], "ignore": [11]}, [("a", 0), ("b", 1)]),
    ],
)
def test_classes_named_or_guessed(
    folders: tuple[Path, Path], values: tuple[int, ...], options: dict, expected: list[tuple[str, int]]
) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png", values)
    report = import_source(source, data, "folder", **options)
    assert [(spec.name, spec.value) for spec in report.classes.classes] == expected
    assert report.classes.ignore == tuple(options.get("ignore", ()))
    assert load_dataset(data).classes == report.classes
    assert any(f"{expected[-1][1]} {expected[-1][0]}" in line for line in report.lines())
    black = [spec.color == (0, 0, 0) for spec in report.classes.classes]
    assert black == [expected[0][0] in ("background", "bg"), *[False] * (len(expected) - 1)]


def test_a_value_of_a_few_stray_pixels_is_not_a_class(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for index in range(40):
        picture(source / "images" / f"{index}.png", source / "masks" / f"{index}.png", (0, 128, 255))
    mask = np.resize(np.array([0, 128, 255], np.uint8), (16, 20)).copy()
    mask[3, 4] = 7
    Image.fromarray(mask).save(source / "masks" / "8.png")
    report = import_source(source, data, "folder", classes=["a", "b", "c"])
    assert [spec.value for spec in report.classes.classes] == [0, 128, 255]
    frame = build_manifest(load_dataset(data), LIMITS, SPLIT, jobs=1)
    findings, _, _ = validate_manifest(frame, make_fingerprint(frame, report.classes), ValidateParams())
    assert [(f.file, f.found) for f in findings if f.expectation == "known_classes"] == [
        ("images/8.png", "unknown value 7 (1 pixel)")
    ]


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ((0, 1, 2), {"classes": ["a", "b"]}, ConfigError, "2 names, pixel values 0, 1, 2"),
        ((7,), {}, DataError, "cannot be guessed.*pixel values 7"),
        ((0, 1), {"classes": ["a", "a"]}, ConfigError, "not a valid class table"),
        ((0, 1), {"group": "("}, ConfigError, "not a regular expression"),
        ((0, 1), {"group": "nowhere"}, ConfigError, "matches no image"),
    ],
)
def test_options_that_do_not_fit(
    folders: tuple[Path, Path], values: tuple[int, ...], options: dict, error: type[Exception], message: str
) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png", values)
    with pytest.raises(error, match=message):
        import_source(source, data, "folder", **options)
    assert not data.exists()


def test_masks_of_instance_ids_become_classes_and_instances(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for name, top in (("a", 40), ("b", 12), ("c", 300)):
        picture(source / "images" / f"{name}.png")
        ids = np.resize(np.arange(top + 1, dtype=np.uint16), (16, 20))
        (source / "masks").mkdir(exist_ok=True)
        (source / "masks" / f"{name}.png").write_bytes(encode_png(ids))
    report = import_source(source, data, "folder", classes=["background", "nucleus"])
    assert report.classes.names == ["background", "nucleus"]
    assert report.format == "label-maps"
    assert "k differs: 12 to 300" in report.reading.reasons()
    dataset = load_dataset(data)
    for item in dataset.items:
        sample = load_sample(item, dataset.classes, LIMITS)
        ids = read_mask(source / "masks" / f"{item.key}.png", LIMITS)
        np.testing.assert_array_equal(sample.labels, ids > 0)
        np.testing.assert_array_equal(sample.instances, ids)


def test_masks_in_other_file_formats_become_png(folders: tuple[Path, Path]) -> None:
    source, data = folders
    picture(source / "images" / "a.JPG")
    values = np.resize(np.array([0, 1, 2], np.uint8), (16, 20))
    (source / "masks").mkdir()
    Image.fromarray(values).save(source / "masks" / "a.tif")
    import_source(source, data, "folder")
    assert (data / "images" / "a.jpg").exists()
    np.testing.assert_array_equal(read_mask(data / "masks" / "a.png", LIMITS), values)


def test_folders_of_splits_and_a_missing_split(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for index in range(60):
        picture(source / "train" / "image" / f"{index}.png", source / "train" / "label" / f"{index}.png")
    picture(source / "test" / "image" / "0.png", source / "test" / "label" / "0.png")
    picture(source / "val" / "image" / "0.png")
    report = import_source(source, data, "folder")
    assert report.skipped == [("val/image/", "no folder of masks next to it")]
    assert report.splits["test"] == 1
    assert 2 < report.splits["val"] < 20
    assert sum(report.splits.values()) == report.images == 61
    splits = {item.key: item.split for item in load_dataset(data).items}
    assert splits["test-image-0"] == "test"
    assert splits["train-image-0"] != "test"


def test_a_canonical_folder_is_imported_unchanged(demo: Path, folders: tuple[Path, Path]) -> None:
    _, data = folders
    report = import_source(demo, data, "folder")
    assert report.classes_from == "dataset.yaml"
    imported, original = load_dataset(data), load_dataset(demo)
    assert imported.classes == original.classes
    assert [(i.key, i.group, i.split, i.instances is None) for i in imported.items] == [
        (i.key, i.group, i.split, i.instances is None) for i in original.items
    ]
    assert build_manifest(imported, LIMITS, SPLIT).equals(build_manifest(original, LIMITS, SPLIT))


def test_groups_from_names(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for name in ("s1_a", "s1_b", "s2_a", "odd"):
        picture(source / "images" / f"{name}.png", source / "masks" / f"{name}.png")
    report = import_source(source, data, "folder", group="(s[0-9])_")
    assert report.groups == 2
    assert {i.key: i.group for i in load_dataset(data).items} == {"s1_a": "s1", "s1_b": "s1", "s2_a": "s2", "odd": None}
    assert any("in no group: 1, for example images/odd" in note for note in report.notes)
    report = import_source(source, data, "folder", group="^(s[0-9])?", replace=True)
    assert any("in no group: 1, for example images/odd" in note for note in report.notes), "an empty match is no group"


def write_lists(source: Path, **content: str) -> None:
    for name, text in content.items():
        (source / f"{name}.txt").write_text(text)


def test_paired_lists(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for split in ("train", "val", "test"):
        for name in ("x", f"only-{split}"):
            picture(source / split / f"{name}.png", source / f"{split}annot" / f"{name}.png", (0, 1, 11))
        write_lists(
            source,
            **{split: f"{split}/x.png {split}annot/x.png\n\n{split}/only-{split}.png {split}annot/only-{split}.png\n"},
        )
    report = import_source(source, data, "paired-list", classes=["Sky", "Road"], ignore=[11])
    assert report.splits == {"train": 2, "val": 2, "test": 2}
    assert {i.key: i.split for i in load_dataset(data).items} == {
        "only-test": "test",
        "only-train": "train",
        "only-val": "val",
        "test-x": "test",
        "train-x": "train",
        "val-x": "val",
    }
    assert (data / "masks" / "val-x.png").read_bytes() == (source / "valannot" / "x.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images/a.png\n", r"train.txt:1: not a pair"),
        ("images/b.png masks/b.png", r"train.txt:1.*names a missing file"),
        ("/etc/passwd masks/a.png\n", r"train.txt:1: names a file outside its folder"),
        ("../outside.png masks/a.png\n", r"train.txt:1: names a file outside its folder"),
        ("link.png masks/a.png\n", r"train.txt:1: names a file outside its folder"),
        ("/SegNet/CamVid/images/a.png masks/a.png\n", "relative to its folder"),
        ("images/a.png masks/a.png\nimages/../images/a.png masks/a.png", "twice"),
    ],
)
def test_invalid_lists(folders: tuple[Path, Path], text: str, message: str) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png")
    picture(source.parent / "outside.png")
    (source / "link.png").symlink_to(source.parent / "outside.png")
    write_lists(source, train=text)
    with pytest.raises(DataError, match=message):
        import_source(source, data, "paired-list")
    assert not data.exists()


def test_a_missing_pair_does_not_stop_the_others(folders: tuple[Path, Path]) -> None:
    source, data = folders
    picture(source / "a 1.png", source / "a 1 mask.png")
    write_lists(source, train="gone.png a.png\na 1.png\ta 1 mask.png\n")
    report = import_source(source, data, "paired-list")
    assert report.images == 1
    assert report.skipped == [(f"{source}/train.txt:1", "names a missing file: gone.png")]


def test_absolute_paths_inside_the_source_are_allowed(folders: tuple[Path, Path]) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png")
    write_lists(source, train=f"{source}/images/a.png {source}/masks/a.png\n")
    assert import_source(source, data, "paired-list").images == 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_source_of_another_layout(folders: tuple[Path, Path], format: str) -> None:
    source, data = folders
    with pytest.raises(DataError, match="Fix: "):
        import_source(source, data, format)
    with pytest.raises(DataError, match="is not a folder"):
        import_source(source / "nowhere", data, format)
    with pytest.raises(ConfigError, match=r"no such format.*auto or folder"):
        import_source(source, data, "tarot")


def test_existing_data_are_only_replaced_on_request(folders: tuple[Path, Path]) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png")
    import_source(source, data, "folder")
    picture(source / "images" / "b.png", source / "masks" / "b.png")
    with pytest.raises(DataError, match="not empty"):
        import_source(source, data, "folder")
    assert [p.name for p in (data / "images").iterdir()] == ["a.png"]
    assert import_source(source, data, "folder", replace=True).images == 2
    assert [p.name for p in data.parent.iterdir()] == ["data"]


def test_a_broken_mask_does_not_stop_the_import(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for name in ("a.png", "b.tif"):
        picture(source / "images" / name, source / "masks" / name)
    (source / "masks" / "b.tif").write_bytes(b"II*\0 broken")
    report = import_source(source, data, "folder", unlabelled="keep")
    assert [name for name, _ in report.skipped] == [str(source / "masks" / "b.tif")]
    assert [(item.key, item.mask is None) for item in load_dataset(data).items] == [("a", False), ("b", True)]


def register_drawn(monkeypatch: pytest.MonkeyPatch, *items: RawItem, classes: ClassTable | None = None) -> None:
    """Register a layout `drawn` whose sources have these items."""
    table = classes or ClassTable.from_names(["background", "cell", "dirt"], ignore=(9,))
    layout = Format("drawn", "drawn by a test", lambda *_: ReadResult(list(items), table), lambda _: "a test")
    monkeypatch.setitem(FORMATS, "drawn", layout)


def test_drawn_labels(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, data = folders
    rng = np.random.default_rng(3)
    masks = {name: rng.integers(0, 3, (16, 20), np.uint8) for name in "abcdefgh"}
    instance_ids = {name: rng.integers(0, 700, (16, 20), np.uint16) for name in "abcdefgh"}

    def draw(name: str, height: int, width: int) -> Drawing:
        assert (height, width) == (16, 20)
        if name == "c":
            raise DataError("is broken", where="c.json")
        with_instances = instance_ids[name] if name != "d" else None
        return Drawing(masks[name], with_instances, Counter({"overlaps": 2, "outside": name == "h"}))

    for name in masks:
        picture(source / f"{name}.png")
    (source / "e.png").write_bytes(b"no image")
    register_drawn(monkeypatch, *(RawItem(name, source / f"{name}.png", draw=partial(draw, name)) for name in masks))
    report = import_source(source, data, "drawn", unlabelled="keep")
    assert (report.images, report.masks) == (8, 6)
    assert [Path(name).name for name, _ in report.skipped] == ["c.png", "e.png"]
    assert "is broken" in report.skipped[0][1]
    assert "overlaps: 12" in report.notes
    assert "outside: 1" in report.notes
    for item in load_dataset(data).items:
        if item.mask is None:
            assert item.key in "ce"
            continue
        np.testing.assert_array_equal(read_mask(item.mask, LIMITS), masks[item.key])
        assert (item.instances is None) == (item.key == "d")
        if item.instances:
            np.testing.assert_array_equal(read_mask(item.instances, LIMITS), instance_ids[item.key])


def test_nothing_is_imported_if_all_drawn_labels_fail(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = folders
    picture(source / "a.png")

    def draw(height: int, width: int) -> Drawing:
        raise DataError("has no polygon", where="a.json")

    register_drawn(monkeypatch, RawItem("a", source / "a.png", draw=draw))
    with pytest.raises(DataError, match=r"a\.json: has no polygon"):
        import_source(source, data, "drawn")
    assert not data.exists()


@pytest.mark.parametrize(
    ("options", "names", "values"),
    [
        ({}, ["background", "cell", "dirt"], [0, 1, 2]),
        ({"classes": ["a", "b", "c"]}, ["a", "b", "c"], [0, 1, 2]),
        ({"classes": ["b", "c"]}, ["background", "b", "c"], [0, 1, 2]),
        ({"classes": ["bg", "c"]}, ["bg", "c"], [0, 1]),
        ({"classes": ["x=2", "y=0"]}, ["x", "y"], [2, 0]),
        ({"ignore": [2]}, ["background", "cell"], [0, 1]),
        ({"classes": ["a", "b", "c", "d"]}, None, r"do not fit.*background=0, cell=1, dirt=2"),
        ({"classes": ["a=0", "b=7"]}, None, r"do not fit.*background=0, cell=1, dirt=2"),
        ({"classes": ["a=0", "b"]}, None, "only some classes have a value"),
        ({"ignore": [1, 2]}, None, "not a valid class table"),
    ],
)
def test_names_for_drawn_classes(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, options: dict, names: list[str] | None, values: object
) -> None:
    source, data = folders
    picture(source / "a.png")
    register_drawn(
        monkeypatch,
        RawItem("a", source / "a.png", draw=lambda height, width: Drawing(np.zeros((height, width), np.uint8))),
    )
    if names is None:
        with pytest.raises(ConfigError, match=str(values)):
            import_source(source, data, "drawn", **options)
        return
    report = import_source(source, data, "drawn", **options)
    assert report.classes.names == names
    assert [spec.value for spec in report.classes.classes] == values
    assert set(report.classes.ignore) == {9, *options.get("ignore", ())}


def test_values_named_by_the_user(folders: tuple[Path, Path]) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png", (0, 255))
    report = import_source(source, data, "folder", classes=["cell=255", "membrane=0"])
    assert [(spec.name, spec.value) for spec in report.classes.classes] == [("cell", 255), ("membrane", 0)]
    picture(source / "images" / "b.png", source / "masks" / "b.png", range(3, 20))
    with pytest.raises(ConfigError, match=r"values without a name.*or ignore each of them \(--ignore\)"):
        import_source(source, data, "folder", classes=["cell=255", "membrane=0"], replace=True)
    for folder in ("images", "masks"):
        (source / folder / "b.png").unlink()
    with pytest.raises(ConfigError, match=r"values without a name.*--ignore 0"):
        import_source(source, data, "folder", classes=["a=255", "b=1"], replace=True)


def test_auto_says_why_it_recognised_the_layout(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, data = folders
    source.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=r"source: is empty\. Fix"):
        import_source(source, data, "auto")
    (source / "notes.txt").write_text("no images")
    with pytest.raises(
        DataError,
        match=r"no layout fits .found notes.txt, expected one of the layouts folder, .*paired-list.*segpipe data formats",
    ):
        import_source(source, data, "auto")
    with pytest.raises(
        DataError,
        match=r"found notes.txt, expected one of the layouts that use --tolerance: folder, paired-names, colour-masks, paired-list",
    ):
        import_source(source, data, "auto", read={"tolerance": 3})
    (source / "notes.txt").unlink()
    with pytest.raises(ConfigError, match="no such palette"):
        import_source(source, data, "auto", read={"palette": "nowhere.csv"})
    picture(source / "images" / "a.png", source / "masks" / "a.png")
    report = import_source(source, data, "auto")
    assert (report.format, report.recognised) == ("folder", "images/ with masks/")
    assert "recognised folder: images/ with masks/" in report.lines()
    write_lists(source, train="images/a.png masks/a.png\n")
    report = import_source(source, data, "auto", replace=True)
    assert report.format == "paired-list"
    assert "train.txt" in str(report.recognised)
    assert "folder would fit too" in str(report.recognised)
    (source / "train.txt").unlink()
    register_drawn(monkeypatch, RawItem("a", source / "images" / "a.png"))
    with pytest.raises(
        DataError, match=r"more than one.*folder: each.*images.*drawn, because a test.*--format folder .*--format drawn"
    ):
        import_source(source, data, "auto", replace=True)


def test_names_that_become_equal_get_a_hash(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for index, name in enumerate(("a b", "a_b", "A_B", "c")):
        picture(source / "images" / f"{name}.png", source / "masks" / f"{name}.png", (0, index + 1))
    import_source(source, data, "folder", ignore=[1, 2], classes=["x", "y", "z"])
    imported = {item.key: item for item in load_dataset(data).items}
    assert len(imported) == 4
    assert "c" in imported
    masks = {path.read_bytes(): (source / "masks" / path.name).read_bytes() for path in (source / "images").iterdir()}
    for item in imported.values():
        assert item.mask is not None
        assert item.mask.read_bytes() == masks[item.image.read_bytes()]
    assert len({key.lower() for key in imported}) == 4


def test_options_that_a_layout_does_not_use(folders: tuple[Path, Path]) -> None:
    source, data = folders
    picture(source / "images" / "a.png", source / "masks" / "a.png")
    write_lists(source, train="images/a.png masks/a.png\n")
    with pytest.raises(ConfigError, match=r"--suffix is not used by the layout paired-list.*folder"):
        import_source(source, data, "paired-list", read={"suffix": "_mask"})


@pytest.mark.parametrize("jobs", [1, 7])
def test_the_number_of_threads_does_not_change_the_result(folders: tuple[Path, Path], jobs: int) -> None:
    source, data = folders
    for index in range(20):
        picture(source / "images" / f"{index}.png", source / "masks" / f"{index}.bmp")
    (source / "masks" / "3.bmp").write_bytes(b"BM")
    report = import_dataset(source, data, "folder", ImportOptions(unlabelled="keep"), jobs)
    assert [item.key for item in load_dataset(data).items if item.mask is None] == ["3"]
    assert len(report.skipped) == 1
    for index in {*range(20)} - {3}:
        np.testing.assert_array_equal(
            read_mask(data / "masks" / f"{index}.png", LIMITS), read_mask(source / "masks" / f"{index}.bmp", LIMITS)
        )


def test_an_unreadable_image_does_not_stop_the_import(folders: tuple[Path, Path]) -> None:
    source, data = folders
    for name in ("a", "b"):
        picture(source / "images" / f"{name}.png", source / "masks" / f"{name}.png")
    (source / "images" / "b.png").unlink()
    (source / "images" / "b.png").symlink_to("b.png")
    report = import_source(source, data, "folder")
    assert report.images == 1
    assert report.skipped == [(str(source / "images" / "b.png"), "cannot be read: Too many levels of symbolic links")]
    assert [path.name for path in (data / "masks").iterdir()] == ["a.png"]


CAMVID = [
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
]


def test_camvid(shared_data: Path, tmp_path: Path) -> None:
    report = import_source(shared_data / "camvid", tmp_path / "data", "paired-list", classes=CAMVID, ignore=[11])
    assert report.splits == {"train": 123, "val": 34, "test": 47}
    dataset = load_dataset(tmp_path / "data")
    frame = build_manifest(dataset, LIMITS, SPLIT, jobs=1)
    fingerprint = make_fingerprint(frame, dataset.classes)
    assert fingerprint.n_images == {"train": 123, "val": 34, "test": 47}
    assert (fingerprint.width.min, fingerprint.width.max, fingerprint.height.min, fingerprint.height.max) == (
        480,
        480,
        360,
        360,
    )
    pixels = 123 * 480 * 360
    shares = [count / pixels for count in fingerprint.class_pixels["train"]]
    readme = [0.169, 0.235, 0.010, 0.316, 0.045, 0.096, 0.012, 0.011, 0.058, 0.007, 0.003]
    np.testing.assert_allclose(shares, readme, atol=6e-4)
    assert abs(fingerprint.ignored_pixels["train"] / pixels - 0.039) < 6e-4
    findings, _, _ = validate_manifest(frame, fingerprint, ValidateParams())
    assert findings == []


@pytest.mark.parametrize(
    ("format", "image", "mask", "other_files"),
    [
        ("label-maps", "images/a.png", "masks/a.tif", {}),
        ("mask-per-instance", "a/images/a.png", "a/masks/1.tif", {}),
        ("colour-masks", "images/a.png", "masks/a.tif", {"palette.txt": "0 0 0 ground\n1 1 1 thing\n"}),
        ("voc", "JPEGImages/a.png", "SegmentationClass/a.tif", {"labelmap.txt": "ground:0,0,0::\nthing:1,1,1::\n"}),
    ],
)
def test_drawn_labels_are_read_within_the_given_limits(
    folders: tuple[Path, Path], format: str, image: str, mask: str, other_files: dict[str, str]
) -> None:
    """Masks of three TIFF pages are an error by default, and one image if pages are channels."""
    source, data = folders
    picture(source / image)
    page = Image.fromarray(np.resize(np.array([0, 1], np.uint8), (16, 20)))
    (source / mask).parent.mkdir(parents=True)
    page.save(source / mask, save_all=True, append_images=[page, page])
    for name, text in other_files.items():
        (source / name).write_text(text)
    with pytest.raises(DataError, match="holds several pages"):
        import_source(source, data, format)
    report = import_dataset(source, data, format, ImportOptions(), limits=DataParams(pages="channels"))
    assert (report.images, report.masks) == (1, 1)
    assert len(np.unique(read_mask(data / "masks" / "a.png", LIMITS))) == 2
