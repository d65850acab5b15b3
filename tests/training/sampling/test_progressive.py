import json

import numpy as np
import pytest
from skimage.transform import downscale_local_mean

from segpipe.config import Params, TrainParams
from segpipe.errors import ConfigError
from segpipe.files import sha256_file
from segpipe.samples import Sample
from segpipe.training.plan import FirstCrops, Plan
from segpipe.training.planning.planner import plan_on
from segpipe.training.planning.resolution_budget import choose_first_crops
from segpipe.training.sampling.crops import Crops, batches, downscale
from segpipe.training.sampling.progressive import Progressive
from segpipe.training.sampling.volume_crops import VolumeCrops
from segpipe.training.step import Stepper
from segpipe.training.tasks import samples_of
from segpipe.training.train import train_on
from segpipe.training.tuning import Search
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draft_of, draw, fingerprint_of, make_plan
from tests.worlds.trainings import register, tiny_plan
from tests.worlds.volumes import random_volume, volume_plan

FIRST = {
    "crops": FirstCrops(steps=2, edges=(32, 32)),
    "scale": FirstCrops(steps=2, edges=(32, 32), shrink=2),
}


@pytest.mark.parametrize("mode", FIRST)
def test_the_first_steps_see_smaller_crops_and_the_others_are_unchanged(train_reader, mode):
    plain, plan = make_plan(steps=4), make_plan(steps=4, first=FIRST[mode])
    usual = list(batches(samples_of(train_reader, plain), plain.recipe, 0))
    no_worker, one_worker = (list(batches(samples_of(train_reader, plan), plan.recipe, workers)) for workers in (0, 1))
    assert [tuple(images.shape[2:]) for images, _ in no_worker] == [(32, 32), (32, 32), (64, 64), (64, 64)]
    assert all(images.shape[2:] == labels.shape[1:] for images, labels in no_worker)
    for (images, labels), (worker_images, worker_labels) in zip(no_worker, one_worker, strict=True):
        assert bool((images == worker_images).all()) and bool((labels == worker_labels).all())
    assert all(bool((a[0] == b[0]).all()) for a, b in zip(no_worker[2:], usual[2:], strict=True))
    later = list(batches(samples_of(train_reader, plan), plan.recipe, 0, first_step=1))
    assert all(bool((a[0] == b[0]).all()) for a, b in zip(later, no_worker[1:], strict=True)), "the stream continues"


def ramp(edge=160):
    """An image whose two channels hold the position of each pixel."""
    y, x = np.mgrid[:edge, :edge].astype(np.float32)
    return Sample("ramp", np.stack([y, x], -1), np.zeros((edge, edge), np.uint8))


@pytest.mark.parametrize(("mode", "step"), [("crops", 1), ("scale", 2)])
def test_scale_shows_the_same_part_of_an_image_at_half_the_resolution(mode, step):
    plan = make_plan(channels=2, dtype="float32", augment="off")
    image, _ = Crops(MemoryReader([ramp()]), plan, FIRST[mode])[0]
    pixels = image * 0.2 * 255 + 0.4 * 255
    np.testing.assert_allclose(np.diff(pixels[0], axis=0), step, atol=1e-3)
    np.testing.assert_allclose(np.diff(pixels[1], axis=1), step, atol=1e-3)


@pytest.mark.parametrize(("mode", "step"), [("crops", 1), ("scale", 2)])
def test_scale_shows_the_same_part_of_a_volume_at_half_the_resolution(mode, step):
    image, labels = random_volume((40, 40, 40))
    image[..., 0] = np.arange(40)[:, None, None]
    reader = MemoryReader([Sample("v", image, labels, spacing=(1.0, 1.0, 1.0))])
    plan = volume_plan(patch=(16, 16, 24), augment="off", flips=(False,) * 3)
    plan = plan.model_copy(update={"normalisation": make_plan(channels=2).normalisation})
    first = FirstCrops(steps=1, edges=(8, 8, 12), shrink=FIRST[mode].shrink)
    image, labels = VolumeCrops(reader, plan, first)[0]
    assert image.shape == (2, 8, 8, 12) and labels.shape == (8, 8, 12)
    np.testing.assert_allclose(np.diff(image[0] * 0.2 * 255, axis=0), step, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_four_pixels_become_their_mean(dtype):
    sample = draw(1, height=71, width=90, dtype=dtype)
    image, labels = downscale(sample.image, sample.labels, 2)
    expected = downscale_local_mean(sample.image[:70].astype(np.float64), (2, 2, 1))
    assert image.dtype == dtype and image.shape == (35, 45, 3) and labels.shape == (35, 45)
    np.testing.assert_allclose(image, expected if dtype == "float32" else np.rint(expected), rtol=1e-5)
    np.testing.assert_array_equal(labels, sample.labels[:70:2, ::2])
    assert downscale(sample.image, sample.labels, 1)[0] is sample.image


def choose(mode, edges, multiples, name="unet"):
    draft = draft_of(name=name, progressive=mode)
    return choose_first_crops(draft, edges, multiples), draft.reasons


def test_first_crops_are_half_as_large_in_multiples_that_the_network_accepts():
    assert choose("off", (192, 192), (32, 32)) == (None, {})
    first, reasons = choose("scale", (224, 224), (32, 32))
    assert first == FirstCrops(steps=0, edges=(96, 96), shrink=2)
    assert reasons["progressive"] == "the first 50% of the steps see crops of 96 x 96, at half the resolution"
    assert choose("crops", (48, 32, 40), (8, 8, 8), "unet3d")[0] == FirstCrops(steps=0, edges=(24, 16, 16))


@pytest.mark.parametrize(("edges", "multiples"), [((32, 32), (32, 32)), ((32, 32, 32), (16, 16, 16))])
def test_crops_that_cannot_be_smaller_stay(edges, multiples):
    """A single voxel on the deepest level cannot be normalised."""
    first, reasons = choose("crops", edges, multiples)
    assert first is None and "as small as" in reasons["progressive"]


def test_a_detector_refuses_it():
    with pytest.raises(ConfigError, match=r"train\.progressive.*progressive: off"):
        choose("crops", (192, 192), (32, 32), "mask_rcnn")


def test_off_may_be_read_as_false_by_yaml():
    assert TrainParams(progressive=False).progressive == "off"


@pytest.mark.parametrize("mode", FIRST)
def test_a_plan_times_both_kinds_of_steps(mode, tmp_path):
    register()
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "10 steps", "patch": 64, "batch": 2, "progressive": mode, "progressive_share": 0.3}
    params = Params.model_validate({"train": settings, "candidates": {"net": {"family": "tiny"}}})
    plan = plan_on("net", params, fingerprint_of(train), train, val)
    assert plan.recipe.first == FIRST[mode].model_copy(update={"steps": 3}) and "progressive" in plan.reasons
    assert isinstance(samples_of(train, plan), Progressive)
    plan.write(tmp_path / "net.json")
    assert Plan.read(tmp_path / "net.json") == plan


def test_trials_of_a_search_are_shorter_in_proportion(tmp_path, train_reader):
    plan = tiny_plan(steps=100, first=FirstCrops(steps=50, edges=(16, 16)))
    trial = Search(plan, TrainParams(), fingerprint_of(train_reader), 20, tmp_path).trial_plan({})
    assert (trial.recipe.steps, trial.recipe.first.steps) == (20, 10)


def test_plans_without_progressive_training_keep_their_identity():
    assert "first" not in make_plan().exact["recipe"]


@pytest.mark.parametrize("killed_at", [2, 5])
def test_a_resumed_training_gives_the_same_bytes_before_and_after_the_change_of_size(
    tmp_path, train_reader, val_reader, monkeypatch, killed_at
):
    plan = tiny_plan(
        patch=64, steps=7, val_every=7, checkpoint_every=1, first=FirstCrops(steps=3, edges=(32, 32), shrink=2)
    )

    def run(folder):
        train_on(plan, CLASSES, train_reader, val_reader, folder / "out", folder / "live", folder / "checkpoints")
        return sha256_file(folder / "out" / "weights.safetensors")

    whole, step, edges = run(tmp_path / "whole"), Stepper.step, []

    class Killed(BaseException):
        pass

    def killed(self, number, images, *rest):
        if number == killed_at:
            raise Killed
        edges.append(images.shape[-1])
        return step(self, number, images, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", killed)
        with pytest.raises(Killed):
            run(tmp_path / "halted")
    assert edges == [32, 32, 32, 64, 64][:killed_at]
    assert run(tmp_path / "halted") == whole
    losses = json.loads((tmp_path / "halted" / "out" / "history.json").read_text())["train"]
    assert [entry["lr"] for entry in losses] == [entry["lr"] for entry in losses if entry["lr"] > 0], (
        "learning rates are not affected"
    )
