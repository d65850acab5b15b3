import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.samples import IGNORE
from segpipe.training.losses import SegmentationLoss

shapes = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 7), st.integers(1, 9), st.integers(0, 10_000))


def case(shape):
    n, k, h, w, seed = shape
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, h, w, generator=rng)
    labels = torch.randint(0, k, (n, h, w), generator=rng)
    labels[torch.rand(n, h, w, generator=rng) < 0.2] = IGNORE
    weights = (torch.rand(k, generator=rng) + 0.1).tolist()
    return logits, labels, weights


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_cross_entropy_is_torchs(shape):
    logits, labels, weights = case(shape)
    if (labels == IGNORE).all():
        return
    ours = SegmentationLoss(weights, 0.0)(logits, labels.to(torch.uint8))
    theirs = torch.nn.functional.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=IGNORE)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_dice_is_smps_over_the_classes_that_are_there(shape):
    logits, labels, weights = case(shape)
    present = len(set(labels.unique().tolist()) - {IGNORE})
    if not present:
        return
    dice = smp.losses.DiceLoss("multiclass", from_logits=True, ignore_index=IGNORE, smooth=0.0, eps=1e-12)
    theirs = dice(logits, labels) * logits.shape[1] / present  # theirs counts an absent class as 0, ours leaves it out
    ours = SegmentationLoss(weights, 1.0)(logits, labels) - SegmentationLoss(weights, 0.0)(logits, labels)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_dice_by_hand():
    logits, labels, _ = case((2, 3, 5, 4, 1))
    p = torch.softmax(logits, 1).numpy()
    losses = []
    for k in range(3):
        overlap = total = 0.0
        for n, y, x in np.argwhere((labels != IGNORE).numpy()):
            truth = float(labels[n, y, x] == k)
            overlap += truth * p[n, k, y, x]
            total += truth + p[n, k, y, x]
        losses.append(1 - 2 * overlap / total)
    ours = SegmentationLoss([1.0] * 3, 1.0)(logits, labels) - SegmentationLoss([1.0] * 3, 0.0)(logits, labels)
    assert float(ours) == pytest.approx(np.mean(losses), abs=1e-5)


def test_a_batch_without_a_counted_pixel_costs_nothing_and_moves_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = SegmentationLoss([1.0, 2.0, 3.0], 0.5)(logits, torch.full((2, 4, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_memory_format_and_bfloat16_change_nothing_that_matters():
    logits, labels, weights = case((2, 4, 8, 8, 2))
    loss = SegmentationLoss(weights, 0.5)
    torch.testing.assert_close(loss(logits.contiguous(memory_format=torch.channels_last), labels), loss(logits, labels))
    torch.testing.assert_close(loss(logits.bfloat16(), labels), loss(logits, labels), atol=0.02, rtol=0.02)


def test_gradient_checks_out():
    logits, labels, weights = case((1, 3, 3, 3, 4))
    loss = SegmentationLoss(weights, 0.5)
    small = logits.clone().requires_grad_()
    loss(small, labels).backward()
    step = 1e-2
    for index in [(0, 0, 0, 0), (0, 1, 2, 1), (0, 2, 1, 2)]:
        up, down = logits.clone(), logits.clone()
        up[index] += step
        down[index] -= step
        numeric = float(loss(up, labels) - loss(down, labels)) / (2 * step)
        assert float(small.grad[index]) == pytest.approx(numeric, abs=2e-3)
