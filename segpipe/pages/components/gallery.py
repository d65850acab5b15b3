"""Galleries of test images: pictures with their layers embedded as WebP, within a budget of bytes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.evaluation.gallery.pictures import Gallery
from segpipe.files import read_bytes
from segpipe.pages.filters import percent

MAX_IMAGE_BYTES = 6 << 20
"""Budget for the embedded pictures of a page, in bytes of base64; with everything else the page stays below 8 MB."""
_MAX_FILE_BYTES = 1 << 24

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""


@dataclass(frozen=True)
class GalleryImage:
    """A test image with its layers as files or pixels."""

    key: str
    kind: str
    """The heading under which it is shown: "behind", "ahead", "worst", "typical" or "best"."""
    note: str
    """Its scores, as text."""
    height: int
    width: int
    layers: Mapping[str, Path | Pixels]
    """By what they show: "image", "truth", "prediction" and so on."""


@dataclass(frozen=True)
class EmbeddedImage:
    """A `GalleryImage` whose layers are `data:` addresses."""

    key: str
    kind: str
    note: str
    height: int
    width: int
    layers: dict[str, str]


def read_gallery(folder: Path, gallery: Gallery) -> list[GalleryImage]:
    """Return the images of a gallery that `evaluate` wrote. folder: where its files are."""
    return [
        GalleryImage(
            picture.key,
            picture.kind,
            f"IoU {picture.iou_macro:.3f} · {percent(picture.accuracy, 1)} right",
            picture.height,
            picture.width,
            {layer: folder / name for layer, name in picture.layers.items()},
        )
        for picture in gallery.pictures
    ]


def embed_images(images: Sequence[GalleryImage], max_bytes: int = MAX_IMAGE_BYTES) -> list[EmbeddedImage]:
    """Embed as many images as fit into a budget, taking one of each kind in turn.

    Args:
        images: In the order of the page.
        max_bytes: Budget for all layers of all images, in bytes of base64.

    Returns:
        The images that fit, in the order given.
    """
    embedded: dict[int, EmbeddedImage] = {}
    bytes_left = max_bytes
    for index in _in_turn([image.kind for image in images]):
        image = images[index]
        layers = {layer: _embed(source) for layer, source in image.layers.items()}
        bytes_left -= sum(map(len, layers.values()))
        if bytes_left < 0:
            break
        embedded[index] = EmbeddedImage(image.key, image.kind, image.note, image.height, image.width, layers)
    return [embedded[index] for index in sorted(embedded)]


def _in_turn(kinds: Sequence[str]) -> list[int]:
    """Return the indices in an order in which each kind has its first item before any kind has its second."""
    counts: dict[str, int] = {}
    order = []
    for index, kind in enumerate(kinds):
        counts[kind] = counts.get(kind, 0) + 1
        order.append((counts[kind], index))
    return [index for _, index in sorted(order)]


def _embed(source: Path | Pixels) -> str:
    import cv2

    from segpipe.pages.data_uris import webp_uri

    if isinstance(source, Path):
        bgr = cv2.imdecode(np.frombuffer(read_bytes(source, _MAX_FILE_BYTES), np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None, f"{source} was written by the evaluation"
        return webp_uri(bgr[:, :, ::-1])
    return webp_uri(source)


def layer_names(images: Sequence[EmbeddedImage]) -> list[str]:
    """Return the names of all layers, each once, in the order of their first occurrence."""
    return list(dict.fromkeys(layer for image in images for layer in image.layers))


def tile_ratio(images: Sequence[EmbeddedImage]) -> float:
    """Return the aspect ratio (width / height) of the frames of all images: the median of theirs, between 0.7 and 3.2."""
    if not images:
        return 1.0
    return round(min(3.2, max(0.7, statistics.median(image.width / image.height for image in images))), 3)
