import pytest
import torch

from segpipe.models.registry import FAMILIES, build_network
from segpipe.training.distributed.unused_parameters import ignore_unused_parameters, needs_search, unused_parameters
from tests.worlds.tiny_training import make_plan

NETWORKS = sorted(
    name for name, family in FAMILIES.items() if family.kind == "network" and name not in ("custom", "tiny")
)


def built(name, encoder=None):
    family = FAMILIES[name]
    settings = {"encoder_weights": "none"} | ({"encoder": encoder} if encoder else {})
    options = {key: value for key, value in settings.items() if key in family.config.model_fields}
    return build_network(name, family.config.model_validate(options), 3, 4, 0)


def without_gradient(network, edges):
    outputs = network.train()(torch.randn(2, 3, *edges))
    levels = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(level.square().sum() for level in levels).backward()
    return [name for name, parameter in network.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_parameters_without_gradient_are_found_from_shapes(encoder):
    network = built("unet", encoder)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    unused = unused_parameters(network, (2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert unused == without_gradient(network, (64, 64)) and (len(unused) > 0) == (encoder == "tf_efficientnet_lite0")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_without_gradient_are_found_for_every_network(name):
    network, edges = built(name), (64, 64, 64) if FAMILIES[name].dims == 3 else (128, 128)
    assert unused_parameters(network, (2, 3, *edges)) == without_gradient(network, edges)


def test_detectors_and_custom_networks_are_searched_in_each_step(monkeypatch):
    monkeypatch.setattr("segpipe.training.distributed.unused_parameters.started_by_torchrun", lambda: True)
    for family, searched in {"unet": False, "mask_rcnn": True, "custom": True}.items():
        network = torch.nn.Conv2d(3, 3, 1)
        ignore_unused_parameters(network, make_plan(family=family))
        assert needs_search(network) == searched
