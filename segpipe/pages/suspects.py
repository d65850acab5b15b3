"""The page of `segpipe data suspects`: suspected label errors to review by keyboard, and a CSV table of all of them."""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.curation.suspects import BORDER_PIXELS, Suspect, SuspectSample, choose_candidate, find_suspects, fold_of
from segpipe.data.drawing import label_layer, to_display
from segpipe.errors import ConfigError, MissingError
from segpipe.files import write_text
from segpipe.pages.data_uris import layer_uri, photo_uri
from segpipe.pages.environment import render
from segpipe.progress import say
from segpipe.samples import ClassTable
from segpipe.workspace.paths import Paths

MAX_EDGE = 400
"""Longest edge of a picture, in pixels."""

MAX_PICTURE_BYTES = 6 << 20
"""Budget for all pictures, in bytes of base64. Suspects beyond it are only in the table, and the page stays below 8 MB."""

_PART_FACTOR = 3
"""Edge of the part of a large image that is shown, in edges of its largest region."""
_MIN_PART_EDGE = 256
"""Edge of the smallest part that is shown, in pixels of the image."""
_HELD_OUT_SPLITS = ("val", "test")
"""The splits that a single network was not trained on. In an ensemble, each image is held out from one member."""
_DOUBT_COLOR = (255, 0, 170)
_DOUBT_MIN_ALPHA, _DOUBT_ALPHA_RANGE = 70, 110
"""Opacity of a pixel in doubt, of 255: the least, and what certainty adds to it."""

COLUMNS = (
    "rank",
    "key",
    "split",
    "group",
    "score",
    "share",
    "places",
    "x",
    "y",
    "width",
    "height",
    "slice",
    "pixels",
    "mass",
    "given",
    "suggested",
    "fold",
)
"""The columns of suspects.csv, which has one row per image. Those from x to suggested describe its largest region."""


class SuspectList(BaseModel):
    """The output of `segpipe data suspects --json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    candidate: str
    images: int
    """Images that were examined."""
    out_of_fold: int = 0
    """Images of train and val among them that were judged by the member of an ensemble that was not trained on them."""
    found: int
    """Images with at least one region in doubt."""
    suspects: list[Suspect]
    """The most suspicious images, in order."""


@dataclass(frozen=True)
class SuspectView:
    """A suspect as the page shows it: a photograph and three layers over it, as `data:` addresses of the same size."""

    suspect: Suspect
    photo: str
    label: str
    prediction: str
    doubt: str
    width: int
    height: int
    part: str
    """The part of a large image, or the slice of a volume, that is shown, as text; empty for a whole image."""


def write_suspects(root: Path, candidate: str | None, limit: int, page: Path) -> SuspectList:
    """Rank images by how likely their labels are wrong, and write the page and the table.

    The images of val and test are examined; with an ensemble of cross-validation, those of train as well.

    Args:
        root: The workspace.
        candidate: Whose model judges; None: see `choose_candidate`.
        limit: How many suspects the page shows.
        page: Where the page is written; the table of all suspects has the same name with the suffix .csv.

    Returns:
        The first `limit` suspects.

    Raises:
        MissingError: There is no model, or there are no shards.
        ConfigError: The classes overlap, or several models could be meant.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.inference.trained_model import load_trained

    name = choose_candidate(root, candidate)
    shards = Paths(root).shards
    segmenter = load_trained(Paths(root).model(name))
    classes = segmenter.spec.classes
    if classes.overlapping:
        raise ConfigError(
            "suspected label errors cannot be found for classes that overlap",
            where=Paths(root).model(name),
            fix="look at the gallery of `segpipe report`, whose error pictures show false alarms and missed pixels",
        )
    folds = fold_of(segmenter)
    splits = ("train", *_HELD_OUT_SPLITS) if folds else _HELD_OUT_SPLITS
    readers = [ShardReader(shards, split) for split in splits if any(shards.glob(f"{split}-*.arrow"))]
    if not readers:
        raise MissingError("no images to examine", where=shards, fix="`segpipe prepare` writes them")
    _warn_of_other_data(root, segmenter.spec.lineage.get("data"))
    suspects, views = rank_suspects(find_suspects(segmenter, readers), classes, limit)
    result = SuspectList(
        candidate=name,
        images=sum(map(len, readers)),
        out_of_fold=sum(key in folds for reader in readers for key in reader.keys),
        found=len(suspects),
        suspects=suspects[:limit],
    )
    write_text(page.with_suffix(".csv"), to_csv(suspects))
    write_text(page, render_suspects(result, views, classes))
    return result


def rank_suspects(
    cases: Iterable[SuspectSample], classes: ClassTable, limit: int
) -> tuple[list[Suspect], list[SuspectView]]:
    """Rank suspects by score, the highest first; equal scores by key.

    Pictures are drawn as the cases come, of those that are among the first so far, so that no image stays in memory.

    Args:
        cases: The suspects with their images.
        classes: Gives the colours.
        limit: How many suspects are drawn.

    Returns:
        All suspects, and the views of the first `limit`.
    """
    suspects: list[Suspect] = []
    best: list[tuple[float, int, SuspectView]] = []
    for index, case in enumerate(cases):
        suspects.append(case.suspect)
        if len(best) < limit or case.suspect.score > best[0][0]:
            entry = (case.suspect.score, -index, draw_suspect(case, classes))
            (heapq.heappush if len(best) < limit else heapq.heapreplace)(best, entry)
    suspects.sort(key=lambda suspect: (-suspect.score, suspect.key))
    views = sorted((view for _, _, view in best), key=lambda view: (-view.suspect.score, view.suspect.key))
    return suspects, views


def draw_suspect(case: SuspectSample, classes: ClassTable) -> SuspectView:
    """Draw a suspect: of a large image the part around the largest region, of a volume the slice with most of it."""
    region = case.suspect.regions[0]
    image, labels, suggested, weights = (
        case.sample.image,
        case.sample.labels,
        case.doubts.suggested,
        case.doubts.weights,
    )
    assert labels is not None
    if region.slice is not None:
        image, labels, suggested, weights = (a[region.slice] for a in (image, labels, suggested, weights))
    part, part_text = _part(region.x, region.y, region.width, region.height, labels.shape)
    scale = MAX_EDGE / max(part[0].stop - part[0].start, part[1].stop - part[1].start)
    scale = scale if scale < 1 else float(int(scale))
    width, height = (max(1, round((span.stop - span.start) * scale)) for span in (part[1], part[0]))

    def resize(array: np.ndarray) -> npt.NDArray[Any]:
        return cv2.resize(np.ascontiguousarray(array[part]), (width, height), interpolation=cv2.INTER_NEAREST)

    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    photo = cv2.resize(to_display(image[part]), (width, height), interpolation=smooth)
    x, y = (region.x - part[1].start) * scale, (region.y - part[0].start) * scale
    doubt = _draw_doubt(resize(weights), (x, y, region.width * scale, region.height * scale))
    layers = [layer_uri(label_layer(resize(ids), classes.colors)) for ids in (labels, suggested)]
    slice_text = f"slice {region.slice}" if region.slice is not None else ""
    text = ", ".join(filter(None, (slice_text, part_text)))
    return SuspectView(case.suspect, photo_uri(photo), layers[0], layers[1], layer_uri(doubt), width, height, text)


def _draw_doubt(weights: npt.NDArray[np.float32], box: tuple[float, float, float, float]) -> npt.NDArray[np.uint8]:
    """Draw doubtful pixels, (H, W) -> (H, W, 4) RGBA, the more opaque the surer the model is, with a frame around a box."""
    layer = np.zeros((*weights.shape, 4), np.uint8)
    layer[:, :, :3] = _DOUBT_COLOR
    layer[:, :, 3] = np.where(weights > 0, _DOUBT_MIN_ALPHA + _DOUBT_ALPHA_RANGE * weights, 0)
    x, y, width, height = box
    corners = (round(x) - 4, round(y) - 4), (round(x + width) + 3, round(y + height) + 3)
    cv2.rectangle(layer, *corners, (0, 0, 0, 255), 4)
    cv2.rectangle(layer, *corners, (255, 255, 255, 255), 2)
    return layer


def _part(x: int, y: int, width: int, height: int, shape: Sequence[int]) -> tuple[tuple[slice, slice], str]:
    """Choose the part of an image that is shown around a region.

    Returns:
        Rows and columns, and which part this is as text (empty for the whole image).
    """
    edge = max(_PART_FACTOR * max(width, height), _MIN_PART_EDGE)
    spans = []
    for middle, length in ((y + height / 2, shape[0]), (x + width / 2, shape[1])):
        size = length if max(shape[:2]) <= MAX_EDGE else min(edge, length)
        start = min(max(round(middle - size / 2), 0), length - size)
        spans.append(slice(start, start + size))
    rows, columns = spans
    whole = rows.stop - rows.start == shape[0] and columns.stop - columns.start == shape[1]
    text = f"part of {shape[1]} × {shape[0]}, from x {columns.start}, y {rows.start}"
    return (rows, columns), "" if whole else text


def to_csv(suspects: Sequence[Suspect]) -> str:
    """Return the table of all suspects, with `COLUMNS`, in the order given."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for rank, suspect in enumerate(suspects, start=1):
        largest = suspect.regions[0].model_dump()
        writer.writerow(suspect.model_dump() | largest | {"rank": rank})
    return stream.getvalue()


def render_suspects(result: SuspectList, views: Sequence[SuspectView], classes: ClassTable) -> str:
    """Render the page. Views beyond `MAX_PICTURE_BYTES` are left out."""
    shown: list[SuspectView] = []
    size = 0
    for view in views:
        size += len(view.photo) + len(view.label) + len(view.prediction) + len(view.doubt)
        if size > MAX_PICTURE_BYTES and shown:
            break
        shown.append(view)
    return render(
        "suspects.html.j2",
        result=result,
        views=shown,
        classes=classes.classes,
        band=BORDER_PIXELS,
        doubt_color=_DOUBT_COLOR,
    )


def _warn_of_other_data(root: Path, trained_on: str | None) -> None:
    """Warn if the model was trained on other data, since it may then have been trained on images that are in val or test now."""
    path = Paths(root).fingerprint
    if trained_on is None or not path.exists():
        return
    from segpipe.data.manifest.fingerprint import Fingerprint

    if Fingerprint.read(path).data_hash != trained_on:
        say(
            "note: the model was trained on another version of the data; images that it was trained on may look less suspicious"
        )
