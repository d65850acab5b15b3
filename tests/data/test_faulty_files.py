"""Broken files of every kind, one of each in an otherwise valid dataset: each is named with its fault, and with quarantine the valid
files are processed up to the shards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from segpipe import stages
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.shards import ShardReader
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from tests.worlds import faulty_data
from tests.worlds.faulty_data import encoded, nifti, png, put, sample, tiff, volume

VALID = (*(f"sound-{i:02d}" for i in range(13)), "zelle ä 雪 (1)", "a.b.c", "UPPER", "upper", "-dash", "100%")
VALID_IMAGE = "a valid image, stored in an unusual way"


@dataclass(frozen=True)
class Fault:
    """One broken input: how it is written, and the finding that it must give."""

    name: str
    make: Callable[[Path, str], None]
    """Writes the files of one key into a data/ folder."""
    finding: str
    """Name of the expectation that fails; "" if the input must pass."""
    words: str = ""
    file: str = "images/{key}.png"
    severity: str = "error"
    split: str = "train"
    other_errors: tuple[str, ...] = ()
    """Further expectations that fail with an error."""


def image_is(content: Callable[[np.ndarray], bytes], ending: str = ".png") -> Callable[[Path, str], None]:
    """Write an image file with bytes made from a valid image, and a valid mask."""

    def make(data: Path, key: str) -> None:
        image, mask = sample(len(key) * 1000 + sum(map(ord, key)))
        put(data, key, content(image), png(mask), ending)

    return make


def mask_is(content: Callable[[np.ndarray], bytes | None]) -> Callable[[Path, str], None]:
    """Write a mask file with bytes made from a valid mask, and a valid image."""

    def make(data: Path, key: str) -> None:
        image, mask = sample(len(key) * 1000 + sum(map(ord, key)))
        put(data, key, png(image), content(mask))

    return make


def cut(content: bytes, share: float = 0.6) -> bytes:
    return content[: int(len(content) * share)]


def flip_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def with_pixel(image: np.ndarray, value: float) -> bytes:
    changed = image.astype(np.float32)
    changed[3, 4] = value
    return tiff(changed)


def link(target: str) -> Callable[[Path, str], None]:
    def make(data: Path, key: str) -> None:
        put(data, key, None, png(sample(1)[1]))
        (data / "images" / f"{key}.png").symlink_to(target.format(key=key))

    return make


def folder_named_like_an_image(data: Path, key: str) -> None:
    put(data, key, None, png(sample(1)[1]))
    (data / "images" / f"{key}.png").mkdir()


def unreadable(data: Path, key: str) -> None:
    image_is(png)(data, key)
    (data / "images" / f"{key}.png").chmod(0)


def swapped(data: Path, key: str) -> None:
    image, mask = sample(77)
    put(data, key, png(mask * 100), png(image))


def copy_of(name: str, other_mask: bool = False) -> Callable[[Path, str], None]:
    def make(data: Path, key: str) -> None:
        shutil.copy(data / "images" / f"{name}.png", data / "images" / f"{key}.png")
        mask = cv2.imread(str(data / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        put(data, key, None, png(np.roll(mask, 3) if other_mask else mask))

    return make


def reencoded(name: str) -> Callable[[Path, str], None]:
    def make(data: Path, key: str) -> None:
        image = cv2.imread(str(data / "images" / f"{name}.png"))
        mask = (data / "masks" / f"{name}.png").read_bytes()
        put(data, key, cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(), mask, ".jpg")

    return make


def instances_of_another_size(data: Path, key: str) -> None:
    image_is(png)(data, key)
    (data / "instances").mkdir(exist_ok=True)
    (data / "instances" / f"{key}.png").write_bytes(png(np.zeros((5, 9), np.uint8)))


def values(*pairs: tuple[int, int]) -> Callable[[Path, str], None]:
    """Write masks in which the first value of each pair is replaced by the second."""

    def change(mask: np.ndarray) -> bytes:
        changed = mask.astype(np.uint16 if max(new for _, new in pairs) > 255 else np.uint8)
        for old, new in pairs:
            changed[mask == old] = new
        return png(changed)

    return mask_is(change)


def _image_faults() -> list[Fault]:
    return [
        Fault("truncated PNG", image_is(lambda i: cut(png(i))), "readable_files", "cut short"),
        Fault(
            "truncated JPEG",
            image_is(lambda i: cut(encoded(i, ".jpg")), ".jpg"),
            "readable_files",
            "cannot be decoded",
            "images/{key}.jpg",
        ),
        Fault(
            "truncated TIFF",
            image_is(lambda i: cut(tiff(i)), ".tif"),
            "readable_files",
            "cannot be decoded",
            "images/{key}.tif",
        ),
        Fault(
            "truncated BMP",
            image_is(lambda i: cut(encoded(i, ".bmp")), ".bmp"),
            "readable_files",
            "cannot be decoded",
            "images/{key}.bmp",
        ),
        Fault(
            "truncated WebP",
            image_is(lambda i: cut(encoded(i, ".webp")), ".webp"),
            "readable_files",
            "cannot be decoded",
            "images/{key}.webp",
        ),
        Fault(
            "truncated NIfTI",
            image_is(lambda i: cut(nifti(i.transpose(2, 0, 1))), ".nii.gz"),
            "readable_files",
            "cannot be decoded",
            "images/{key}.nii.gz",
        ),
        Fault("only a PNG header", image_is(lambda i: png(i)[:20]), "readable_files", "cannot be decoded"),
        Fault("flipped bit in a PNG", image_is(lambda i: flip_byte(png(i))), "readable_files", "checksum"),
        Fault("an empty file", image_is(lambda i: b""), "readable_files", "the file is empty"),
        Fault(
            "text as PNG",
            image_is(lambda i: b"not found\n" * 9),
            "readable_files",
            "not an image in a supported format",
        ),
        Fault(
            "HTML as JPEG",
            image_is(lambda i: b"<!doctype html><title>404</title>", ".jpg"),
            "readable_files",
            "not an image in a supported format",
            "images/{key}.jpg",
        ),
        Fault(
            "GIF as PNG",
            image_is(lambda i: faulty_data.pillow(i, "P", "GIF")),
            "readable_files",
            "not an image in a supported format",
        ),
        Fault(
            "random bytes as TIFF",
            image_is(lambda i: b"II*\0" + bytes(range(256)), ".tif"),
            "readable_files",
            "cannot be decoded",
            "images/{key}.tif",
        ),
        Fault(
            "PNG bomb", image_is(lambda i: faulty_data.png_of_header(60000, 60000)), "readable_files", "too many pixels"
        ),
        Fault(
            "PNG of no width",
            image_is(lambda i: faulty_data.png_of_header(0, 10)),
            "readable_files",
            "not an image in a supported format",
        ),
        Fault(
            "TIFF bomb",
            image_is(lambda i: faulty_data.tiff_of_header(70000, 70000), ".tif"),
            "readable_files",
            "too many pixels",
            "images/{key}.tif",
        ),
        Fault(
            "TIFF of several pages",
            image_is(lambda i: tiff(np.stack([i, i, i, i])), ".tif"),
            "readable_files",
            "several pages",
            "images/{key}.tif",
        ),
        Fault(
            "animated PNG or WebP",
            image_is(lambda i: _animated(i), ".webp"),
            "readable_files",
            "several pages",
            "images/{key}.webp",
        ),
        Fault(
            "NaN in a float TIFF",
            image_is(lambda i: with_pixel(i, np.nan), ".tif"),
            "readable_files",
            "NaN or infinity",
            "images/{key}.tif",
        ),
        Fault(
            "infinity in a float TIFF",
            image_is(lambda i: with_pixel(i, np.inf), ".tif"),
            "readable_files",
            "NaN or infinity",
            "images/{key}.tif",
        ),
        Fault(
            "complex TIFF",
            image_is(lambda i: tiff(i[:, :, 0].astype(np.complex64)), ".tif"),
            "readable_files",
            "unsupported type of pixels",
            "images/{key}.tif",
        ),
        Fault("16 bits among 8", image_is(lambda i: png(i.astype(np.uint16) * 200)), "same_dtype", "uint16"),
        Fault(
            "floats among 8 bits",
            image_is(lambda i: tiff(i.astype(np.float32) / 7), ".tif"),
            "same_dtype",
            "float32",
            "images/{key}.tif",
        ),
        Fault("grey among RGB", image_is(lambda i: png(i[:, :, 0])), "same_channels", "1 channel"),
        Fault(
            "a volume among images",
            image_is(lambda i: nifti(i.transpose(2, 0, 1)), ".nii.gz"),
            "same_axes",
            "3D",
            "images/{key}.nii.gz",
            other_errors=("same_channels", "sizes_match"),
        ),
        Fault("symbolic link to itself", link("{key}.png"), "readable_files", "", "{key}.png"),
        Fault("dangling link", link("nowhere.png"), "readable_files", "", "{key}.png"),
        Fault("folder named like an image", folder_named_like_an_image, "readable_files", "", "{key}.png"),
        Fault("no permission to read", unreadable, "readable_files", "ermission"),
        Fault(
            "the image of a train row in test",
            copy_of("sound-00"),
            "no_copies_across_splits",
            "the same image as images/sound-00.png",
            split="test",
        ),
        Fault(
            "an image with two masks",
            copy_of("sound-01", other_mask=True),
            "one_mask_an_image",
            "the same image as images/sound-01.png, with another mask",
        ),
        Fault(
            "an image that occurs twice",
            copy_of("sound-02"),
            "unique_content",
            "the same image and mask as images/sound-02.png",
            severity="warning",
        ),
        Fault(
            "re-encoded image in test",
            reencoded("sound-03"),
            "near_duplicates",
            "nearly the same image (test) as images/sound-03.png (train)",
            "images/{key}.jpg",
            "warning",
            "test",
        ),
        Fault(
            "one grey value",
            image_is(lambda i: png(np.full_like(i, 90))),
            "blank_images",
            "all pixels have the same value",
            severity="warning",
        ),
        Fault(
            "far too bright",
            image_is(lambda i: png(255 - i // 20)),
            "outlier_intensity",
            "robust deviations from the others",
            severity="warning",
        ),
        Fault(
            "out of focus",
            image_is(lambda i: png(cv2.GaussianBlur(i, (0, 0), 8))),
            "blurred_images",
            "robust deviations below",
            severity="warning",
        ),
        Fault("far too large", _enlarged, "outlier_size", "5.0 times longer", severity="warning"),
        Fault(
            "CMYK JPEG",
            image_is(lambda i: faulty_data.pillow(i, "CMYK", "JPEG", quality=95), ".jpg"),
            "converted_images",
            "CMYK",
            "images/{key}.jpg",
            "note",
        ),
        Fault(
            "alpha",
            image_is(lambda i: faulty_data.pillow(i, "RGBA", "PNG")),
            "converted_images",
            "alpha",
            severity="note",
        ),
        Fault(
            "palette image",
            image_is(lambda i: faulty_data.pillow(i, "P", "PNG")),
            "converted_images",
            "palette",
            severity="note",
        ),
        Fault("rotated by EXIF", _rotated, "converted_images", "turned upright", "images/{key}.jpg", "note"),
        Fault("PNG named JPEG", image_is(png, ".jpg"), "", VALID_IMAGE, "images/{key}.jpg"),
        Fault("upper-case ending", image_is(png, ".PNG"), "", VALID_IMAGE, "images/{key}.PNG"),
        Fault(
            "TIFF with LZW",
            image_is(lambda i: tiff(i, compression="lzw"), ".tiff"),
            "",
            VALID_IMAGE,
            "images/{key}.tiff",
        ),
    ]


def _mask_faults() -> list[Fault]:
    return [
        Fault("no mask", mask_is(lambda m: None), "masks_present", "no mask"),
        Fault(
            "mask without image",
            lambda d, k: put(d, k, None, png(sample(3)[1])),
            "readable_files",
            "a mask without an image",
            "masks/{key}.png",
        ),
        Fault("truncated mask", mask_is(lambda m: cut(png(m))), "readable_files", "masks/{key}.png: cannot be decoded"),
        Fault("empty mask file", mask_is(lambda m: b""), "readable_files", "masks/{key}.png: the file is empty"),
        Fault("text as mask", mask_is(lambda m: b"mask"), "readable_files", "masks/{key}.png: is not an image"),
        Fault(
            "mask bomb",
            mask_is(lambda m: faulty_data.png_of_header(50000, 50000)),
            "readable_files",
            "masks/{key}.png: the image has too many pixels",
        ),
        Fault(
            "mask in colours",
            mask_is(lambda m: png(np.dstack([m * 9, m * 20, m]))),
            "readable_files",
            "masks/{key}.png: the mask is in colours",
        ),
        Fault(
            "mask of fractions",
            mask_is(lambda m: tiff(m.astype(np.float32) / 4)),
            "readable_files",
            "masks/{key}.png: the values of the mask are not class values",
        ),
        Fault(
            "mask of NaN",
            mask_is(lambda m: tiff(np.full(m.shape, np.nan, np.float32))),
            "readable_files",
            "masks/{key}.png",
        ),
        Fault(
            "mask below zero",
            mask_is(lambda m: tiff(m.astype(np.int32) - 1)),
            "readable_files",
            "masks/{key}.png: the values of the mask are not class values",
        ),
        Fault(
            "image and mask swapped",
            swapped,
            "readable_files",
            "masks/{key}.png: the mask is in colours",
            other_errors=("same_channels",),
        ),
        Fault("mask of another size", mask_is(lambda m: png(m[:-1])), "sizes_match", "a mask of 64 x 47"),
        Fault("mask on its side", mask_is(lambda m: png(m.T.copy())), "sizes_match", "a mask of 48 x 64"),
        Fault("classes counted from 1", values((2, 3), (1, 2), (0, 1)), "known_classes", "unknown value 3 ("),
        Fault("anti-aliased mask", values((2, 254)), "known_classes", "unknown value 254 ("),
        Fault("mask of 0 and 255", values((1, 255)), "known_classes", "unknown value 255 ("),
        Fault("mask of 16 bits", values((2, 40000)), "known_classes", "unknown value 40000 ("),
        Fault("smoothed mask", mask_is(lambda m: png(cv2.GaussianBlur(m * 90, (0, 0), 3))), "known_classes", "and "),
        Fault(
            "mask of nothing",
            mask_is(lambda m: png(m * 0)),
            "near_empty_masks",
            "0.000% of the mask",
            severity="warning",
        ),
        Fault(
            "instances of another size",
            instances_of_another_size,
            "readable_files",
            "instances/{key}.png: not the size of its image",
        ),
    ]


def _animated(image: np.ndarray) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    frames = [Image.fromarray(image), Image.fromarray(255 - image)]
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return stream.getvalue()


def _enlarged(data: Path, key: str) -> None:
    shape = (faulty_data.SHAPE[0] * 5, faulty_data.SHAPE[1] * 5)
    image, mask = sample(55, shape)
    put(data, key, png(image), png(mask))


def _rotated(data: Path, key: str) -> None:
    from PIL import Image

    image, mask = sample(66)
    exif = Image.Exif()
    exif[274] = 3
    content = faulty_data.pillow(np.ascontiguousarray(image[::-1, ::-1]), "RGB", "JPEG", quality=95, exif=exif)
    put(data, key, content, png(mask), ".jpg")


def volume_is(
    make: Callable[[np.ndarray, np.ndarray], tuple[bytes | None, bytes | None]],
) -> Callable[[Path, str], None]:
    """Write a volume and its label with bytes made from valid ones."""
    return lambda data, key: put(data, key, *make(*volume(sum(map(ord, key)))), ending=".nii.gz")


VOXEL = "images/{key}.nii.gz"
VOLUME_FAULTS = [
    Fault(
        "truncated volume",
        volume_is(lambda v, m: (cut(nifti(v)), nifti(m))),
        "readable_files",
        "cannot be decoded",
        VOXEL,
    ),
    Fault("empty volume file", volume_is(lambda v, m: (b"", nifti(m))), "readable_files", "the file is empty", VOXEL),
    Fault(
        "text as volume",
        volume_is(lambda v, m: (b"no volume", nifti(m))),
        "readable_files",
        "not an image in a supported format",
        VOXEL,
    ),
    Fault(
        "volume bomb by header",
        volume_is(lambda v, m: (faulty_data.nifti_of_header(30000, 30000, 30000), nifti(m))),
        "readable_files",
        "too many voxels",
        VOXEL,
    ),
    Fault(
        "volume bomb by gzip",
        volume_is(lambda v, m: (faulty_data.gzip_bomb(), nifti(m))),
        "sizes_match",
        "a mask of 12 x 10 x 6",
        VOXEL,
    ),
    Fault(
        "volume cut behind its header",
        volume_is(lambda v, m: (faulty_data.nifti_of_header(20, 20, 20), nifti(m))),
        "readable_files",
        "cut short",
        VOXEL,
    ),
    Fault(
        "NaN in a volume",
        volume_is(lambda v, m: (nifti(np.where(m == 2, np.nan, v).astype(np.float32)), nifti(m))),
        "readable_files",
        "NaN or infinity",
        VOXEL,
    ),
    Fault(
        "complex voxels",
        volume_is(lambda v, m: (nifti(v.astype(np.complex64)), nifti(m))),
        "readable_files",
        "unsupported type of voxels",
        VOXEL,
    ),
    Fault("no label", volume_is(lambda v, m: (nifti(v), None)), "masks_present", "no mask", VOXEL),
    Fault(
        "label of another shape",
        volume_is(lambda v, m: (nifti(v), nifti(m[:-1]))),
        "sizes_match",
        "a mask of 12 x 10 x 5",
        VOXEL,
    ),
    Fault(
        "label on its side",
        volume_is(lambda v, m: (nifti(v), nifti(np.ascontiguousarray(m.transpose(0, 2, 1))))),
        "sizes_match",
        "a mask of 10 x 12 x 6",
        VOXEL,
    ),
    Fault(
        "label of another spacing",
        volume_is(lambda v, m: (nifti(v), nifti(m, (1, 1, 2)))),
        "spacings_match",
        "a label with voxels of 1 x 1 x 2 mm",
        VOXEL,
    ),
    Fault(
        "label in another orientation",
        volume_is(lambda v, m: (nifti(v), nifti(m, flips=(-1, -1, 1)))),
        "orientations_match",
        "a label in LPS",
        VOXEL,
    ),
    Fault(
        "label in another place",
        volume_is(lambda v, m: (nifti(v), nifti(m, origin=(0, 2, 0)))),
        "origins_match",
        "2 voxels away from its volume",
        VOXEL,
        severity="warning",
    ),
    Fault(
        "label of an unknown class",
        volume_is(lambda v, m: (nifti(v), nifti(m * 4))),
        "known_classes",
        "unknown values 4 (",
        VOXEL,
    ),
    Fault(
        "label of fractions",
        volume_is(lambda v, m: (nifti(v), nifti(m * np.float32(0.3)))),
        "readable_files",
        "not class values",
        VOXEL,
    ),
    Fault(
        "volume of whole numbers",
        volume_is(lambda v, m: (nifti(v.astype(np.uint8)), nifti(m))),
        "volume_dtypes",
        "uint8",
        VOXEL,
        "warning",
    ),
    Fault(
        "volume in other units",
        volume_is(lambda v, m: (nifti(v * 9000), nifti(m))),
        "outlier_intensity",
        "robust deviations",
        VOXEL,
        "warning",
    ),
]
FAULTS = [*_image_faults(), *_mask_faults()]


def key_of(fault: Fault) -> str:
    return "bad-" + fault.name.replace(" ", "-")


@dataclass(frozen=True)
class ValidatedWorkspace:
    """A workspace after ingest, validate and prepare."""

    root: Path
    findings: list[dict]
    quarantined: list[str]


def _validate(root: Path, faults: list[Fault], volumes: bool) -> ValidatedWorkspace:
    data = root / "data"
    split_of = faulty_data.write_valid(data, VALID, volumes)
    for fault in faults:
        fault.make(data, key_of(fault))
        if any((data / "images").glob(key_of(fault) + ".*")) and fault.file != "{key}.png":
            split_of[key_of(fault)] = fault.split
    faulty_data.write_samples(data, split_of)
    (root / "params.yaml").write_text("validate: {quarantine: true}\ncandidates: {kmeans: {family: kmeans}}\n")
    stages.ingest(root)
    stages.validate(root)
    stages.prepare(root)
    report = json.loads((root / "reports" / "validation" / "findings.json").read_text())
    assert report["passed"]
    return ValidatedWorkspace(root, report["findings"], report["quarantined"])


@pytest.fixture(scope="module")
def image_workspace(tmp_path_factory: pytest.TempPathFactory) -> ValidatedWorkspace:
    return _validate(tmp_path_factory.mktemp("images"), FAULTS, volumes=False)


@pytest.fixture(scope="module")
def volume_workspace(tmp_path_factory: pytest.TempPathFactory) -> ValidatedWorkspace:
    return _validate(tmp_path_factory.mktemp("volumes"), VOLUME_FAULTS, volumes=True)


def check(fault: Fault, workspace: ValidatedWorkspace) -> None:
    key = key_of(fault)
    findings = [f for f in workspace.findings if key in (f["file"] or "") or key in f["found"]]
    if not fault.finding:
        assert findings == []
        return
    (finding,) = [
        f for f in findings if f["expectation"] == fault.finding and f["file"].endswith(fault.file.format(key=key))
    ]
    assert fault.words.format(key=key) in finding["found"]
    assert finding["severity"] == fault.severity
    assert finding["expected"]
    assert finding["fix"]
    assert str(workspace.root) not in json.dumps(finding)
    assert (finding["file"] in workspace.quarantined) == (fault.severity == "error")
    others = {f["expectation"] for f in findings if f["severity"] == "error"} - {fault.finding}
    assert others == set(fault.other_errors)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_broken_file_is_named(fault: Fault, image_workspace: ValidatedWorkspace) -> None:
    if fault.make is unreadable and os.geteuid() == 0:
        pytest.skip("root can read every file")
    check(fault, image_workspace)


@pytest.mark.parametrize("fault", VOLUME_FAULTS, ids=lambda fault: fault.name)
def test_a_broken_volume_is_named(fault: Fault, volume_workspace: ValidatedWorkspace) -> None:
    check(fault, volume_workspace)


@pytest.mark.parametrize("volumes", [False, True], ids=["images", "volumes"])
def test_with_quarantine_the_valid_files_reach_the_shards(volumes: bool, request: pytest.FixtureRequest) -> None:
    workspace: ValidatedWorkspace = request.getfixturevalue("volume_workspace" if volumes else "image_workspace")
    faults = VOLUME_FAULTS if volumes else FAULTS
    quarantined = {key_of(fault) for fault in faults if fault.severity == "error" and fault.finding}
    if os.geteuid() == 0:
        quarantined -= {key_of(fault) for fault in faults if fault.make is unreadable}
    copied = set() if volumes else {"sound-00", "sound-01"}  # it is unknown which of two contradicting copies is right
    expected = ({*VALID} | {key_of(fault) for fault in faults}) - quarantined - copied
    shards = workspace.root / "artifacts" / "shards"
    readers = {split: ShardReader(shards, split) for split in SPLITS}
    assert {key for reader in readers.values() for key in reader.keys} == expected
    fingerprint = Fingerprint.read(shards / "fingerprint.json")
    assert fingerprint.n_images == {split: len(reader) for split, reader in readers.items()}
    for split, reader in readers.items():
        assert fingerprint.class_pixels[split] == reader.class_pixels.sum(0).tolist()
    page = (workspace.root / "reports" / "validation" / "index.html").read_text()
    assert all(f"<code>{file}</code>" in page for file in workspace.quarantined)


def test_without_quarantine_an_error_stops_the_pipeline(image_workspace: ValidatedWorkspace, tmp_path: Path) -> None:
    for name in ("data", "artifacts"):
        (tmp_path / name).symlink_to(image_workspace.root / name)
    (tmp_path / "params.yaml").write_text("candidates: {kmeans: {family: kmeans}}\n")
    with pytest.raises(DataError, match=r"error\(s\) in the data.*reports/validation/index.html"):
        stages.validate(tmp_path)
    with pytest.raises(DataError, match="did not pass validation"):
        stages.prepare(tmp_path)


def test_there_are_many_different_faults() -> None:
    names = [fault.name for fault in (*FAULTS, *VOLUME_FAULTS)]
    assert len(names) == len(set(names)) >= 60
