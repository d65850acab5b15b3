import shutil

import pytest
import torch

from segpipe.errors import ConfigError
from segpipe.inference.engines.engine import TorchEngine
from segpipe.models.registry import FAMILIES, get_family
from segpipe.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from segpipe.training.optim.freezing import encoder_switch
from segpipe.training.plan import StepSetting
from segpipe.training.planning.recipe import choose_frozen_share
from segpipe.training.step import Stepper, build_stepper
from tests.worlds.tiny_training import draft_of, make_plan

IMAGES = torch.randn(4, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"ema": 0.0}, {"optimizer": "sgd"}, {"optimizer": "adam"}], ids=str)
def test_the_encoder_stays_bit_for_bit_then_learns(changes):
    stepper = build_stepper(make_plan(freeze_steps=2, weight_decay=0.1, **changes))
    network, engine = stepper.network, TorchEngine(stepper.average)
    for number in range(4):
        before = state(network.encoder), state(network.decoder)
        stepper.step(number, IMAGES[number], LABELS, 0)
        engine(IMAGES[0].numpy())  # validation puts the network back into training mode, encoder and all
        assert same(before[0], state(network.encoder)) == (number < 2)
        assert not same(before[1], state(network.decoder))


def test_a_resumed_training_gives_the_same_bytes_before_and_after_unfreezing(tmp_path):
    plan = make_plan(freeze_steps=2)
    first = build_stepper(plan)
    for number in range(4):
        save_checkpoint(tmp_path / str(number), plan, first, {}, TrainingState(step=number))
        first.step(number, IMAGES[number], LABELS, 0)
    for start in range(4):
        second = build_stepper(plan)
        load_checkpoint(tmp_path / str(start), plan, second)
        for number in range(start, 4):
            second.step(number, IMAGES[number], LABELS, 0)
        assert same(state(first.network), state(second.network)), f"from step {start}"


def test_parameters_that_were_not_trainable_are_not_unfrozen():
    network = torch.nn.Module()
    network.encoder = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1))
    network.encoder[0].requires_grad_(False)
    switch = encoder_switch(network)
    switch(True)
    assert not any(p.requires_grad for p in network.parameters()) and not network.encoder.training
    switch(False)
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True] and network.encoder.training


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(ConfigError, match=r"train\.freeze_encoder.*set it to 0"):
        encoder_switch(torch.nn.Conv2d(1, 1, 1))


def test_the_default_of_a_family_applies_to_pretrained_encoders():
    draft = draft_of(name="unet_vgg16")
    assert choose_frozen_share(draft, pretrained=True) == get_family("unet_vgg16").freeze_encoder == 0.25
    assert draft.reasons["frozen encoder"].startswith("25% of the steps")
    assert choose_frozen_share(draft_of(name="unet_vgg16"), pretrained=False) == 0
    never = draft_of(name="unet_vgg16", freeze_encoder=0)
    assert choose_frozen_share(never, pretrained=True) == 0 and not never.reasons
    assert choose_frozen_share(draft_of(name="unet", freeze_encoder=0.4), pretrained=False) == 0.4
    assert all(of.kind == "network" for of in FAMILIES.values() if of.freeze_encoder)


class Small(torch.nn.Module):
    """An encoder and a head that compile in seconds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
        )
        self.decoder = torch.nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.decoder(self.encoder(x))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler for processors")
def test_a_compiled_network_is_unfrozen_and_sees_larger_crops():
    """Each new kind of step is compiled separately, and learns what it would without compilation."""
    recipe = make_plan(freeze_steps=1).recipe
    eager, compiled = (
        Stepper(
            Small(), get_family("unet"), recipe, StepSetting(precision="fp32", channels_last=False, compile=c), "cpu"
        )
        for c in (False, True)
    )
    for number, size in enumerate((32, 32, 64)):
        images = torch.nn.functional.interpolate(IMAGES[number], size=size)
        labels = LABELS.repeat(1, 2, 2)[:, :size, :size]
        before = state(compiled.network.encoder)
        losses = [float(s.step(number, images, labels, 0)) for s in (eager, compiled)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        assert same(before, state(compiled.network.encoder)) == (number < 1)
    for eager_weight, compiled_weight in zip(
        eager.network.decoder.parameters(), compiled.network.decoder.parameters(), strict=True
    ):
        torch.testing.assert_close(eager_weight, compiled_weight, atol=1e-3, rtol=0)
