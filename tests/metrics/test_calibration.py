"""Calibration against plain loops, closed forms, and torch's optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from segpipe.metrics.calibration import (
    BINS,
    TEMPERATURES,
    PixelSample,
    apply_temperature,
    class_reliability,
    fit_temperature,
    logits_of,
    reliability,
)
from segpipe.samples import IGNORE
from tests.worlds.property_tests import examples

K = 4


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return truths that are drawn from softmax(logits / temperature), and the logits."""
    logits = rng.normal(0, 2, (K, *shape))
    p = softmax(logits / temperature)
    truth = (p.cumsum(0) < rng.random(shape)).sum(0).clip(0, K - 1).astype(np.uint8)
    return truth, logits


def plain_ece(truth: np.ndarray, confidence: np.ndarray, predicted: np.ndarray, bins: int) -> float:
    """Compute ECE bin by bin over (low, high]; the first bin includes its lower end."""
    total, n = 0.0, truth.size
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins) | ((b == 0) & (confidence == 0))
        if inside.any():
            total += inside.sum() / n * abs(confidence[inside].mean() - (predicted == truth)[inside].mean())
    return total


@examples(60)
@given(st.integers(0, 10**6), st.sampled_from([1, 10, BINS]))
def test_ece_against_a_plain_loop(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    truth, logits = drawn(rng, (5, int(rng.integers(1, 9))), temperature=3.0)
    p = softmax(logits).astype(np.float32)
    truth[rng.random(truth.shape) < 0.2] = IGNORE
    counted = truth != IGNORE
    histogram = reliability(truth, p, bins)
    assume(counted.any())
    confidence, predicted = p.max(0)[counted].astype(float), p.argmax(0)[counted]
    assert histogram.expected_error()[0] == pytest.approx(plain_ece(truth[counted], confidence, predicted, bins))
    assert histogram.count.sum() == counted.sum()
    by_class = class_reliability(truth, p, bins)
    for k in range(K):
        confidence, present = p[k][counted].astype(float), (truth[counted] == k).astype(int)
        assert by_class.expected_error()[k] == pytest.approx(
            plain_ece(present, confidence, np.ones_like(present), bins)
        )


def test_without_counted_pixels_there_is_no_error() -> None:
    histogram = reliability(np.full((2, 3), IGNORE, np.uint8), np.full((K, 2, 3), 0.25))
    assert np.isnan(histogram.expected_error()).all() and np.isnan(histogram.largest_error()).all()


def test_the_reliability_curve_by_hand() -> None:
    p = np.array([[0.9, 0.9, 0.9, 0.6], [0.1, 0.1, 0.1, 0.4]])
    histogram = reliability(np.array([0, 0, 1, 1], np.uint8), p, bins=10)
    mean, share = histogram.curve()
    np.testing.assert_allclose([mean[0, 8], share[0, 8], mean[0, 5], share[0, 5]], [0.9, 2 / 3, 0.6, 0])
    assert np.isnan(mean[0, 0])
    assert histogram.expected_error()[0] == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.6)
    assert histogram.largest_error()[0] == pytest.approx(0.6)


def test_images_add_up_to_the_dataset() -> None:
    rng = np.random.default_rng(1)
    truth, logits = drawn(rng, (20, 30))
    p = softmax(logits)
    whole = reliability(truth, p)
    parts = [reliability(truth[i : i + 5], p[:, i : i + 5]) for i in range(0, 20, 5)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    np.testing.assert_array_equal(total.count, whole.count)
    np.testing.assert_allclose(total.expected_error(), whole.expected_error())


def test_a_calibrated_model_has_no_error() -> None:
    truth, logits = drawn(np.random.default_rng(2), (400, 400))
    assert reliability(truth, softmax(logits)).expected_error()[0] < 0.005
    assert reliability(truth, softmax(3 * logits)).expected_error()[0] > 0.1


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_true_temperature_is_found(temperature: float) -> None:
    truth, logits = drawn(np.random.default_rng(3), (200, 200), temperature)
    fitted = fit_temperature(truth, logits)
    assert fitted == pytest.approx(temperature, rel=0.03)
    assert fit_temperature(truth, logits_of(softmax(logits))) == pytest.approx(fitted, rel=1e-4)
    p = apply_temperature(softmax(logits), fitted)
    assert reliability(truth, p).expected_error()[0] < 0.01
    np.testing.assert_array_equal(p.argmax(0), logits.argmax(0))


def test_the_temperature_is_that_of_a_search() -> None:
    """The likelihood is computed by hand and minimised by a bounded search without slopes."""
    from scipy.optimize import minimize_scalar

    truth, logits = drawn(np.random.default_rng(4), (40, 50), 1.7)
    truth[:4] = IGNORE
    fitted = fit_temperature(truth, logits)
    counted = truth != IGNORE

    def by_hand(temperature: float) -> float:
        p = softmax(logits / temperature)[:, counted]
        return float(-np.log(p[truth[counted], np.arange(p.shape[1])]).mean())

    search = minimize_scalar(by_hand, bounds=(0.1, 10), method="bounded")
    assert fitted == pytest.approx(search.x, rel=1e-3)


@pytest.mark.slow  # the import takes several seconds
def test_the_temperature_is_that_of_torch() -> None:
    """Compared with L-BFGS on the gradient of torch."""
    import torch

    truth, logits = drawn(np.random.default_rng(4), (40, 50), 1.7)
    truth[:4] = IGNORE
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    x, y = torch.from_numpy(logits)[None], torch.from_numpy(truth.astype(np.int64))[None]
    optimiser = torch.optim.LBFGS(
        [log_t], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(x / log_t.exp(), y, ignore_index=IGNORE)
        value.backward()
        return value

    optimiser.step(loss)
    assert fit_temperature(truth, logits) == pytest.approx(log_t.exp().item(), rel=1e-6)


def test_a_temperature_has_bounds() -> None:
    logits = np.array([[5.0, 0.0], [0.0, 5.0]])
    assert fit_temperature(np.array([0, 1], np.uint8), logits) == TEMPERATURES[0], (
        "all right: no temperature is confident enough"
    )
    assert fit_temperature(np.array([1, 0], np.uint8), logits) == TEMPERATURES[1], (
        "all wrong: no temperature is unconfident enough"
    )
    with pytest.raises(ValueError, match="no pixel"):
        fit_temperature(np.full(2, IGNORE, np.uint8), logits)


def test_the_sample_is_bounded_and_every_pixel_is_equally_likely() -> None:
    """Draws from two images of very different size; the number of a pixel is its score."""
    size, times_drawn = 50, np.zeros(600)
    for seed in range(400):
        sample = PixelSample(1, size, seed)
        sample.add(np.zeros(100, np.uint8), np.arange(100.0)[None])
        sample.add(np.array([0] * 500 + [IGNORE] * 40, np.uint8), np.arange(100.0, 640)[None])
        assert sample.truth.size == size and len(set(sample.scores[0])) == size
        times_drawn[sample.scores[0].astype(int)] += 1
    expected = 400 * size / 600
    assert abs(times_drawn[:100].mean() - expected) < 4 * np.sqrt(expected / 100)
    assert (abs(times_drawn - expected) < 5.5 * np.sqrt(expected)).all()


def test_a_small_stream_is_kept_as_a_whole_and_reproducible() -> None:
    truth, logits = drawn(np.random.default_rng(5), (10, 10))
    samples = [PixelSample(K, 1000, 7) for _ in range(2)]
    for sample in samples:
        sample.add(truth[:3], logits[:, :3])
        sample.add(truth[3:], logits[:, 3:])
    np.testing.assert_array_equal(samples[0].scores, samples[1].scores)
    assert fit_temperature(samples[0].truth, samples[0].scores) == pytest.approx(
        fit_temperature(truth, logits), rel=1e-5
    )


def test_invalid_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the classes, then the same shape"):
        reliability(np.zeros((3, 3), np.uint8), np.zeros((3, 3, K)))
    with pytest.raises(ValueError, match="class id 9"):
        reliability(np.full((3, 3), 9, np.uint8), np.zeros((K, 3, 3)))
