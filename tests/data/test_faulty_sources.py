"""Faults of imported sources: tables, annotations and names that must not be trusted. Each gives an error, or a line in the report's
list of what was left out, that names the file; the valid rest is imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.config import DataParams, SplitParams, ValidateParams
from segpipe.data.dataset import load_dataset
from segpipe.data.formats.source import ReadOptions
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.errors import SegpipeError
from segpipe.validation.expectations import validate_manifest
from tests.worlds import faulty_data
from tests.worlds.faulty_data import SHAPE, nifti, png, sample, volume

HEIGHT, WIDTH = SHAPE
SQUARE = [5, 5, 20, 5, 20, 20, 5, 20]
NAMES = ("one", "two", "three")
CLASSES = ImportOptions(classes=["background", "cell", "dirt"])


@dataclass(frozen=True)
class Fault:
    """A source with one fault."""

    name: str
    layout: str
    apply: Callable[[Path], object]
    words: str
    file: str
    """The file, or the position in it, that must be named."""
    stops: bool = True
    """True if nothing is imported; otherwise the rest is."""
    options: ImportOptions | None = None
    min_images: int = 2
    """The least number of images that are imported."""


def as_folder(source: Path) -> None:
    faulty_data.write_valid(source, NAMES)
    (source / "dataset.yaml").unlink()


def as_pairs(source: Path) -> None:
    faulty_data.write_valid(source, NAMES)
    (source / "dataset.yaml").unlink()
    for split, name in zip(("train", "val", "test"), NAMES, strict=True):
        (source / f"{split}.txt").write_text(f"images/{name}.png masks/{name}.png\n")


def as_coco(source: Path) -> None:
    (source / "images").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        (source / "images" / f"{name}.png").write_bytes(png(sample(seed)[0]))
    images = [
        {"id": i, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for i, n in enumerate(NAMES, start=1)
    ]
    annotations = [
        {"id": i, "image_id": i, "category_id": 7, "segmentation": [SQUARE], "iscrowd": 0} for i in (1, 2, 3)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cell"}]}
    (source / "instances.json").write_text(json.dumps(content))


def coco(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change the annotation file."""

    def apply(source: Path) -> None:
        path = source / "instances.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def image(**values: object) -> Callable[[Path], object]:
    return coco(lambda content: content["images"][1].update(values))


def annotation(**values: object) -> Callable[[Path], object]:
    return coco(lambda content: content["annotations"][1].update(values))


def as_voc(source: Path) -> None:
    from PIL import Image

    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (source / folder).mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        picture, mask = sample(seed)
        (source / "JPEGImages" / f"{name}.jpg").write_bytes(faulty_data.encoded(picture, ".jpg"))
        indexed = Image.fromarray(mask, "P")
        indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        indexed.save(source / "SegmentationClass" / f"{name}.png")
    for split, name in zip(("train", "val", "test"), NAMES, strict=True):
        (source / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(name + "\n")


def as_yolo(source: Path) -> None:
    for split, name in zip(("train", "val", "test"), NAMES, strict=True):
        for folder in ("images", "labels"):
            (source / folder / split).mkdir(parents=True)
        (source / "images" / split / f"{name}.png").write_bytes(png(sample(len(name))[0]))
        (source / "labels" / split / f"{name}.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    settings = "".join(f"{split}: images/{split}\n" for split in ("train", "val", "test"))
    (source / "data.yaml").write_text(settings + "names: [cell]\n")


def as_labelme(source: Path) -> None:
    source.mkdir()
    for seed, name in enumerate(NAMES):
        (source / f"{name}.png").write_bytes(png(sample(seed)[0]))
        shape = {"label": "cell", "shape_type": "polygon", "points": [[5, 5], [20, 5], [20, 20]]}
        content = {"imagePath": f"{name}.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape]}
        (source / f"{name}.json").write_text(json.dumps(content))


def labelme(**values: object) -> Callable[[Path], object]:
    def apply(source: Path) -> None:
        path = source / "two.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


def shape(**values: object) -> Callable[[Path], object]:
    sound = {"label": "cell", "shape_type": "polygon", "points": [[5, 5], [20, 5], [20, 20]]}
    return labelme(shapes=[sound, sound | values])


def as_volumes(source: Path) -> None:
    for folder in ("images", "labels"):
        (source / folder).mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        for folder, array in zip(("images", "labels"), volume(seed), strict=True):
            (source / folder / f"{name}.nii.gz").write_bytes(nifti(array))


VALID: dict[str, Callable[[Path], None]] = {
    "folder": as_folder,
    "paired-list": as_pairs,
    "coco": as_coco,
    "voc": as_voc,
    "yolo-seg": as_yolo,
    "labelme": as_labelme,
    "volumes": as_volumes,
}


def write(name: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda source: (source / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def link(name: str, target: str) -> Callable[[Path], object]:
    return lambda source: (source / name).symlink_to(target, target_is_directory=True)


def copy_file(name: str, original: str) -> Callable[[Path], object]:
    return lambda source: (source / name).write_bytes((source / original).read_bytes())


RLE_OF_ANOTHER_SIZE = {"size": [9, 9], "counts": [40, 41]}
ANNOTATIONS = "instances.json"
NAMED_FILE = ImportOptions(read=ReadOptions(masks=ANNOTATIONS))
FAULTS = [
    Fault("no folder of masks", "folder", lambda s: (s / "masks").rename(s / "answers"), "folder", "src"),
    Fault("no images at all", "folder", lambda s: [p.unlink() for p in (s / "images").iterdir()], "no images", "src"),
    Fault("a link to the folder above", "folder", link("images/loop", ".."), "link", "images/loop", stops=True),
    Fault("a link to itself", "folder", link("images/loop.png", "loop.png"), "", "images/loop.png", stops=False),
    Fault("a dangling link", "folder", link("images/gone.png", "/nowhere/x.png"), "", "images/gone.png", stops=False),
    Fault(
        "a mask without an image",
        "folder",
        copy_file("masks/four.png", "masks/one.png"),
        "a mask without an image",
        "masks/four.png",
        stops=False,
    ),
    Fault(
        "one broken mask",
        "folder",
        write("masks/two.png", b"no mask"),
        "not an image in a supported format",
        "masks/two.png",
        stops=False,
        options=CLASSES,
    ),
    Fault(
        "only broken masks",
        "folder",
        lambda s: [p.write_bytes(b"x") for p in (s / "masks").iterdir()],
        "",
        "masks/one.png",
    ),
    Fault(
        "fewer names than values",
        "folder",
        lambda s: None,
        "the masks do not fit the class names",
        "",
        options=ImportOptions(classes=["background", "cell"]),
    ),
    Fault(
        "an invalid pattern",
        "folder",
        lambda s: None,
        "not a regular expression",
        "(",
        options=ImportOptions(group="("),
    ),
    Fault(
        "a pattern that matches nothing",
        "folder",
        lambda s: None,
        "matches no image",
        "patient",
        options=ImportOptions(group="patient-(.)"),
    ),
    Fault(
        "path traversal in a list",
        "paired-list",
        write("train.txt", "../secret.png masks/one.png\n"),
        "outside its folder",
        "train.txt:1",
    ),
    Fault(
        "absolute path in a list",
        "paired-list",
        write("train.txt", "/etc/passwd masks/one.png\n"),
        "outside its folder",
        "train.txt:1",
    ),
    Fault(
        "a link out of the source",
        "paired-list",
        lambda s: (link("images/out.png", "/etc/passwd")(s), write("train.txt", "images/out.png masks/one.png\n")(s)),
        "outside its folder",
        "train.txt:1",
    ),
    Fault(
        "a list of a missing file",
        "paired-list",
        write("train.txt", "images/nine.png masks/nine.png\n"),
        "nine.png",
        "train.txt",
        stops=False,
    ),
    Fault("a line with one name", "paired-list", write("train.txt", "images/one.png\n"), "not a pair", "train.txt:1"),
    Fault(
        "an image in two lists", "paired-list", write("val.txt", "images/one.png masks/one.png\n"), "twice", "val.txt"
    ),
    Fault(
        "a list in Latin-1",
        "paired-list",
        write("train.txt", "images/größe.png x".encode("latin-1")),
        "UTF-8",
        "train.txt",
    ),
    Fault(
        "a name with a zero byte",
        "paired-list",
        write("train.txt", "images/a\0b.png masks/one.png\n"),
        "not a valid file name",
        "train.txt:1",
    ),
    Fault("bad JSON", "coco", write(ANNOTATIONS, "{"), "JSON", ANNOTATIONS, options=NAMED_FILE),
    Fault("JSON of a list", "coco", write(ANNOTATIONS, "[1, 2]"), "", ANNOTATIONS, options=NAMED_FILE),
    Fault("JSON nested too deep", "coco", write(ANNOTATIONS, "[" * 100_000), "JSON", ANNOTATIONS, options=NAMED_FILE),
    Fault("no categories", "coco", coco(lambda c: c.pop("categories")), "categories", ANNOTATIONS, options=NAMED_FILE),
    Fault(
        "a category without a name",
        "coco",
        coco(lambda c: c["categories"].append({"id": 8})),
        "without an integer id",
        ANNOTATIONS,
    ),
    Fault(
        "two categories with the same id",
        "coco",
        coco(lambda c: c["categories"].append({"id": 7, "name": "dirt"})),
        "two categories with the same id",
        ANNOTATIONS,
    ),
    Fault(
        "path traversal in file_name",
        "coco",
        image(file_name="../../etc/passwd"),
        "outside its folder",
        "passwd",
        stops=False,
    ),
    Fault(
        "absolute file_name", "coco", image(file_name="/etc/passwd"), "outside its folder", "/etc/passwd", stops=False
    ),
    Fault(
        "file_name of a missing file",
        "coco",
        image(file_name="nine.png"),
        "names a missing image",
        "nine.png",
        stops=False,
    ),
    Fault(
        "file_name that is a number",
        "coco",
        image(file_name=5),
        "an image without a file_name",
        ANNOTATIONS,
        stops=False,
    ),
    Fault(
        "two images with one id",
        "coco",
        image(id=1),
        "its image id 1 is given to 2 images",
        ANNOTATIONS,
        stops=False,
        min_images=1,
    ),
    Fault("an image of another size", "coco", image(height=9, width=9), "image size differs", "two.png", stops=False),
    Fault("two annotations with one id", "coco", annotation(id=1), "share their id", "", stops=False),
    Fault(
        "an annotation without an image",
        "coco",
        annotation(image_id=99),
        "refers to an image that is missing or was left out",
        "image_id 99",
        stops=False,
    ),
    Fault(
        "an annotation without a valid category",
        "coco",
        annotation(category_id=99),
        "no valid category",
        "category_id 99",
        stops=False,
    ),
    Fault(
        "a polygon of two points",
        "coco",
        annotation(segmentation=[[1, 1, 5, 5]]),
        "fewer than 3 points",
        "annotation",
        stops=False,
    ),
    Fault(
        "a polygon outside the image",
        "coco",
        annotation(segmentation=[[900, 900, 950, 900, 950, 950]]),
        "outside",
        "annotation",
        stops=False,
    ),
    Fault(
        "a polygon of NaN",
        "coco",
        annotation(segmentation=[[float("nan"), 1, 5, 5, 9, 1]]),
        "NaN or infinite",
        "annotation",
        stops=False,
    ),
    Fault(
        "a polygon of an odd count",
        "coco",
        annotation(segmentation=[[1, 1, 5, 5, 9, 1, 4]]),
        "odd number of coordinates",
        "annotation",
        stops=False,
    ),
    Fault(
        "a polygon of words",
        "coco",
        annotation(segmentation=[["a", "b", "c", "d", "e", "f"]]),
        "not a flat list",
        "annotation",
        stops=False,
    ),
    Fault(
        "run lengths of another size",
        "coco",
        annotation(segmentation=RLE_OF_ANOTHER_SIZE),
        "different size",
        "annotation",
        stops=False,
    ),
    Fault(
        "run lengths that do not add up",
        "coco",
        annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": [1, 2]}),
        "run-length",
        "annotation",
        stops=False,
    ),
    Fault(
        "run lengths below zero",
        "coco",
        annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": [-4, HEIGHT * WIDTH + 4]}),
        "run-length",
        "annotation",
        stops=False,
    ),
    Fault(
        "run lengths in broken code",
        "coco",
        annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": "~~~~"}),
        "run-length",
        "annotation",
        stops=False,
    ),
    Fault("a box without an outline", "coco", annotation(segmentation=[]), "no outline", "annotation", stops=False),
    Fault(
        "path traversal in ImageSets",
        "voc",
        write("ImageSets/Segmentation/train.txt", "../../../etc/passwd\n"),
        "",
        "train.txt",
        stops=False,
    ),
    Fault(
        "absolute path in ImageSets",
        "voc",
        write("ImageSets/Segmentation/train.txt", "/etc/passwd\n"),
        "",
        "train.txt",
        stops=False,
    ),
    Fault(
        "ImageSets of a missing image",
        "voc",
        write("ImageSets/Segmentation/train.txt", "one\nnine\n"),
        "",
        "nine",
        stops=False,
    ),
    Fault(
        "an image in two ImageSets", "voc", write("ImageSets/Segmentation/val.txt", "one\n"), "in two lists", "val.txt"
    ),
    Fault(
        "ImageSets in UTF-16",
        "voc",
        write("ImageSets/Segmentation/train.txt", "one\n".encode("utf-16")),
        "UTF-8",
        "train.txt",
    ),
    Fault(
        "boxes instead of outlines",
        "yolo-seg",
        lambda s: [p.write_text("0 0.5 0.5 0.2 0.2\n") for p in s.glob("labels/*/*.txt")],
        "boxes, not outlines",
        "src",
    ),
    Fault(
        "a class that data.yaml lacks",
        "yolo-seg",
        write("labels/val/two.txt", "4 0.1 0.1 0.5 0.1 0.5 0.6\n"),
        "has no valid class",
        "two.txt",
        stops=False,
    ),
    Fault(
        "pixels instead of fractions",
        "yolo-seg",
        write("labels/val/two.txt", "0 10 10 50 10 50 60\n"),
        "not fractions of the image",
        "two.txt",
        stops=False,
    ),
    Fault(
        "words instead of numbers",
        "yolo-seg",
        write("labels/val/two.txt", "0 a b c d e f\n"),
        "not a line of numbers",
        "two.txt",
        stops=False,
    ),
    Fault("an invalid data.yaml", "yolo-seg", write("data.yaml", "names: [cell"), "YAML", "data.yaml"),
    Fault("data.yaml without names", "yolo-seg", write("data.yaml", "train: images/train\n"), "names", "data.yaml"),
    Fault(
        "data.yaml with a path out of the source",
        "yolo-seg",
        write("data.yaml", "train: ../../other\nval: images/val\nnames: [cell]\n"),
        "no such folder or list",
        "data.yaml",
        stops=False,
        min_images=1,
    ),
    Fault("bad JSON of shapes", "labelme", write("two.json", "{"), "JSON", "two.json", stops=False),
    Fault(
        "imagePath out of the source",
        "labelme",
        lambda s: (labelme(imagePath="../../etc/passwd")(s), (s / "two.png").unlink()),
        "",
        "two.json",
        stops=False,
    ),
    Fault("a polygon of two corners", "labelme", shape(points=[[1, 1], [5, 5]]), "3 points", "two.json", stops=False),
    Fault("a shape of an unknown kind", "labelme", shape(shape_type="spline"), "spline", "two.json", stops=False),
    Fault("a shape without a label", "labelme", shape(label=None), "label", "two.json", stops=False),
    Fault(
        "a label without a volume",
        "volumes",
        lambda s: (s / "images/two.nii.gz").unlink(),
        "a mask without an image",
        "labels/two.nii.gz",
        stops=False,
    ),
    Fault(
        "a broken label volume",
        "volumes",
        write("labels/two.nii.gz", b"no volume"),
        "",
        "masks/two.nii.gz",
        stops=False,
    ),
    Fault(
        "volumes without labels",
        "volumes",
        lambda s: [p.unlink() for p in (s / "labels").iterdir()],
        "no mask has the name of an image",
        "",
    ),
]


@pytest.mark.parametrize("layout", VALID)
def test_a_valid_source_is_imported_completely(layout: str, tmp_path: Path) -> None:
    VALID[layout](tmp_path / "src")
    report = import_dataset(tmp_path / "src", tmp_path / "data", layout, ImportOptions())
    assert (report.images, report.masks, report.skipped) == (3, 3, [])
    assert {p.name.split(".")[0] for p in (tmp_path / "data" / "images").iterdir()} == set(NAMES)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.layout}: {fault.name}")
def test_a_fault_of_a_source_is_reported(fault: Fault, tmp_path: Path) -> None:
    source, data = tmp_path / "src", tmp_path / "data"
    VALID[fault.layout](source)
    fault.apply(source)
    if fault.stops:
        with pytest.raises(SegpipeError) as caught:
            import_dataset(source, data, fault.layout, fault.options or ImportOptions())
        assert fault.words in str(caught.value)
        assert fault.file in str(caught.value)
        assert not data.exists()
        return
    report = import_dataset(source, data, fault.layout, fault.options or ImportOptions())
    lines = [f"{name}: {reason}" for name, reason in report.skipped] + report.notes
    lines += [group.line() for group in report.unused]
    if not any(
        fault.words in line and fault.file in line for line in lines
    ):  # it was imported, and validation reports it
        dataset = load_dataset(data)
        frame = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
        findings, _, _ = validate_manifest(frame, make_fingerprint(frame, dataset.classes), ValidateParams())
        lines += [f"{f.file}: {f.found}" for f in findings if f.severity == "error"]
    assert any(fault.words in line and fault.file in line for line in lines), lines
    assert report.images >= fault.min_images
    assert b"root:" not in b"".join(p.read_bytes() for p in data.rglob("*") if p.is_file())


def test_invalid_arguments_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    as_folder(tmp_path / "src")
    with pytest.raises(SegpipeError, match=r"no such format.*yolo-seg"):
        import_dataset(tmp_path / "src", tmp_path / "data", "yolo", ImportOptions())
    with pytest.raises(SegpipeError, match=r"one\.png: is not a folder"):
        import_dataset(tmp_path / "src" / "images" / "one.png", tmp_path / "data", "folder", ImportOptions())
    assert np.array_equal(sorted(p.name for p in tmp_path.iterdir()), ["src"])


def test_unusual_names_are_imported_as_separate_files(tmp_path: Path) -> None:
    """Blanks, other scripts, and names that only some file systems distinguish."""
    source, data = tmp_path / "src", tmp_path / "data"
    as_folder(source)
    for name in ("ONE", "zelle ä 雪 (1)", "a.b.c", "-dash"):
        copy_file(f"images/{name}.png", "images/two.png")(source)
        copy_file(f"masks/{name}.png", "masks/two.png")(source)
    report = import_dataset(source, data, "folder", ImportOptions())
    keys = [path.stem.lower() for path in (data / "images").iterdir()]
    assert (report.images, report.masks, report.skipped) == (7, 7, [])
    assert len(set(keys)) == 7
    assert {item.key.lower() for item in load_dataset(data).items if item.mask} == set(keys)
