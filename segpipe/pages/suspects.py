"""Suspected label errors for people: a page to go through by keyboard, a table to take along."""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.curation.suspects import BORDER_PIXELS, Suspect, SuspectSample, choose_candidate, find_suspects, fold_of
from segpipe.errors import ConfigError, MissingError
from segpipe.files import write_text
from segpipe.progress import say
from segpipe.samples import ClassTable

MAX_EDGE = 400
"""Longest edge of a picture in pixels."""

MAX_PICTURE_BYTES = 6 << 20
"""Of all pictures together; suspects after that are in the table alone, and the page stays under 8 MB."""

_PART = 3
"""A large image is shown in part: this many times as large as its largest region."""
_LEAST_PART = 256
_UNSEEN = ("val", "test")
"""What one network never trained on. Of an ensemble, some member never trained on any image."""
_DOUBT = (255, 0, 170)

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
"""Of suspects.csv: a row an image, the columns from x to suggested are of its largest region."""


class SuspectList(BaseModel):
    """What `segpipe data suspects --json` prints."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    candidate: str
    images: int
    """Images that were looked at."""
    out_of_fold: int = 0
    """Those of them, of train and val, that were judged by the member of an ensemble that never saw them."""
    found: int
    """Images with any doubt."""
    suspects: list[Suspect]
    """The most suspicious ones, in order."""


@dataclass(frozen=True)
class SuspectView:
    """A suspect as the page shows it: a photograph and three layers over it, as `data:` addresses of one size."""

    suspect: Suspect
    photo: str
    label: str
    prediction: str
    doubt: str
    width: int
    height: int
    part: str
    """Which part of a large image this is, in words; empty for a whole one."""


def write_suspects(root: Path, candidate: str | None, limit: int, page: Path) -> SuspectList:
    """Rank the images of val and test, of an ensemble those of train as well; write the `limit` first to `page`, and all into a CSV
    table of the same name beside it.

    candidate: as `choose_candidate` takes. Raises MissingError where a model or shards are missing.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.inference.trained_model import load_trained

    name = choose_candidate(root, candidate)
    shards = root / "artifacts" / "shards"
    segmenter = load_trained(root / "models" / name)
    if segmenter.spec.classes.overlapping:
        raise ConfigError(
            "suspects are pixels of another class than their label says, and these classes overlap",
            where=root / "models" / name,
            fix="look at the gallery of `segpipe report`, whose error pictures show what is too many and what lacks",
        )
    folds = fold_of(segmenter)
    splits = ("train", *_UNSEEN) if folds else _UNSEEN
    readers = [ShardReader(shards, split) for split in splits if any(shards.glob(f"{split}-*.arrow"))]
    if not readers:
        raise MissingError("no images to judge by", where=shards, fix="`segpipe prepare` writes them")
    _warn_of_other_data(root, segmenter.spec.lineage.get("data"))
    classes = segmenter.spec.classes
    every, sheets = rank_suspects(find_suspects(segmenter, readers), classes, limit)
    made = SuspectList(
        candidate=name,
        images=sum(map(len, readers)),
        out_of_fold=sum(key in folds for r in readers for key in r.keys),
        found=len(every),
        suspects=every[:limit],
    )
    write_text(page.with_suffix(".csv"), to_csv(every))
    write_text(page, render_suspects(made, sheets, classes))
    return made


def rank_suspects(
    cases: Iterable[SuspectSample], classes: ClassTable, limit: int
) -> tuple[list[Suspect], list[SuspectView]]:
    """All suspects by score, the highest first (equal ones by key), and the sheets of the first `limit`.

    Pictures are drawn as the cases come, of those that are among the first so far: no image is kept.
    """
    every: list[Suspect] = []
    best: list[tuple[float, int, SuspectView]] = []
    for place, case in enumerate(cases):
        every.append(case.suspect)
        if len(best) < limit or case.suspect.score > best[0][0]:
            entry = (case.suspect.score, -place, draw_suspect(case, classes))
            (heapq.heappush if len(best) < limit else heapq.heapreplace)(best, entry)
    every.sort(key=lambda suspect: (-suspect.score, suspect.key))
    sheets = sorted((sheet for _, _, sheet in best), key=lambda sheet: (-sheet.suspect.score, sheet.suspect.key))
    return every, sheets


def draw_suspect(case: SuspectSample, classes: ClassTable) -> SuspectView:
    """The pictures of one suspect; of a large image the part around the largest region, of a volume the slice of it."""
    import cv2

    from segpipe.data.drawing import label_layer, to_display
    from segpipe.pages.data_uris import layer_uri, photo_uri

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
    part, words = _part(region.x, region.y, region.width, region.height, labels.shape)
    scale = MAX_EDGE / max(part[0].stop - part[0].start, part[1].stop - part[1].start)
    scale = scale if scale < 1 else float(int(scale))
    size = tuple(max(1, round((s.stop - s.start) * scale)) for s in (part[1], part[0]))

    def resized(array: np.ndarray, how: int) -> npt.NDArray[Any]:
        return cv2.resize(np.ascontiguousarray(array[part]), size, interpolation=how)

    photo = cv2.resize(to_display(image[part]), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    doubt = np.zeros((size[1], size[0], 4), np.uint8)
    doubt[:, :, :3] = _DOUBT
    seen = resized(weights, cv2.INTER_NEAREST)
    doubt[:, :, 3] = np.where(seen > 0, 70 + 110 * seen, 0)
    x, y = (region.x - part[1].start) * scale, (region.y - part[0].start) * scale
    corners = (round(x) - 4, round(y) - 4), (round(x + region.width * scale) + 3, round(y + region.height * scale) + 3)
    cv2.rectangle(doubt, *corners, (0, 0, 0, 255), 4)
    cv2.rectangle(doubt, *corners, (255, 255, 255, 255), 2)
    layers = [layer_uri(label_layer(resized(a, cv2.INTER_NEAREST), classes.colors)) for a in (labels, suggested)]
    place = f"slice {region.slice}" if region.slice is not None else ""
    told = ", ".join(filter(None, (place, words)))
    return SuspectView(case.suspect, photo_uri(photo), layers[0], layers[1], layer_uri(doubt), size[0], size[1], told)  # type: ignore[arg-type]


def _part(x: int, y: int, width: int, height: int, shape: Sequence[int]) -> tuple[tuple[slice, slice], str]:
    """What is shown of an image of this shape with a region in it: rows and columns, and words where it is not all."""
    edge = max(_PART * max(width, height), _LEAST_PART)
    spans = []
    for middle, length in ((y + height / 2, shape[0]), (x + width / 2, shape[1])):
        own = length if max(shape[:2]) <= MAX_EDGE else min(edge, length)
        start = min(max(round(middle - own / 2), 0), length - own)
        spans.append(slice(start, start + own))
    rows, columns = spans
    whole = rows.stop - rows.start == shape[0] and columns.stop - columns.start == shape[1]
    words = f"part of {shape[1]} × {shape[0]}, from x {columns.start}, y {rows.start}"
    return (rows, columns), "" if whole else words


def to_csv(suspects: Sequence[Suspect]) -> str:
    """The table of `COLUMNS`, in order."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for place, suspect in enumerate(suspects, start=1):
        largest = suspect.regions[0].model_dump()
        writer.writerow(suspect.model_dump() | largest | {"rank": place})
    return stream.getvalue()


def render_suspects(made: SuspectList, sheets: Sequence[SuspectView], classes: ClassTable) -> str:
    """The page. Sheets beyond `MAX_PICTURE_BYTES` are left to the table."""
    from segpipe.pages.environment import render

    shown: list[SuspectView] = []
    size = 0
    for sheet in sheets:
        size += len(sheet.photo) + len(sheet.label) + len(sheet.prediction) + len(sheet.doubt)
        if size > MAX_PICTURE_BYTES and shown:
            break
        shown.append(sheet)
    template = Path(__file__).parent / "templates" / "suspects.html"
    script = template.with_suffix(".js").read_text()
    return render(
        template, made=made, sheets=shown, classes=classes.classes, band=BORDER_PIXELS, doubt=_DOUBT, script=script
    )


def _warn_of_other_data(root: Path, trained_on: str | None) -> None:
    """A model of other data may have been trained on what is a test image now."""
    path = root / "artifacts" / "fingerprint.json"
    if trained_on is None or not path.exists():
        return
    from segpipe.data.manifest.fingerprint import Fingerprint

    if Fingerprint.read(path).data_hash != trained_on:
        say(
            "note: the model was trained on another version of the data; images that it saw then may look less suspicious"
        )
