import math

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_cdt

from segpipe.config import LossParams, TrainParams, parse_params
from segpipe.errors import ConfigError
from segpipe.samples import IGNORE
from segpipe.training.losses import SegmentationLoss
from segpipe.training.losses.boundary import border_weights
from segpipe.training.losses.combined import TERMS
from segpipe.training.losses.softmax import softmax_sums

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
each_term = pytest.mark.parametrize("of", EVERY)


def loss(of, weights):
    terms = EVERY.get(of, of) if isinstance(of, str) else of
    return SegmentationLoss(weights, LossParams.model_validate(terms if isinstance(terms, dict) else {of: terms}))


def case(shape, ignored=0.2):
    n, k, *size, seed = shape
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, *size, generator=rng)
    labels = torch.randint(0, k, (n, *size), generator=rng)
    labels[torch.rand(n, *size, generator=rng) < ignored] = IGNORE
    weights = (torch.rand(k, generator=rng) + 0.1).tolist()
    return logits, labels, weights


def rows(logits, labels):
    """The counted pixels by numpy, float64: log-probabilities (P, K) and classes (P,)."""
    log_p = torch.log_softmax(logits.double().movedim(1, -1), -1)[labels != IGNORE]
    return log_p.numpy(), labels[labels != IGNORE].numpy()


def test_every_term_of_the_settings_is_there():
    assert list(TERMS) == list(LossParams.model_fields)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@given(shape=shapes)
@settings(max_examples=30, deadline=None)
def test_cross_entropy_is_torchs(shape, smoothing):
    logits, labels, weights = case(shape)
    if (labels == IGNORE).all():
        return
    ours = loss({"cross_entropy": {"label_smoothing": smoothing}}, weights)(logits, labels.to(torch.uint8))
    theirs = F.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=IGNORE, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@given(shapes)
@settings(max_examples=30, deadline=None)
def test_dice_tversky_and_lovasz_are_smps_over_the_classes_that_are_there(shape):
    logits, labels, weights = case(shape)
    present = len(set(labels.unique().tolist()) - {IGNORE})
    if not present:
        return
    of = {"mode": "multiclass", "from_logits": True, "ignore_index": IGNORE}
    exact = of | {"smooth": 0.0, "eps": 1e-12}
    share = logits.shape[1] / present  # theirs counts an absent class as 0, ours leaves it out
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
@settings(max_examples=40, deadline=None)
def test_top_k_keeps_the_hardest_by_sorting(shape, share, threshold):
    logits, labels, weights = case(shape, ignored=0.4)
    log_p, truth = rows(logits, labels)
    if not len(truth):
        return
    nll = -log_p[np.arange(len(truth)), truth].astype(np.float32)
    order = np.argsort(-nll)
    kept = math.ceil(np.float32(len(nll)) * np.float32(share))
    if threshold is not None:
        if np.abs(nll + math.log(threshold)).min() < 1e-4:
            return  # on the edge, rounding decides
        kept = max(kept, int((nll > -math.log(threshold)).sum()))
    nll, weight = nll[order][:kept], np.array(weights)[truth][order][:kept]
    ours = loss({"top_k": {"share": share, "threshold": threshold}}, weights)(logits, labels)
    assert float(ours) == pytest.approx((nll * weight).sum() / weight.sum(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("size", [(23, 31), (9, 12, 11)])
@pytest.mark.parametrize("sigma", [0.5, 1, 2.5])
def test_weights_fall_from_the_borders_by_the_distance(size, sigma):
    """Against a search for borders pixel by pixel and scipy's chessboard distance."""
    _, blocks, _ = case((2, 3, *(s // 6 + 1 for s in size), 5), ignored=0.1)
    labels = F.interpolate(blocks[:, None].float(), size)[:, 0].to(torch.uint8)
    ours = border_weights(labels, sigma).numpy()
    for of, weights in zip(labels.numpy(), ours, strict=True):
        edge = np.zeros(of.shape, bool)
        for place in np.argwhere(of != IGNORE):
            around = of[tuple(slice(max(0, i - 1), i + 2) for i in place)]
            edge[tuple(place)] = len(set(around.ravel().tolist()) - {IGNORE}) > 1
        assert edge.any() and not edge.all()
        distance = distance_transform_cdt(~edge, "chessboard").astype(float)
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
def test_a_batch_without_a_counted_pixel_costs_nothing_and_moves_nothing(of, size):
    logits = torch.randn(2, 3, *size, requires_grad=True)
    value = loss(of, [1.0, 2.0, 3.0])(logits, torch.full((2, *size), IGNORE))
    value.backward()
    assert value.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


@each_term
def test_ignored_pixels_neither_count_nor_move(of):
    logits, labels, weights = case((2, 4, 6, 7, 11))
    labels[0, 0, 0] = IGNORE
    logits.requires_grad_()
    value = loss(of, weights)(logits, labels)
    value.backward()
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any() and logits.grad[~ignored].any()
    other = torch.where(ignored, 40 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)), logits)
    torch.testing.assert_close(loss(of, weights)(other, labels), value)


@each_term
def test_volumes_cost_what_their_pixels_cost(of):
    """A volume one slice thick is an image; and the pixels of a term that looks at no neighbour may stand in any shape."""
    logits, labels, weights = case((2, 3, 6, 5, 12))
    flat = loss(of, weights)(logits, labels)
    torch.testing.assert_close(loss(of, weights)(logits[:, :, None], labels[:, None]), flat)
    if of not in ("boundary", "all"):
        torch.testing.assert_close(loss(of, weights)(logits.unflatten(2, (2, 3)), labels.unflatten(1, (2, 3))), flat)


@each_term
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_logits_have_finite_gradients(of, scale):
    logits, labels, weights = case((1, 3, 6, 6, 7))
    for value in (scale * logits, scale * F.one_hot(labels.clamp_max(2), 3).movedim(-1, 1).float()):
        value.requires_grad_()
        found = loss(of, weights)(value, labels)
        found.backward()
        assert torch.isfinite(found) and torch.isfinite(value.grad).all()


@each_term
def test_memory_format_and_bfloat16_change_nothing_that_matters(of):
    logits, labels, weights = case((2, 4, 8, 8, 2))
    computed = loss(of, weights)
    exact = computed(logits, labels)
    torch.testing.assert_close(computed(logits.contiguous(memory_format=torch.channels_last), labels), exact)
    torch.testing.assert_close(computed(logits.bfloat16(), labels), exact, atol=0.03, rtol=0.03)
    with torch.autocast("cpu", torch.bfloat16):
        again = computed(logits, labels)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, exact)


@each_term
def test_gradient_checks_out(of):
    logits, labels, weights = case((1, 3, 4, 4, 4))
    computed = loss(of, weights)
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


def test_the_default_is_its_formula_written_out():
    """Cross entropy + Dice / 2, with rows of classes instead of rows of pixels."""
    logits, labels, weights = case((2, 5, 33, 17, 10))

    def written_out(logits):
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
    ours, expected = SegmentationLoss(weights, TrainParams().loss)(mine, labels), written_out(theirs)
    ours.backward()
    expected.backward()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-9)


def test_settings_in_short_and_at_length():
    text = "{train: {loss: {cross_entropy: 2, focal: {gamma: 3}}}, candidates: {a: {family: unet}}}"
    found = parse_params(text).train_for("a").loss
    assert found.cross_entropy.weight == 2 and found.focal.gamma == 3 and found.dice is None
    assert str(found) == "2 cross entropy + focal (gamma 3)"
    assert str(TrainParams().loss) == "cross entropy + 0.5 dice"
    assert LossParams.model_validate(found.model_dump()) == found


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("{}", "at least one of"),
        ("{dise: 1}", "did you mean `dice`"),
        ("{dice: 0}", "greater than 0"),
        ("{focal: {gama: 2}}", "did you mean `gamma`"),
    ],
)
def test_wrong_settings_say_what_is_wrong(wrong, words):
    with pytest.raises(ConfigError, match=words):
        parse_params(f"{{train: {{loss: {wrong}}}, candidates: {{a: {{family: unet}}}}}}")


@given(shapes, st.sampled_from([4, 50, 1 << 17]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_sums_of_a_softmax_are_those_of_log_softmax_in_any_parts_and_layout(shape, numbers, channels_last):
    logits, labels, _ = case(shape)
    logits, counted = logits.double(), labels != IGNORE
    target = torch.where(counted, labels, 0)
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segpipe.training.losses.softmax._NUMBERS", numbers)
        leaf = logits.clone().requires_grad_()
        found = softmax_sums(leaf, target, counted)
        rng = torch.Generator().manual_seed(1)
        slopes = [torch.randn(part.shape, generator=rng, dtype=torch.float64) for part in found]
        slope = torch.autograd.grad(found, leaf, slopes)[0]
    other = logits.clone().requires_grad_()
    log_p = other.log_softmax(1)
    mass = (log_p.exp() * counted[:, None]).sum((0, *range(2, logits.ndim)))
    expected = -log_p.gather(1, target[:, None])[:, 0], mass
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, other, slopes)[0])
    assert slope.stride() == logits.stride()


def test_sums_of_a_softmax_of_some_of_the_channels_and_of_volumes():
    rng = torch.Generator().manual_seed(0)
    for size in ((6, 5), (3, 4, 5)):
        logits = torch.randn(2, 4, *size, generator=rng).contiguous(
            memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d
        )
        leaf, target = logits.requires_grad_(), torch.randint(0, 3, (2, *size), generator=rng)
        nll, mass = softmax_sums(leaf[:, :-1], target, target >= 0)
        (nll.sum() + (mass * torch.tensor([1.0, 2.0, 3.0])).sum()).backward()
        found = leaf.grad.clone()
        leaf.grad = None
        log_p = leaf[:, :-1].log_softmax(1)
        weights = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, *[1] * len(size))
        (F.nll_loss(log_p, target, reduction="sum") + (log_p.exp() * weights).sum()).backward()
        torch.testing.assert_close(found, leaf.grad, atol=1e-5, rtol=1e-4)
