"""Deep supervision: the loss of coarser levels, which exist only in training."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segpipe.inference.preprocess import Normalisation
from segpipe.inference.trained_model import load_trained
from segpipe.models.registry import build_network
from segpipe.models.volumetric.unet3d import Unet3dConfig
from segpipe.training.losses import SegmentationLoss
from segpipe.training.plan import VolumeGrid
from segpipe.training.planning.footprint import activation_bytes
from segpipe.training.sampling.crops import batches
from segpipe.training.step import build_stepper
from segpipe.training.tasks import deep_supervision_loss, samples_of
from segpipe.training.train import train_on
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import make_plan, make_recipe
from tests.worlds.volumes import TABLE, ellipsoid

OPTIONS = {"channels": 4, "depth": 4, "whole_levels": [1, 0, 0], "deep_supervision": True}
PATCH = (8, 16, 16)


def plan_of(**changes):
    per_image = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)
    grid = VolumeGrid(patch=PATCH, spacing=(1.0, 1.0, 1.0), flips=(False,) * 3)
    plan = make_plan(channels=1, family="unet3d", steps=2, val_every=2, augment="off", **changes)
    return plan.model_copy(update={"options": OPTIONS, "normalisation": per_image, "volume": grid})


@pytest.fixture(scope="module")
def readers():
    return MemoryReader([ellipsoid(i) for i in range(3)]), MemoryReader([ellipsoid(9, (10, 18, 20))])


def test_levels_have_outputs_only_in_training():
    network = build_network("unet3d", Unet3dConfig.model_validate(OPTIONS), 1, 3, 0)
    plain = build_network("unet3d", Unet3dConfig.model_validate(OPTIONS | {"deep_supervision": False}), 1, 3, 0)
    plain.load_state_dict(network.state_dict(), strict=False)
    image = torch.randn(2, 1, *PATCH)
    outputs = network.train()(image)
    assert [tuple(logits.shape[2:]) for logits in outputs] == [PATCH, (8, 8, 8), (4, 4, 4)]
    torch.testing.assert_close(network.eval()(image), plain.eval()(image))
    torch.testing.assert_close(outputs[0], plain.train()(image))
    assert set(network.state_dict()) - set(plain.state_dict()) == {
        f"sides.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")
    }
    assert activation_bytes(network, (2, 1, *PATCH)) > activation_bytes(plain, (2, 1, *PATCH))


def test_each_coarser_level_has_half_the_weight_of_the_one_before():
    draws = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (2, *PATCH), dtype=torch.uint8, generator=draws)
    outputs = tuple(torch.randn(2, 3, *shape, generator=draws) for shape in (PATCH, (8, 8, 8), (4, 4, 4)))
    loss = SegmentationLoss([1.0, 2.0, 3.0], make_recipe().loss)
    parts = [
        loss(outputs[0], labels),
        loss(outputs[1], labels[:, :, ::2, ::2]),
        loss(outputs[2], labels[:, ::2, ::4, ::4]),
    ]
    expected = (4 * parts[0] + 2 * parts[1] + parts[2]) / 7
    torch.testing.assert_close(deep_supervision_loss(loss, outputs, labels), expected)
    planes = torch.stack([labels, labels], 1)  # labels together with another plane, such as a distance
    used = []
    deep_supervision_loss(lambda logits, level: used.append(level) or loss(logits, level[:, 0]), outputs, planes)
    assert [tuple(level.shape) for level in used] == [(2, 2, *logits.shape[2:]) for logits in outputs]


def test_every_head_learns(readers):
    plan = plan_of()
    stepper = build_stepper(plan)
    before = [p.detach().clone() for p in stepper.network.sides.parameters()]
    stepper.step(0, *next(batches(samples_of(readers[0], plan), plan.recipe, 0)), 0)
    assert all(not torch.equal(a, b) for a, b in zip(before, stepper.network.sides.parameters(), strict=True))


def test_a_trained_model_is_loaded_with_heads_and_predicts_without_them(tmp_path, readers):
    train_on(plan_of(), TABLE, *readers, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    assert "sides.1.weight" in load_file(tmp_path / "out" / "weights.safetensors")
    sample = readers[1][0]
    class_ids = load_trained(tmp_path / "out").segment(sample).class_ids
    assert class_ids.shape == sample.image.shape[:3] and set(np.unique(class_ids)) <= {0, 1, 2}


def test_without_deep_supervision_the_options_are_unchanged():
    assert (
        "deep_supervision" not in Unet3dConfig().model_dump() and Unet3dConfig.model_validate(OPTIONS).deep_supervision
    )
