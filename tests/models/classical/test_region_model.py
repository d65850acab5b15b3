"""The classical families of regions: they find classes by edges and similarity, are deterministic, and can be saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segpipe.errors import DataError
from segpipe.models.classical import Edges, EdgesConfig, KMeans, Spectral, SpectralConfig
from segpipe.models.classical.contract import UNSEEN_CLASS_SCORE
from segpipe.models.classical.edges import _seeds
from segpipe.models.classical.region_model import RegionModel, RegionsConfig, _Rows, edge_strength, region_features
from segpipe.samples import IGNORE, Sample
from tests.worlds.colour_patches import colour_patches, patch_normalisation, predicted_ids

COLOURS = np.array([[20, 20, 30], [200, 40, 40], [60, 190, 70]], np.float32)
KINDS: list[tuple[type[RegionModel], RegionsConfig]] = [
    (Edges, EdgesConfig(spacing=8)),
    (Spectral, SpectralConfig(superpixels=60)),
]


def scene(seed: int, channels: int = 3) -> Sample:
    """Noisy patches of colour, 16 pixels wide, with a margin of ignored pixels."""
    return colour_patches(seed, np.tile(COLOURS, (1, 2))[:, :channels], grid=(3, 4))


def fit(kind: type[RegionModel], config: RegionsConfig, channels: int = 3) -> RegionModel:
    return kind.fit(
        [scene(i, channels) for i in range(5)], patch_normalisation(channels).apply, 4, seed=1, config=config
    )


each = pytest.mark.parametrize(("kind", "config"), KINDS, ids=lambda value: getattr(value, "name", ""))


@each
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_patches_of_colour_are_found(kind, config, channels):
    unseen = scene(99, channels)
    labelled = unseen.labels != IGNORE
    assert (predicted_ids(fit(kind, config, channels), unseen) == unseen.labels)[labelled].mean() > 0.93


@each
def test_a_class_that_no_training_image_shows_is_never_predicted(kind, config):
    scores = fit(kind, config)(patch_normalisation().apply(scene(7).image)[None])
    assert scores.shape == (1, 4, 48, 64) and scores.dtype == np.float32
    assert (scores[:, 3] == UNSEEN_CLASS_SCORE).all() and (scores[:, :3] > UNSEEN_CLASS_SCORE / 2).all()


@each
def test_ignored_pixels_are_not_learned(kind, config):
    hidden = [
        Sample(s.key, s.image, np.where(s.labels == 1, IGNORE, s.labels).astype(np.uint8)) for s in map(scene, range(4))
    ]
    assert (predicted_ids(kind.fit(hidden, patch_normalisation().apply, 4, 0, config), scene(5)) != 1).all()


@each
def test_the_same_seed_gives_the_same_bytes_and_a_file_the_same_scores(kind, config, tmp_path: Path):
    models = [fit(kind, config), fit(kind, config)]
    for index, model in enumerate(models):
        model.save(tmp_path / f"{index}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    batch = np.stack([patch_normalisation().apply(scene(i).image) for i in (8, 9)])
    loaded = kind.load(tmp_path / "0.safetensors")
    np.testing.assert_array_equal(loaded(batch), models[0](batch))
    np.testing.assert_array_equal(loaded(batch)[1], loaded(batch[1:])[0])


@each
def test_a_wrong_file_and_a_wrong_input_are_refused(kind, config, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    KMeans.fit([scene(0)], patch_normalisation().apply, 3).save(path)
    with pytest.raises(DataError, match=f"not a {kind.name} model.*train it again"):
        kind.load(path)
    model = fit(kind, config)
    model.weights = model.weights[:, :-1]
    model.save(path)
    with pytest.raises(DataError, match=f"not a {kind.name} model"):
        kind.load(path)
    with pytest.raises(DataError, match="invalid input shape"):
        model(np.zeros((1, 1, 8, 8), np.float32))


@each
def test_samples_without_labels_and_with_a_single_colour(kind, config):
    blank = Sample("x", np.zeros((8, 8, 3), np.uint8), np.full((8, 8), IGNORE, np.uint8))
    for samples in ([], [blank], [Sample("y", blank.image)]):
        with pytest.raises(DataError, match="no labelled pixel"):
            kind.fit(samples, patch_normalisation().apply, 3, 0, config)
    flat = Sample("z", np.full((9, 11, 3), 7, np.uint8), np.ones((9, 11), np.uint8))
    assert (predicted_ids(kind.fit([flat], patch_normalisation().apply, 3, 0, config), flat) == 1).all()
    two = Sample("t", flat.image, np.zeros((9, 11), np.uint8))
    assert set(np.unique(predicted_ids(kind.fit([flat, two], patch_normalisation().apply, 2, 0, config), flat))) <= {
        0,
        1,
    }


@each
def test_regions_are_numbered_without_gaps_and_connected(kind, config):
    colours = np.random.default_rng(0).random((45, 67, 3)).astype(np.float32) * 100
    regions = kind.cut(colours, edge_strength(colours), config, 0)
    assert regions.shape == (45, 67) and set(np.unique(regions)) == set(range(regions.max() + 1))
    pieces = sum(ndimage.label(regions == index)[1] for index in range(regions.max() + 1))
    assert pieces == regions.max() + 1


def test_regions_of_edges_do_not_cross_a_step():
    colours = np.zeros((40, 60, 3), np.float32)
    colours[:, 23:] = 80
    regions = Edges.cut(colours, edge_strength(colours), EdgesConfig(spacing=10), 0)
    left, right = set(np.unique(regions[:, :22])), set(np.unique(regions[:, 24:]))
    assert not left & right


def test_spectral_merges_similar_superpixels():
    """Two uniform halves: many superpixels, two regions."""
    colours = np.zeros((40, 60, 3), np.float32)
    colours[:, 30:] = 80
    regions = Spectral.cut(colours, edge_strength(colours), SpectralConfig(superpixels=40, threshold=0.05), 0)
    assert regions.max() == 1 and (regions[:, :28] == regions[0, 0]).all() and (regions[:, 32:] == regions[0, -1]).all()


def test_seeds_are_the_flattest_pixels_of_each_cell():
    edges = np.random.default_rng(1).random((23, 31)).astype(np.float32)
    seeds = _seeds(edges, 10)
    assert sorted(seeds[seeds > 0]) == list(range(1, 13))
    for top in range(0, 23, 10):
        for left in range(0, 31, 10):
            cell = (slice(top, top + 10), slice(left, left + 10))
            assert edges[cell][seeds[cell] > 0] == edges[cell].min()


def test_features_equal_those_of_plain_numpy():
    rng = np.random.default_rng(2)
    colours, regions = rng.random((9, 8, 3)).astype(np.float32) * 50, rng.integers(0, 4, (9, 8))
    edges = edge_strength(colours)
    features = region_features(colours, edges, regions)
    for index in range(4):
        values = np.concatenate([colours, edges[:, :, None]], 2)[regions == index].astype(np.float64)
        expected = np.concatenate([values.mean(0), values.std(0)]) / 100
        np.testing.assert_allclose(features[index, :8], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(features[index, 8:16], expected[0] * expected, rtol=1e-4, atol=1e-6)


def test_memory_of_fitting_is_bounded_and_late_images_are_drawn():
    rows = _Rows(100, 2, seed=0)
    for image in range(60):
        label = np.full((4, 5), int(image >= 30), np.uint8)
        rows.add(np.full((20, 3), image, np.float32), np.arange(20).reshape(4, 5), label)
        assert rows.n_rows <= 200
    features, pixels = rows.drawn()
    assert len(features) == len(pixels) == 100
    assert pixels[:, 1].mean() == pytest.approx(0.5, abs=0.2)
