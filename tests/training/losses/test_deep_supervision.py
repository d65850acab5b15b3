"""Levels of a network that learn too: what they cost, and that nothing but training knows of them."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segpipe.inference.preprocess import Normalisation
from segpipe.inference.trained import load_trained
from segpipe.models.registry import build_network
from segpipe.models.volumetric.networks import Unet3dConfig
from segpipe.training.losses import SegmentationLoss
from segpipe.training.plan import VolumeGrid
from segpipe.training.planning.footprint import activation_bytes
from segpipe.training.sampling.crops import batches
from segpipe.training.step import build_stepper
from segpipe.training.tasks import deep_supervision_loss, samples_of
from segpipe.training.train import train_on
from tests.worlds.tiny_training import make_plan, make_recipe
from tests.worlds.volumes import TABLE, VolumeReader, ellipsoid

OPTIONS = {"channels": 4, "depth": 4, "whole_levels": [1, 0, 0], "deep_supervision": True}
PATCH = (8, 16, 16)


def plan_of(**changes):
    own = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)
    grid = VolumeGrid(patch=PATCH, spacing=(1.0, 1.0, 1.0), flips=(False,) * 3)
    plan = make_plan(channels=1, family="unet3d", steps=2, val_every=2, augment="off", **changes)
    return plan.model_copy(update={"options": OPTIONS, "normalisation": own, "volume": grid})


@pytest.fixture(scope="module")
def readers():
    return VolumeReader([ellipsoid(i) for i in range(3)]), VolumeReader([ellipsoid(9, (10, 18, 20))])


def test_levels_speak_in_training_alone():
    network = build_network("unet3d", Unet3dConfig.model_validate(OPTIONS), 1, 3, 0)
    plain = build_network("unet3d", Unet3dConfig.model_validate(OPTIONS | {"deep_supervision": False}), 1, 3, 0)
    plain.load_state_dict(network.state_dict(), strict=False)
    image = torch.randn(2, 1, *PATCH)
    said = network.train()(image)
    assert [tuple(logits.shape[2:]) for logits in said] == [PATCH, (8, 8, 8), (4, 4, 4)]
    torch.testing.assert_close(network.eval()(image), plain.eval()(image))
    torch.testing.assert_close(said[0], plain.train()(image))
    assert set(network.state_dict()) - set(plain.state_dict()) == {
        f"sides.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")
    }
    assert activation_bytes(network, (2, 1, *PATCH)) > activation_bytes(plain, (2, 1, *PATCH))


def test_each_coarser_level_costs_half_as_much_as_the_one_before():
    draws = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (2, *PATCH), dtype=torch.uint8, generator=draws)
    said = tuple(torch.randn(2, 3, *shape, generator=draws) for shape in (PATCH, (8, 8, 8), (4, 4, 4)))
    loss = SegmentationLoss([1.0, 2.0, 3.0], make_recipe().loss)
    parts = [loss(said[0], labels), loss(said[1], labels[:, :, ::2, ::2]), loss(said[2], labels[:, ::2, ::4, ::4])]
    expected = (4 * parts[0] + 2 * parts[1] + parts[2]) / 7
    torch.testing.assert_close(deep_supervision_loss(loss, said, labels), expected)
    planes = torch.stack([labels, labels], 1)  # labels with more beside them, as of a distance
    seen = []
    deep_supervision_loss(lambda logits, known: seen.append(known) or loss(logits, known[:, 0]), said, planes)
    assert [tuple(known.shape) for known in seen] == [(2, 2, *logits.shape[2:]) for logits in said]


def test_every_head_learns(readers):
    plan = plan_of()
    stepper = build_stepper(plan)
    before = [p.detach().clone() for p in stepper.network.sides.parameters()]
    stepper.step(0, *next(batches(samples_of(readers[0], plan), plan.recipe, 0)), 0)
    assert all(not torch.equal(a, b) for a, b in zip(before, stepper.network.sides.parameters(), strict=True))


def test_a_trained_model_is_loaded_with_heads_and_speaks_without(tmp_path, readers):
    train_on(plan_of(), TABLE, *readers, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    assert "sides.1.weight" in load_file(tmp_path / "out" / "weights.safetensors")
    sample = readers[1][0]
    said = load_trained(tmp_path / "out").segment(sample).class_ids
    assert said.shape == sample.image.shape[:3] and set(np.unique(said)) <= {0, 1, 2}


def test_who_does_not_ask_for_it_has_the_options_of_before():
    assert (
        "deep_supervision" not in Unet3dConfig().model_dump() and Unet3dConfig.model_validate(OPTIONS).deep_supervision
    )
