"""The k-means baseline: it finds classes by colour, is deterministic, and can be saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from segpipe.errors import DataError
from segpipe.inference.preprocess import Normalisation
from segpipe.models.classical import KMeans, KMeansConfig, kmeans
from segpipe.samples import IGNORE, Sample
from tests.worlds.colour_patches import colour_patches, predicted_ids

COLOURS = np.array([[20, 20, 30], [200, 40, 40], [60, 190, 70], [90, 90, 220]], np.float32)
NORMALISATION = Normalisation(low=(0, 0, 0), high=(255, 255, 255), mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.25))


def scene(seed: int, channels: int = 3) -> Sample:
    """Noisy patches of colour, 16 pixels wide; two of four colours belong to the last class."""
    return colour_patches(seed, COLOURS[:, :channels], n_classes=3)


def fit(**options: int) -> KMeans:
    return KMeans.fit(
        [scene(i) for i in range(6)], NORMALISATION.apply, 3, seed=1, config=KMeansConfig(clusters=8, **options)
    )


def test_it_finds_classes_that_differ_in_colour() -> None:
    unseen = scene(99)
    labelled = unseen.labels != IGNORE
    assert (predicted_ids(fit(), unseen, NORMALISATION) == unseen.labels)[labelled].mean() > 0.9


def test_ignored_pixels_are_not_learned() -> None:
    """All pixels of class 1 are ignored, so that the baseline must not predict it."""
    hidden = [
        Sample(s.key, s.image, np.where(s.labels == 1, IGNORE, s.labels).astype(np.uint8)) for s in map(scene, range(6))
    ]
    model = KMeans.fit(hidden, NORMALISATION.apply, 3, seed=1)
    assert 1 not in model.cluster_class
    assert (model(NORMALISATION.apply(scene(7).image)[None])[0, 1] == -1e4).all()


def test_any_normalisation_gives_the_same_masks() -> None:
    other = Normalisation(low=(10, 0, 5), high=(190, 255, 250), mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    samples = [scene(i) for i in range(4)]
    first = KMeans.fit(samples, NORMALISATION.apply, 3, seed=1)
    second = KMeans.fit(samples, other.apply, 3, seed=1)
    assert (predicted_ids(first, samples[0], NORMALISATION) == predicted_ids(second, samples[0], other)).mean() > 0.98


def test_scores_have_the_shape_and_dtype_of_an_engine() -> None:
    model = fit()
    batch = np.stack([NORMALISATION.apply(scene(i).image) for i in (1, 2)])
    scores = model(batch)
    assert scores.shape == (2, 3, 64, 80) and scores.dtype == np.float32 and np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[1], model(batch[1:])[0])


def test_scores_are_distances_to_centroids() -> None:
    """Compared with a double loop over pixels and centroids."""
    model = fit()
    image = NORMALISATION.apply(scene(3).image)
    features = kmeans._to_features(kmeans._with_neighbourhood(image, model.smoothing), model.low, model.high)
    scores = model(image[None])[0].reshape(3, -1)
    for pixel in (0, 81, 2000, 5119):
        for class_id in range(3):
            centroids = model.centroids[model.cluster_class == class_id].astype(np.float64)
            nearest = min(float(((features[pixel] - c) ** 2).sum()) for c in centroids)
            assert scores[class_id, pixel] == pytest.approx(-nearest / (2 * model.variance), rel=1e-3, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2])
def test_other_numbers_of_channels_are_not_converted_to_cielab(channels: int) -> None:
    normalisation = Normalisation(
        low=(0,) * channels, high=(255,) * channels, mean=(0.4,) * channels, std=(0.3,) * channels
    )
    model = KMeans.fit([scene(i, channels) for i in range(4)], normalisation.apply, 3, seed=0)
    assert model.centroids.shape[1] == 2 * channels
    unseen = scene(50, channels)
    labelled = unseen.labels != IGNORE
    assert (predicted_ids(model, unseen, normalisation) == unseen.labels)[labelled].mean() > (
        0.6 if channels == 1 else 0.85
    )


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for i in range(2):
        fit().save(tmp_path / f"{i}.safetensors")
        contents.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_a_loaded_model_gives_the_same_scores(tmp_path: Path) -> None:
    model = fit()
    model.save(tmp_path / "weights.safetensors")
    batch = NORMALISATION.apply(scene(5).image)[None]
    np.testing.assert_array_equal(KMeans.load(tmp_path / "weights.safetensors")(batch), model(batch))


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(DataError, match="not a kmeans model"):
        KMeans.load(path)
    save_file({"conv.weight": np.zeros((3, 3), np.float32)}, path)
    with pytest.raises(DataError, match="not a kmeans model"):
        KMeans.load(path)
    broken = fit()
    broken.cluster_class = broken.cluster_class + 40
    broken.save(path)
    with pytest.raises(DataError, match="has clusters of unknown classes"):
        KMeans.load(path)


def test_memory_of_fitting_is_bounded_and_late_images_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels of a long stream of images are in memory, and they come from the whole stream."""
    max_pixels = 0
    lowest_ranks = kmeans._lowest_ranks

    def watched(parts: list[tuple[np.ndarray, ...]], count: int) -> tuple[np.ndarray, ...]:
        nonlocal max_pixels
        max_pixels = max(max_pixels, sum(len(p[0]) for p in parts))
        return lowest_ranks(parts, count)

    monkeypatch.setattr(kmeans, "_lowest_ranks", watched)

    def stream() -> Iterator[Sample]:
        for i in range(60):
            value = 1 if i >= 30 else 0
            yield Sample(str(i), np.full((20, 20, 3), value * 200, np.uint8), np.full((20, 20), value, np.uint8))

    config = KMeansConfig(pixels=1000, pixels_per_image=200)
    channels, labels = kmeans._draw_pixels(stream(), NORMALISATION.apply, 2, 0, config)
    assert len(channels) == len(labels) == 1000
    assert max_pixels <= 2 * 1000 + 200
    assert labels.mean() == pytest.approx(0.5, abs=0.08)


def test_samples_without_labelled_pixels() -> None:
    blank = Sample("x", np.zeros((8, 8, 3), np.uint8), np.full((8, 8), IGNORE, np.uint8))
    with pytest.raises(DataError, match="no labelled pixel"):
        KMeans.fit([blank, Sample("y", blank.image)], NORMALISATION.apply, 3)


def test_a_uniform_image_and_a_wrong_input() -> None:
    flat = [Sample("x", np.full((8, 8, 3), 7, np.uint8), np.zeros((8, 8), np.uint8))]
    model = KMeans.fit(flat, NORMALISATION.apply, 2)
    assert (predicted_ids(model, flat[0], NORMALISATION) == 0).all()
    with pytest.raises(DataError, match="invalid input shape"):
        model(np.zeros((1, 1, 8, 8), np.float32))


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        KMeansConfig(clusters=1)
    with pytest.raises(ValidationError):
        KMeansConfig(cluster=8)
