"""The choices for the finished model on the validation split, and its score there: the last part of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.progress import say
from segpipe.training.finishing.cleaning_search import MIN_IMAGES, choose_cleaning, iou, search_images
from segpipe.training.finishing.instance_search import choose_instance_settings
from segpipe.training.scoring import count_split, score_confusion

if TYPE_CHECKING:
    from pathlib import Path

    from segpipe.inference.segmenter import Segmenter
    from segpipe.training.plan import NetworkPlan, RecipePlan
    from segpipe.training.sampling.crops import Reader


def finish_model(plan: NetworkPlan, model: Path, val: Reader, segmenter: Segmenter) -> float | None:
    """Choose the postprocessing of the trained model in a folder, and write it into its segmenter.json. One process calls this.

    Args:
        plan: the plan of the training.
        model: the folder of the model.
        val: the validation split, or the images of it that are used.
        segmenter: the model, without postprocessing. With remembered outputs (`remember_outputs`), its network runs once per image.

    Returns:
        The macro IoU on val of the model as it will serve; None if it is the same as that of its weights alone.
    """
    choice = None
    if searches_cleaning(plan, val):
        choice = choose_cleaning(segmenter, val, plan.recipe.class_weights, plan.seed)
        if choice.cleaning is not None:
            segmenter = segmenter.with_changes(cleaning=choice.cleaning)
            words = choice.cleaning.in_words(segmenter.spec.classes)
            say(f"{plan.candidate}: cleaning: {words}: IoU {choice.gain:+.4f} on {len(choice.after)} validation images")
    if plan.postprocess is not None:
        segmenter = choose_instance_settings(plan, segmenter, val)
    segmenter.spec.write(model)
    if plan.recipe.tta == "none" and (choice is None or choice.cleaning is None):
        return None
    if choice is not None and len(choice.after) == len(val):
        return round(iou(choice.after), 6)
    counts = count_split(segmenter, val, range(len(val)))
    return round(score_confusion(counts, segmenter.spec.classes.labelling).iou_macro, 6)


def has_choices(plan: RecipePlan, val: Reader) -> bool:
    """Return whether there is anything to choose or to score for the finished model that needs its outputs.

    Args:
        plan: the plan of the training.
        val: the validation split.
    """
    return searches_cleaning(plan, val) or plan.postprocess is not None or plan.recipe.tta != "none"


def searches_cleaning(plan: RecipePlan, val: Reader) -> bool:
    """Return whether a cleaning is searched for.

    It is not for a detector, whose instances have their own settings, nor if classes overlap, because a speck of one class then
    hides no other.
    """
    applies = plan.recipe.cleaning == "auto" and plan.model_family.kind == "network" and not plan.recipe.overlapping
    return applies and len(search_images(val)) >= MIN_IMAGES
