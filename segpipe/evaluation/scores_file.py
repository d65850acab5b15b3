"""Scores on disk: per_image.parquet, a row an image."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError, MissingError
from segpipe.evaluation.scores import ImageScore, Scores
from segpipe.files import atomic_path
from segpipe.labels import Labelling, labelling_of
from segpipe.metrics import macro, micro, tallies
from segpipe.metrics.detections import Detections
from segpipe.metrics.instances import InstanceCounts

_BATCH = 64
"""Images whose confusion matrices are held at once while reading and writing."""


def write_scores(
    path: Path,
    candidate: str,
    classes: list[str],
    lineage: dict[str, str],
    images: Iterable[ImageScore],
    overlapping: bool = False,
) -> None:
    """Write per_image.parquet, a row an image; only a few images are held at a time. The same scores give the same bytes.

    Columns: key, group, height, width, confusion (flattened, row = truth), boundary (flattened, null where not counted),
    iou_macro and accuracy (null where nothing counts), traits (JSON), reliability and surface (flattened, null where not
    counted), millimetres (the unit of the lengths in surface), objects and object_iou (flattened, null where not counted),
    detections (scores) and detection_matches (`segpipe.metrics.detections.Detections.packed`).
    Candidate, class names, lineage and whether classes overlap stand in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    about: dict[str, Any] = {"candidate": candidate, "classes": classes, "lineage": lineage}
    about |= {"overlapping": True} if overlapping else {}
    labelling = labelling_of(len(classes), overlapping)
    schema = pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("group", pa.string()),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("confusion", pa.list_(pa.int64())),
            pa.field("boundary", pa.list_(pa.int64())),
            pa.field("iou_macro", pa.float64()),
            pa.field("accuracy", pa.float64()),
            pa.field("traits", pa.string()),
            pa.field("reliability", pa.list_(pa.float64())),
            pa.field("surface", pa.list_(pa.float64())),
            pa.field("millimetres", pa.bool_()),
            pa.field("objects", pa.list_(pa.int64())),
            pa.field("object_iou", pa.list_(pa.float64())),
            pa.field("detections", pa.list_(pa.float64())),
            pa.field("detection_matches", pa.list_(pa.int32())),
        ],
        metadata={"segpipe": json.dumps(about, sort_keys=True)},
    )
    with atomic_path(path) as target, pq.ParquetWriter(target, schema, compression="zstd") as writer:
        waiting: list[ImageScore] = []
        for image in images:
            waiting.append(image)
            if len(waiting) == _BATCH:
                writer.write_batch(_to_batch(waiting, schema, labelling))
                waiting = []
        writer.write_batch(_to_batch(waiting, schema, labelling))


def _to_batch(images: list[ImageScore], schema: object, labelling: Labelling) -> object:
    import pyarrow as pa

    right = [micro("recall", tallies(i.confusion)) for i in images]  # share of pixels that got their label
    columns = [
        [i.key for i in images],
        [i.group for i in images],
        [i.height for i in images],
        [i.width for i in images],
        [i.confusion.ravel() for i in images],
        [_flat(i.boundary) for i in images],
        [_known(macro("iou", tallies(i.confusion, labelling))) for i in images],
        [_known(share) for share in right],
        [json.dumps(dict(i.traits), sort_keys=True) for i in images],
        [_flat(i.reliability) for i in images],
        [_flat(i.surface) for i in images],
        [i.millimetres for i in images],
        [None if i.objects is None else i.objects.tallies.ravel() for i in images],
        [None if i.objects is None else i.objects.iou_sum for i in images],
        [None if i.detections is None else i.detections.scores for i in images],
        [None if i.detections is None else i.detections.packed() for i in images],
    ]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)  # type: ignore[call-overload]


def _flat(values: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    return None if values is None else values.ravel()


def _known(value: npt.NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)


def read_scores(path: Path) -> Scores:
    """Read per_image.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise MissingError("no scores here", where=path, fix="segpipe evaluate CANDIDATE, or dvc repro evaluate")
    try:
        file = pq.ParquetFile(path)
        about = json.loads(file.schema_arrow.metadata[b"segpipe"])
    except (pa.ArrowInvalid, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError("is no table of scores", where=path, fix="dvc repro evaluate writes it anew") from error
    n, overlapping = len(about["classes"]), about.get("overlapping", False)
    labels = labelling_of(n, overlapping).n_labels

    def images() -> Iterable[ImageScore]:
        for batch in file.iter_batches(_BATCH):
            for row in batch.to_pylist():
                counts = np.array(row["confusion"], np.int64).reshape(labels, labels)
                # Files of earlier versions lack the rest.
                bands = _shaped(row.get("boundary"), np.int64, n)
                sure, surface = (
                    _shaped(row.get("reliability"), np.float64, -1),
                    _shaped(row.get("surface"), np.float64, n),
                )
                yield ImageScore(
                    row["key"],
                    row["group"],
                    row["height"],
                    row["width"],
                    counts,
                    bands,
                    json.loads(row.get("traits") or "{}"),
                    sure,
                    surface,
                    bool(row.get("millimetres")),
                    _objects(row.get("objects"), row.get("object_iou"), n),
                    Detections.unpacked(row.get("detections"), row.get("detection_matches")),
                )

    return Scores.collect(about["candidate"], about["classes"], about["lineage"], images(), overlapping)


def _objects(tallies: list[int] | None, iou_sum: list[float] | None, n_classes: int) -> InstanceCounts | None:
    if tallies is None or iou_sum is None:
        return None
    return InstanceCounts(np.array(tallies, np.int64).reshape(-1, 3, n_classes), np.array(iou_sum, np.float64))


def _shaped(values: list[float] | None, dtype: type, columns: int) -> Any:
    """(3, columns), or None."""
    return None if values is None else np.array(values, dtype).reshape(3, columns)
