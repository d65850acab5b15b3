"""Training with overlapping classes: losses compared with torch and SMP, crops, plans, and a network that learns two classes at once."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from segpipe.config import LossParams, Params
from segpipe.errors import ConfigError
from segpipe.inference.trained_model import load_trained
from segpipe.labels import OverlappingLabelling
from segpipe.samples import IGNORE, ClassTable, Sample
from segpipe.training.losses import SegmentationLoss
from segpipe.training.losses.combined import TERMS
from segpipe.training.planning.planner import plan_on
from segpipe.training.sampling.crops import Crops
from segpipe.training.scoring import score_split
from segpipe.training.train import train_on
from tests.worlds.property_tests import examples
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import fingerprint_of
from tests.worlds.trainings import tiny_plan

NAMES = {"classes": [{"name": n, "value": v, "color": (v, 0, 0)} for n, v in (("ground", 0), ("disc", 1), ("core", 2))]}
CLASSES = ClassTable.model_validate(NAMES | {"overlapping": True})
SETS = CLASSES.labelling
SHAPES = st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(1, 7), st.integers(1, 9), st.integers(0, 10_000))


def case(shape, ignored=0.2):
    """Logits, labels (sets), the same as (N, K, ...) zeros and ones, the counted pixels as (N, 1, ...), class weights."""
    n, k, *size, seed = shape
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, *size, generator=rng)
    labels = torch.randint(0, 1 << (k - 1), (n, *size), generator=rng).to(torch.uint8)
    present = torch.from_numpy(OverlappingLabelling(k).members[labels.numpy()]).movedim(-1, 1).float()
    is_ignored = torch.rand(n, *size, generator=rng) < ignored
    labels[is_ignored] = IGNORE
    return logits, labels, present, (~is_ignored)[:, None].float(), (torch.rand(k, generator=rng) + 0.1).tolist()


def loss(weights, **terms):
    return SegmentationLoss(weights, LossParams.model_validate(terms), overlapping=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@given(shape=SHAPES)
@examples(30)
def test_cross_entropy_equals_torchs_binary_cross_entropy(shape, smoothing):
    logits, labels, present, counted, weights = case(shape)
    assume(counted.any())
    weight = counted * torch.tensor(weights)[:, None, None]
    target = present * (1 - smoothing) + smoothing / 2
    theirs = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum") / weight.sum()
    ours = loss(weights, cross_entropy={"label_smoothing": smoothing})(logits, labels)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@given(SHAPES)
@examples(30)
def test_dice_equals_smps_over_the_classes_present(shape):
    logits, labels, present, counted, weights = case(shape)
    classes_present = ((present * counted).sum((0, 2, 3)) > 0).float()
    assume(classes_present.any())
    # Their mean is over all classes, and those without a pixel have loss 0.
    flat = ((x * counted).flatten(2) for x in (logits.sigmoid(), present))
    theirs = smp.losses.DiceLoss("multilabel", from_logits=False)(*flat) * len(classes_present) / classes_present.sum()
    torch.testing.assert_close(loss(weights, dice=1.0)(logits, labels), theirs, atol=1e-5, rtol=1e-4)


@given(SHAPES)
@examples(20)
def test_focal_equals_its_formula(shape):
    logits, labels, present, counted, weights = case(shape)
    assume(counted.any())
    p = torch.where(present > 0, logits.sigmoid(), (-logits).sigmoid())
    weight = (counted * torch.tensor(weights)[:, None, None]).expand_as(p)
    theirs = (weight * (1 - p) ** 2 * -p.log()).sum() / weight.sum()
    torch.testing.assert_close(loss(weights, focal=1.0)(logits, labels), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_every_term_ignores_ignored_pixels_and_falls_towards_the_truth(name):
    logits, labels, present, counted, weights = case((2, 4, 8, 9, 5))
    term = loss(weights, **{name: 1.0})
    other = torch.where(counted > 0, logits, -logits)
    torch.testing.assert_close(term(logits, labels), term(other, labels))
    right = (2 * present - 1) * 9
    assert term(right, labels) < 0.01 < term(-right, labels)
    assert term(logits, torch.full_like(labels, IGNORE)) == 0


def draw(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    cy, cx = rng.integers(16, 32, 2)
    distance = np.hypot(y - cy, x - cx)
    labels = (distance < 14) + 2 * (np.hypot(y - cy - 6, x - cx) < 9).astype(
        np.uint8
    )  # neither class lies inside the other
    levels = np.array([[60, 60], [200, 60], [60, 200], [200, 200]])[labels] + rng.normal(0, 9, (48, 48, 2))
    labels[0] = IGNORE
    return Sample(f"s{seed}", np.clip(levels, 0, 255).astype(np.uint8), labels.astype(np.uint8))


@pytest.fixture(scope="module")
def reader():
    reader = MemoryReader([draw(seed) for seed in range(6)])
    reader.class_pixels = np.stack([SETS.count_pixels(sample.labels) for sample in reader.samples])
    return reader


def plan_of(**recipe):
    plan = tiny_plan(overlapping=True, patch=32, **recipe)
    window = {"low": (0, 0), "high": (255, 255), "mean": (0.4, 0.4), "std": (0.2, 0.2)}
    return plan.model_copy(update={"normalisation": plan.normalisation.model_copy(update=window)})


def test_rare_crops_are_centred_on_a_class_that_others_overlap(reader):
    crops = Crops(reader, plan_of(rare_crops=1.0, augment="off"))
    class_pixels = np.stack([SETS.count_pixels(crops[position][1]) for position in range(12)])
    assert (class_pixels[:, 1:].sum(1) > 0).mean() > 0.5


def test_two_classes_are_learned_at_once(reader, tmp_path):
    plan = plan_of(steps=60, batch=4, augment="off", learning_rate=0.02, class_weights=[1.0, 1.0, 1.0], val_every=60)
    train_on(plan, CLASSES, reader, reader, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    segmenter = load_trained(tmp_path / "out")
    assert segmenter.spec.classes.overlapping and segmenter.spec.cleaning is None
    assert score_split(segmenter, reader).iou_macro > 0.8
    both = segmenter.predict(reader[0].image).class_ids == 3
    assert (both & (reader[0].labels == 3)).sum() > 0.7 * (reader[0].labels == 3).sum()


@pytest.mark.parametrize("family", ["kmeans", "mask_rcnn"])
def test_families_with_one_class_per_pixel_are_refused(family, reader):
    params = Params.model_validate({"candidates": {"base": {"family": family}}})
    with pytest.raises(ConfigError, match=r"gives each pixel one class.*unet.*--overlapping"):
        plan_on("base", params, fingerprint_of(reader, classes=CLASSES), reader, reader)
