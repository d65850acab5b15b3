"""Pictures as a page holds them: layers as WebP data URIs, few enough to keep the page small."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.evaluation.gallery.pictures import Gallery, Picture
from segpipe.files import read_bytes

MAX_IMAGE_BYTES = 6 << 20
"""Base64 of the embedded pictures; with everything else a page stays under 8 MB."""

_QUALITY = 82

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""


@dataclass(frozen=True)
class GalleryImage:
    """One image of the test set, drawn: its layers by what they show, as files or as pixels. note: its scores, in words."""

    key: str
    kind: str
    note: str
    height: int
    width: int
    layers: Mapping[str, Path | Pixels]


@dataclass(frozen=True)
class EmbeddedImage:
    """A drawn image with its layers as data URIs."""

    key: str
    kind: str
    note: str
    height: int
    width: int
    layers: dict[str, str]


def read_gallery(folder: Path, gallery: Gallery) -> list[GalleryImage]:
    """The pictures of a gallery folder."""
    return [_drawn(folder, picture) for picture in gallery.pictures]


def _drawn(folder: Path, picture: Picture) -> GalleryImage:
    note = f"IoU {picture.iou_macro:.3f} · {100 * picture.accuracy:.1f} % right"
    files: dict[str, Path | Pixels] = {layer: folder / name for layer, name in picture.layers.items()}
    return GalleryImage(picture.key, picture.kind, note, picture.height, picture.width, files)


def embed_images(pictures: Sequence[GalleryImage], max_bytes: int = MAX_IMAGE_BYTES) -> list[EmbeddedImage]:
    """The pictures with their layers inside them, taking one of each kind in turn for as long as `max_bytes` lasts; what is kept
    stands in the order given."""
    kept: dict[int, EmbeddedImage] = {}
    left = max_bytes
    for place in _in_turn([picture.kind for picture in pictures]):
        one = pictures[place]
        layers = {layer: _webp_uri(source) for layer, source in one.layers.items()}
        left -= sum(map(len, layers.values()))
        if left < 0:
            break
        kept[place] = EmbeddedImage(one.key, one.kind, one.note, one.height, one.width, layers)
    return [kept[place] for place in sorted(kept)]


def _in_turn(kinds: Sequence[str]) -> Iterable[int]:
    """Places such that every kind has its first before any has its second."""
    seen: dict[str, int] = {}
    rank = [seen.setdefault(kind, -1) for kind in kinds]
    for place, kind in enumerate(kinds):
        seen[kind] += 1
        rank[place] = seen[kind]
    return sorted(range(len(kinds)), key=lambda place: (rank[place], place))


def layer_names(shots: Sequence[EmbeddedImage]) -> list[str]:
    """What the layers of these pictures show, each once, in the order in which they are met."""
    return list(dict.fromkeys(layer for shot in shots for layer in shot.layers))


def tile_ratio(shots: Sequence[EmbeddedImage]) -> float:
    """Width over height of the frames that pictures stand in, alike for all: the median of theirs, within reason."""
    return round(min(3.2, max(0.7, statistics.median(shot.width / shot.height for shot in shots))), 3) if shots else 1.0


def _webp_uri(source: Path | Pixels) -> str:
    import cv2

    if isinstance(source, Path):
        pixels = cv2.imdecode(np.frombuffer(read_bytes(source, 1 << 24), np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None, f"{source} was written by the evaluation"
    else:
        pixels = np.ascontiguousarray(source[:, :, ::-1])
    _, content = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return "data:image/webp;base64," + base64.b64encode(content.tobytes()).decode()
