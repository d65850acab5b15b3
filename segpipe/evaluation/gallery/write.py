"""Writing the gallery of an evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segpipe.evaluation.gallery.kept_masks import KeptMask, KeptMasks
from segpipe.evaluation.gallery.pictures import Gallery, Picture, choose_pictures, draw, legend, save
from segpipe.evaluation.scores import Scores
from segpipe.metrics import macro
from segpipe.samples import IGNORE, Sample

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

_DIGITS = 6


def write_gallery(
    segmenter: Segmenter,
    reader: ShardReader,
    scores: Scores,
    folder: Path,
    per_kind: int,
    kept: KeptMasks | None = None,
) -> None:
    """Draw the worst, the typical and the best images of a split.

    Args:
        segmenter: the model.
        reader: the split.
        scores: the model's counts on the split, in its order.
        folder: the folder to write; its content is replaced.
        per_kind: the largest number of images of each kind.
        kept: the masks of the split; images whose masks it does not have are predicted again.
    """
    shutil.rmtree(folder, ignore_errors=True)
    classes = segmenter.spec.classes
    numbers = {"worst": 0, "typical": 0, "best": 0}
    pictures = []
    for kind, index in choose_pictures(scores.image_scores("iou.image.macro"), per_kind):
        sample = reader[index]
        assert sample.labels is not None, "score_images raised an error"
        numbers[kind] += 1
        mask = (kept and kept.get(sample.key)) or _predicted_mask(segmenter, sample)
        instance_ids = sample.instances, mask.instance_ids
        layers = draw(sample.image, sample.labels, mask.class_ids, classes, sample.spacing, instance_ids)
        files = save(folder, f"{kind}-{numbers[kind]:02d}", layers)
        height, width = layers["image"].shape[:2]
        pictures.append(
            Picture(
                key=sample.key,
                kind=kind,
                iou_macro=round(float(macro("iou", scores.tally[index])), _DIGITS),
                accuracy=round(_pixel_accuracy(sample.labels, mask.class_ids), _DIGITS),
                height=height,
                width=width,
                **files,
            )
        )
    Gallery(legend=legend(classes), pictures=pictures).write(folder)


def _predicted_mask(segmenter: Segmenter, sample: Sample) -> KeptMask:
    prediction = segmenter.predict(sample.image, spacing=sample.spacing, instances=sample.instances is not None)
    return KeptMask(prediction.class_ids, None if prediction.instances is None else prediction.instances.ids)


def _pixel_accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the share of the counted pixels whose label was predicted."""
    counted = truth != IGNORE
    return int(((truth == prediction) & counted).sum()) / max(int(counted.sum()), 1)
