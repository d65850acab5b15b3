import pytest
import torch

from segpipe.errors import ConfigError
from segpipe.training.planning.footprint import (
    activation_bytes,
    available_bytes,
    measure_within_memory,
    split_to_fit,
    step_bytes,
)
from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import draft_of, make_plan
from tests.worlds.trainings import build, tiny_plan


def counted_on_real_tensors(network, shape):
    """The same bytes, counted on tensors that are computed."""
    kept, of_network = {}, {value.untyped_storage().data_ptr() for value in [*network.parameters(), *network.buffers()]}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network.train()(torch.randn(shape)).log_softmax(1)
    assert outputs.shape[0] == shape[0]
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in of_network)


@pytest.mark.parametrize("family", ["tiny", "unet"])
def test_activations_are_counted_without_computing_them(family):
    network = build_stepper(tiny_plan({"dropout": 0.1}) if family == "tiny" else make_plan()).network
    shape = (2, 3, 64, 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    two = activation_bytes(network, shape)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), "a copy ran"
    assert two == pytest.approx(counted_on_real_tensors(network, shape), rel=0.02)
    four, six = (activation_bytes(network, (images, 3, 64, 64)) for images in (4, 6))
    assert six - four == pytest.approx(four - two, rel=0.01) and four > two, "linear in the number of images"


def split(available):
    """A draft of a plan with a batch of 12, split for so many available bytes."""
    plan = tiny_plan(batch=12, patch=128)
    draft = draft_of(plan=plan)
    split_to_fit(draft, build(plan.model_family.config(), 3, 3), available)
    return draft


def test_a_batch_is_planned_in_parts_that_fit():
    plan = tiny_plan(batch=12, patch=128)
    network = build(plan.model_family.config(), 3, 3)
    need = step_bytes(plan, network)
    whole = split(2 * need)
    assert whole.plan.recipe == plan.recipe and not whole.reasons
    halves = split(need)
    assert halves.plan.recipe.accumulate == 2
    assert "2 parts per batch: a step would take" in halves.reasons["accumulation"]
    assert split(need // 3).plan.recipe.accumulate == 4
    assert split(0).plan.recipe.accumulate == 8, "one image at a time, and no smaller"
    four = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"accumulate": 4})})
    assert step_bytes(four, network) < need / 3


class ValueDependent(torch.nn.Conv2d):
    """A network whose control flow depends on pixel values, which the meta device does not have."""

    def forward(self, images):
        return super().forward(images) if images.mean() > 0 else super().forward(-images)


def test_a_network_that_depends_on_pixel_values_is_not_split_in_advance():
    draft = draft_of(plan=tiny_plan(batch=12))
    split_to_fit(draft, ValueDependent(3, 3, 1), 0)
    assert draft.plan.recipe.accumulate == 1 and not draft.reasons


def test_a_plan_has_as_many_parts_as_fit():
    tried = []

    def measure(draft):
        recipe = draft.plan.recipe
        tried.append(recipe.accumulate)
        if recipe.batch // recipe.accumulate > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return recipe

    draft = draft_of(plan=tiny_plan(batch=8))
    assert measure_within_memory(draft, lambda: measure(draft)).accumulate == 4
    assert tried == [1, 2, 4] and draft.reasons["accumulation"].startswith("4 parts")
    tried.clear()
    draft = draft_of(plan=tiny_plan(batch=8))
    with pytest.raises(ConfigError, match="out of memory with 1 image"):
        measure_within_memory(draft, lambda: measure(draft), world_size=4)
    assert tried == [1, 2], "each of four processes has two images"
    with pytest.raises(ConfigError, match="out of memory with 1 image"):
        measure_within_memory(draft_of(plan=tiny_plan(batch=8)), lambda: (_ for _ in ()).throw(MemoryError()))


def test_this_machine_has_memory():
    assert 1 << 24 < available_bytes() < 1 << 50


def test_a_control_group_limits_the_available_memory_apart_from_file_pages(tmp_path):
    unlimited = available_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    assert available_bytes(tmp_path) == pytest.approx(unlimited, rel=0.2)
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_bytes(tmp_path) == 300
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 600\n")
    assert available_bytes(tmp_path) == 900
    (tmp_path / "memory.current").write_text("1700\n")
    assert available_bytes(tmp_path) == 0
