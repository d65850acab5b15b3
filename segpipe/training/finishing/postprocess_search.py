"""The choices for the finished model on the validation split, and its score there: the last part of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.inference.segmenter import Segmenter
from segpipe.inference.trained_model import load_trained
from segpipe.inference.tta import relative_cost
from segpipe.progress import say
from segpipe.training.finishing.cleaning_search import MIN_IMAGES, choose_cleaning, iou, search_images
from segpipe.training.finishing.instance_search import MAX_IMAGES
from segpipe.training.scoring import count_split, score_confusion

if TYPE_CHECKING:
    from pathlib import Path

    from segpipe.training.plan import NetworkPlan, RecipePlan
    from segpipe.training.sampling.crops import Reader

_FINISHED_SLOWDOWN = {"fp32": 1.2, "bf16": 2.0, "fp16": 2.0}
"""Time of a validation with the finished model, in float32 and with probabilities, divided by that of one during training in this
precision: 1.07 to 1.19 after float32 (`unet`, `fpn` on two cores), about 2 after half precision."""


def finish_model(plan: NetworkPlan, model: Path, val: Reader) -> float | None:
    """Choose the cleaning of the trained model in a folder, and write it into its segmenter.json. One process calls this.

    Args:
        plan: the plan of the training.
        model: the folder of the model.
        val: the validation split.

    Returns:
        The macro IoU on val of the model as it will serve; None if it is the same as that of its weights alone.
    """
    searches, averages = searches_cleaning(plan, val), plan.recipe.tta != "none"
    if not searches and not averages:
        return None
    segmenter = load_trained(model, plan.execution.machine.device)
    choice = choose_cleaning(segmenter, val, plan.recipe.class_weights, plan.seed) if searches else None
    if choice is not None and choice.cleaning is not None:
        spec = segmenter.spec.model_copy(update={"cleaning": choice.cleaning})
        spec.write(model)
        segmenter = Segmenter(spec, segmenter.engine)
        words = choice.cleaning.in_words(spec.classes)
        say(f"{plan.candidate}: cleaning: {words}: IoU {choice.gain:+.4f} on {len(choice.after)} validation images")
    elif not averages:
        return None
    if choice is not None and len(choice.after) == len(val):
        return round(iou(choice.after), 6)
    counts = count_split(segmenter, val, range(len(val)))
    return round(score_confusion(counts, segmenter.spec.classes.labelling).iou_macro, 6)


def finishing_validations(plan: RecipePlan, val: Reader, precision: str) -> float:
    """Predict the time of `finish_model` and `choose_instance_settings`, in validations during a training in this precision.

    Args:
        plan: the plan of the training.
        val: the validation split.
        precision: "fp32", "bf16" or "fp16".
    """
    cleaning = len(search_images(val)) / len(val) if searches_cleaning(plan, val) else 0.0
    instances = min(MAX_IMAGES, len(val)) / len(val) if plan.postprocess else 0.0
    final_score = 1.0 if plan.recipe.tta != "none" and cleaning < 1 else 0.0
    runs = relative_cost(plan.recipe.tta, 3 if plan.volume else 2)
    return _FINISHED_SLOWDOWN[precision] * runs * (cleaning + final_score + instances)


def searches_cleaning(plan: RecipePlan, val: Reader) -> bool:
    """Return whether a cleaning is searched for.

    It is not for a detector, whose instances have their own settings, nor if classes overlap, because a speck of one class then
    hides no other.
    """
    applies = plan.recipe.cleaning == "auto" and plan.model_family.kind == "network" and not plan.recipe.overlapping
    return applies and len(search_images(val)) >= MIN_IMAGES
