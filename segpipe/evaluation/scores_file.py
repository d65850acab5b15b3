"""The files with the counts of a model: per_image.parquet, one row per image, and confusion.csv, the sum for `dvc plots`."""

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
from segpipe.metrics import Counts, macro, micro, tallies
from segpipe.metrics.detections import Detections
from segpipe.metrics.instances import InstanceCounts

_ROWS_PER_CLASS = 100
"""Rows of confusion.csv for each true class: a row is one percent of its pixels."""

_BATCH_IMAGES = 64
"""Images whose confusion matrices are held at once while reading and writing."""


def write_scores(
    path: Path,
    candidate: str,
    classes: list[str],
    lineage: dict[str, str],
    images: Iterable[ImageScore],
    overlapping: bool = False,
) -> None:
    """Write per_image.parquet. Only a few images are held in memory at a time; the same scores give the same bytes.

    The columns are key, group, height, width, confusion (flattened, rows are true labels), boundary (flattened), iou_macro and
    accuracy, traits (the attributes for slices, as JSON), reliability and surface (flattened), millimetres (the unit of the lengths in
    surface), objects and object_iou (the counts of instances, flattened), detections (scores) and detection_matches
    (`segpipe.metrics.detections.Detections.packed`). A cell is null if it was not counted. The metadata of the file holds the
    candidate, the names of the classes, the lineage and whether classes overlap.

    Args:
        path: the file to write.
        candidate: the name of the model.
        classes: the names of the classes.
        lineage: the hashes in the model's segmenter.json.
        images: the counts of each image.
        overlapping: whether a pixel may have several classes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata: dict[str, Any] = {"candidate": candidate, "classes": classes, "lineage": lineage}
    metadata |= {"overlapping": True} if overlapping else {}
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
        metadata={"segpipe": json.dumps(metadata, sort_keys=True)},
    )
    with atomic_path(path) as target, pq.ParquetWriter(target, schema, compression="zstd") as writer:
        batch: list[ImageScore] = []
        for image in images:
            batch.append(image)
            if len(batch) == _BATCH_IMAGES:
                writer.write_batch(_to_record_batch(batch, schema, labelling))
                batch = []
        writer.write_batch(_to_record_batch(batch, schema, labelling))


def _to_record_batch(images: list[ImageScore], schema: object, labelling: Labelling) -> object:
    import pyarrow as pa

    accuracies = [micro("recall", tallies(i.confusion)) for i in images]  # share of pixels with the right label
    columns = [
        [i.key for i in images],
        [i.group for i in images],
        [i.height for i in images],
        [i.width for i in images],
        [i.confusion.ravel() for i in images],
        [_flat(i.boundary) for i in images],
        [_known(macro("iou", tallies(i.confusion, labelling))) for i in images],
        [_known(accuracy) for accuracy in accuracies],
        [json.dumps(dict(i.attributes), sort_keys=True) for i in images],
        [_flat(i.reliability) for i in images],
        [_flat(i.surface) for i in images],
        [i.millimetres for i in images],
        [None if i.instances is None else i.instances.tallies.ravel() for i in images],
        [None if i.instances is None else i.instances.iou_sum for i in images],
        [None if i.detections is None else i.detections.scores for i in images],
        [None if i.detections is None else i.detections.packed() for i in images],
    ]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)  # type: ignore[call-overload]


def _flat(values: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    return None if values is None else values.ravel()


def _known(value: npt.NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)


def read_scores(path: Path) -> Scores:
    """Read per_image.parquet, also of earlier versions, which lack some columns.

    Args:
        path: the file.

    Raises:
        MissingError: there is no such file.
        DataError: it is not a table of scores.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise MissingError("no scores here", where=path, fix="segpipe evaluate CANDIDATE, or dvc repro evaluate")
    try:
        file = pq.ParquetFile(path)
        metadata = json.loads(file.schema_arrow.metadata[b"segpipe"])
    except (pa.ArrowInvalid, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError("is not a table of scores", where=path, fix="dvc repro -f evaluate writes it again") from error
    n, overlapping = len(metadata["classes"]), metadata.get("overlapping", False)
    n_labels = labelling_of(n, overlapping).n_labels

    def images() -> Iterable[ImageScore]:
        for batch in file.iter_batches(_BATCH_IMAGES):
            for row in batch.to_pylist():
                yield ImageScore(
                    row["key"],
                    row["group"],
                    row["height"],
                    row["width"],
                    np.array(row["confusion"], np.int64).reshape(n_labels, n_labels),
                    _shaped(row.get("boundary"), np.int64, n),
                    json.loads(row.get("traits") or "{}"),
                    _shaped(row.get("reliability"), np.float64, -1),
                    _shaped(row.get("surface"), np.float64, n),
                    bool(row.get("millimetres")),
                    _instance_counts(row.get("objects"), row.get("object_iou"), n),
                    Detections.unpacked(row.get("detections"), row.get("detection_matches")),
                )

    return Scores.collect(metadata["candidate"], metadata["classes"], metadata["lineage"], images(), overlapping)


def _instance_counts(tallies: list[int] | None, iou_sum: list[float] | None, n_classes: int) -> InstanceCounts | None:
    if tallies is None or iou_sum is None:
        return None
    return InstanceCounts(np.array(tallies, np.int64).reshape(-1, 3, n_classes), np.array(iou_sum, np.float64))


def _shaped(values: list[float] | None, dtype: type, columns: int) -> Any:
    """Reshape to (3, columns); None stays None."""
    return None if values is None else np.array(values, dtype).reshape(3, columns)


def confusion_csv(counts: Counts, classes: list[str]) -> str:
    """Write a confusion matrix as the table for `dvc plots` (template `confusion`), which counts rows.

    Each true class (or set of classes) that occurs has a hundred rows, which are distributed to the predicted ones by the largest
    remainder (Hamilton's method). So rare classes are as visible as frequent ones.

    Args:
        counts: (n_labels, n_labels), rows are true labels.
        classes: the names of the labels.

    Returns:
        The CSV text, with the columns actual and predicted.
    """
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["actual", "predicted"])
    for name, row in zip(classes, counts, strict=True):
        if not row.sum():
            continue
        share = row * (_ROWS_PER_CLASS / row.sum())
        rows = np.floor(share).astype(int)
        remainders = np.argsort(rows - share, kind="stable")[: _ROWS_PER_CLASS - rows.sum()]
        rows[remainders] += 1
        for predicted, times in zip(classes, rows, strict=True):
            writer.writerows([[name, predicted]] * int(times))
    return stream.getvalue()
