"""Where two models part: the images whose scores differ most, drawn with both predictions and with who was right."""

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

_COLORS = ((0, 114, 178), (230, 159, 0), (204, 121, 167))
"""Only the one is right, only the other is, neither is and they differ: of Okabe and Ito's colours."""


@dataclass(frozen=True)
class ScoredModel:
    """One of two models: how pages call it, how it did on each image, and the model itself."""

    name: str
    scores: Scores
    segmenter: Segmenter


def disagreement_legend(ours: str, theirs: str) -> list[ErrorKind]:
    """What the colours of `parting_picture` mean."""
    words = (f"only {ours} is right", f"only {theirs} is right", "both are wrong, and differ")
    return [ErrorKind(name=word, color=color) for word, color in zip(words, _COLORS, strict=True)]


def image_metric(main: str, ours: Scores, theirs: Scores) -> str:
    """The score by which two models are told apart on a single image: IoU, or that of objects by which they are ranked."""
    apart = is_instance(main) and ours.objects is not None and theirs.objects is not None
    return main if apart else "iou.image.macro"


def most_different(ours: Scores, theirs: Scores, each: int, name: str = "iou.image.macro") -> list[int]:
    """The places of the images on which a score of two models (aligned) differs most, at most `each` either way: first those where
    `ours` is furthest behind, then those where it is furthest ahead. Images on which they score the same are none."""
    difference = ours.of_images(name) - theirs.of_images(name)
    order = np.argsort(difference, kind="stable")
    order = order[~np.isnan(difference[order])]
    behind = [int(i) for i in order[:each] if difference[i] < 0]
    ahead = [int(i) for i in order[::-1][:each] if difference[i] > 0]
    return behind + ahead


def draw_disagreements(
    ours: ScoredModel, theirs: ScoredModel, reader: ShardReader, each: int, main: str = MAIN_METRIC
) -> list[GalleryImage]:
    """The images on which two models differ most: image, truth, both predictions, the errors of each, and who was right where.

    The scores of both are of the same images in the same order; `reader` holds these, in any order. Images that it lacks are
    passed over. main: what the two are ranked by; where that is a score of objects, it also tells how far they are apart.
    """
    where = {key: place for place, key in enumerate(reader.keys)}
    name = image_metric(main, ours.scores, theirs.scores)
    mine, other = ours.scores.of_images(name), theirs.scores.of_images(name)
    words = f"{describe_metric(name)}:" if is_instance(name) else "IoU"
    found = []
    for index in most_different(ours.scores, theirs.scores, each, name):
        key = ours.scores.keys[index]
        if key not in where:
            continue
        sample = reader[where[key]]
        assert sample.labels is not None, "it was scored"
        layers = _layers(sample, (ours, theirs))
        kind = "behind" if mine[index] < other[index] else "ahead"
        note = f"{words} {mine[index]:.3f} · {theirs.name} {other[index]:.3f}"
        height, width = layers["image"].shape[:2]
        found.append(GalleryImage(key, kind, note, height, width, layers))
    return found


def _layers(sample: Sample, sides: tuple[ScoredModel, ScoredModel]) -> dict[str, Pixels]:
    """Objects are outlined where the sample has any. Of a volume, three planes are drawn, through the fullest slices of the truth
    and both predictions."""
    from segpipe.evaluation.gallery.planes import Planes

    assert sample.labels is not None, "it was scored"
    apart = sample.instances is not None
    said = [side.segmenter.predict(sample.image, spacing=sample.spacing, instances=apart) for side in sides]
    image, truth, masks = sample.image, sample.labels, [one.class_ids for one in said]
    if truth.ndim == 3:
        planes = Planes.of([truth, *masks], sample.spacing)
        image, truth = planes(image, float(np.percentile(image, 0.5))), planes(truth, IGNORE)
        masks = [planes(mask) for mask in masks]
    found = [one.instances.ids if one.instances is not None else None for one in said]
    drawn = [
        draw(image, truth, mask, side.segmenter.spec.classes, objects=(sample.instances, ids))
        for side, mask, ids in zip(sides, masks, found, strict=True)
    ]
    small = drawn[0]["image"]
    return {
        "image": small,
        "truth": drawn[0]["truth"],
        **{side.name: one["prediction"] for side, one in zip(sides, drawn, strict=True)},
        **{f"errors of {side.name}": one["errors"] for side, one in zip(sides, drawn, strict=True)},
        "who is right": disagreement_picture(small, *(resize_mask(mask, small.shape[:2]) for mask in (truth, *masks))),
    }


def disagreement_picture(
    display: Pixels, truth: npt.NDArray[np.uint8], ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8]
) -> Pixels:
    """(H, W, 3) RGB and three masks (H, W) -> (H, W, 3): the image in pale grey, coloured where the two models differ (`_COLORS`);
    ignored pixels are never coloured."""
    differ = (ours != theirs) & (truth != IGNORE)
    codes = np.select([differ & (ours == truth), differ & (theirs == truth), differ], [1, 2, 3], 0)
    grey = display.astype(np.float32).mean(2, keepdims=True) * 0.6 + 90
    colors = np.array([(0, 0, 0), *_COLORS], np.float32)[codes]
    weight = np.where(codes > 0, 0.85, 0.0)[:, :, None]
    return np.clip(grey * (1 - weight) + colors * weight, 0, 255).astype(np.uint8)
