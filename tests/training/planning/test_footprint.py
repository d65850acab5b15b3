import pytest
import torch

from segpipe.training.loop import build_stepper
from segpipe.training.planning.footprint import activation_bytes, available_bytes, in_parts_that_fit, step_bytes
from tests.worlds.tiny_training import make_plan
from tests.worlds.trainings import build, tiny_plan


def kept_in_earnest(network, shape):
    """The same, counted on tensors that are there."""
    kept, own = {}, {value.untyped_storage().data_ptr() for value in [*network.parameters(), *network.buffers()]}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = network.train()(torch.randn(shape)).log_softmax(1)
    assert found.shape[0] == shape[0]
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)


@pytest.mark.parametrize("family", ["tiny", "unet"])
def test_what_is_kept_is_counted_without_computing_it(family):
    network = build_stepper(tiny_plan({"dropout": 0.1}) if family == "tiny" else make_plan()).network
    shape = (2, 3, 64, 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = activation_bytes(network, shape)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), (
        "it is a copy that ran"
    )
    assert found == pytest.approx(kept_in_earnest(network, shape), rel=0.02)
    four, six = (activation_bytes(network, (images, 3, 64, 64)) for images in (4, 6))
    assert six - four == pytest.approx(four - found, rel=0.01) and four > found, (
        "so much an image, beside kernels made on the way"
    )


def test_a_batch_is_planned_in_parts_that_fit():
    plan = tiny_plan(batch=12, patch=128)
    network, reasons = build(plan.model_family.config(), 3, 3), {}
    need = step_bytes(plan, network)
    assert in_parts_that_fit(plan, network, 2 * need, reasons) is plan and not reasons
    assert in_parts_that_fit(plan, network, need, reasons).recipe.accumulate == 2
    assert "2 parts a batch: a step would take" in reasons["accumulation"]
    assert in_parts_that_fit(plan, network, need // 3, reasons).recipe.accumulate == 4
    assert in_parts_that_fit(plan, network, 0, reasons).recipe.accumulate == 8, "an image at a time, and no smaller"
    four = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"accumulate": 4})})
    assert step_bytes(four, network) < need / 3


class Choosy(torch.nn.Conv2d):
    """Looks at values on its way, which the meta device has not."""

    def forward(self, images):
        return super().forward(images) if images.mean() > 0 else super().forward(-images)


def test_of_a_network_that_looks_at_values_nothing_is_said_in_advance():
    plan = tiny_plan(batch=12)
    assert in_parts_that_fit(plan, Choosy(3, 3, 1), 0, {}) is plan


def test_there_is_memory_here():
    assert 1 << 24 < available_bytes() < 1 << 50


def test_a_control_group_bounds_what_is_free_without_pages_of_files(tmp_path):
    everything = available_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    assert available_bytes(tmp_path) == pytest.approx(everything, rel=0.2)
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_bytes(tmp_path) == 300
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 600\n")
    assert available_bytes(tmp_path) == 900
    (tmp_path / "memory.current").write_text("1700\n")
    assert available_bytes(tmp_path) == 0
