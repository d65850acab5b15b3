import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segpipe.samples import IGNORE
from segpipe.training.sampling import augmentation
from segpipe.training.sampling.augmentation import build_augment, window_edge
from segpipe.training.sampling.crops import Crops, batches, cut_window
from tests.worlds.property_tests import examples
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draw, make_plan


def stream(reader, plan, workers=0, **span):
    return [(i.numpy().copy(), m.numpy().copy()) for i, m in batches(Crops(reader, plan), plan.recipe, workers, **span)]


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_shapes_types_and_normalisation(train_reader):
    plan = make_plan(augment="off")
    images, labels = stream(train_reader, plan)[0]
    assert images.shape == (2, 3, 64, 64) and images.dtype == np.float32
    assert labels.shape == (2, 64, 64) and labels.dtype == np.uint8
    assert images.min() >= (0 - 0.4) / 0.2 and images.max() <= (1 - 0.4) / 0.2


@pytest.mark.parametrize("workers", [1, 3])
def test_the_stream_does_not_depend_on_the_number_of_workers(train_reader, workers):
    plan = make_plan()
    assert same(stream(train_reader, plan), stream(train_reader, plan, workers))


def test_workers_do_not_run_what_libraries_of_the_parent_registered_for_its_end(train_reader, monkeypatch):
    """Prefect registers functions that fail in a forked process."""

    def fail():
        raise RuntimeError("ran in a worker")

    monkeypatch.setattr(threading, "_threading_atexits", [fail])
    assert len(stream(train_reader, make_plan(), 1)) == make_plan().recipe.steps


def test_a_stream_continues_from_any_step(train_reader):
    plan = make_plan()
    whole = stream(train_reader, plan)
    assert same(whole[4:], stream(train_reader, plan, first_step=4))


def test_ranks_share_a_batch_between_them(train_reader):
    plan = make_plan(batch=4, steps=2)
    whole = stream(train_reader, plan)
    parts = [stream(train_reader, plan, rank=r, world_size=2) for r in range(2)]
    for step in range(2):
        for rank in range(2):
            np.testing.assert_array_equal(whole[step][0][rank::2], parts[rank][step][0])


def test_seeds_differ(train_reader):
    plan = make_plan()
    assert not same(stream(train_reader, plan), stream(train_reader, plan.model_copy(update={"seed": 4})))


def test_an_epoch_sees_every_image_once_without_rare_crops(train_reader):
    crops = Crops(train_reader, make_plan(rare_crops=0.0))
    epochs = [[crops._shuffled(epoch * 8 + i) for i in range(8)] for epoch in range(2)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs) and epochs[0] != epochs[1]


def test_rare_crops_show_the_rare_class(train_reader):
    """Only two of eight images contain a bar; a third of the crops that are drawn by class must show one."""
    share = {}
    for rare in (0.0, 1.0):
        crops = Crops(train_reader, make_plan(rare_crops=rare, augment="off", patch=32))
        share[rare] = np.mean([(crops[i][1] == 2).any() for i in range(120)])
    assert share[0.0] < 0.2 and share[1.0] > 0.3


def test_a_drawn_pixel_lies_in_the_middle_half_if_the_image_is_large_enough():
    sample = draw(1, height=200, width=200)
    labels = np.zeros((200, 200), np.uint8)
    labels[100, 90] = 2
    reader = MemoryReader([type(sample)(sample.key, sample.image, labels)])
    crops = Crops(reader, make_plan(augment="off", patch=64))
    for seed in range(30):
        top, left = crops._corner(labels, 2, np.random.default_rng(seed))
        assert 16 <= 100 - top < 48 and 16 <= 90 - left < 48


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([32, 64]), st.integers(0, 50), st.integers(0, 50))
@examples(60)
def test_a_window_has_at_least_the_size_of_a_patch_and_padding_is_ignored(height, width, patch, top, left):
    top, left = min(top, max(0, height - patch)), min(left, max(0, width - patch))
    image = np.arange(height * width, dtype=np.float32).reshape(height, width, 1)
    labels = np.ones((height, width), np.uint8)
    pixels, window_labels = cut_window(image, labels, (top, left), patch, patch)
    assert pixels.shape == (patch, patch, 1) and window_labels.shape == (patch, patch)
    assert (window_labels != IGNORE).sum() == min(height, patch) * min(width, patch)
    real = pixels[window_labels != IGNORE].ravel()
    expected = image[top : top + patch, left : left + patch].ravel()
    np.testing.assert_array_equal(real, expected)


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (1, "uint16"), (5, "float32")])
@pytest.mark.parametrize("strength", ["off", "light", "medium", "strong"])
def test_every_kind_of_image_can_be_augmented(strength, channels, dtype):
    sample = draw(2, 90, 90, channels, dtype)
    edge = window_edge(strength, 64)
    augment = build_augment(strength, channels, dtype, 64, free_orientation=True)
    window, window_labels = cut_window(sample.image, sample.labels, (0, 0), edge, 64)
    image, labels = augment(window, window_labels, 7)
    again, labels_again = augment(window, window_labels, 7)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert image.shape == (64, 64, channels) and labels.shape == (64, 64) and labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 1, 2, IGNORE} and np.isfinite(image).all()
    if strength != "off":
        assert any(not np.array_equal(augment(window, window_labels, s)[0], image) for s in range(3))


@pytest.mark.parametrize("strength", ["medium", "strong"])
def test_labels_move_with_their_pixels(strength):
    """An image of its own labels still matches them after any transform."""
    labels = draw(5, 96, 96).labels.copy()
    labels[labels == IGNORE] = 0
    image = np.repeat(labels[:, :, None], 2, 2).astype(
        np.float32
    )  # not 8-bit RGB: only geometry and a linear change of intensities
    augment = build_augment(strength, 2, "float32", 64, free_orientation=True, elastic=True)
    for seed in range(20):
        pixels, moved_labels = augment(image, labels, seed)
        inner = moved_labels != IGNORE
        regions = [inner & (moved_labels == k) for k in range(3)]
        means = [pixels[region].mean() for region in regions if region.sum() > 40]
        assert means == sorted(means) and (len(means) < 2 or means[-1] - means[0] > 0.3)


@pytest.mark.parametrize("strength", ["medium", "strong"])
def test_elastic_crops_are_deformed_as_often_and_as_far_as_documented(strength, monkeypatch):
    """Without other changes, crops of an image of row numbers show the displacement of each pixel."""
    amounts = augmentation._AMOUNTS[strength]
    elastic_only = replace(amounts, zoom=(1, 1), rotation=0, tone=0, hue=0, degrade=0)
    monkeypatch.setitem(augmentation._AMOUNTS, strength, elastic_only)
    rows = np.mgrid[:160, :160][0].astype(np.float32)[..., None]
    deform, labels = build_augment(strength, 1, "float32", 96, elastic=True), np.zeros((160, 160), np.uint8)
    displacements = np.array([np.std(deform(rows, labels, seed)[0] - rows[32:128, 32:128]) for seed in range(200)])
    deformed = displacements > 0.5
    assert deformed.mean() == pytest.approx(amounts.elastic, abs=0.07) and displacements[~deformed].max() < 1e-3
    assert displacements[deformed].mean() == pytest.approx(amounts.displacement, rel=0.1)


def test_only_free_orientation_turns_images_upside_down():
    labels = np.zeros((96, 96), np.uint8)
    labels[:40] = 1
    image = np.zeros((96, 96, 3), np.uint8)
    tops = {}
    for free in (False, True):
        augment = build_augment("medium", 3, "uint8", 64, free_orientation=free)
        tops[free] = [(augment(image, labels, s)[1][:8, 24:40] == 1).mean() for s in range(40)]
    assert min(tops[False]) > 0.9 and min(tops[True]) == 0


def test_draws_of_different_steps_are_independent():
    """Flips must not be correlated: all combinations occur."""
    image = np.zeros((64, 64, 3), np.uint8)
    labels = np.zeros((64, 64), np.uint8)
    labels[:32, :32], labels[:32, 32:], labels[32:, :32], labels[32:, 32:] = 0, 1, 2, 3
    augment = build_augment("light", 3, "uint8", 64, free_orientation=True)
    corners = {tuple(augment(image, labels, s)[1][[8, 8, -8, -8], [8, -8, 8, -8]]) for s in range(200)}
    assert len([c for c in corners if IGNORE not in c]) == 8, "the eight symmetries of a square"


def test_images_of_a_batch_are_contiguous_torch_tensors(train_reader):
    images, labels = next(batches(Crops(train_reader, make_plan()), make_plan().recipe, 0))
    assert isinstance(images, torch.Tensor) and images.is_contiguous() and labels.dtype == torch.uint8
