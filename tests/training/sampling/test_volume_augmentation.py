import numpy as np
import pytest

from segpipe.training.sampling.volume_augmentation import draw_mirror, draw_rotation, vary_intensities


def rng(seed=0):
    return np.random.default_rng(seed)


def test_off_changes_nothing():
    patch = rng().standard_normal((1, 4, 5, 6)).astype(np.float32)
    assert draw_rotation("off", (1, 1, 1), rng()) is None
    assert draw_mirror("off", (True, True, True), rng()).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(vary_intensities(patch, "off", rng()), patch)


@pytest.mark.parametrize(
    ("strength", "zoom", "degrees"), [("light", 1.11, 0), ("medium", 1.25, 10), ("strong", 1.43, 20)]
)
def test_rotations_and_zooms_stay_within_their_limits(strength, zoom, degrees):
    drawn = [draw_rotation(strength, (1, 1, 1), rng(seed)) for seed in range(200)]
    matrices = [matrix for matrix in drawn if matrix is not None]
    assert 80 < len(matrices) < 160, "some crops keep their voxels"
    scales = [np.cbrt(np.linalg.det(matrix)) for matrix in matrices]
    assert 1 / zoom <= min(scales) < 0.97 and 1.03 < max(scales) <= zoom
    for matrix, scale in zip(matrices, scales, strict=True):
        np.testing.assert_allclose(
            matrix @ matrix.T, np.eye(3) * scale**2, atol=1e-9
        )  # a rotation and a zoom, nothing else
        angle = np.degrees(np.arccos(np.clip((np.trace(matrix / scale) - 1) / 2, -1, 1)))
        # Three rotations, one about each axis; rounding near 1 is 1e-6 degrees of an arccosine.
        assert angle <= degrees * np.sqrt(3) + 1e-5


def test_thick_slices_are_rotated_only_within_their_plane():
    matrices = [m for seed in range(40) if (m := draw_rotation("strong", (5.0, 1.0, 1.0), rng(seed))) is not None]
    for matrix in matrices:
        assert np.abs(matrix[0, 1:]).max() == np.abs(matrix[1:, 0]).max() == 0
    assert any(abs(matrix[1, 2]) > 0.05 for matrix in matrices)


def test_only_allowed_axes_are_mirrored():
    drawn = np.array([draw_mirror("medium", (True, False, True), rng(seed)) for seed in range(60)])
    assert set(drawn[:, 0]) == set(drawn[:, 2]) == {1, -1} and set(drawn[:, 1]) == {1}


def test_intensities_change_within_the_limits_of_the_strength_and_follow_from_the_draws():
    patch = rng(1).gamma(2.0, size=(2, 8, 9, 10)).astype(np.float32)
    original = patch.copy()
    for seed in range(20):
        varied = vary_intensities(patch, "light", rng(seed))
        assert varied.dtype == np.float32 and varied.shape == patch.shape
        for before, after in zip(patch, varied, strict=True):
            assert abs(after.mean() - before.mean()) <= 0.1 * before.std() + 1e-4
            assert 0.9 - 1e-3 <= after.std() / before.std() <= 1.1 + 1e-3
            order = np.argsort(before.ravel())
            assert (np.diff(after.ravel()[order]) >= -1e-4).all(), "brighter voxels stay brighter"
        np.testing.assert_array_equal(varied, vary_intensities(patch, "light", rng(seed)))
    np.testing.assert_array_equal(patch, original)
    assert not np.array_equal(vary_intensities(patch, "light", rng(1)), vary_intensities(patch, "light", rng(2)))


def test_a_constant_crop_stays_finite():
    assert np.isfinite(vary_intensities(np.full((1, 4, 4, 4), 3, np.float32), "strong", rng())).all()
