"""Spoilt images: against the library that augments, by closed forms, and alike for every dtype and dimension."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from segpipe.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, resample_to_labels
from segpipe.inference.preprocess import Normalisation
from segpipe.samples import Sample

BYTE = Normalisation(low=(0,) * 3, high=(255,) * 3, mean=(0.5,) * 3, std=(0.2,) * 3)
RNG = np.random.default_rng(0)
PHOTO = np.kron(RNG.integers(40, 200, (8, 10, 3), np.uint8), np.ones((6, 6, 1), np.uint8))


def window(low: float, high: float, channels: int = 1) -> Normalisation:
    return Normalisation(low=(low,) * channels, high=(high,) * channels, mean=(0,) * channels, std=(1,) * channels)


def spoilt(name: str, image: np.ndarray, severity: str = "medium", normalisation: Normalisation = BYTE) -> np.ndarray:
    return CORRUPTIONS[name].apply(image, normalisation, severity, (1, 2, 3))


def test_jpeg_is_that_of_pillow() -> None:
    for severity, quality in zip(SEVERITIES, (50, 25, 10), strict=True):
        stream = io.BytesIO()
        PIL.Image.fromarray(PHOTO).save(stream, "JPEG", quality=quality)
        wanted = np.array(PIL.Image.open(stream)).astype(int)
        found = spoilt("jpeg", PHOTO, severity)
        assert np.abs(found - wanted).max() <= 2 and np.abs(found - PHOTO.astype(int)).max() > 10


def test_blur_brightness_and_contrast_are_those_of_other_libraries() -> None:
    import albumentations as A
    import cv2

    wide = cv2.GaussianBlur(PHOTO.astype(np.float32), (0, 0), 2, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(spoilt("blur", PHOTO) - wide).max() < 2, "kernels of another length"
    moved = spoilt("brightness", PHOTO).astype(int) - PHOTO
    sign = np.sign(moved.flat[0])
    wanted = A.RandomBrightnessContrast((sign * 0.2,) * 2, (0, 0), p=1)(image=PHOTO)["image"]
    assert np.abs(spoilt("brightness", PHOTO).astype(int) - wanted).max() <= 1
    single = PHOTO[:, :, :1]
    flat = (
        A.RandomBrightnessContrast((0, 0), (-0.5, -0.5), p=1)(image=single)["image"].reshape(single.shape).astype(int)
    )
    ours = spoilt("contrast", single, normalisation=window(0, 255)).astype(int)
    assert np.ptp(ours - flat) <= 1, "the same but for what both keep: the mean, or the middle of the range"
    assert abs(ours.mean() - single.mean()) < 0.5


def test_noise_has_the_strength_that_it_says_in_every_dtype() -> None:
    for dtype, low, high in ((np.uint8, 0, 255), (np.uint16, 1000, 5000), (np.float32, -2.0, 3.0)):
        flat = np.full((200, 200, 1), (low + high) / 2).astype(dtype)
        found = spoilt("noise", flat, "medium", window(low, high))
        assert found.dtype == dtype and found.shape == flat.shape
        assert np.std(found.astype(float) - flat) == pytest.approx(0.08 * (high - low), rel=0.03)
        np.testing.assert_array_equal(found, spoilt("noise", flat, "medium", window(low, high)))
    other = CORRUPTIONS["noise"].apply(flat, window(low, high), "medium", (1, 2, 4))
    assert (other != found).any()


def test_what_lies_outside_of_the_window_stays_outside() -> None:
    image = np.array([[[-50.0], [0.5], [90.0]]], np.float32)
    found = spoilt("brightness", image, "light", window(0, 1))
    np.testing.assert_allclose(np.abs(found - image), 0.1, atol=1e-5)


def test_contrast_keeps_the_mean_of_each_channel() -> None:
    image = PHOTO.astype(np.float32) * [1, 0.5, 0.2]
    found = spoilt("contrast", image.astype(np.float32), "strong")
    np.testing.assert_allclose(found.mean((0, 1)), image.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(found.std((0, 1)), 0.25 * image.std((0, 1)), rtol=1e-4)


@pytest.mark.parametrize("shape", [(48, 60, 1), (48, 60, 5), (7, 48, 60, 1)])
def test_every_dimension_and_number_of_channels(shape: tuple[int, ...]) -> None:
    image = RNG.random(shape, np.float32)
    own = window(0, 1, shape[-1])
    for name in set(CORRUPTIONS) - {"jpeg", "scale"}:
        found = spoilt(name, image, "strong", own)
        assert found.shape == shape and found.dtype == np.float32 and (found != image).any()
    half = spoilt("scale", image, "medium", own)
    assert half.shape == (*shape[:-3], 24, 30, shape[-1])
    wanted = image.reshape(*shape[:-3], 24, 2, 30, 2, shape[-1]).mean((-2, -4))
    np.testing.assert_allclose(half, wanted, atol=1e-6)


def test_class_ids_come_back_to_the_pixels_of_the_labels() -> None:
    small = RNG.integers(0, 3, (4, 12, 15), np.uint8)
    np.testing.assert_array_equal(resample_to_labels(small, (4, 24, 30)), small.repeat(2, 1).repeat(2, 2))
    odd = resample_to_labels(small[0], (35, 47))
    assert odd.shape == (35, 47)
    for row, column in ((0, 0), (34, 46), (17, 20)):  # the pixel whose area holds the centre
        assert odd[row, column] == small[0, int((row + 0.5) * 12 / 35), int((column + 0.5) * 15 / 47)]
    np.testing.assert_array_equal(resample_to_labels(small[0], (12, 15)), small[0])


def test_jpeg_is_for_grey_and_coloured_images_of_8_bit() -> None:
    suits = CORRUPTIONS["jpeg"].suits
    assert suits(Sample("a", PHOTO)) and suits(Sample("b", PHOTO[:, :, :1]))
    assert not suits(Sample("c", PHOTO.astype(np.uint16))) and not suits(Sample("d", PHOTO[None]))
    assert not suits(Sample("e", np.repeat(PHOTO, 2, axis=2)))
    assert spoilt("jpeg", PHOTO[:, :, :1], normalisation=window(0, 255)).shape == (48, 60, 1)
    assert CORRUPTIONS["noise"].suits(Sample("f", PHOTO[None].astype(np.float32)))
