"""Small valid sources of every kind, as files in memory: what the tests of damaged sources damage."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Callable

import cv2
import nibabel as nib
import numpy as np
import tifffile
from PIL import Image

from tests.worlds.faulty_data import CLASSES, encoded, nifti, png, sample, tiff, volume

Source = dict[str, bytes]
"""Files by their path relative to the source."""

NAMES = ("one", "two")
_SHAPE = (24, 32)
_SQUARE = [4, 4, 20, 4, 20, 16, 4, 16]
_BIN = np.zeros(_SHAPE, np.uint8)
_BIN[4:16, 4:20] = 1


def _image(name: str) -> np.ndarray:
    return sample(len(name) + ord(name[0]), _SHAPE)[0]


def _mask() -> np.ndarray:
    mask = _BIN.copy()
    mask[18:22, 24:30] = 2
    return mask


def coco() -> Source:
    """Polygons, run-length codes as lists and as text, and a crowd."""
    counts = [4 + 24 * 4, *([12, 12] * 15), 12, 24 * 32 - 4 - 24 * 4 - 24 * 15 - 12]
    from pycocotools import mask as codes

    text = codes.encode(np.asfortranarray(_BIN))["counts"].decode()
    size = list(_SHAPE)
    segmentations: list[object] = [[_SQUARE], {"size": size, "counts": counts}, {"size": size, "counts": text}]
    images = [{"id": i, "file_name": f"{n}.png", "height": 24, "width": 32} for i, n in enumerate(NAMES, 1)]
    annotations = [
        {"id": 3 * i + k, "image_id": i, "category_id": 7 + k % 2, "segmentation": s, "iscrowd": int(k == 1)}
        | {"bbox": [4, 4, 16, 12], "area": 192}
        for i in (1, 2)
        for k, s in enumerate(segmentations)
    ]
    categories = [{"id": 7, "name": "cell", "supercategory": ""}, {"id": 8, "name": "dirt"}]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    files = {f"images/{name}.png": png(_image(name)) for name in NAMES}
    return {"annotations.json": json.dumps(content).encode()} | files


def labelme() -> Source:
    """Each kind of shape, one of them a mask."""
    part = base64.b64encode(png(np.full((5, 6), 255, np.uint8))).decode()
    shapes: list[dict[str, object]] = [
        {"label": "cell", "shape_type": "polygon", "points": [[4, 4], [20, 4], [20, 16]], "group_id": None},
        {"label": "cell", "shape_type": "rectangle", "points": [[2, 2], [9, 9]], "group_id": 1, "flags": {}},
        {"label": "dirt", "shape_type": "circle", "points": [[20, 12], [22, 12]]},
        {"label": "dirt", "shape_type": "mask", "points": [[24, 3], [29, 7]], "mask": part},
        {"label": "dirt", "shape_type": "rotation", "points": [[1, 18], [9, 18], [9, 22], [1, 22]]},
    ]
    files: Source = {}
    for name in NAMES:
        head = {"version": "5.0", "flags": {}, "imagePath": f"{name}.png", "imageHeight": 24, "imageWidth": 32}
        files[f"{name}.json"] = json.dumps(head | {"shapes": shapes, "imageData": None}).encode()
        files[f"{name}.png"] = png(_image(name))
    return files


def yolo() -> Source:
    """Polygons in text files, and a data.yaml."""
    files: Source = {"data.yaml": b"path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames: {0: cell, 1: dirt}\n"}
    for split, name in zip(("train", "val"), NAMES, strict=True):
        files[f"images/{split}/{name}.png"] = png(_image(name))
        files[f"labels/{split}/{name}.txt"] = b"0 0.1 0.1 0.5 0.1 0.5 0.6\n1 0.7 0.7 0.9 0.7 0.9 0.9 0.7 0.9\n"
    return files


def voc() -> Source:
    """Palette masks, lists of splits and a table of colours."""
    files: Source = {"labelmap.txt": b"background:0,0,0::\ncell:128,0,0::\ndirt:0,128,0::\n"}
    for split, name in zip(("train", "val"), NAMES, strict=True):
        stream = io.BytesIO()
        indexed = Image.fromarray(_mask(), "P")
        indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        indexed.save(stream, "PNG")
        files[f"SegmentationClass/{name}.png"] = stream.getvalue()
        files[f"JPEGImages/{name}.jpg"] = encoded(_image(name), ".jpg")
        files[f"ImageSets/Segmentation/{split}.txt"] = f"{name}\n".encode()
    return files


def tables() -> Source:
    """The canonical layout with its two tables."""
    files: Source = {"dataset.yaml": CLASSES.encode(), "samples.csv": b"key,group,split\none,a,train\ntwo,b,val\n"}
    for name in NAMES:
        files |= {f"images/{name}.png": png(_image(name)), f"masks/{name}.png": png(_mask())}
    return files


def nnunet() -> Source:
    """dataset.json with two channels of PNG images."""
    content = {
        "channel_names": {"0": "red", "1": "green"},
        "labels": {"background": 0, "cell": 1, "dirt": 2},
        "numTraining": 2,
        "file_ending": ".png",
    }
    files: Source = {"dataset.json": json.dumps(content).encode()}
    for name in NAMES:
        files |= {f"imagesTr/{name}_000{c}.png": png(_image(name)[..., c]) for c in (0, 1)}
        files[f"labelsTr/{name}.png"] = png(_mask())
    return files


def _pairs(ending: str, image: Callable[[str], bytes], mask: Callable[[str], bytes], mask_ending: str = "") -> Source:
    files = {f"images/{name}{ending}": image(name) for name in NAMES}
    return files | {f"masks/{name}{mask_ending or ending}": mask(name) for name in NAMES}


def raster() -> Source:
    """PNG pairs: one with a palette, one in 16 bits."""
    return _pairs(".png", lambda name: png(_image(name)), lambda _: png(_mask()))


def gif() -> Source:
    """JPEG images and GIF masks."""

    def mask(_: str) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(_BIN * 255).save(stream, "GIF")
        return stream.getvalue()

    return _pairs(".jpg", lambda name: encoded(_image(name), ".jpg"), mask, ".gif")


def tiffs() -> Source:
    """TIFF of several compressions, one with georeference and nodata, one tiled."""
    geo = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 100.0, 200.0, 0.0), True),
        (42113, "s", 0, "-9999", True),
    ]
    images = {
        "one": tiff(_image("one"), compression="zlib", tile=(16, 16), photometric="rgb"),
        "two": tiff(_image("two").astype(np.float32), photometric="rgb", extratags=geo),
    }
    masks = {"one": tiff(_mask(), compression="lzw"), "two": tiff(_mask(), rowsperstrip=4)}
    return _pairs(".tif", images.__getitem__, masks.__getitem__)


def ome_tiff() -> Source:
    """OME-TIFF with named channels, several pages, big-endian."""

    def image(name: str) -> bytes:
        stream = io.BytesIO()
        planes = np.moveaxis(_image(name).astype(np.uint16), -1, 0)
        metadata = {"axes": "CYX", "Channel": {"Name": ["a", "b", "c"]}}
        tifffile.imwrite(stream, planes, ome=True, metadata=metadata, byteorder=">", photometric="minisblack")
        return stream.getvalue()

    return _pairs(".tif", image, lambda _: tiff(_mask()))


def numpy() -> Source:
    """One pair of .npy, one of .npz."""

    def npy(array: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    def npz(array: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.savez_compressed(stream, array)
        return stream.getvalue()

    files = {"images/one.npy": npy(_image("one")), "masks/one.npy": npy(_mask())}
    return files | {"images/two.npz": npz(_image("two")), "masks/two.npz": npz(_mask())}


def nifti_volumes() -> Source:
    """NIfTI, one of them not compressed."""
    files: Source = {}
    for seed, name in enumerate(NAMES):
        image, mask = volume(seed)
        for folder, array in (("images", image), ("labels", mask)):
            content = nifti(array, spacing=(2, 1, 1))
            files[f"{folder}/{name}.nii{'.gz' if seed else ''}"] = content if seed else gzip.decompress(content)
    return files


def analyze_like() -> Source:
    """NIfTI-2 volumes."""
    image, mask = volume(3)

    def content(array: np.ndarray) -> bytes:
        return bytes(nib.Nifti2Image(np.transpose(array, (2, 1, 0)), np.eye(4)).to_bytes())

    return _pairs(".nii", lambda _: content(image), lambda _: content(mask))


def nrrd() -> Source:
    """NRRD volumes."""
    import tempfile
    from pathlib import Path

    import nrrd as library

    def content(array: np.ndarray, encoding: str) -> bytes:
        header = {"encoding": encoding, "space": "left-posterior-superior", "space directions": np.eye(3)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.nrrd"
            library.write(str(path), np.transpose(array, (2, 1, 0)), header | {"space origin": [0, 0, 0]})
            return path.read_bytes()

    image, mask = volume(3)
    return _pairs(
        ".nrrd",
        lambda name: content(image, "gzip" if name == "one" else "raw"),
        lambda name: content(mask, "raw" if name == "one" else "gzip"),
    )


def metaimage() -> Source:
    """MetaImage volumes, with the pixels in the same file."""

    def content(array: np.ndarray, kind: str) -> bytes:
        size = " ".join(map(str, array.shape[::-1]))
        head = (
            f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            f"CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
            f"ElementSpacing = 1 1 2\nDimSize = {size}\nElementType = {kind}\nElementDataFile = LOCAL\n"
        )
        return head.encode() + array.tobytes()

    image, mask = volume(3)
    return _pairs(".mha", lambda _: content(image, "MET_FLOAT"), lambda _: content(mask, "MET_UCHAR"))


def hdf5() -> Source:
    """HDF5 with one dataset for the image or mask."""
    import h5py

    def content(array: np.ndarray, name: str) -> bytes:
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            file.create_dataset(name, data=array, compression="gzip")
        return stream.getvalue()

    return _pairs(".h5", lambda name: content(_image(name), "image"), lambda _: content(_mask(), "mask"))


def dicom() -> Source:
    """DICOM slices in 16 bits, with masks as PNG."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    def content(name: str) -> bytes:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name])
        dataset = pydicom.Dataset()
        dataset.file_meta = meta
        dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        dataset.Rows, dataset.Columns = _SHAPE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = _image(name)[..., 0].astype(np.uint16).tobytes()
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
        return stream.getvalue()

    return _pairs(".dcm", content, lambda _: png(_mask()), ".png")


def jpeg2000() -> Source:
    """JPEG 2000 images, with masks as BMP."""
    import imagecodecs

    def content(name: str) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(_image(name)), level=0))

    return _pairs(".jp2", content, lambda _: cv2.imencode(".bmp", _mask())[1].tobytes(), ".bmp")


SEEDS: dict[str, Callable[[], Source]] = {
    "coco": coco,
    "labelme": labelme,
    "yolo": yolo,
    "voc": voc,
    "tables": tables,
    "nnunet": nnunet,
    "raster": raster,
    "gif": gif,
    "tiff": tiffs,
    "ome-tiff": ome_tiff,
    "numpy": numpy,
    "nifti": nifti_volumes,
    "nifti-2": analyze_like,
    "nrrd": nrrd,
    "metaimage": metaimage,
    "hdf5": hdf5,
    "dicom": dicom,
    "jpeg2000": jpeg2000,
}
"""Writes a valid source of each kind."""
