"""One probe serves all recognisers and the reader: folders are listed once, and masks decoded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.classes import read_value_counts
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.mask_kinds import read_mask_kinds
from segpipe.data.formats.registry import FORMATS
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.data.images import encode_nifti, is_image_file
from segpipe.errors import ConfigError, DataError
from tests.data.formats.annotations.test_coco import document, write_json
from tests.data.formats.annotations.test_labelme import square, write_labelme
from tests.data.formats.annotations.test_yolo_seg import write_source as write_yolo
from tests.data.formats.annotations.tools import test_cvat, test_geojson, test_supervisely, test_via
from tests.data.formats.masks.test_cityscapes import frame as write_frame
from tests.data.formats.masks.test_mask_per_instance import write_image
from tests.data.formats.masks.test_voc import write_voc
from tests.worlds.file_access import FileAccess, recorded_access
from tests.worlds.layouts import HEIGHT, WIDTH, photo, recognised, save, values

N_IMAGES = 40
MASK = values(0, [0, 1, 2])


def write_pairs(source: Path, mask: Callable[[int], np.ndarray], images: str = "images", masks: str = "masks") -> None:
    for number in range(N_IMAGES):
        photo(source / images / f"{number:02d}.png", number)
        save(source / masks / f"{number:02d}.png", mask(number))


def write_folder(source: Path) -> None:
    write_pairs(source, lambda number: values(number, [0, 1, 2]))


def write_splits(source: Path) -> None:
    for split in ("train", "val", "test"):
        write_pairs(source, lambda number: values(number, [0, 1, 2]), f"{split}/images/deep", f"{split}/masks/deep")


def write_label_maps(source: Path) -> None:
    write_pairs(source, lambda number: np.resize(np.arange(30 + number, dtype=np.uint16), (HEIGHT, WIDTH)))


def write_colours(source: Path) -> None:
    write_pairs(source, lambda number: values(number, [0, 1, 2])[..., None] * np.array([100, 50, 0], np.uint8))
    (source / "palette.txt").write_text("0 0 0 ground\n100 50 0 cell\n200 100 0 nucleus\n")


def write_canonical(source: Path) -> None:
    write_folder(source)
    colors = [f"{{name: {name}, value: {value}, color: [{value}, 0, 0]}}" for value, name in enumerate("abc")]
    (source / "dataset.yaml").write_text(f"classes: [{', '.join(colors)}]\n")


def write_lists(source: Path) -> None:
    write_folder(source)
    (source / "train.txt").write_text("".join(f"images/{n:02d}.png masks/{n:02d}.png\n" for n in range(N_IMAGES)))


def write_classes(source: Path) -> None:
    for number in range(N_IMAGES):
        photo(source / "images" / f"{number}.png")
        for name in ("cell", "nucleus"):
            save(source / "masks" / name / f"{number}.png", MASK)


def write_volumes(source: Path) -> None:
    for folder in ("images", "labels"):
        (source / folder).mkdir()
        for number in range(3):
            (source / folder / f"{number}.nii.gz").write_bytes(encode_nifti(np.ones((3, 4, 5), np.uint8)))


def write_nnunet(source: Path) -> None:
    write_json(
        source / "dataset.json",
        {"channel_names": {"0": "CT"}, "labels": {"background": 0, "cell": 1}, "file_ending": ".nii.gz"},
    )
    for part, suffix in (("imagesTr", "_0000"), ("labelsTr", ""), ("imagesTs", "_0000")):
        (source / part).mkdir()
        for number in range(3):
            content = encode_nifti(np.ones((3, 4, 5), np.uint8))
            (source / part / f"case{number}{suffix}.nii.gz").write_bytes(content)


def write_coco(source: Path) -> None:
    for split in ("train", "val"):
        photo(source / split / f"{split}.png")
        write_json(source / split / "_annotations.coco.json", document(f"{split}.png"))


def write_labelme_folders(source: Path) -> None:
    for day in ("monday", "tuesday"):
        for number in range(5):
            write_labelme(source / day / f"{day}{number}.json", [square("cell", 1, 1, 4)])


def write_cvat(source: Path) -> None:
    for task in ("task_1", "task_2"):
        photo(source / task / "images" / f"{task}.png")
        entry = test_cvat.image(f"{task}.png", test_cvat.polygon("leaf", 1, 1, 4))
        test_cvat.write_xml(source / task / "annotations.xml", entry)


def write_supervisely(source: Path) -> None:
    test_supervisely.write_meta(source, ("car", "polygon", "#00ff00"))
    for name in ("a.png", "b.png"):
        test_supervisely.write_annotation(source / "ds", name, [test_supervisely.polygon("car", 1, 1, 4)])


def write_via(source: Path) -> None:
    for split in ("train", "val"):
        photo(source / split / f"{split}.png")
        entry = test_via.entry(f"{split}.png", [test_via.square(1, 1, 4, kind="cell")])
        test_via.write_via(source / split / "via_region_data.json", entry)


def write_geojson(source: Path) -> None:
    for name in ("a", "b"):
        test_geojson.write_geojson(source / f"{name}.geojson", test_geojson.square(1, 1, 4, "Tumor"))


def write_cityscapes(source: Path) -> None:
    for split in ("train", "val"):
        write_frame(source, split, "aachen", 1, {"labelIds": values(1, [7, 8]), "instanceIds": values(1, [7, 8])})


def write_patients(source: Path) -> None:
    for patient in ("TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405"):
        for name in ("1", "1_mask"):
            save(source / patient / f"{patient}_{name}.tif", values(1, [0, 255]))


SOURCES: dict[str, tuple[str, Callable[[Path], object], ReadOptions]] = {
    "folder": ("folder", write_folder, ReadOptions()),
    "folders of splits": ("folder", write_splits, ReadOptions()),
    "named folders": ("folder", write_folder, ReadOptions(images="images", masks="masks")),
    "canonical": ("folder", write_canonical, ReadOptions()),
    "label maps": ("label-maps", write_label_maps, ReadOptions()),
    "colours": ("colour-masks", write_colours, ReadOptions()),
    "lists": ("paired-list", write_lists, ReadOptions()),
    "a mask per class": ("mask-per-class", write_classes, ReadOptions(overlapping=True)),
    "a mask per instance": (
        "mask-per-instance",
        lambda source: [write_image(source, f"id{n}", np.s_[0:2, 0:2]) for n in range(9)],
        ReadOptions(),
    ),
    "volumes": ("volumes", write_volumes, ReadOptions()),
    "nnU-Net": ("nnunet", write_nnunet, ReadOptions()),
    "VOC": ("voc", lambda source: [write_voc(source / "VOC2012", name) for name in "abc"], ReadOptions()),
    "COCO": ("coco", write_coco, ReadOptions()),
    "YOLO": ("yolo-seg", write_yolo, ReadOptions()),
    "labelme": ("labelme", write_labelme_folders, ReadOptions()),
    "CVAT": ("cvat", write_cvat, ReadOptions()),
    "Supervisely": ("supervisely", write_supervisely, ReadOptions()),
    "VIA": ("via", write_via, ReadOptions()),
    "GeoJSON": ("geojson", write_geojson, ReadOptions()),
    "Cityscapes": ("cityscapes", write_cityscapes, ReadOptions()),
    "patients": ("lgg", write_patients, ReadOptions()),
}


def most(counts: list[int]) -> int:
    return max(counts, default=0)


def most_listings(access: FileAccess) -> int:
    return most(list(access.listed.values()))


def most_decodings(access: FileAccess) -> int:
    return most([count for path, count in access.opened.items() if is_image_file(path)])


@pytest.mark.parametrize("name", SOURCES)
def test_folders_are_listed_once_and_masks_decoded_once(source: Path, name: str) -> None:
    format_name, write, options = SOURCES[name]
    write(source)
    with recorded_access(source) as access:
        probe = SourceProbe(source)
        name, _ = recognised(probe, options)
        layout = FORMATS[name]
        assert name == format_name
        assert most_listings(access) == 1
        assert most_decodings(access) <= 1
        n_decoded = len([path for path in access.opened if is_image_file(path)])
        assert n_decoded <= 30, "only a sample of masks, and of their images for EXIF"
        result = layout.read(probe, options)
        masks = [item.mask for item in result.items if item.mask]
        if masks and name != "colour-masks":
            read_value_counts(masks, probe.mask_reader(DataParams()))
    assert result.items
    assert most_listings(access) == 1
    assert most_decodings(access) <= 1


def test_subfolders_that_are_checked_are_listed_once(source: Path) -> None:
    for child in ("cells", "streets"):
        write_folder(source / child)
    (source / "empty" / "deep").mkdir(parents=True)
    with (
        recorded_access(source) as access,
        pytest.raises(DataError, match=r"several datasets lie below .found cells, streets"),
    ):
        recognised(SourceProbe(source))
    assert most_listings(access) == 1
    assert most_decodings(access) == 0, "names are enough"


def test_the_source_may_be_a_link(source: Path, tmp_path: Path) -> None:
    write_labelme_folders(source)
    (tmp_path / "link").symlink_to(source, target_is_directory=True)
    with recorded_access(source) as access:
        probe = SourceProbe(tmp_path / "link")
        layout = FORMATS[recognised(probe)[0]]
        result = layout.read(probe, ReadOptions())
    assert len(result.items) == 10
    assert all(item.image.is_relative_to(source) for item in result.items)
    assert most_listings(access) == 1


def test_pairs_are_copies(source: Path) -> None:
    write_folder(source)
    probe = SourceProbe(source)
    first = probe.pairs()
    first.items.clear()
    first.notes.append("changed by a reader")
    second = probe.pairs()
    assert len(second.items) == N_IMAGES
    assert second.notes == ["images/ with masks/"]
    assert isinstance(second, ReadResult)


def test_errors_of_pairs_are_kept_for_each_choice_of_options(source: Path) -> None:
    photo(source / "images" / "a.png")
    save(source / "drawn" / "a.png", MASK)
    probe = SourceProbe(source)
    for _ in range(2):
        with pytest.raises(DataError, match="no folder of masks"):
            probe.pairs()
        with pytest.raises(ConfigError, match="no mask has this suffix"):
            probe.pairs(ReadOptions(masks="drawn", suffix="_L"))
        assert len(probe.pairs(ReadOptions(masks="drawn")).items) == 1


@pytest.mark.parametrize(
    ("write", "kind"), [(write_folder, "classes"), (write_label_maps, "instances"), (write_colours, "colours")]
)
def test_kinds_of_masks(source: Path, write: Callable[[Path], None], kind: str) -> None:
    write(source)
    probe = SourceProbe(source)
    sample = probe.sample(probe.pairs().items)
    assert 8 <= len(sample) <= 15
    assert read_mask_kinds(sample)[0].kind == kind


def test_few_large_masks_and_no_volumes_are_sampled(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(source)
    (source / "scans").mkdir()
    write_volumes(source / "scans")
    scans = SourceProbe(source / "scans")
    assert len(scans.pairs().items) == 3
    assert scans.sample_items(scans.pairs().items) == []
    monkeypatch.setattr("segpipe.data.formats.readings.mask_kinds._MAX_SAMPLE_BYTES", 10)
    probe = SourceProbe(source)
    assert len(probe.sample_items(probe.pairs().items)) == 2
    assert [kind.kind for kind in read_mask_kinds(probe.sample([]))] == ["classes"]
