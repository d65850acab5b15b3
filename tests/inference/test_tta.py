"""Test-time augmentation, compared with explicit averages."""

import itertools

import numpy as np
import pytest

from segpipe.inference.engines.engine import softmax
from segpipe.inference.outputs import Outputs
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.tta import relative_cost, run_averaged, symmetries
from segpipe.samples import ClassTable
from tests.worlds.segmenters import UNIT, Pixelwise

OUTPUTS = Outputs(3)


class Lopsided:
    """Scores that depend on the position of a pixel, so that each symmetry gives another prediction."""

    name = "toy"

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        assert batch.flags.c_contiguous, "torch does not support negative strides"
        ramp = np.arange(batch[0, 0].size, dtype=np.float32).reshape(batch.shape[2:]) / batch[0, 0].size
        return np.concatenate([batch[:, :1] * ramp, batch[:, :1] - ramp, ramp[None, None] + 0 * batch[:, :1]], 1)


def symmetries_of_a_square(x):
    """Yield the eight symmetries of an array (..., H, W), made by rotations, each with its inverse."""
    for quarter, mirrored in itertools.product(range(4), (False, True)):
        transformed = np.rot90(x[..., ::-1] if mirrored else x, quarter, (-2, -1))

        def inverse(y, quarter=quarter, mirrored=mirrored):
            y = np.rot90(y, -quarter, (-2, -1))
            return y[..., ::-1] if mirrored else y

        yield transformed, inverse


@pytest.mark.parametrize("size", [(6, 6), (4, 8)])
def test_d4_is_the_mean_over_rotations_and_reflections(size):
    batch = np.random.default_rng(0).normal(size=(2, 1, *size)).astype(np.float32)
    engine = Lopsided()
    probabilities = softmax(run_averaged(engine, "d4", batch, OUTPUTS, 2), 1)
    assert engine.calls == 8
    expected = np.mean(
        [inverse(softmax(engine(np.ascontiguousarray(x)), 1)) for x, inverse in symmetries_of_a_square(batch)], 0
    )
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("tta", "shape", "axes"),
    [
        ("mirror", (5, 7), [(3,)]),
        ("flips", (5, 7), [(2,), (3,), (2, 3)]),
        ("mirror", (3, 5, 7), [(4,)]),
        ("flips", (3, 5, 7), [(2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]),
    ],
)
def test_flips_equal_an_explicit_average(tta, shape, axes):
    batch = np.random.default_rng(1).normal(size=(1, 1, *shape)).astype(np.float32)
    expected = np.mean([np.flip(softmax(Lopsided()(np.flip(batch, a).copy()), 1), a) for a in [(), *axes]], 0)
    logits = run_averaged(Lopsided(), tta, batch, OUTPUTS, 2)
    np.testing.assert_allclose(softmax(logits, 1), expected, atol=1e-6)
    assert logits.dtype == np.float32 and np.isfinite(logits).all()


def test_none_runs_the_engine_once():
    batch = np.ones((1, 1, 4, 4), np.float32)
    np.testing.assert_array_equal(run_averaged(Lopsided(), "none", batch, OUTPUTS, 2), Lopsided()(batch))
    assert symmetries("none", 2) == [(False, ())]
    assert [len(set(symmetries(tta, 2))) for tta in ("mirror", "flips", "d4")] == [2, 4, 8]


@pytest.mark.parametrize("size", [(50, 40), (150, 90)])
def test_a_segmenter_averages_whole_images_and_tiles(size):
    """A prediction that depends on the pixel alone is the same for all symmetries, which are applied to each tile."""
    common = {"candidate": "toy", "family": "unet", "classes": ClassTable.from_names(["a", "b", "c"])}
    common |= {"normalisation": UNIT, "tile": 64, "overlap": 16}
    image = np.random.default_rng(2).random(size).astype(np.float32)
    plain, augmented = (Segmenter(SegmenterSpec(**common, tta=tta), Pixelwise()) for tta in ("none", "d4"))
    single, mean = plain.predict(image, probabilities=True), augmented.predict(image, probabilities=True)
    np.testing.assert_array_equal(single.class_ids, mean.class_ids)
    np.testing.assert_allclose(single.probabilities, mean.probabilities, atol=1e-5)
    assert len(augmented.engine.shapes) == 8 * len(plain.engine.shapes)


def test_scales_equal_an_average_with_torchs_resampling():
    """The sizes are multiples of the stride."""
    import torch

    batch = np.random.default_rng(3).normal(size=(2, 1, 16, 24)).astype(np.float32)

    def resized(x, size):
        return torch.nn.functional.interpolate(
            torch.from_numpy(x.copy()), size, mode="bilinear", align_corners=False
        ).numpy()

    expected = np.zeros((2, 3, 16, 24))
    for size in [(12, 18), (16, 24), (20, 30)]:
        for mirrored in (False, True):
            scaled = resized(batch, size)[..., :: -1 if mirrored else 1]
            probabilities = softmax(Lopsided()(np.ascontiguousarray(scaled)), 1)[..., :: -1 if mirrored else 1]
            expected += resized(probabilities, (16, 24)) / 6
    logits = run_averaged(Lopsided(), "multi_scale", batch, OUTPUTS, 2)
    np.testing.assert_allclose(softmax(logits, 1), expected, atol=1e-5)
    assert relative_cost("multi_scale", 2) == pytest.approx(2 * (0.75**2 + 1 + 1.25**2))
    assert [relative_cost(tta, 3) for tta in ("none", "mirror", "flips")] == [1, 2, 8]


def test_at_another_scale_edges_are_multiples_of_the_stride():
    sizes = []

    class Watched(Lopsided):
        def __call__(self, batch):
            sizes.append(batch.shape[2:])
            return super().__call__(batch)

    run_averaged(Watched(), "multi_scale", np.zeros((1, 1, 32, 96), np.float32), OUTPUTS, 32)
    assert sorted(set(sizes)) == [(32, 64), (32, 96), (32, 128)]
