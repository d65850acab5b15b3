"""Pictures of images and labels."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe.data.drawing import contours, fullest_slice, overlay, thumbnail, to_display

RNG = np.random.default_rng(1)


def test_8_bit_values_are_kept() -> None:
    image = RNG.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_display(image), image)
    np.testing.assert_array_equal(to_display(image[:, :, :1]), np.repeat(image[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_values_are_stretched(dtype: type) -> None:
    ramp = np.linspace(1000, 3000, 10_000).reshape(100, 100, 1).astype(dtype)
    shown = to_display(ramp)
    assert shown.dtype == np.uint8
    assert (shown[0, 0].max(), shown[-1, -1].min()) == (0, 255)
    assert (np.diff(shown[:, :, 0].ravel().astype(int)) >= 0).all()
    assert to_display(np.full((4, 4, 1), 5, dtype)).std() == 0


def test_overlay_fills_and_outlines_classes_and_leaves_the_rest_clear() -> None:
    image = np.full((7, 7, 3), 100, np.uint8)
    labels = np.zeros((7, 7), np.uint8)
    labels[1:6, 1:6] = 1
    labels[0, 0] = 255
    colors = np.array([[0, 0, 0], [200, 50, 0]], np.uint8)
    drawn = overlay(image, labels, colors, alpha=0.5)
    assert drawn[3, 3].tolist() == [150, 75, 50]
    assert drawn[1, 1].tolist() == [200, 50, 0]
    assert (drawn[labels != 1] == 100).all()


def test_contours_agree_with_a_loop_over_neighbours() -> None:
    labels = RNG.integers(0, 2, (9, 8), dtype=np.uint8)
    expected = np.zeros(labels.shape, bool)
    for y in range(9):
        for x in range(8):
            neighbours = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            expected[y, x] = any(0 <= j < 9 and 0 <= i < 8 and labels[j, i] != labels[y, x] for j, i in neighbours)
    np.testing.assert_array_equal(contours(labels), expected)


@pytest.mark.parametrize(
    ("shape", "expected"), [((100, 50), (40, 20)), ((50, 100), (20, 40)), ((30, 40), (30, 40)), ((1000, 3), (40, 1))]
)
def test_thumbnails_keep_proportions(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert thumbnail(np.zeros((*shape, 3), np.uint8), 40).shape[:2] == expected


def test_the_first_three_of_many_channels_and_the_first_of_two_are_shown() -> None:
    image = RNG.integers(0, 256, (8, 9, 6), dtype=np.uint8)
    np.testing.assert_array_equal(to_display(image), image[:, :, :3])
    np.testing.assert_array_equal(to_display(image[:, :, :2]), np.repeat(image[:, :, :1], 3, axis=2))
    assert thumbnail(image.astype(np.float32), 4).shape == (4, 4, 3)


def test_volumes_are_shown_by_their_middle_or_fullest_slice() -> None:
    volume = RNG.integers(0, 256, (5, 8, 9, 1), dtype=np.uint8)
    np.testing.assert_array_equal(to_display(volume), to_display(volume[2]))
    np.testing.assert_array_equal(thumbnail(volume, 4), thumbnail(volume[2], 4))
    labels = np.zeros((5, 8, 9), np.uint8)
    assert fullest_slice(labels) == 2
    labels[0] = 255
    labels[1, 2:4] = 1
    labels[4, 2:6] = 1
    assert fullest_slice(labels) == 4
    colors = np.array([[0, 0, 0], [200, 50, 0]], np.uint8)
    np.testing.assert_array_equal(overlay(volume, labels, colors), overlay(volume[4], labels[4], colors))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_thumbnails_keep_the_window_of_the_whole_image(dtype: type) -> None:
    ramp = np.linspace(1000, 3000, 40_000).reshape(200, 200, 1).astype(dtype)
    small = thumbnail(ramp, 20)
    expected = to_display(ramp).reshape(20, 10, 20, 10, 3).mean((1, 3))
    assert np.abs(small.astype(float) - expected).max() <= 1.5
