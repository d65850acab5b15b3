"""The trees of public datasets as they are downloaded: names and structure after their descriptions, small invented pixels.

Each function writes one dataset below a folder. `tests/data/formats/test_public_layouts.py` has the table of what they become.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
BLOCK = 4
_BLOCKS = np.add.outer(np.arange(HEIGHT // BLOCK) * 3, np.arange(WIDTH // BLOCK))
RGB = tuple[int, int, int]

CAMVID = {"Animal": (64, 128, 64), "Road": (128, 64, 128), "Sky": (128, 128, 128), "Void": (0, 0, 0)}
ISPRS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]


def values(number: int, among: Sequence[int] = (0, 1, 2), dtype: type = np.uint8) -> np.ndarray:
    """Return class values, (HEIGHT, WIDTH), in blocks; each value has several components."""
    blocks = np.asarray(among, dtype)[(_BLOCKS + number) % len(among)]
    return np.kron(blocks, np.ones((BLOCK, BLOCK), dtype))


def objects(number: int, dtype: type = np.uint8) -> np.ndarray:
    """Return instance ids from 1, (HEIGHT, WIDTH): three to six separate squares."""
    ids = np.zeros((HEIGHT, WIDTH), dtype)
    for k in range(3 + number % 4):
        row, column = 2 + 10 * (k // 3), 2 + 10 * (k % 3)
        ids[row : row + 6, column : column + 6] = k + 1
    return ids


def save(path: Path, array: np.ndarray, palette: Sequence[RGB] = (), **options: object) -> None:
    """Write an image file; with `palette`, one of indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([part for colour in palette for part in colour])
    image.save(path, **options)  # type: ignore[arg-type]


def photo(path: Path, number: int, grey: bool = False) -> None:
    """Write an image whose blocks have the colours of no class, with noise."""
    noise = np.random.default_rng(number).integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)
    array = noise + (values(number, (40, 110, 180)))[..., None]
    save(path, array[..., 0] if grey else array)


def colours(number: int, among: Sequence[RGB]) -> np.ndarray:
    """Return a mask in these colours, (HEIGHT, WIDTH, 3)."""
    return np.asarray(among, np.uint8)[values(number, range(len(among)))]


def text(path: Path, content: str) -> None:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def code(mask: np.ndarray) -> str:
    """Return the run-length code of a mask: starts from 1 and lengths, column by column."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    return " ".join(f"{start} {end - start}" for start, end in zip(edges[::2], edges[1::2], strict=True))


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def class_dict(path: Path, entries: dict[str, RGB]) -> None:
    """Write a palette as Kaggle's datasets have it."""
    write_csv(path, [("name", "r", "g", "b"), *((name, *colour) for name, colour in entries.items())])


# --- streets -----------------------------------------------------------------


def camvid_kaggle(root: Path) -> None:
    for split, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 8)}.items():
        for n in numbers:
            photo(root / "CamVid" / split / f"0001TP_00{6690 + 30 * n}.png", n)
            mask = root / "CamVid" / f"{split}_labels" / f"0001TP_00{6690 + 30 * n}_L.png"
            save(mask, colours(n, [*CAMVID.values()]))
    class_dict(root / "CamVid" / "class_dict.csv", CAMVID)


def camvid_cvat(root: Path) -> None:
    names = [f"im{n}" for n in range(6)]
    for n, name in enumerate(names):
        photo(root / "default" / f"{name}.png", n)
        save(root / "defaultannot" / f"{name}.png", colours(n, [(0, 0, 0), (128, 64, 128), (64, 0, 128)]))
    text(root / "default.txt", "".join(f"/default/{n}.png /defaultannot/{n}.png\n" for n in names))
    text(root / "label_colors.txt", "0 0 0 background\n128 64 128 road\n64 0 128 car\n")


def camvid_segnet(root: Path) -> None:
    for split, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 8)}.items():
        lines = ""
        for n in numbers:
            photo(root / split / f"{n}.png", n)
            save(root / f"{split}annot" / f"{n}.png", values(n, (0, 1, 2, 11)))
            lines += f"/SegNet/CamVid/{split}/{n}.png /SegNet/CamVid/{split}annot/{n}.png\n"
        text(root / f"{split}.txt", lines)


def _cityscapes(images: Path, labels: Path, with_ids: bool, names: Sequence[str] = ("road", "car")) -> None:
    ids = {"road": 7, "car": 26}
    for split, cities in {"train": ("aachen", "bochum"), "val": ("lindau",), "test": ("berlin",)}.items():
        for city in cities:
            for n in range(2):
                stem = f"{city}_00000{n}_000019"
                photo(images / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", n)
                square = [[4, 4], [20, 4], [20, 16], [4, 16]]
                polygons = [{"label": names[0], "polygon": [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]}]
                polygons.append({"label": names[1], "polygon": square})
                document = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": polygons}
                folder = labels / "gtFine" / split / city
                text(folder / f"{stem}_gtFine_polygons.json", json.dumps(document))
                if with_ids:
                    mask = np.full((HEIGHT, WIDTH), ids["road"], np.uint8)
                    mask[4:16, 4:20] = ids["car"]
                    save(folder / f"{stem}_gtFine_labelIds.png", mask)
                    save(folder / f"{stem}_gtFine_color.png", colours(n, [(128, 64, 128), (0, 0, 142)]))


def cityscapes(root: Path) -> None:
    _cityscapes(root / "leftImg8bit_trainvaltest", root / "gtFine_trainvaltest", with_ids=True)


def cityscapes_polygons(root: Path) -> None:
    _cityscapes(root, root, with_ids=False)


def idd(root: Path) -> None:
    _cityscapes(root / "IDD_Segmentation", root / "IDD_Segmentation", False, ("drivable fallback", "autorickshaw"))


def kitti_semantics(root: Path) -> None:
    for n in range(6):
        name = f"{n:06d}_10.png"
        photo(root / "training" / "image_2" / name, n)
        save(root / "training" / "semantic" / name, values(n, (7, 11, 26)))
        save(root / "training" / "semantic_rgb" / name, colours(n, [(128, 64, 128), (70, 70, 70), (0, 0, 142)]))
        save(root / "training" / "instance" / name, values(n, (7 * 256, 11 * 256, 26 * 256 + 1), np.uint16))
        photo(root / "testing" / "image_2" / name, 100 + n)


def bdd100k(root: Path) -> None:
    for split, numbers in {"train": range(4), "val": range(4, 6)}.items():
        for n in numbers:
            name = f"0000f77c-{n:08x}"
            photo(root / "bdd100k" / "images" / "10k" / split / f"{name}.jpg", n)
            labels = root / "bdd100k" / "labels" / "sem_seg"
            save(labels / "masks" / split / f"{name}.png", values(n, (0, 1, 2)))
            save(
                labels / "colormaps" / split / f"{name}.png", colours(n, [(128, 64, 128), (244, 35, 232), (70, 70, 70)])
            )
            text(labels / "polygons" / f"sem_seg_{split}.json", "[]")


def mapillary(root: Path) -> None:
    names = ["Bird", "Road", "Car", "Unlabeled"]
    for split, numbers in {"training": range(4), "validation": range(4, 6)}.items():
        for n in numbers:
            photo(root / split / "images" / f"img_{n}.jpg", n)
            save(
                root / split / "labels" / f"img_{n}.png",
                values(n, (0, 1, 2, 3)),
                [(165, 42, 42), (128, 64, 128), (0, 0, 142), (0, 0, 0)],
            )
            save(root / split / "instances" / f"img_{n}.png", values(n, (0, 256, 513, 768), np.uint16))
    photo(root / "testing" / "images" / "img_9.jpg", 9)
    labels = [{"name": f"object--{n.lower()}", "readable": n, "color": [0, 0, k]} for k, n in enumerate(names)]
    text(root / "config.json", json.dumps({"version": 1.1, "labels": labels}))


def mapillary_2(root: Path) -> None:
    for split, numbers in {"training": range(4), "validation": range(4, 6)}.items():
        for n in numbers:
            photo(root / split / "images" / f"img_{n}.jpg", n)
            for k, version in enumerate(("v1.2", "v2.0")):
                save(root / split / version / "labels" / f"img_{n}.png", values(n + k, (0, 1, 2)))
                save(
                    root / split / version / "panoptic" / f"img_{n}.png", colours(n, [(0, 0, 1), (0, 1, 0), (2, 0, 0)])
                )
                save(root / split / version / "instances" / f"img_{n}.png", values(n, (0, 256, 513), np.uint16))


# --- scenes and objects ------------------------------------------------------


def _voc(root: Path, first: int, lists: bool) -> None:
    stems = [f"2007_{first + n:06d}" for n in range(6)]
    for n, stem in enumerate(stems):
        photo(root / "JPEGImages" / f"{stem}.jpg", n)
        palette = [(0, 0, 0), (128, 0, 0), (0, 128, 0), *[(0, 0, 0)] * 252, (224, 224, 192)]
        save(root / "SegmentationClass" / f"{stem}.png", values(n, (0, 1, 2, 255)), palette)
        save(root / "SegmentationObject" / f"{stem}.png", values(n, (0, 1, 2, 255)), palette)
        text(root / "Annotations" / f"{stem}.xml", "<annotation/>")
    if lists:
        text(root / "ImageSets" / "Segmentation" / "train.txt", "\n".join(stems[:4]) + "\n")
        text(root / "ImageSets" / "Segmentation" / "val.txt", "\n".join(stems[4:]) + "\n")


def voc2012(root: Path) -> None:
    _voc(root / "VOCdevkit" / "VOC2012", 0, lists=True)


def voc_both_years(root: Path) -> None:
    _voc(root / "VOCdevkit" / "VOC2007", 0, lists=True)
    _voc(root / "VOCdevkit" / "VOC2012", 100, lists=True)


def voc_tasks_of_cvat(root: Path) -> None:
    for task in range(3):
        _voc(root / f"task_{task}", 10 * task, lists=False)


def ade_scene_parsing(root: Path) -> None:
    root = root / "ADEChallengeData2016"
    for split, numbers in {"training": range(4), "validation": range(4, 6)}.items():
        for n in numbers:
            stem = f"ADE_{split[:5]}_{n:08d}"
            photo(root / "images" / split / f"{stem}.jpg", n)
            save(root / "annotations" / split / f"{stem}.png", values(n, (0, 1, 2, 150)))
    names = [f"{k}\t0.1\t10\t5\t1\tthing {k}, item {k}" for k in range(1, 151)]
    text(root / "objectInfo150.txt", "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *names]) + "\n")
    text(root / "sceneCategories.txt", "ADE_train_00000001 airport_terminal\n")


def ade20k_full(root: Path) -> None:
    root = root / "ADE20K_2021_17_01" / "images" / "ADE"
    for split, numbers in {"training": range(4), "validation": range(4, 6)}.items():
        for n in numbers:
            folder = root / split / "urban" / "street"
            stem = f"ADE_{'train' if split == 'training' else 'val'}_{n:08d}"
            photo(folder / f"{stem}.jpg", n)
            save(folder / f"{stem}_seg.png", colours(n, [(0, 0, 0), (10, 20, 0), (110, 84, 0)]))
            save(folder / f"{stem}_parts_1.png", colours(n, [(0, 0, 0), (10, 21, 0), (110, 85, 0)]))
            text(folder / f"{stem}.json", "{}")


def oxford_pets(root: Path) -> None:
    for n in range(6):
        photo(root / "images" / f"Abyssinian_{n}.jpg", n)
        text(root / "images" / f"Abyssinian_{n}.mat", "MATLAB") if n == 0 else None
        save(root / "annotations" / "trimaps" / f"Abyssinian_{n}.png", values(n, (1, 2, 3)))
        text(root / "annotations" / "trimaps" / f"._Abyssinian_{n}.png", "Mac OS X")
        text(root / "annotations" / "xmls" / f"Abyssinian_{n}.xml", "<annotation/>")
    text(root / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID\nAbyssinian_0 1 1 1\n")


def coco_2017(root: Path) -> None:
    for split, numbers in {"train": range(4), "val": range(4, 6)}.items():
        images, annotations = [], []
        for n in numbers:
            photo(root / f"{split}2017" / f"{n:012d}.jpg", n)
            images.append({"id": n, "file_name": f"{n:012d}.jpg", "height": HEIGHT, "width": WIDTH})
            for category, x in ((1, 2), (18, 16)):
                polygon = [x, 2, x + 10, 2, x + 10, 12, x, 12]
                annotations.append({"id": len(annotations) + 100 * n, "image_id": n, "category_id": category})
                annotations[-1] |= {"segmentation": [polygon], "iscrowd": 0, "area": 100, "bbox": [x, 2, 10, 10]}
        categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
        document = {"images": images, "annotations": annotations, "categories": categories}
        text(root / "annotations" / f"instances_{split}2017.json", json.dumps(document))


def semantic_drone(root: Path) -> None:
    inner = root / "dataset" / "semantic_drone_dataset"
    for n in range(6):
        photo(inner / "original_images" / f"{n:03d}.jpg", n)
        save(inner / "label_images_semantic" / f"{n:03d}.png", values(n, (0, 1, 2)))
        save(
            root / "RGB_color_image_masks" / "RGB_color_image_masks" / f"{n:03d}.png",
            colours(n, [(0, 0, 0), (128, 64, 128), (130, 76, 0)]),
        )
    class_dict(
        root / "class_dict_seg.csv", {"unlabeled": (0, 0, 0), "paved-area": (128, 64, 128), "dirt": (130, 76, 0)}
    )


def carvana(root: Path) -> None:
    for n in range(6):
        photo(root / "train" / f"0cdf5b5d0ce1_{n:02d}.jpg", n)
        save(root / "train_masks" / f"0cdf5b5d0ce1_{n:02d}_mask.gif", values(n, (0, 1)), [(0, 0, 0), (255, 255, 255)])


def suim(root: Path) -> None:
    palette = [(0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 0, 255)]
    for folder, numbers in {"train_val": range(5), "TEST": range(5, 8)}.items():
        for n in numbers:
            photo(root / "SUIM" / folder / "images" / f"d_r_{n}_.jpg", n)
            save(root / "SUIM" / folder / "masks" / f"d_r_{n}_.bmp", colours(n, palette))
            if folder == "TEST":
                save(root / "SUIM" / folder / "masks" / "RO" / f"d_r_{n}_.bmp", values(n, (0, 255)))


# --- medicine ----------------------------------------------------------------


def drive(root: Path) -> None:
    for split, first in {"training": 21, "test": 1}.items():
        for n in range(first, first + 4):
            photo(root / "DRIVE" / split / "images" / f"{n:02d}_{split}.tif", n)
            palette = [(0, 0, 0), (255, 255, 255)]
            save(root / "DRIVE" / split / "1st_manual" / f"{n:02d}_manual1.gif", values(n, (0, 1)), palette)
            disc = np.zeros((HEIGHT, WIDTH), np.uint8)
            disc[2:-2, 2:-2] = 1
            save(root / "DRIVE" / split / "mask" / f"{n:02d}_{split}_mask.gif", disc, palette)
            if split == "test":
                save(root / "DRIVE" / split / "2nd_manual" / f"{n:02d}_manual2.gif", values(n + 1, (0, 1)), palette)


def chase(root: Path) -> None:
    for n in range(1, 4):
        for side in "LR":
            stem = f"Image_{n:02d}{side}"
            photo(root / "CHASEDB1" / f"{stem}.jpg", n)
            for k, observer in enumerate(("1st", "2nd")):
                save(root / "CHASEDB1" / f"{stem}_{observer}HO.png", values(n + k, (0, 255)))


def stare(root: Path) -> None:
    for n in range(1, 7):
        photo(root / "stare-images" / f"im{n:04d}.ppm", n)
        for k, observer in enumerate(("ah", "vk")):
            save(root / f"labels-{observer}" / f"im{n:04d}.{observer}.ppm", values(n + k, (0, 255)))


def stare_packed(root: Path) -> None:
    stare(root)
    for path in [*root.rglob("*.ppm")]:
        if path.parent.name != "labels-vk":
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def hrf(root: Path) -> None:
    for n in range(1, 7):
        photo(root / "images" / f"{n:02d}_dr.JPG", n)
        save(root / "manual1" / f"{n:02d}_dr.tif", values(n, (0, 255)))
        save(root / "mask" / f"{n:02d}_dr_mask.tif", np.full((HEIGHT, WIDTH, 3), 255, np.uint8))


def kvasir_seg(root: Path) -> None:
    for n in range(6):
        photo(root / "Kvasir-SEG" / "images" / f"cju0qkwl35piu0993l0dewe2{n}.jpg", n)
        save(
            root / "Kvasir-SEG" / "masks" / f"cju0qkwl35piu0993l0dewe2{n}.jpg",
            np.repeat(np.kron(values(n, (0, 255)), np.ones((4, 4), np.uint8))[:HEIGHT, :WIDTH, None], 3, 2),
            quality=95,
        )
    text(root / "Kvasir-SEG" / "kavsir_bboxes.json", "{}")


def cvc_clinicdb(root: Path) -> None:
    for n in range(1, 7):
        photo(root / "PNG" / "Original" / f"{n}.png", n)
        save(root / "PNG" / "Ground Truth" / f"{n}.png", values(n, (0, 255)))
    write_csv(root / "metadata.csv", [("frame_id", "sequence_id"), *((n, n // 3) for n in range(1, 7))])


def isic_2018(root: Path) -> None:
    folders = {"Training": range(4), "Validation": range(4, 6), "Test": range(6, 8)}
    for split, numbers in folders.items():
        for n in numbers:
            stem = f"ISIC_{n:07d}"
            photo(root / f"ISIC2018_Task1-2_{split}_Input" / f"{stem}.jpg", n)
            save(root / f"ISIC2018_Task1_{split}_GroundTruth" / f"{stem}_segmentation.png", values(n, (0, 255)))
        text(root / f"ISIC2018_Task1-2_{split}_Input" / "LICENSE.txt", "CC-0")


def ham10000(root: Path) -> None:
    for n in range(8):
        photo(root / f"HAM10000_images_part_{1 + n // 4}" / f"ISIC_{n:07d}.jpg", n)
        save(root / "HAM10000_segmentations_lesion_tschandl" / f"ISIC_{n:07d}_segmentation.png", values(n, (0, 255)))


def busi(root: Path) -> None:
    for kind in ("benign", "malignant", "normal"):
        for n in range(1, 4):
            folder = root / "Dataset_BUSI_with_GT" / kind
            photo(folder / f"{kind} ({n}).png", n)
            save(
                folder / f"{kind} ({n})_mask.png",
                values(n, (0, 255)) if kind != "normal" else np.zeros((HEIGHT, WIDTH), np.uint8),
            )
    save(root / "Dataset_BUSI_with_GT" / "benign" / "benign (3)_mask_1.png", values(4, (0, 255)))


# --- microscopy --------------------------------------------------------------


def dsb_2018(root: Path) -> None:
    for n in range(4):
        image = f"{n:064x}"
        photo(root / "stage1_train" / image / "images" / f"{image}.png", n)
        for k in range(1, objects(n).max() + 1):
            save(root / "stage1_train" / image / "masks" / f"{k:064x}.png", (objects(n) == k).astype(np.uint8) * 255)
    write_csv(root / "stage1_train_labels.csv", [("ImageId", "EncodedPixels"), ("0", "1 2")])


def bbbc005(root: Path) -> None:
    for n in range(8):
        name = f"SIMCEPImages_A{n:02d}_C1_F1_s{n:02d}_w1.TIF"
        photo(root / "BBBC005_v1_images" / name, n, grey=True)
        if n < 6:
            save(root / "BBBC005_v1_ground_truth" / name, values(n, (0, 255)))


def livecell(root: Path) -> None:
    root = root / "LIVECell_dataset_2021"
    for split, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 8)}.items():
        images, annotations = [], []
        for n in numbers:
            name = f"A172_Phase_A7_1_00d00h00m_{n}.tif"
            part = "livecell_test_images" if split == "test" else "livecell_train_val_images"
            photo(root / "images" / part / "A172" / name, n, grey=True)
            images.append({"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH})
            polygon = [2, 2, 12, 2, 12, 12, 2, 12]
            annotations.append({"id": n, "image_id": n, "category_id": 1, "segmentation": [polygon], "iscrowd": 0})
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
        text(root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json", json.dumps(document))


def cellpose(root: Path) -> None:
    for split, numbers in {"train": range(6), "test": range(3)}.items():
        for n in numbers:
            photo(root / split / f"{n:03d}_img.png", n)
            save(root / split / f"{n:03d}_masks.png", objects(n, np.uint16))


def glas(root: Path) -> None:
    folder = root / "Warwick_QU_Dataset_(Released_2016_07_08)"
    for part, count in {"train": 5, "testA": 3, "testB": 2}.items():
        for n in range(1, count + 1):
            photo(folder / f"{part}_{n}.bmp", n)
            save(folder / f"{part}_{n}_anno.bmp", objects(n))
    write_csv(folder / "Grade.csv", [("name", "patient ID", "grade (GlaS)"), ("train_1", 1, "benign")])


def tnbc(root: Path) -> None:
    for slide in range(1, 6):
        for n in range(1, 3):
            photo(root / "TNBC_NucleiSegmentation" / f"Slide_{slide:02d}" / f"{slide:02d}_{n}.png", slide + n)
            save(
                root / "TNBC_NucleiSegmentation" / f"GT_{slide:02d}" / f"{slide:02d}_{n}.png",
                values(slide + n, (0, 255)),
            )


def monuseg(root: Path) -> None:
    folder = root / "MoNuSeg 2018 Training Data"
    for n in range(3):
        photo(folder / "Tissue Images" / f"TCGA-18-5592-01Z-00-DX{n}.tif", n)
        text(folder / "Annotations" / f"TCGA-18-5592-01Z-00-DX{n}.xml", "<Annotations/>")


def pannuke(root: Path) -> None:
    (root / "Fold 1" / "images" / "fold1").mkdir(parents=True)
    (root / "Fold 1" / "masks" / "fold1").mkdir(parents=True)
    stack = np.zeros((6, HEIGHT, WIDTH, 3))
    np.save(root / "Fold 1" / "images" / "fold1" / "images.npy", stack)
    np.save(root / "Fold 1" / "images" / "fold1" / "types.npy", np.array(["Breast"] * 6))
    np.save(root / "Fold 1" / "masks" / "fold1" / "masks.npy", np.zeros((6, HEIGHT, WIDTH, 6)))


# --- from above --------------------------------------------------------------


def loveda(root: Path) -> None:
    for split, numbers in {"Train": range(4), "Val": range(4, 6)}.items():
        for area in ("Rural", "Urban"):
            for n in numbers:
                photo(root / split / area / "images_png" / f"{n}.png", n)
                save(root / split / area / "masks_png" / f"{n}.png", values(n, (0, 1, 2, 7)))


def potsdam(root: Path) -> None:
    for n in range(6):
        photo(root / "Potsdam" / "2_Ortho_RGB" / f"top_potsdam_2_{10 + n}_RGB.tif", n)
        save(root / "Potsdam" / "5_Labels_all" / f"top_potsdam_2_{10 + n}_label.tif", colours(n, ISPRS))


def vaihingen(root: Path) -> None:
    for n in range(1, 7):
        photo(root / "top" / f"top_mosaic_09cm_area{n}.tif", n)
        folder = root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE"
        save(folder / f"top_mosaic_09cm_area{n}_noBoundary.tif", colours(n, [*ISPRS, (0, 0, 0)]))


def deepglobe_roads(root: Path) -> None:
    for n in range(6):
        photo(root / "train" / f"{100 + n}_sat.jpg", n)
        save(root / "train" / f"{100 + n}_mask.png", np.repeat(values(n, (0, 255))[..., None], 3, 2))
        photo(root / "valid" / f"{200 + n}_sat.jpg", n)


def deepglobe_land_cover(root: Path) -> None:
    entries = {"urban_land": (0, 255, 255), "water": (0, 0, 255), "forest_land": (0, 255, 0), "unknown": (0, 0, 0)}
    for n in range(6):
        photo(root / "train" / f"{100 + n}_sat.jpg", n)
        save(root / "train" / f"{100 + n}_mask.png", colours(n, [*entries.values()]))
        photo(root / "test" / f"{200 + n}_sat.jpg", n)
    class_dict(root / "class_dict.csv", entries)
    write_csv(root / "metadata.csv", [("image_id", "split", "sat_image_path", "mask_path")])


def massachusetts(root: Path) -> None:
    for split, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 8)}.items():
        for n in numbers:
            photo(root / "tiff" / split / f"{n}828930_15.tiff", n)
            save(root / "tiff" / f"{split}_labels" / f"{n}828930_15.tif", colours(n, [(0, 0, 0), (255, 255, 255)]))
    class_dict(root / "label_class_dict.csv", {"background": (0, 0, 0), "road": (255, 255, 255)})
    write_csv(root / "metadata.csv", [("image_id", "split", "tiff_image_path", "tif_label_path")])


def inria(root: Path) -> None:
    for n in range(6):
        photo(root / "AerialImageDataset" / "train" / "images" / f"austin{n}.tif", n)
        save(root / "AerialImageDataset" / "train" / "gt" / f"austin{n}.tif", values(n, (0, 255)))
        photo(root / "AerialImageDataset" / "test" / "images" / f"bellingham{n}.tif", n)


def uavid(root: Path) -> None:
    entries = {"Clutter": (0, 0, 0), "Building": (128, 0, 0), "Road": (128, 64, 128)}
    for folder, sequences in {"uavid_train": (1, 2, 3), "uavid_val": (16, 17)}.items():
        for sequence in sequences:
            for n in range(2):
                photo(root / folder / f"seq{sequence}" / "Images" / f"{n:06d}.png", n)
                save(root / folder / f"seq{sequence}" / "Labels" / f"{n:06d}.png", colours(n, [*entries.values()]))
    class_dict(root / "class_dict.csv", entries)


def spacenet(root: Path) -> None:
    for n in range(3):
        photo(root / "AOI_2_Vegas_Train" / "RGB-PanSharpen" / f"RGB-PanSharpen_AOI_2_Vegas_img{n}.tif", n)
        text(root / "AOI_2_Vegas_Train" / "geojson" / "buildings" / f"buildings_AOI_2_Vegas_img{n}.geojson", "{}")


# --- inspection --------------------------------------------------------------


def mvtec_category(root: Path, name: str = "bottle") -> None:
    for n in range(3):
        photo(root / name / "train" / "good" / f"{n:03d}.png", n)
        photo(root / name / "test" / "good" / f"{n:03d}.png", 10 + n)
        for defect in ("broken_large", "contamination"):
            photo(root / name / "test" / defect / f"{n:03d}.png", 20 + n)
            save(root / name / "ground_truth" / defect / f"{n:03d}_mask.png", values(n, (0, 255)))
    text(root / name / "license.txt", "CC BY-NC-SA 4.0")


def mvtec(root: Path) -> None:
    for name in ("bottle", "cable", "zipper"):
        mvtec_category(root, name)


def severstal(root: Path) -> None:
    for n in range(4):
        photo(root / "train_images" / f"{n:09x}.jpg", n)
        photo(root / "test_images" / f"{100 + n:09x}.jpg", 100 + n)
    rows = [(f"{n:09x}.jpg", 1 + n % 2, code(objects(n) == 1)) for n in range(4)]
    write_csv(root / "train.csv", [("ImageId", "ClassId", "EncodedPixels"), *rows])


def deepcrack(root: Path) -> None:
    for split, numbers in {"train": range(5), "test": range(5, 8)}.items():
        for n in numbers:
            photo(root / f"{split}_img" / f"11{n}.jpg", n)
            save(root / f"{split}_lab" / f"11{n}.png", values(n, (0, 255)))


def crack500(root: Path) -> None:
    for split, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 8)}.items():
        lines = ""
        for n in numbers:
            stem = f"{split}crop/2016022{n}_1_361"
            photo(root / f"{stem}.jpg", n)
            save(root / f"{stem}.png", values(n, (0, 255)))
            lines += f"{stem}.jpg {stem}.png\n"
        text(root / f"{split}.txt", lines)


def crack_segmentation_kaggle(root: Path) -> None:
    for split, numbers in {"train": range(5), "test": range(5, 8)}.items():
        for n in numbers:
            photo(root / "crack_segmentation_dataset" / split / "images" / f"CFD_{n:03d}.jpg", n)
            mask = np.kron(values(n, (0, 255)), np.ones((4, 4), np.uint8))[:HEIGHT, :WIDTH]
            save(root / "crack_segmentation_dataset" / split / "masks" / f"CFD_{n:03d}.jpg", mask, quality=95)
