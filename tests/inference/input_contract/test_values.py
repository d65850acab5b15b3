"""Values of another number type or scale: converted exactly, or refused with both sides named. The oracles are closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe.errors import DataError
from segpipe.inference.input_contract.spec import InputSpec
from segpipe.inference.input_contract.values import to_training_values

RNG = np.random.default_rng(5)
EIGHT = RNG.integers(20, 230, (40, 50, 3)).astype(np.uint8)


def spec(dtype: str, low: float, high: float, whole: bool = True, spread: float | None = None) -> InputSpec:
    return InputSpec(
        dtype=dtype,
        whole_numbers=whole,
        minimum=(low,) * 3,
        maximum=(high,) * 3,
        spread=((high - low) / 2 if spread is None else spread,) * 3,
    )


BYTES, WIDE, TWELVE = spec("uint8", 0, 255), spec("uint16", 100, 65000), spec("uint16", 0, 4095)
UNIT, HOUNSFIELD = spec("float32", 0, 1, whole=False), spec("float32", -1024, 3071)


@pytest.mark.parametrize(
    ("values", "trained", "expected"),
    [
        (EIGHT, BYTES, EIGHT),
        (EIGHT.astype(np.uint16) * 257, BYTES, EIGHT),
        (EIGHT.astype(np.uint16) << 8, BYTES, EIGHT),
        (EIGHT.astype(np.float32) / 255, BYTES, EIGHT),
        (EIGHT.astype(np.float16) / np.float16(255), BYTES, EIGHT),
        (EIGHT / 255.0, BYTES, EIGHT),
        (EIGHT.astype(np.float32), BYTES, EIGHT),
        (EIGHT.astype(np.int64), BYTES, EIGHT),
        (np.zeros((4, 4, 3), np.uint16), BYTES, np.zeros((4, 4, 3), np.uint8)),
        (EIGHT, WIDE, EIGHT.astype(np.uint16) * 257),
        (EIGHT.astype(np.uint16) * 257 / 65535, WIDE, EIGHT.astype(np.uint16) * 257),
        (EIGHT, spec("uint16", 0, 255), EIGHT.astype(np.uint16)),
        (EIGHT, UNIT, EIGHT.astype(np.float32) / np.float32(255)),
        (EIGHT.astype(np.uint16) * 257, UNIT, (EIGHT.astype(np.uint16) * 257).astype(np.float32) / np.float32(65535)),
        (EIGHT.astype(np.uint16) * 10, HOUNSFIELD, EIGHT.astype(np.float32) * 10),
    ],
)
def test_exact_conversions(values: np.ndarray, trained: InputSpec, expected: np.ndarray) -> None:
    converted, notes = to_training_values(values, trained)
    assert converted.dtype == trained.dtype == expected.dtype
    np.testing.assert_array_equal(converted, expected)
    assert len(notes) == (values.dtype != trained.dtype)


@pytest.mark.parametrize(
    ("values", "trained"),
    [
        (EIGHT.astype(np.uint16), BYTES),  # 8-bit values without their window: a dark image of 16 bits
        (EIGHT.astype(np.uint16) * 16, BYTES),  # 12 bits
        (RNG.integers(0, 65536, (40, 50, 3)).astype(np.uint16), BYTES),  # 16 bits that are not 8 bits
        (RNG.random((40, 50, 3)).astype(np.float32), BYTES),  # floats that are no 8-bit values
        (EIGHT.astype(np.float32) / 4095, BYTES),  # 0..1, but of 12 bits
        (EIGHT.astype(np.float32) - 128, BYTES),
        ((EIGHT > 99).astype(np.float32), BYTES),  # 0 and 1 of 255, or black and white
        (EIGHT.astype(np.float32) / 127.5 - 1, BYTES),
        (EIGHT, TWELVE),
        (EIGHT.astype(np.float32) / 255, TWELVE),
        (RNG.integers(30000, 65536, (40, 50, 3)).astype(np.uint16), TWELVE),  # of the same type, but of 16 bits
        (EIGHT, spec("float32", 0, 0.2, whole=False)),  # a reflectance has no window of 8 bits
        (EIGHT.astype(np.float32) / 100, spec("float32", 50, 217)),  # the same voxels divided by 100
        (EIGHT.astype(np.float32) / 255, HOUNSFIELD),  # scaled to 0..1, inside of the range
        (RNG.normal(size=(40, 50, 3)).astype(np.float32), HOUNSFIELD),  # standardised
    ],
)
def test_everything_else_is_refused_and_both_sides_are_named(values: np.ndarray, trained: InputSpec) -> None:
    with pytest.raises(DataError, match=r"on another scale .*found .* from .* to .*expected .* from .* to .*\. Fix: "):
        to_training_values(values, trained)


def test_values_resampled_to_fractions_are_taken_within_the_range() -> None:
    image = RNG.uniform(-900, 2000, (30, 30, 3)).astype(np.float32)
    np.testing.assert_array_equal(to_training_values(image, HOUNSFIELD)[0], image)


def test_named_channels_are_ordered_and_others_refused() -> None:
    trained = BYTES.model_copy(update={"channel_names": ("red", "nir", "DAPI")})
    image, notes = trained.in_channel_order(EIGHT, ["nir", "dapi", "red"])
    np.testing.assert_array_equal(image, EIGHT[..., [2, 0, 1]])
    assert notes == ["channels ordered as red, nir, DAPI"]
    assert trained.in_channel_order(EIGHT, [])[0] is EIGHT
    with pytest.raises(DataError, match=r"found red, green, blue, expected red, nir, DAPI"):
        trained.in_channel_order(EIGHT, ["red", "green", "blue"])


def test_sizes_far_from_the_training_images_are_noted() -> None:
    trained = BYTES.model_copy(update={"size_min": (12, 40, 44), "size_max": (12, 40, 44)})
    assert trained.size_notes((12, 44, 44)) == []
    (note,) = trained.size_notes((1, 40, 44))
    assert note == "its size of 44 x 40 x 1 is far from that of the training images, 44 x 40 x 12 to 44 x 40 x 12"
