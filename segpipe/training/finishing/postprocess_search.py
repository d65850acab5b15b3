"""The last thing that training does: what is chosen for the finished model on the validation split, and what it scores there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.inference.segmenter import Segmenter
from segpipe.inference.trained import load_trained
from segpipe.inference.tta import passes
from segpipe.progress import say
from segpipe.training.finishing.cleaning_search import MIN_IMAGES, choose_cleaning, iou, search_images
from segpipe.training.finishing.instance_search import MAX_IMAGES
from segpipe.training.scoring import count_split, score_confusion

if TYPE_CHECKING:
    from pathlib import Path

    from segpipe.training.plan import Plan
    from segpipe.training.sampling.crops import Reader

_SLOWER = {"fp32": 1.2, "bf16": 2.0, "fp16": 2.0}
"""A look with a finished model, in float32 and with probabilities, against one while training in this precision: 1.07 to 1.19 after float32
(`unet`, `fpn` on two cores), about twice after half precision."""


def finish_model(plan: Plan, model: Path, val: Reader) -> float | None:
    """Choose the cleaning of the trained model in a folder and write it into its segmenter.json.

    Returns the macro IoU on `val` of the model as it will serve; None where that is what its weights alone scored. Called by
    one process.
    """
    assert plan.recipe is not None and plan.execution is not None
    looks, averages = searches_cleaning(plan, val), plan.recipe.tta != "none"
    if not looks and not averages:
        return None
    segmenter = load_trained(model, plan.execution.machine.device)
    chosen = choose_cleaning(segmenter, val, plan.recipe.class_weights, plan.seed) if looks else None
    if chosen is not None and chosen.cleaning is not None:
        spec = segmenter.spec.model_copy(update={"cleaning": chosen.cleaning})
        spec.write(model)
        segmenter = Segmenter(spec, segmenter.engine)
        words = chosen.cleaning.in_words(spec.classes)
        say(f"{plan.candidate}: cleaning: {words}: IoU {chosen.gain:+.4f} on {len(chosen.after)} validation images")
    elif not averages:
        return None
    if chosen is not None and len(chosen.after) == len(val):
        return round(iou(chosen.after), 6)
    counts = count_split(segmenter, val, range(len(val)))
    return round(score_confusion(counts, segmenter.spec.classes.labelling).iou_macro, 6)


def finishing_validations(plan: Plan, val: Reader, precision: str) -> float:
    """What `finish` and `settle_objects` take, in looks at the validation split as a training in this precision does them."""
    assert plan.recipe is not None
    share = len(search_images(val)) / len(val) if searches_cleaning(plan, val) else 0.0
    objects = min(MAX_IMAGES, len(val)) / len(val) if plan.postprocess else 0.0
    whole = 1.0 if plan.recipe.tta != "none" and share < 1 else 0.0
    return _SLOWER[precision] * passes(plan.recipe.tta, 3 if plan.volume else 2) * (share + whole + objects)


def searches_cleaning(plan: Plan, val: Reader) -> bool:
    """Whether a cleaning is looked for: not for a detector, whose objects have settings of their own, nor where classes overlap,
    and a speck of one hides no other."""
    assert plan.recipe is not None
    wanted = plan.recipe.cleaning == "auto" and plan.model_family.kind == "network" and not plan.recipe.overlapping
    return wanted and len(search_images(val)) >= MIN_IMAGES
