import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.config import Params
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.errors import ConfigError
from segpipe.models.volumetric.segresnet import SegresnetConfig
from segpipe.models.volumetric.unet3d import Unet3dConfig
from segpipe.models.volumetric.vnet import VnetConfig
from segpipe.samples import Sample
from segpipe.training.plan import Plan, explain
from segpipe.training.planning.planner import plan_on
from segpipe.training.planning.volume_recipe import choose_patch3d, choose_spacing, end_differences
from tests.worlds.property_tests import examples
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draft_of, draw, fingerprint_of
from tests.worlds.volumes import TABLE, ellipsoid, register


def empty(shape, spacing=(1.0, 1.0, 1.0)):
    return Sample("e", np.broadcast_to(np.uint8(0), (*shape, 1)), np.broadcast_to(np.uint8(0), shape), spacing=spacing)


def volumes_fingerprint(reader):
    size = {"min": 20, "median": 23, "max": 27}
    counts = reader.class_pixels.sum(0).tolist()
    fields = {
        "data_hash": "d" * 64,
        "classes": TABLE,
        "n_images": {"train": len(reader), "val": 2, "test": 2},
        "channels": 1,
        "dtype": "float32",
        "height": size,
        "width": size,
        "depth": size,
        "spacing": [1.0, 1.0, 1.0],
        "task": "volume",
        "class_pixels": {"train": counts, "val": counts, "test": counts},
        "ignored_pixels": {"train": 0, "val": 0, "test": 0},
        "low": [0.0],
        "high": [1000.0],
        "mean": [300.0],
        "std": [100.0],
        "groups": 0,
        "instances": False,
    }
    return Fingerprint.model_validate(fields)


def params(family, **train):
    return Params.model_validate({"train": {"budget": "2 steps"} | train, "candidates": {"net": {"family": family}}})


@pytest.fixture(scope="module")
def reader():
    return MemoryReader([ellipsoid(i) for i in range(6)])


def test_the_voxel_size_is_the_median_by_axis():
    sizes = [(1.0, 1.0, 2.0), (1.0, 2.0, 2.5), (1.5, 2.0, 2.0)]
    draft = draft_of(MemoryReader([empty((4, 4, 4), s) for s in sizes]))
    assert choose_spacing(draft, None) == (1.0, 2.0, 2.0)
    assert "3 of 3 are resampled to it" in draft.reasons["voxel size"]
    assert choose_spacing(draft_of([empty((4, 4, 4), None)]), None) is None
    assert choose_spacing(draft_of([empty((4, 4, 4))]), (2.0, 2.0, 3.0)) == (2.0, 2.0, 3.0)


def test_the_voxel_size_of_thick_slices_is_the_tenth_percentile():
    thick = [*np.linspace(4, 8, 11)]
    draft = draft_of(MemoryReader([empty((4, 4, 4), (t, 1.0, 1.0)) for t in thick]))
    assert choose_spacing(draft, None) == (pytest.approx(4.4), 1.0, 1.0)
    assert "thick along the depth" in draft.reasons["voxel size"]


def test_a_patch_sees_the_typical_volume_if_that_fits():
    reader = [empty((35, 50, 36))]
    assert choose_patch3d(reader, None, (8, 8, 8), 1 << 18) == ((40, 56, 40), (35, 50, 36))
    assert choose_patch3d(reader, (1.0, 1.0, 1.0), (2, 8, 8), 1 << 18)[0] == (36, 56, 40)
    # at half the voxel size the volume has eight times the voxels
    assert choose_patch3d(reader, (0.5, 0.5, 0.5), (8, 8, 8), 1 << 30)[1] == (70, 100, 72)


@examples(40)
@given(st.tuples(*[st.integers(3, 600)] * 3), st.tuples(*[st.sampled_from([1, 4, 8, 16])] * 3))
def test_a_patch_is_in_multiples_and_within_the_limit(shape, steps):
    patch, median = choose_patch3d([empty(shape)], None, steps, 1 << 18)
    assert median == shape
    assert all(p % s == 0 for p, s in zip(patch, steps, strict=True))
    assert math.prod(patch) <= max(1 << 18, 8 * math.prod(steps))
    assert math.prod(p // s for p, s in zip(patch, steps, strict=True)) >= 8 or max(shape) < 3 * max(steps)
    if math.prod(-(-n // s) * s for n, s in zip(shape, steps, strict=True)) <= 1 << 18:
        assert all(p >= n for p, n in zip(patch, shape, strict=True)), "it sees the whole volume"


def test_the_difference_of_the_ends_of_an_axis_is_measured(reader):
    depth, height, width = end_differences(reader)
    assert height > 0.5, "one half is front, the other back"
    assert max(depth, width) < 0.2
    swapped = [Sample(s.key, s.image, np.flip(s.labels, 1)) for s in reader.samples]
    assert end_differences(MemoryReader([*reader.samples, *swapped]))[1] < 1e-9, "as many the other way round"


def test_networks_halve_each_axis_as_often_as_its_voxels_allow():
    assert Unet3dConfig().patch_multiple == (8, 8, 8) == VnetConfig().patch_multiple == SegresnetConfig().patch_multiple
    thick = Unet3dConfig().for_spacing((4.0, 1.0, 1.0))
    assert thick.whole_levels == (2, 0, 0) and thick.patch_multiple == (2, 8, 8)
    assert Unet3dConfig(whole_levels=(1, 0, 0)).for_spacing((4.0, 1.0, 1.0)).whole_levels == (1, 0, 0), "as set"
    assert Unet3dConfig().for_spacing((1.0, 0.9, 1.1)).patch_multiple == (8, 8, 8)
    assert Unet3dConfig().for_spacing((900.0, 1.0, 1.0)).patch_multiple == (1, 8, 8)


@pytest.fixture(scope="module")
def planned(reader):
    register()
    return plan_on("net", params("tiny3d"), volumes_fingerprint(reader), reader, reader)


def test_a_plan_for_volumes_has_a_grid(planned, tmp_path):
    grid = planned.volume
    assert grid.patch == (28, 24, 24) and grid.spacing == (1.0, 1.0, 1.0) and grid.flips == (True, False, True)
    assert planned.recipe.batch == 8 and planned.recipe.patch == 32
    text = explain(planned)
    assert all(name in text for name in ("voxel size", "mirroring", "normalisation", "patch"))
    assert "72 pixels" not in text and "images are" not in text
    planned.write(tmp_path / "net.json")
    assert Plan.read(tmp_path / "net.json") == planned


def test_settings_for_volumes_are_followed(reader):
    register()
    settings = params("tiny3d", patch3d=[13, 16, 24], spacing=[1, 1, 2], flips=["width"], batch=1)
    plan = plan_on("net", settings, volumes_fingerprint(reader), reader, reader)
    assert plan.volume.patch == (16, 16, 24) and plan.volume.spacing == (1, 1, 2)
    assert plan.volume.flips == (False, False, True) and plan.recipe.batch == 1
    with pytest.raises(ValueError, match="spacing"):
        params("tiny3d", spacing=[1, 0, 1])


def test_a_classical_family_is_planned_for_volumes_too(reader):
    plan = plan_on("net", params("kmeans"), volumes_fingerprint(reader), reader, reader)
    assert plan.recipe is None and plan.volume.patch == (25, 24, 22), "the median shape, rounded up"
    assert plan.normalisation.per_image


def test_crops_of_volumes_are_not_deformed(reader):
    with pytest.raises(ConfigError, match=r"train\.elastic"):
        plan_on("net", params("unet3d", elastic=True), volumes_fingerprint(reader), reader, reader)


def test_families_that_do_not_fit_the_data_are_refused_with_those_that_do(reader):
    with pytest.raises(
        ConfigError, match=r"unet learns from images, and the dataset holds volumes.*unet3d.*candidates"
    ):
        plan_on("net", params("unet"), volumes_fingerprint(reader), reader, reader)
    images = MemoryReader([draw(i) for i in range(4)])
    with pytest.raises(ConfigError, match="unet3d learns from volumes, and the dataset holds images"):
        plan_on("net", params("unet3d"), fingerprint_of(images), images, images)
