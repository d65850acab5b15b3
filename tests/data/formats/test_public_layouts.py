# ruff: noqa: E501  a row of the table is a line
"""Public datasets come in as they are downloaded, or stop with the command that imports them; the table in the documentation is this one."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from segpipe.data.importer import ImportReport
from segpipe.errors import ConfigError, DataError
from tests.worlds import public_layouts as trees
from tests.worlds.layouts import import_source
from tests.worlds.public_layouts import save, values

DOCS = Path(__file__).resolve().parents[3] / "docs" / "own-data.md"


@dataclass(frozen=True)
class Row:
    """A dataset: its tree, what it becomes, and what is needed for that.

    options: the options that the error advises, or that name classes; "" if none are needed.
    stop: what the error without these options says.
    prepare: what the error advises to do first, in words, and a function that does it.
    """

    name: str
    write: Callable[[Path], None]
    tree: str
    format: str
    images: int
    classes: tuple[str, ...]
    ignore: tuple[int, ...] = ()
    splits: tuple[str, ...] = ()
    groups: int = 0
    options: str = ""
    stop: str = ""
    prepare: tuple[str, Callable[[Path], None]] | None = None
    unlabelled: int = 0
    keywords: dict[str, object] = field(default_factory=dict)

    def line(self) -> str:
        """Return the row of the table in the documentation."""
        command = f"`{self.options}`" if self.options else ""
        if self.prepare:
            command = f"{self.prepare[0]}; {command}" if command else self.prepare[0]
        shown = ", ".join(self.classes[:4]) + (", ..." if len(self.classes) > 4 else "")
        result = [f"`{self.format}`", shown]
        result += [f"splits {', '.join(self.splits)}"] if self.splits else []
        result += ["folders are groups"] if self.groups else []
        return f"| {self.name} | `{self.tree}` | {command or 'none'} | {'; '.join(result)} |"


def gunzip(source: Path) -> None:
    """Do what `gunzip -r` does, for files whose content is that of an image."""
    for path in [*source.rglob("*.gz")]:
        path.write_bytes(gzip.decompress(path.read_bytes()))
        path.rename(path.with_suffix(""))


def draw_masks(of: str, masks: str, dtype: type, among: tuple[int, ...] = ()) -> Callable[[Path], None]:
    """Return a function that draws a mask for each image of a folder, into a folder beside it."""

    def prepare(source: Path) -> None:
        for number, image in enumerate(sorted((source / of).iterdir())):
            mask = values(number, among) if among else trees.objects(number, dtype)
            save((source / of).parent / masks / f"{image.stem}.png", mask)

    return prepare


def unstack(source: Path) -> None:
    """Save the images of stacks as files."""
    for number in range(6):
        trees.photo(source / "images" / f"{number}.png", number)
        save(source / "masks" / f"{number}.png", values(number, (0, 1, 2)))
    for path in [*source.rglob("*.npy")]:
        path.unlink()


VOC = ("background", "aeroplane", "bicycle", "bird", "boat")
BINARY = ("background", "foreground")
ALL = ("train", "val", "test")
ROWS = [
    Row("CamVid (Kaggle)", trees.camvid_kaggle, "CamVid/train/, train_labels/*_L.png, class_dict.csv", "paired-names", 8, ("Animal", "Road", "Sky"), (255,), ALL),
    Row("CamVid (CVAT's export)", trees.camvid_cvat, "default/, defaultannot/, label_colors.txt", "paired-names", 6, ("background", "road", "car")),
    Row(
        "CamVid (SegNet)", trees.camvid_segnet, "train/, trainannot/, train.txt", "paired-names", 8, ("Sky", "Building", "Pole"), (11,), ALL,
        options='--classes "Sky,Building,Pole" --ignore 11', keywords={"classes": ["Sky", "Building", "Pole"], "ignore": [11]},
    ),
    Row("Cityscapes", trees.cityscapes, "leftImg8bit_trainvaltest/leftImg8bit/, gtFine_trainvaltest/gtFine/", "cityscapes", 8, ("road", "sidewalk", "building", "wall", "fence"), (255,), ALL, 4),
    Row("Cityscapes, polygons alone", trees.cityscapes_polygons, "leftImg8bit/, gtFine/*/*/*_gtFine_polygons.json", "cityscapes", 8, ("road", "sidewalk", "building", "wall", "fence"), (255,), ALL, 4),
    Row("IDD", trees.idd, "IDD_Segmentation/leftImg8bit/, gtFine/*/*/*_gtFine_polygons.json", "cityscapes", 8, ("autorickshaw", "drivable fallback"), (255,), ALL, 4),
    Row("KITTI semantics", trees.kitti_semantics, "training/image_2/, semantic/, semantic_rgb/, instance/", "paired-names", 6, ("class 7", "class 11", "class 26"), (), ALL, unlabelled=6),
    Row("BDD100K", trees.bdd100k, "bdd100k/images/10k/train/, labels/sem_seg/masks/train/", "paired-names", 6, ("background", "class 1", "class 2"), (), ALL),
    Row("Mapillary Vistas", trees.mapillary, "training/images/, labels/, instances/, config.json", "folder", 6, ("Bird", "Road", "Car"), (3,), ALL),
    Row(
        "Mapillary Vistas 2.0", trees.mapillary_2, "training/images/, v1.2/labels/, v2.0/labels/", "paired-names", 6, ("background", "class 1", "class 2"), (), ALL,
        options="--format paired-names --kind classes --masks v2.0", stop="more than one reading fits.*v1.2.*v2.0",
        keywords={"format": "paired-names", "read": {"kind": "classes", "masks": "v2.0"}}, unlabelled=0,
    ),
    Row("Pascal VOC 2012", trees.voc2012, "VOCdevkit/VOC2012/JPEGImages/, SegmentationClass/, ImageSets/", "voc", 6, VOC, (255,), ALL),
    Row("Pascal VOC 2007 and 2012", trees.voc_both_years, "VOCdevkit/VOC2007/, VOC2012/", "voc", 12, VOC, (255,), ALL),
    Row("VOC, a folder for each task of CVAT", trees.voc_tasks_of_cvat, "task_0/JPEGImages/, task_1/JPEGImages/", "voc", 18, VOC, (255,), (), 3),
    Row("ADE20K (scene parsing)", trees.ade_scene_parsing, "ADEChallengeData2016/images/training/, annotations/training/, objectInfo150.txt", "paired-names", 6, tuple(f"thing {k}" for k in range(1, 6)), (0,), ALL),
    Row(
        "ADE20K (full)", trees.ade20k_full, "ADE20K_2021_17_01/images/ADE/training/*/*/*.jpg, *_seg.png", "paired-names", 6, ("wall", "sky"), (255,), ALL,
        options="--palette FILE", stop="which colour is which class.*give them as --palette FILE",
    ),
    Row("Oxford-IIIT Pet", trees.oxford_pets, "images/, annotations/trimaps/", "folder", 6, BINARY, (3,)),
    Row("COCO 2017", trees.coco_2017, "train2017/, annotations/instances_train2017.json", "coco", 6, ("background", "person", "dog"), (), ALL),
    Row("Semantic Drone", trees.semantic_drone, "dataset/semantic_drone_dataset/original_images/, label_images_semantic/", "paired-names", 6, ("background", "class 1", "class 2")),
    Row("Carvana", trees.carvana, "train/, train_masks/*_mask.gif", "paired-names", 6, ("background", "class 1"), (), ALL),
    Row(
        "SUIM", trees.suim, "SUIM/train_val/images/, masks/*.bmp, TEST/", "paired-names", 8, ("background", "diver", "plant", "wreck", "robot"), (), ("test",),
        options="--palette suim", stop="which colour.*add --palette suim", keywords={"read": {"palette": "suim"}},
    ),
    Row("DRIVE", trees.drive, "DRIVE/training/images/*_training.tif, 1st_manual/*_manual1.gif, mask/", "paired-names", 8, ("background", "class 1"), (), ALL),
    Row("CHASE_DB1", trees.chase, "CHASEDB1/Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png", "paired-names", 6, BINARY),
    Row(
        "STARE", trees.stare, "stare-images/im0001.ppm, labels-ah/im0001.ah.ppm, labels-vk/", "paired-names", 6, BINARY,
        options="--format paired-names --kind classes --masks labels-ah", stop="more than one reading fits.*labels-ah.*labels-vk",
        keywords={"format": "paired-names", "read": {"kind": "classes", "masks": "labels-ah"}},
    ),
    Row(
        "STARE, packed", trees.stare_packed, "stare-images/im0001.ppm.gz, labels-ah/im0001.ah.ppm.gz", "paired-names", 6, BINARY,
        stop="12 images are packed.*gunzip -r", prepare=("`gunzip -r SRC`", gunzip),
    ),
    Row("HRF", trees.hrf, "images/*.JPG, manual1/*.tif, mask/*_mask.tif", "paired-names", 6, BINARY),
    Row("Kvasir-SEG", trees.kvasir_seg, "Kvasir-SEG/images/*.jpg, masks/*.jpg", "paired-names", 6, BINARY),
    Row("CVC-ClinicDB", trees.cvc_clinicdb, "PNG/Original/, Ground Truth/", "paired-names", 6, BINARY),
    Row("ISIC 2018", trees.isic_2018, "ISIC2018_Task1-2_Training_Input/, ISIC2018_Task1_Training_GroundTruth/*_segmentation.png", "paired-names", 8, BINARY, (), ALL),
    Row("HAM10000", trees.ham10000, "HAM10000_images_part_1/, HAM10000_segmentations_lesion_tschandl/", "paired-names", 8, BINARY),
    Row("BUSI", trees.busi, "Dataset_BUSI_with_GT/benign/benign (1).png, benign (1)_mask.png", "paired-names", 8, BINARY),
    Row("Data Science Bowl 2018", trees.dsb_2018, "stage1_train/ID/images/ID.png, masks/*.png", "mask-per-instance", 4, ("background", "object"), (), ALL),
    Row("BBBC005", trees.bbbc005, "BBBC005_v1_images/*.TIF, BBBC005_v1_ground_truth/*.TIF", "paired-names", 6, BINARY, unlabelled=2),
    Row("LIVECell", trees.livecell, "LIVECell_dataset_2021/images/, annotations/LIVECell/livecell_coco_train.json", "coco", 8, ("background", "cell"), (), ALL),
    Row("Cellpose", trees.cellpose, "train/000_img.png, 000_masks.png, test/", "paired-names", 9, ("background", "object"), (), ALL),
    Row("GlaS", trees.glas, "Warwick_QU_Dataset/train_1.bmp, train_1_anno.bmp, testA_1.bmp", "paired-names", 10, ("background", "object"), (), ALL),
    Row("TNBC", trees.tnbc, "Slide_01/01_1.png, GT_01/01_1.png", "paired-names", 10, BINARY, (), (), 5),
    Row(
        "MoNuSeg", trees.monuseg, "MoNuSeg 2018 Training Data/Tissue Images/, Annotations/*.xml", "paired-names", 3, ("background", "object"), (), ALL,
        stop="Aperio ImageScope.*16-bit label map.*masks/",
        prepare=("draw label maps into `masks/`", draw_masks("MoNuSeg 2018 Training Data/Tissue Images", "masks", np.uint16)),
    ),
    Row(
        "PanNuke", trees.pannuke, "Fold 1/images/fold1/images.npy, masks/fold1/masks.npy", "folder", 6, ("background", "class 1", "class 2"),
        stop="2 files hold many images each.*save each image and its mask", prepare=("save each image as a file", unstack),
    ),
    Row(
        "LoveDA", trees.loveda, "Train/Rural/images_png/, masks_png/, Train/Urban/", "paired-names", 12, ("background", "building", "agriculture"), (0,), ALL,
        options='--classes "background=1,building=2,agriculture=7" --ignore 0', keywords={"classes": ["background=1", "building=2", "agriculture=7"], "ignore": [0]},
    ),
    Row(
        "ISPRS Potsdam", trees.potsdam, "Potsdam/2_Ortho_RGB/*_RGB.tif, 5_Labels_all/*_label.tif", "paired-names", 6, ("impervious surface", "building", "low vegetation", "tree", "car"), (255,),
        options="--palette isprs", stop="which colour.*add --palette isprs", keywords={"read": {"palette": "isprs"}},
    ),
    Row(
        "ISPRS Vaihingen, eroded boundaries", trees.vaihingen, "top/, ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE/*_noBoundary.tif", "paired-names", 6, ("impervious surface", "building", "low vegetation", "tree", "car"), (255,),
        options="--palette isprs", stop="which colour.*add --palette isprs", keywords={"read": {"palette": "isprs"}},
    ),
    Row("DeepGlobe roads", trees.deepglobe_roads, "train/100_sat.jpg, 100_mask.png, valid/", "paired-names", 6, BINARY, (), ALL, unlabelled=6),
    Row("DeepGlobe land cover", trees.deepglobe_land_cover, "train/100_sat.jpg, 100_mask.png, class_dict.csv", "paired-names", 6, ("urban_land", "water", "forest_land"), (255,), ALL, unlabelled=6),
    Row("Massachusetts roads", trees.massachusetts, "tiff/train/, train_labels/, label_class_dict.csv", "paired-names", 8, ("background", "road"), (), ALL),
    Row("Inria Aerial", trees.inria, "AerialImageDataset/train/images/, gt/, test/images/", "paired-names", 6, BINARY, (), ALL, unlabelled=6),
    Row("UAVid", trees.uavid, "uavid_train/seq1/Images/, Labels/, uavid_val/", "paired-names", 10, ("Clutter", "Building", "Road"), (), ALL, 5),
    Row(
        "SpaceNet", trees.spacenet, "AOI_2_Vegas_Train/RGB-PanSharpen/*.tif, geojson/buildings/*.geojson", "paired-names", 3, BINARY, (), ALL,
        stop="geographic coordinates.*gdal_rasterize.*masks/",
        prepare=("burn the polygons into `masks/`", draw_masks("AOI_2_Vegas_Train/RGB-PanSharpen", "masks", np.uint8, (0, 255))),
    ),
    Row("MVTec AD, a category", trees.mvtec_category, "bottle/test/broken_large/000.png, ground_truth/broken_large/000_mask.png, train/good/", "paired-names", 12, BINARY),
    Row("MVTec AD", trees.mvtec, "bottle/, cable/, zipper/", "paired-names", 36, BINARY),
    Row("Severstal", trees.severstal, "train_images/, train.csv (ImageId, ClassId, EncodedPixels)", "run-length-table", 4, ("background", "class 1", "class 2"), unlabelled=4),
    Row("DeepCrack", trees.deepcrack, "train_img/, train_lab/, test_img/, test_lab/", "paired-names", 8, BINARY, (), ALL),
    Row("Crack500", trees.crack500, "traincrop/*.jpg, traincrop/*.png, train.txt", "paired-list", 8, BINARY, (), ALL),
    Row("Crack Segmentation (Kaggle)", trees.crack_segmentation_kaggle, "crack_segmentation_dataset/train/images/*.jpg, masks/*.jpg", "paired-names", 8, BINARY, (), ALL),
]  # fmt: skip


def check(row: Row, report: ImportReport) -> None:
    """Compare an import with the row of the table."""
    assert (report.format, report.images, report.masks) == (row.format, row.images, row.images)
    assert tuple(report.classes.names[: len(row.classes)]) == row.classes
    assert tuple(report.classes.ignore) == row.ignore
    assert set(report.splits) <= set(row.splits)
    assert report.groups == row.groups
    notes = [note for note in report.notes if note.startswith("without a mask")]
    assert sum(int(note.split()[3].strip(":,")) for note in notes) == row.unlabelled


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_public_datasets(row: Row, source: Path, data: Path) -> None:
    row.write(source)
    keywords = dict(row.keywords)
    if row.stop:
        with pytest.raises((DataError, ConfigError), match=row.stop) as caught:
            import_source(source, data)
        assert row.options in str(caught.value)
        assert not data.exists()
    if row.prepare:
        row.prepare[1](source)
    if row.options == "--palette FILE":
        (source.parent / "palette.txt").write_text("0 0 0 void\n10 20 0 wall\n110 84 0 sky\n")
        keywords["read"] = {"palette": str(source.parent / "palette.txt")}
    check(row, import_source(source, data, str(keywords.pop("format", "auto")), **keywords))


def test_no_dataset_stops_without_advice() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 30
    assert all(row.options or row.prepare for row in ROWS if row.stop)


def test_the_table_in_the_documentation() -> None:
    text = DOCS.read_text()
    missing = [row.line() for row in ROWS if row.line() not in text]
    assert not missing, "docs/own-data.md lacks these lines:\n" + "\n".join(missing)
    named = [
        line for line in text.split("## Public datasets")[1].split("\n## ")[0].splitlines() if line.startswith("| ")
    ]
    assert len(named) == len(ROWS) + 1
