"""Pictures of where two models disagree: the images whose scores differ most, with both predictions and with which model is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segpipe.evaluation.gallery.pictures import ErrorKind, draw, resize_mask
from segpipe.evaluation.instance_metrics import is_instance
from segpipe.evaluation.metric_lookup import describe_metric
from segpipe.evaluation.scores import Scores
from segpipe.metrics import MAIN_METRIC
from segpipe.pages.components.gallery import GalleryImage, Pixels
from segpipe.samples import IGNORE, Sample

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

IMAGE_METRIC = "iou.image.macro"
"""The score of a single image by which models are compared, unless they are ranked by a score of instances."""

_COLORS = ((0, 114, 178), (230, 159, 0), (204, 121, 167))
"""Only the first model is right, only the second is, both are wrong and differ: colours of Okabe and Ito."""


@dataclass(frozen=True)
class ScoredModel:
    """One of two models that are compared."""

    name: str
    scores: Scores
    segmenter: Segmenter


def disagreement_legend(ours: str, theirs: str) -> list[ErrorKind]:
    """Return what the colours of `disagreement_picture` mean. ours, theirs: the names of the two models."""
    words = (f"only {ours} is right", f"only {theirs} is right", "both are wrong, and differ")
    return [ErrorKind(name=word, color=color) for word, color in zip(words, _COLORS, strict=True)]


def image_metric(main: str, ours: Scores, theirs: Scores) -> str:
    """Return the metric that compares two models on a single image.

    Args:
        main: The metric that models are ranked by.
        ours: Scores of the first model.
        theirs: Scores of the second model.

    Returns:
        `main` if it is a score of instances and both models predict instances, else `IMAGE_METRIC`.
    """
    both = ours.instances is not None and theirs.instances is not None
    return main if both and is_instance(main) else IMAGE_METRIC


def most_different(ours: Scores, theirs: Scores, each: int, name: str = IMAGE_METRIC) -> list[int]:
    """Find the images on which two models differ most.

    Args:
        ours: Scores of the first model.
        theirs: Scores of the second model, on the same images in the same order.
        each: The most images in either direction.
        name: The metric of a single image.

    Returns:
        Indices into `ours.keys`: first the images on which `ours` is furthest behind, then those on which it is furthest ahead.
        Images with equal scores are never among them.
    """
    difference = ours.image_scores(name) - theirs.image_scores(name)
    order = np.argsort(difference, kind="stable")
    order = order[~np.isnan(difference[order])]
    behind = [int(i) for i in order[:each] if difference[i] < 0]
    ahead = [int(i) for i in order[::-1][:each] if difference[i] > 0]
    return behind + ahead


def differ(ours: Scores, theirs: Scores, each: int, main: str = MAIN_METRIC) -> bool:
    """Return whether `draw_disagreements` would draw an image of these models; the arguments are those of that function."""
    return bool(most_different(ours, theirs, each, image_metric(main, ours, theirs)))


def draw_disagreements(
    ours: ScoredModel, theirs: ScoredModel, reader: ShardReader, each: int, main: str = MAIN_METRIC
) -> list[GalleryImage]:
    """Draw the images on which two models differ most: image, truth, both predictions, the errors of each, and which is right.

    Args:
        ours: The first model.
        theirs: The second model; its scores are of the same images in the same order.
        reader: Holds these images in any order; images that it lacks are left out.
        each: The most images in either direction.
        main: The metric that models are ranked by; see `image_metric`.
    """
    index_in_reader = {key: index for index, key in enumerate(reader.keys)}
    name = image_metric(main, ours.scores, theirs.scores)
    our_values, their_values = ours.scores.image_scores(name), theirs.scores.image_scores(name)
    metric = f"{describe_metric(name)}:" if is_instance(name) else "IoU"
    images = []
    for index in most_different(ours.scores, theirs.scores, each, name):
        key = ours.scores.keys[index]
        if key not in index_in_reader:
            continue
        layers = _layers(reader[index_in_reader[key]], (ours, theirs))
        kind = "behind" if our_values[index] < their_values[index] else "ahead"
        note = f"{metric} {our_values[index]:.3f} · {theirs.name} {their_values[index]:.3f}"
        height, width = layers["image"].shape[:2]
        images.append(GalleryImage(key, kind, note, height, width, layers))
    return images


def _layers(sample: Sample, models: tuple[ScoredModel, ScoredModel]) -> dict[str, Pixels]:
    """Draw all layers of one image.

    Instances are outlined if the sample has any. Of a volume, three planes are drawn, through the slices with the most labelled
    voxels of the truth and both predictions.
    """
    from segpipe.evaluation.gallery.planes import Planes

    assert sample.labels is not None, "it was scored"
    with_instances = sample.instances is not None
    predictions = [
        model.segmenter.predict(sample.image, spacing=sample.spacing, instances=with_instances) for model in models
    ]
    image, truth, masks = sample.image, sample.labels, [prediction.class_ids for prediction in predictions]
    if truth.ndim == 3:
        planes = Planes.of([truth, *masks], sample.spacing)
        image, truth = planes(image, float(np.percentile(image, 0.5))), planes(truth, IGNORE)
        masks = [planes(mask) for mask in masks]
    instance_ids = [p.instances.ids if p.instances is not None else None for p in predictions]
    drawings = [
        draw(image, truth, mask, model.segmenter.spec.classes, instances=(sample.instances, ids))
        for model, mask, ids in zip(models, masks, instance_ids, strict=True)
    ]
    display = drawings[0]["image"]
    return {
        "image": display,
        "truth": drawings[0]["truth"],
        **{model.name: drawing["prediction"] for model, drawing in zip(models, drawings, strict=True)},
        **{f"errors of {model.name}": drawing["errors"] for model, drawing in zip(models, drawings, strict=True)},
        "who is right": disagreement_picture(
            display, *(resize_mask(mask, display.shape[:2]) for mask in (truth, *masks))
        ),
    }


def disagreement_picture(
    display: Pixels, truth: npt.NDArray[np.uint8], ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8]
) -> Pixels:
    """Colour the pixels on which two models differ by which of them is right (`_COLORS`).

    Args:
        display: The image, (H, W, 3), RGB; it appears in pale grey.
        truth: True class ids, (H, W); ignored pixels are never coloured.
        ours: Class ids that the first model predicts, (H, W).
        theirs: Class ids that the second model predicts, (H, W).

    Returns:
        The picture, (H, W, 3), RGB.
    """
    differ = (ours != theirs) & (truth != IGNORE)
    codes = np.select([differ & (ours == truth), differ & (theirs == truth), differ], [1, 2, 3], 0)
    grey = display.astype(np.float32).mean(2, keepdims=True) * 0.6 + 90
    colors = np.array([(0, 0, 0), *_COLORS], np.float32)[codes]
    weight = np.where(codes > 0, 0.85, 0.0)[:, :, None]
    return np.clip(grey * (1 - weight) + colors * weight, 0, 255).astype(np.uint8)
