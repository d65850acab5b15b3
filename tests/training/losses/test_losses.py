import math

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_cdt

from segpipe.config import LossParams, TrainParams, parse_params
from segpipe.errors import ConfigError
from segpipe.samples import IGNORE
from segpipe.training.losses import SegmentationLoss
from segpipe.training.losses.boundary import border_weights
from segpipe.training.losses.combined import TERMS
from segpipe.training.losses.softmax import softmax_sums
from tests.worlds.property_tests import examples

shapes = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 7), st.integers(1, 9), st.integers(0, 10_000))
EVERY = {
    "cross_entropy": 1.0,
    "smoothed": {"cross_entropy": {"label_smoothing": 0.2}},
    "dice": 1.0,
    "tversky": 1.0,
    "focal": 1.0,
    "flat_focal": {"focal": {"gamma": 0.5}},
    "lovasz": 1.0,
    "top_k": 1.0,
    "hard_examples": {"top_k": {"share": 0.1, "threshold": 0.6}},
    "boundary": 1.0,
    "all": dict.fromkeys(TERMS, 0.5),
}
each_term = pytest.mark.parametrize("term", EVERY)


def loss(term, weights):
    terms = EVERY.get(term, term) if isinstance(term, str) else term
    return SegmentationLoss(weights, LossParams.model_validate(terms if isinstance(terms, dict) else {term: terms}))


def case(shape, ignored=0.2):
    n, k, *size, seed = shape
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, *size, generator=rng)
    labels = torch.randint(0, k, (n, *size), generator=rng)
    labels[torch.rand(n, *size, generator=rng) < ignored] = IGNORE
    weights = (torch.rand(k, generator=rng) + 0.1).tolist()
    return logits, labels, weights


def rows(logits, labels):
    """The counted pixels in numpy, float64: log-probabilities (P, K) and classes (P,)."""
    log_p = torch.log_softmax(logits.double().movedim(1, -1), -1)[labels != IGNORE]
    return log_p.numpy(), labels[labels != IGNORE].numpy()


def test_all_terms_of_the_settings_exist():
    assert list(TERMS) == list(LossParams.model_fields)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@given(shape=shapes)
@examples(30)
def test_cross_entropy_equals_torchs(shape, smoothing):
    logits, labels, weights = case(shape)
    assume(not (labels == IGNORE).all())
    ours = loss({"cross_entropy": {"label_smoothing": smoothing}}, weights)(logits, labels.to(torch.uint8))
    theirs = F.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=IGNORE, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@given(shapes)
@examples(30)
def test_dice_tversky_and_lovasz_equal_smps_over_the_classes_present(shape):
    logits, labels, weights = case(shape)
    present = len(set(labels.unique().tolist()) - {IGNORE})
    assume(present)
    exact = {"mode": "multiclass", "from_logits": True, "ignore_index": IGNORE, "smooth": 0.0, "eps": 1e-12}
    share = logits.shape[1] / present  # SMP counts an absent class as 0, segpipe leaves it out
    pairs = [
        ("dice", smp.losses.DiceLoss(**exact)(logits, labels) * share),
        ("tversky", smp.losses.TverskyLoss(**exact, alpha=0.3, beta=0.7, gamma=1.0)(logits, labels) * share),
        ("lovasz", smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE)(logits, labels)),
    ]
    for name, theirs in pairs:
        torch.testing.assert_close(loss(name, weights)(logits, labels), theirs, atol=1e-5, rtol=1e-4, msg=name)


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
    assert float(loss("dice", [1.0] * 3)(logits, labels)) == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("gamma", [0, 0.5, 2, 5])
def test_focal_by_hand(gamma):
    logits, labels, weights = case((2, 4, 6, 5, 3))
    log_p, truth = rows(logits, labels)
    nll = -log_p[np.arange(len(truth)), truth]
    weight = np.array(weights)[truth]
    expected = ((1 - np.exp(-nll)) ** gamma * nll * weight).sum() / weight.sum()
    ours = loss({"focal": {"gamma": gamma}}, weights)(logits, labels)
    assert float(ours) == pytest.approx(expected, rel=1e-4)


@given(shapes, st.floats(0.01, 1), st.one_of(st.none(), st.floats(0.05, 0.95)))
@examples(40)
def test_top_k_keeps_the_hardest_by_sorting(shape, share, threshold):
    logits, labels, weights = case(shape, ignored=0.4)
    log_p, truth = rows(logits, labels)
    assume(len(truth))
    nll = -log_p[np.arange(len(truth)), truth].astype(np.float32)
    order = np.argsort(-nll)
    count = math.ceil(np.float32(len(nll)) * np.float32(share))
    if threshold is not None:
        assume(np.abs(nll + math.log(threshold)).min() >= 1e-4)  # otherwise rounding decides
        count = max(count, int((nll > -math.log(threshold)).sum()))
    nll, weight = nll[order][:count], np.array(weights)[truth][order][:count]
    ours = loss({"top_k": {"share": share, "threshold": threshold}}, weights)(logits, labels)
    assert float(ours) == pytest.approx((nll * weight).sum() / weight.sum(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("size", [(23, 31), (9, 12, 11)])
@pytest.mark.parametrize("sigma", [0.5, 1, 2.5])
def test_weights_fall_with_the_distance_from_borders(size, sigma):
    """Compared with a search for borders pixel by pixel and scipy's chessboard distance."""
    _, blocks, _ = case((2, 3, *(s // 6 + 1 for s in size), 5), ignored=0.1)
    labels = F.interpolate(blocks[:, None].float(), size)[:, 0].to(torch.uint8)
    ours = border_weights(labels, sigma).numpy()
    for image_labels, weights in zip(labels.numpy(), ours, strict=True):
        border = np.zeros(image_labels.shape, bool)
        for pixel in np.argwhere(image_labels != IGNORE):
            neighbours = image_labels[tuple(slice(max(0, i - 1), i + 2) for i in pixel)]
            border[tuple(pixel)] = len(set(neighbours.ravel().tolist()) - {IGNORE}) > 1
        assert border.any() and not border.all()
        distance = distance_transform_cdt(~border, "chessboard").astype(float)
        expected = np.where(distance < math.ceil(3 * sigma), np.exp(-(distance**2) / (2 * sigma**2)), 0)
        np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_boundary_by_hand():
    logits, _, weights = case((1, 2, 8, 8, 6))
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[:, 4:], labels[:, :, 7] = 1, IGNORE
    near = border_weights(labels, 1.0) * (labels != IGNORE)
    weight = (near * torch.tensor(weights)[labels.clamp_max(1).long()]).double()
    nll = F.cross_entropy(logits.double(), labels.long(), ignore_index=IGNORE, reduction="none")
    ours = loss({"boundary": {"sigma": 1.0}}, weights)(logits, labels)
    assert float(ours) == pytest.approx(float((nll * weight).sum() / weight.sum()), rel=1e-5)
    assert float(loss("boundary", weights)(logits, torch.ones_like(labels))) == 0, "no border, no loss"


@each_term
@pytest.mark.parametrize("size", [(7, 9), (3, 5, 4)])
def test_a_batch_without_a_counted_pixel_has_no_loss_and_no_gradient(term, size):
    logits = torch.randn(2, 3, *size, requires_grad=True)
    value = loss(term, [1.0, 2.0, 3.0])(logits, torch.full((2, *size), IGNORE))
    value.backward()
    assert value.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


@each_term
def test_ignored_pixels_neither_count_nor_have_a_gradient(term):
    logits, labels, weights = case((2, 4, 6, 7, 11))
    labels[0, 0, 0] = IGNORE
    logits.requires_grad_()
    value = loss(term, weights)(logits, labels)
    value.backward()
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any() and logits.grad[~ignored].any()
    other = torch.where(ignored, 40 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)), logits)
    torch.testing.assert_close(loss(term, weights)(other, labels), value)


@each_term
def test_volumes_have_the_loss_of_their_pixels(term):
    """A volume of one slice is an image; and for terms that use no neighbours, the shape does not matter."""
    logits, labels, weights = case((2, 3, 6, 5, 12))
    flat = loss(term, weights)(logits, labels)
    torch.testing.assert_close(loss(term, weights)(logits[:, :, None], labels[:, None]), flat)
    if term not in ("boundary", "all"):
        torch.testing.assert_close(loss(term, weights)(logits.unflatten(2, (2, 3)), labels.unflatten(1, (2, 3))), flat)


@each_term
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_logits_have_finite_gradients(term, scale):
    logits, labels, weights = case((1, 3, 6, 6, 7))
    for value in (scale * logits, scale * F.one_hot(labels.clamp_max(2), 3).movedim(-1, 1).float()):
        value.requires_grad_()
        total = loss(term, weights)(value, labels)
        total.backward()
        assert torch.isfinite(total) and torch.isfinite(value.grad).all()


@each_term
def test_memory_format_and_bfloat16_hardly_change_the_loss(term):
    logits, labels, weights = case((2, 4, 8, 8, 2))
    computed = loss(term, weights)
    exact = computed(logits, labels)
    torch.testing.assert_close(computed(logits.contiguous(memory_format=torch.channels_last), labels), exact)
    torch.testing.assert_close(computed(logits.bfloat16(), labels), exact, atol=0.03, rtol=0.03)
    with torch.autocast("cpu", torch.bfloat16):
        again = computed(logits, labels)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, exact)


@each_term
def test_gradients_equal_finite_differences(term):
    logits, labels, weights = case((1, 3, 4, 4, 4))
    computed = loss(term, weights)
    small = logits.clone().requires_grad_()
    computed(small, labels).backward()
    step = 2e-3
    for index in [(0, 0, 0, 0), (0, 1, 2, 1), (0, 2, 1, 2), (0, 0, 3, 3)]:
        up, down = logits.clone(), logits.clone()
        up[index] += step
        down[index] -= step
        numeric = float(computed(up, labels) - computed(down, labels)) / (2 * step)
        assert float(small.grad[index]) == pytest.approx(numeric, abs=2e-3)


def test_terms_add_up_by_weight():
    logits, labels, weights = case((2, 3, 6, 5, 9))
    parts = {"focal": 0.3, "dice": 1.5, "lovasz": 2.0}
    whole = loss(parts, weights)(logits, labels)
    torch.testing.assert_close(whole, sum(w * loss(name, weights)(logits, labels) for name, w in parts.items()))


def test_the_default_loss_equals_its_formula():
    """Cross entropy + Dice / 2, with rows of classes instead of rows of pixels."""
    logits, labels, weights = case((2, 5, 33, 17, 10))

    def formula(logits):
        log_p = logits.permute(0, 2, 3, 1).reshape(-1, 5).float().log_softmax(1)
        flat = labels.reshape(-1)
        counted = flat != IGNORE
        target = torch.where(counted, flat, 0)
        weight = torch.where(counted, torch.tensor(weights)[target], 0.0)
        entropy = (-log_p.gather(1, target[:, None])[:, 0] * weight).sum() / weight.sum()
        p = log_p.exp() * counted[:, None].float()
        onehot = torch.zeros_like(p).scatter_(1, target[:, None], counted[:, None].float())
        dice = 2 * (p * onehot).sum(0) / (p.sum(0) + onehot.sum(0))
        return entropy + 0.5 * ((1 - dice) * torch.ones(5)).sum() / 5

    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours, expected = SegmentationLoss(weights, TrainParams().loss)(mine, labels), formula(theirs)
    ours.backward()
    expected.backward()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-9)


def test_terms_may_be_given_as_weights_or_with_options():
    text = "{train: {loss: {cross_entropy: 2, focal: {gamma: 3}}}, candidates: {a: {family: unet}}}"
    terms = parse_params(text).train_for("a").loss
    assert terms.cross_entropy.weight == 2 and terms.focal.gamma == 3 and terms.dice is None
    assert str(terms) == "2 cross entropy + focal (gamma 3)"
    assert str(TrainParams().loss) == "cross entropy + 0.5 dice"
    assert LossParams.model_validate(terms.model_dump()) == terms


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("{}", "at least one of"),
        ("{dise: 1}", "did you mean `dice`"),
        ("{dice: 0}", "greater than 0"),
        ("{focal: {gama: 2}}", "did you mean `gamma`"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(wrong, words):
    with pytest.raises(ConfigError, match=words):
        parse_params(f"{{train: {{loss: {wrong}}}, candidates: {{a: {{family: unet}}}}}}")


@given(shapes, st.sampled_from([4, 50, 1 << 17]), st.booleans())
@examples(40)
def test_softmax_sums_equal_those_of_log_softmax_in_any_parts_and_layout(shape, numbers, channels_last):
    logits, labels, _ = case(shape)
    logits, counted = logits.double(), labels != IGNORE
    target = torch.where(counted, labels, 0)
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segpipe.training.losses.softmax._MAX_NUMBERS", numbers)
        leaf = logits.clone().requires_grad_()
        sums = softmax_sums(leaf, target, counted)
        rng = torch.Generator().manual_seed(1)
        output_gradients = [torch.randn(part.shape, generator=rng, dtype=torch.float64) for part in sums]
        gradient = torch.autograd.grad(sums, leaf, output_gradients)[0]
    other = logits.clone().requires_grad_()
    log_p = other.log_softmax(1)
    mass = (log_p.exp() * counted[:, None]).sum((0, *range(2, logits.ndim)))
    expected = -log_p.gather(1, target[:, None])[:, 0], mass
    for ours, theirs in zip(sums, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, other, output_gradients)[0])
    assert gradient.stride() == logits.stride()


def test_softmax_sums_of_some_channels_and_of_volumes():
    rng = torch.Generator().manual_seed(0)
    for size in ((6, 5), (3, 4, 5)):
        logits = torch.randn(2, 4, *size, generator=rng).contiguous(
            memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d
        )
        leaf, target = logits.requires_grad_(), torch.randint(0, 3, (2, *size), generator=rng)
        nll, mass = softmax_sums(leaf[:, :-1], target, target >= 0)
        (nll.sum() + (mass * torch.tensor([1.0, 2.0, 3.0])).sum()).backward()
        gradient = leaf.grad.clone()
        leaf.grad = None
        log_p = leaf[:, :-1].log_softmax(1)
        weights = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, *[1] * len(size))
        (F.nll_loss(log_p, target, reduction="sum") + (log_p.exp() * weights).sum()).backward()
        torch.testing.assert_close(gradient, leaf.grad, atol=1e-5, rtol=1e-4)
