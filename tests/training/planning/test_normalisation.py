"""The choice of a normalisation, compared with numpy on the pixels themselves."""

import numpy as np
import pytest

from segpipe.config import Params
from segpipe.inference.preprocess import Normalisation
from segpipe.models.weights.encoder_weights import Preprocessing
from segpipe.training.planning.normalisation import choose_normalisation, window_normalisation
from segpipe.training.planning.planner import plan_on
from segpipe.training.sampling.crops import Crops
from segpipe.training.scoring import segmenter_spec
from tests.training.planning.test_volume_recipe import volumes_fingerprint
from tests.training.planning.test_warm_start import release
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draw, fingerprint_of, make_plan
from tests.worlds.volumes import ellipsoid

PRETRAINED = Preprocessing((0.5,) * 3, (0.25,) * 3)


def pixels(normalisation, reader):
    """All values that a network would see, (C, n)."""
    return np.concatenate([normalisation.apply(s.image).reshape(s.image.shape[-1], -1) for s in reader.samples], 1)


def test_that_of_pretrained_weights_is_used_only_if_it_fits(train_reader):
    normalisation, reason = choose_normalisation("auto", fingerprint_of(train_reader), train_reader, PRETRAINED)
    assert normalisation == Normalisation(low=(0,) * 3, high=(255,) * 3, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert "trained with" in reason
    sixteen = MemoryReader([draw(i, channels=2, dtype="uint16") for i in range(4)])
    normalisation, reason = choose_normalisation("auto", fingerprint_of(sixteen), sixteen, PRETRAINED)
    values = pixels(normalisation, sixteen)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(values.std(1), 1, atol=1e-3)
    assert "training images" in reason and not reason.startswith("as set")


def test_that_of_the_dataset_can_be_set(train_reader):
    normalisation, reason = choose_normalisation(
        "dataset", fingerprint_of(train_reader), train_reader, PRETRAINED, release(CLASSES)
    )
    np.testing.assert_allclose(pixels(normalisation, train_reader).mean(1), 0, atol=1e-3)
    assert reason.startswith("as set")


def test_a_constant_channel_has_a_normalisation(train_reader):
    flat = fingerprint_of(train_reader, low=[7.0] * 3, high=[7.0] * 3, mean=[7.0] * 3, std=[0.0] * 3)
    normalisation, _ = choose_normalisation("auto", flat, train_reader)
    assert normalisation.apply(train_reader[0].image).shape[0] == 3
    assert window_normalisation((250, 251), 3, MemoryReader([draw(0)])).std == (1e-3,) * 3, (
        "values outside are constant"
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_window_clips_values_outside(dtype):
    reader = MemoryReader([draw(i, dtype=dtype) for i in range(5)])
    low, high = np.percentile(np.concatenate([s.image.ravel() for s in reader.samples]), (30, 80))
    normalisation, reason = choose_normalisation((float(low), float(high)), fingerprint_of(reader), reader, PRETRAINED)
    inside = np.clip(np.concatenate([s.image.reshape(-1, 3) for s in reader.samples]).astype(float), low, high)
    inside = (inside - low) / (high - low)
    np.testing.assert_allclose(normalisation.mean, inside.mean(0), rtol=1e-6)
    np.testing.assert_allclose(normalisation.std, inside.std(0), rtol=1e-6)
    assert f"the window {low:g} to {high:g}" in reason
    expected = (inside - normalisation.mean) / normalisation.std
    np.testing.assert_allclose(pixels(normalisation, reader).T, expected, atol=1e-4)
    assert Normalisation.model_validate_json(normalisation.model_dump_json()) == normalisation
    assert "clip" not in choose_normalisation("dataset", fingerprint_of(reader), reader)[0].model_dump()


def test_that_of_a_release_is_kept_if_its_channels_fit(train_reader):
    fingerprint, warm_start = fingerprint_of(train_reader), release(CLASSES)
    assert choose_normalisation("auto", fingerprint, train_reader, None, warm_start) == (
        warm_start.spec.normalisation,
        f"that of {warm_start.source}",
    )
    grey = MemoryReader([draw(i, channels=1) for i in range(2)])
    assert "training images" in choose_normalisation("auto", fingerprint_of(grey), grey, None, warm_start)[1]


def test_intensities_without_a_common_unit_are_normalised_per_volume():
    reader = MemoryReader([ellipsoid(i) for i in range(6)])
    fingerprint = volumes_fingerprint(reader)
    per_volume, reason = choose_normalisation("auto", fingerprint, reader)
    assert per_volume.per_image and per_volume.channels == 1 and "no common unit" in reason
    calibrated = MemoryReader([ellipsoid(i, dtype="uint8") for i in range(6)])
    shared, reason = choose_normalisation("auto", fingerprint, calibrated)
    assert not shared.per_image and shared.high == (1000.0,) and "one window for all" in reason
    assert choose_normalisation("dataset", fingerprint, reader)[0] == shared


def test_crops_are_normalised_by_the_whole_of_their_image():
    """A dark crop of a bright image stays dark, as it is in inference."""
    scaled = [draw(i) for i in range(6)]
    reader = MemoryReader(
        [type(s)(s.key, (s.image * np.float32(0.2 + i)).astype(np.float32), s.labels) for i, s in enumerate(scaled)]
    )
    per_image, reason = choose_normalisation("image", fingerprint_of(reader), reader)
    assert per_image.per_image and reason.startswith("as set")
    plan = make_plan(augment="off", patch=32, rare_crops=0.0, dtype="float32")
    plan = plan.model_copy(update={"normalisation": per_image})
    crops, whole = Crops(reader, plan), [per_image.apply(s.image) for s in reader.samples]
    for position in range(12):
        image, _ = crops[position]
        first_pixels = [np.argwhere(np.isclose(of[0], image[0, 0, 0], rtol=0, atol=1e-6)) for of in whole]
        corners = [(of, y, x) for of, pixels in zip(whole, first_pixels, strict=True) for y, x in pixels]
        assert any(
            np.allclose(of[:, y : y + 32, x : x + 32], image, atol=1e-5) for of, y, x in corners if y <= 40 and x <= 56
        )
    assert segmenter_spec(plan, CLASSES).normalisation == per_image


def test_a_classical_family_follows_the_setting(train_reader):
    params = Params.model_validate({"train": {"normalisation": [10, 20]}, "candidates": {"base": {"family": "kmeans"}}})
    plan = plan_on("base", params, fingerprint_of(train_reader), train_reader, train_reader)
    assert plan.normalisation.high == (20,) * 3 and "window 10 to 20" in plan.reasons["normalisation"]
