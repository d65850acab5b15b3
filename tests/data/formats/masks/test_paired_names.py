"""Images and masks that only words in the names of folders and files tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.masks.name_words import other_words, preference, role_of, split_of, words_of
from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import import_source, items, mask_of
from tests.worlds.public_layouts import HEIGHT, WIDTH, colours, photo, save, text, values


def write(source: Path, image: str, mask: str, numbers: range = range(4), seed: int = 0) -> dict[str, np.ndarray]:
    """Write images and masks; `{}` in the names stands for a number. Returns the masks by the stems of their images."""
    truth = {}
    for n in numbers:
        photo(source / image.format(n), n)
        truth[Path(image.format(n)).stem.replace(" ", "_")] = values(n + seed)
        save(source / mask.format(n), values(n + seed))
    return truth


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("train/a{}.jpg", "train_masks/a{}_mask.png"),
        ("JPEG/a{}.jpg", "Ground Truth/a{}.png"),
        ("Original/a{}.png", "GroundTruth/a{}.png"),
        ("original images/a{}.png", "groundtruth_images/a{}.png"),
        ("images_png/a{}.png", "masks_png/a{}.png"),
        ("x/rgb/a{}.png", "x/semantic/a{}.png"),
        ("image_2/a{}.png", "semantic/a{}.png"),
        ("imgs8bit/a{}.png", "trainLabels/a{}.png"),
        ("default/a{}.png", "defaultannot/a{}.png"),
        ("IMG_2024/a{}.PNG", "LABELLED_2024/a{}.png"),
        ("images/{}_training.tif", "1st_manual/{}_manual1.png"),
        ("photos/scan {}.png", "annotated/scan {} seg.png"),
        ("a{}.jpg", "a{}.png"),
        ("a{}.tif", "a{}.png"),
        ("a{}.png", "a{}_mask.png"),
        ("a{}.png", "mask_a{}.png"),
        ("img_{}.png", "seg_{}.png"),
        ("{}_sat.jpg", "{}_mask.png"),
        ("case_{}_input.png", "case_{}_target.png"),
        ("deep/in/a{}.png", "deep/in/a{}-labels.png"),
    ],
)
def test_names_that_people_give(source: Path, data: Path, image: str, mask: str) -> None:
    truth = write(source, image, mask)
    report = import_source(source, data)
    assert (report.format, report.images, report.masks) == ("paired-names", 4, 4)
    assert report.skipped == []
    for key, item in items(data).items():
        np.testing.assert_array_equal(mask_of(item), truth[key])


def test_folders_that_repeat_are_merged_and_become_groups(source: Path, data: Path) -> None:
    truth = {}
    for site in (1, 2, 3):
        of_site = write(source, f"site{site}/images/{{}}.png", f"site{site}/masks/{{}}.png", seed=site)
        truth |= {f"site{site}-images-{key}": mask for key, mask in of_site.items()}
    report = import_source(source, data)
    assert (report.format, report.images, report.groups) == ("paired-names", 12, 3)
    for key, item in items(data).items():
        assert item.group == key.split("-")[0]
        np.testing.assert_array_equal(mask_of(item), truth[key])


def test_an_image_without_a_mask_does_not_get_that_of_another_folder(source: Path, data: Path) -> None:
    write(source, "tile1/img/{}.png", "tile1/lab/{}.png")
    photo(source / "tile2" / "img" / "0.png", 9)
    photo(source / "tile2" / "img" / "9.png", 10)
    report = import_source(source, data)
    assert report.images == 4
    assert any(note.startswith("without a mask: 2") for note in report.notes)


def test_folders_of_different_structure_are_asked_about(source: Path, data: Path) -> None:
    write(source, "paris/images/{}.png", "paris/masks/{}.png")
    write(source, "rome/photos/{}.png", "rome/labels/{}.png")
    with pytest.raises(DataError, match=r"contains datasets.*paris, rome.*import one of them"):
        import_source(source, data)
    for city in ("oslo", "bern"):
        write(source / "more", f"{city}/images/{{}}.png", f"{city}/masks/{{}}.png")
    with pytest.raises(DataError, match=r"several datasets lie below.*bern, oslo.*--format paired-names"):
        import_source(source / "more", data)
    assert import_source(source / "more", data, "paired-names").images == 8


def test_names_of_splits(source: Path, data: Path) -> None:
    for split, numbers in {"Training": range(3), "Validation": range(3, 5), "Testing": range(5, 7)}.items():
        write(
            source, f"X_Task1-2_{split}_Input/a{{}}.jpg", f"X_Task1_{split}_GroundTruth/a{{}}_segmentation.png", numbers
        )
    report = import_source(source, data)
    assert report.splits == {"train": 3, "val": 2, "test": 2}


def test_splits_at_the_beginning_of_file_names(source: Path, data: Path) -> None:
    for split, numbers in {"train": range(4), "testA": range(2), "testB": range(2), "val": range(2)}.items():
        write(source, f"{split}_{{}}.bmp", f"{split}_{{}}_anno.bmp", numbers)
    assert import_source(source, data).splits == {"train": 4, "val": 2, "test": 4}


def test_unlabelled_splits_do_not_count(source: Path, data: Path) -> None:
    write(source, "train/{}_sat.jpg", "train/{}_mask.png", range(20))
    for split in ("valid", "test"):
        photo(source / split / "90_sat.jpg", 90)
    report = import_source(source, data)
    assert set(report.splits) == {"train", "val", "test"}
    assert sum(report.splits.values()) == 20


@pytest.mark.parametrize(
    ("second", "names"),
    [("labels-vk/a{}.png", "labels-ah.*labels-vk"), ("expert2_gt/a{}.png", "expert2_gt.*labels-ah")],
)
def test_several_annotators_are_a_choice(source: Path, data: Path, second: str, names: str) -> None:
    truth = write(source, "photos/a{}.png", "labels-ah/a{}.png")
    others = write(source, "photos/a{}.png", second, seed=1)
    with pytest.raises(UnclearSource, match=names) as caught:
        import_source(source, data)
    for reading in caught.value.readings:
        options = {name: value for name, value in reading.options.items() if name != "ignore"}
        import_source(source, data, reading.layout, read={"kind": "classes", **options}, replace=True)
        right = truth if options["masks"] == "labels-ah" else others
        for key, item in items(data).items():
            np.testing.assert_array_equal(mask_of(item), right[key])


def test_annotators_in_the_names_of_files(source: Path, data: Path) -> None:
    write(source, "a{}.jpg", "a{}_gtA.png")
    write(source, "a{}.jpg", "a{}_maskB.png", seed=1)
    with pytest.raises(UnclearSource, match=r"--suffix _gtA.*--suffix _maskB"):
        import_source(source, data)
    report = import_source(source, data, "paired-names", read={"kind": "classes", "suffix": "_maskB"})
    assert report.images == 4
    np.testing.assert_array_equal(mask_of(items(data)["a0"]), values(1))


@pytest.mark.parametrize(
    "other",
    [
        "labels_rgb",
        "color_masks",
        "labelColormaps",
        "edge_labels",
        "label_boundaries",
        "labels_vis",
        "2nd_labels",
        "instance_labels",
    ],
)
def test_other_pictures_of_the_labels_are_not_taken(source: Path, data: Path, other: str) -> None:
    truth = write(source, "photos/a{}.png", "labels/a{}.png")
    for n in range(4):
        save(source / other / f"a{n}.png", colours(n, [(9, 0, 0), (0, 9, 0)]))
    report = import_source(source, data)
    assert sum(group.files for group in report.unused) == 4
    for key, item in items(data).items():
        np.testing.assert_array_equal(mask_of(item), truth[key])


def test_fields_of_view_are_no_labels(source: Path, data: Path) -> None:
    truth = write(source, "images/{}_dr.png", "manual1/{}_dr.png")
    for n in range(4):
        save(source / "mask" / f"{n}_dr_mask.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    import_source(source, data)
    for key, item in items(data).items():
        np.testing.assert_array_equal(mask_of(item), truth[key])
    with pytest.raises(ConfigError, match=r"no masks in a folder of this name.*found nowhere.*manual1"):
        import_source(source, data, "paired-names", read={"masks": "nowhere"}, replace=True)


def test_an_image_with_several_masks_is_left_out(source: Path, data: Path) -> None:
    write(source, "benign ({}).png", "benign ({})_mask.png")
    save(source / "benign (2)_mask_1.png", values(7))
    report = import_source(source, data)
    assert report.images == 3
    assert any("several masks for one image" in reason for name, reason in report.skipped if name == "benign (2).png")


def test_one_mask_for_two_images_is_left_out(source: Path, data: Path) -> None:
    write(source, "images_a/{}.png", "masks/{}.png")
    for n in (2, 3):
        photo(source / "images_b" / f"{n}.png", 10 + n)
    report = import_source(source, data)
    assert report.images == 2
    assert [reason for _, reason in report.skipped if "one for several" in reason]


def test_photographs_of_masks_are_images(source: Path, data: Path) -> None:
    truth = write(source, "images/{}.png", "labels/{}.png")
    truth |= write(source, "images/mask_shop{}.png", "labels/mask_shop{}.png")
    report = import_source(source, data)
    assert report.images == 8
    for key, item in items(data).items():
        np.testing.assert_array_equal(mask_of(item), truth[key])


def test_flawless_parts_are_background(source: Path, data: Path) -> None:
    for n in range(3):
        photo(source / "train" / "good" / f"{n}.png", n)
        photo(source / "test" / "good" / f"{n}.png", 10 + n)
        photo(source / "test" / "crack" / f"{n}.png", 20 + n)
        save(source / "ground_truth" / "crack" / f"{n}_mask.png", values(n, (0, 255)))
    report = import_source(source, data)
    assert (report.images, report.splits) == (9, {})
    assert "images in good/ show no defects, so that they are all background: 6" in report.notes
    counts = {key: int((mask_of(item) > 0).sum()) for key, item in items(data).items()}
    assert {key: count for key, count in counts.items() if "good" in key} == dict.fromkeys(
        [key for key in counts if "good" in key], 0
    )
    assert all(count > 0 for key, count in counts.items() if "good" not in key)


def test_a_faulty_class_table_is_not_passed_over(source: Path, data: Path) -> None:
    write(source, "images/{}.png", "masks/{}.png")
    text(source / "dataset.yaml", "classes: []\n")
    with pytest.raises(DataError, match=r"dataset\.yaml"):
        import_source(source, data)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ISIC2018_Task1-2_Training_Input", ("isic", "2018", "task", "1", "2", "training", "input")),
        ("1st_manual", ("1st", "manual")),
        ("Image_01L_2ndHO", ("image", "01", "l", "2nd", "ho")),
        ("trainannot", ("train", "annot")),
        ("Ground Truth", ("groundtruth",)),
        ("masque_ÄÖ", ("masque", "äö")),
        ("", ()),
    ],
)
def test_words(name: str, words: tuple[str, ...]) -> None:
    assert words_of(name) == words


def test_roles_splits_and_preferences() -> None:
    assert role_of(["Kvasir-SEG", "images"]) == "image"
    assert role_of(["labels", "sem_seg", "train"]) == "mask"
    assert role_of(["label_images"]) == "mask"
    assert role_of(["p0"]) is None
    assert split_of(["data", "train_val"]) is None
    assert split_of(["train", "masks"]) == "train"
    assert other_words(words_of("21_manual1"), with_numbers=False) == ("21",)
    ranks = [
        preference(words_of(name), has_manual=False)
        for name in ("masks", "2nd_labels", "mask_rgb", "instances", "edges")
    ]
    assert ranks == [0, 1, 2, 3, None]


FOLDERS = [
    "train",
    "val",
    "images",
    "masks",
    "labels_rgb",
    "Ground Truth",
    "1st_manual",
    "mask",
    "instances",
    "site1",
    "good",
    "{}",
    "x y",
]
FILES = [
    "a{}.png",
    "a{}_mask.png",
    "a{}.jpg",
    "mask_{}.png",
    "{}.bmp",
    "a{}_mask_1.png",
    "._a{}.png",
    "a{}.json",
    "good_{}.png",
]


@pytest.mark.parametrize("seed", range(40))
def test_random_trees_are_read_or_refused_and_every_file_is_counted(source: Path, data: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 5)):
        folder = source.joinpath(*rng.choice(FOLDERS, rng.integers(0, 4)))
        name, kind = rng.choice(FILES), rng.integers(3)
        for n in range(rng.integers(1, 4)):
            path = folder / name.format(n)
            if path.suffix == ".json" or path.name.startswith("."):
                text(path, "{}")
            elif kind == 0:
                photo(path, n)
            else:
                save(path, values(n) if kind == 1 else colours(n, [(0, 0, 0), (255, 0, 0)]))
    files = sum(path.is_file() for path in source.rglob("*"))
    try:
        report = import_source(source, data)
    except (DataError, ConfigError) as error:
        assert "\n" not in str(error)
        return
    assert report.masks == report.images > 0
    flawless = sum(int(note.rpartition(": ")[2]) for note in report.notes if note.startswith("images in good/"))
    assert files - sum(group.files for group in report.unused) == 2 * report.images - flawless
