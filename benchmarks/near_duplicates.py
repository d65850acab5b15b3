"""How many near-duplicates validation finds, and how many it sees where there are none.

    python benchmarks/near_duplicates.py [--data FOLDER ...] [--count 60]

Each image of a dataset (canonical layout: images/, ...; without a folder the demo's) is changed in every way of `CHANGES`, and the
changed copies stand in another split than the originals. Found: the share of the copies that are told to resemble one of
them, by hashes alone and with miniatures. False: pairs told among the unchanged images, dealt out to two splits.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from segpipe.config import DataParams, ValidateParams
from segpipe.data.dataset import load_dataset
from segpipe.data.images import read_image
from segpipe.data.images.statistics import miniature, moments, perceptual_hash, reduce_to_grey
from segpipe.validation.duplicates import near_duplicates

Change = Callable[[np.ndarray], np.ndarray]


def compressed(quality: int) -> Change:
    """Saved as JPEG."""

    def change(image: np.ndarray) -> np.ndarray:
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(content, cv2.IMREAD_UNCHANGED)).reshape(image.shape)

    return change


def brighter(factor: float) -> Change:
    """All values times a factor, cut off at 255."""
    return lambda image: np.clip(np.round(image * factor), 0, 255).astype(np.uint8)


def shifted(pixels: int) -> Change:
    """Moved to the right and down; what is missing is mirrored."""
    matrix = np.array([[1, 0, pixels], [0, 1, pixels]], np.float32)

    def change(image: np.ndarray) -> np.ndarray:
        size = image.shape[1::-1]
        return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT).reshape(image.shape)

    return change


def resized(factor: float) -> Change:
    """Scaled in both directions."""

    def change(image: np.ndarray) -> np.ndarray:
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)
        return small.reshape(*small.shape[:2], image.shape[2])

    return change


def cropped(share: float) -> Change:
    """A margin less on every side, both together a share of the edge."""

    def change(image: np.ndarray) -> np.ndarray:
        top, left = (round(edge * share / 2) for edge in image.shape[:2])
        return np.ascontiguousarray(image[top : image.shape[0] - top, left : image.shape[1] - left])

    return change


CHANGES: Mapping[str, Change] = {
    **{f"JPEG {quality}": compressed(quality) for quality in (30, 60, 95)},
    **{f"brightness {factor:g}": brighter(factor) for factor in (0.9, 1.1)},
    **{f"shift {pixels}": shifted(pixels) for pixels in (1, 2, 4, 8, 16)},
    **{f"size {factor:g}": resized(factor) for factor in (0.5, 0.75, 1.5, 2)},
    **{f"crop {share:.0%}".replace("%", " %"): cropped(share) for share in (0.02, 0.05)},
}


def look(path: str, image: np.ndarray, split: str) -> dict[str, object]:
    """What a manifest says of an image, as far as near-duplicates go."""
    mean, std, _, _ = moments(image)
    plane = reduce_to_grey(image)
    return {
        "path": path,
        "split": split,
        "sha256": path,
        "error": None,
        "phash": perceptual_hash(plane),
        "miniature": miniature(plane),
        "height": image.shape[0],
        "width": image.shape[1],
        "channels": image.shape[2],
        "depth": None,
        "mean": mean,
        "std": std,
    }


def recall(images: Mapping[str, np.ndarray], change: Change, likeness: float) -> float:
    """The share of changed copies, in test, that are told to resemble an image of train, where the originals stand."""
    rows = [look(key, image, "train") for key, image in images.items()]
    rows += [look(f"changed {key}", change(image), "test") for key, image in images.items()]
    found = _told(rows, likeness)
    return sum(f"changed {key}" in found for key in images) / len(images)


def false_pairs(images: Mapping[str, np.ndarray], likeness: float) -> dict[str, str]:
    """{image: the one that it is told to resemble} among unchanged images, every other one in test."""
    rows = [look(key, image, ("train", "test")[place % 2]) for place, (key, image) in enumerate(images.items())]
    return _told(rows, likeness)


def _told(rows: list[dict[str, object]], likeness: float) -> dict[str, str]:
    params, frame = ValidateParams(), pd.DataFrame(rows).astype({"depth": "Int64"})
    found = near_duplicates(frame, params.near_duplicate_distance, params.near_duplicate_intensity, likeness)
    return {str(frame.at[place, "path"]): near.path for place, near in found.items()}


def load(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Up to `count` pictures of 8 bits of a dataset, evenly spread."""
    items = load_dataset(folder).items
    kept = items[:: max(1, len(items) // count)]
    return {item.key: image for item in kept if (image := read_image(item.image, DataParams())).dtype == np.uint8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[])
    parser.add_argument("--count", type=int, default=60)
    wanted = parser.parse_args()
    params = ValidateParams()
    with tempfile.TemporaryDirectory() as scratch:
        folders = wanted.data or [_demo(Path(scratch) / "data")]
        for folder in folders:
            images = load(folder, wanted.count)
            print(f"{folder}: {len(images)} images")
            print(f"  {'change':16} {'hashes':>8} {'and miniatures':>15}")
            for name, change in CHANGES.items():
                shares = [recall(images, change, likeness) for likeness in (2.0, params.near_duplicate_likeness)]
                print(f"  {name:16} {shares[0]:8.0%} {shares[1]:15.0%}")
            told = [false_pairs(images, likeness) for likeness in (2.0, params.near_duplicate_likeness)]
            print(
                f"  {'false':16} {len(told[0]):8} {len(told[1]):15}   {', '.join(f'{a} ~ {b}' for a, b in [*told[1].items()][:4])}"
            )


def _demo(folder: Path) -> Path:
    from segpipe.data.demo.write import write_demo

    write_demo(folder)
    return folder


if __name__ == "__main__":
    main()
