"""What becomes of intensities, against numpy on the pixels themselves."""

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
from tests.worlds.tiny_training import CLASSES, MemoryReader, draw, fingerprint_of, make_plan
from tests.worlds.volumes import VolumeReader, ellipsoid

THEIRS = Preprocessing((0.5,) * 3, (0.25,) * 3)


def pixels(normalisation, reader):
    """(C, n): all that a network would see."""
    return np.concatenate([normalisation.apply(s.image).reshape(s.image.shape[-1], -1) for s in reader.samples], 1)


def test_that_of_pretrained_weights_only_where_it_fits(train_reader):
    found, why = choose_normalisation("auto", fingerprint_of(train_reader), train_reader, THEIRS)
    assert (
        found == Normalisation(low=(0,) * 3, high=(255,) * 3, mean=(0.5,) * 3, std=(0.25,) * 3) and "trained on" in why
    )
    sixteen = MemoryReader([draw(i, channels=2, dtype="uint16") for i in range(4)])
    found, why = choose_normalisation("auto", fingerprint_of(sixteen), sixteen, THEIRS)
    seen = pixels(found, sixteen)
    np.testing.assert_allclose(seen.mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(seen.std(1), 1, atol=1e-3)
    assert "training images" in why and not why.startswith("as set")


def test_that_of_the_dataset_can_be_asked_for(train_reader):
    found, why = choose_normalisation("dataset", fingerprint_of(train_reader), train_reader, THEIRS, release(CLASSES))
    np.testing.assert_allclose(pixels(found, train_reader).mean(1), 0, atol=1e-3)
    assert why.startswith("as set")


def test_a_constant_channel_has_one(train_reader):
    flat = fingerprint_of(train_reader, low=[7.0] * 3, high=[7.0] * 3, mean=[7.0] * 3, std=[0.0] * 3)
    found, _ = choose_normalisation("auto", flat, train_reader)
    assert found.apply(train_reader[0].image).shape[0] == 3
    assert window_normalisation((250, 251), 3, MemoryReader([draw(0)])).std == (1e-3,) * 3, (
        "what lies outside is constant"
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_window_cuts_what_lies_outside(dtype):
    reader = MemoryReader([draw(i, dtype=dtype) for i in range(5)])
    low, high = np.percentile(np.concatenate([s.image.ravel() for s in reader.samples]), (30, 80))
    found, why = choose_normalisation((float(low), float(high)), fingerprint_of(reader), reader, THEIRS)
    inside = np.clip(np.concatenate([s.image.reshape(-1, 3) for s in reader.samples]).astype(float), low, high)
    inside = (inside - low) / (high - low)
    np.testing.assert_allclose(found.mean, inside.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, inside.std(0), rtol=1e-6)
    assert f"the window {low:g} to {high:g}" in why
    np.testing.assert_allclose(pixels(found, reader).T, (inside - found.mean) / found.std, atol=1e-4)
    assert Normalisation.model_validate_json(found.model_dump_json()) == found
    assert "clip" not in choose_normalisation("dataset", fingerprint_of(reader), reader)[0].model_dump()


def test_that_of_a_release_goes_on_where_channels_fit(train_reader):
    fingerprint, heritage = fingerprint_of(train_reader), release(CLASSES)
    assert choose_normalisation("auto", fingerprint, train_reader, None, heritage) == (
        heritage.spec.normalisation,
        f"that of {heritage.source}",
    )
    grey = MemoryReader([draw(i, channels=1) for i in range(2)])
    assert "training images" in choose_normalisation("auto", fingerprint_of(grey), grey, None, heritage)[1]


def test_intensities_without_a_unit_are_scaled_by_volume():
    reader = VolumeReader([ellipsoid(i) for i in range(6)])
    fingerprint = volumes_fingerprint(reader)
    own, why = choose_normalisation("auto", fingerprint, reader)
    assert own.per_image and own.channels == 1 and "no common unit" in why
    calibrated = VolumeReader([ellipsoid(i, dtype="uint8") for i in range(6)])
    shared, why = choose_normalisation("auto", fingerprint, calibrated)
    assert not shared.per_image and shared.high == (1000.0,) and "one window for all" in why
    assert choose_normalisation("dataset", fingerprint, reader)[0] == shared


def test_crops_of_an_image_are_brought_to_what_the_whole_of_it_is():
    """Images by themselves: a crop that is dark in a bright image stays dark, and the model of service sees the same."""
    scaled = [draw(i) for i in range(6)]
    reader = MemoryReader(
        [type(s)(s.key, (s.image * np.float32(0.2 + i)).astype(np.float32), s.labels) for i, s in enumerate(scaled)]
    )
    own, why = choose_normalisation("image", fingerprint_of(reader), reader)
    assert own.per_image and why.startswith("as set")
    plan = make_plan(augment="off", patch=32, rare_crops=0.0, dtype="float32").model_copy(update={"normalisation": own})
    crops, whole = Crops(reader, plan), [own.apply(s.image) for s in reader.samples]
    for position in range(12):
        image, _ = crops[position]
        found = [np.argwhere(np.isclose(of[0], image[0, 0, 0], rtol=0, atol=1e-6)) for of in whole]
        places = [(of, y, x) for of, hits in zip(whole, found, strict=True) for y, x in hits]
        assert any(
            np.allclose(of[:, y : y + 32, x : x + 32], image, atol=1e-5) for of, y, x in places if y <= 40 and x <= 56
        )
    assert segmenter_spec(plan, CLASSES).normalisation == own


def test_a_baseline_follows_the_setting(train_reader):
    wanted = Params.model_validate({"train": {"normalisation": [10, 20]}, "candidates": {"base": {"family": "kmeans"}}})
    plan = plan_on("base", wanted, fingerprint_of(train_reader), train_reader, train_reader)
    assert plan.normalisation.high == (20,) * 3 and "window 10 to 20" in plan.reasons["normalisation"]
