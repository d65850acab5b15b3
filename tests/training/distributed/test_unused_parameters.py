import pytest
import torch

from segpipe.models.registry import FAMILIES, build_network
from segpipe.training.distributed.unused_parameters import ignore_unused_parameters, needs_search, unused_parameters
from tests.worlds.tiny_training import make_plan

NETWORKS = sorted(name for name, of in FAMILIES.items() if of.kind == "network" and name not in ("custom", "tiny"))


def built(name, encoder=None):
    family = FAMILIES[name]
    wanted = {"encoder_weights": "none"} | ({"encoder": encoder} if encoder else {})
    options = {key: value for key, value in wanted.items() if key in family.config.model_fields}
    return build_network(name, family.config.model_validate(options), 3, 4, 0)


def without_gradient(network, edges):
    said = network.train()(torch.randn(2, 3, *edges))
    sum(level.square().sum() for level in (said if isinstance(said, tuple) else (said,))).backward()
    return [name for name, parameter in network.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_what_gets_no_gradient_is_known_beforehand(encoder):
    network = built("unet", encoder)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = unused_parameters(network, (2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert found == without_gradient(network, (64, 64)) and (len(found) > 0) == (encoder == "tf_efficientnet_lite0")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_of_every_network(name):
    network, edges = built(name), (64, 64, 64) if FAMILIES[name].dims == 3 else (128, 128)
    assert unused_parameters(network, (2, 3, *edges)) == without_gradient(network, edges)


def test_who_has_to_be_searched_step_by_step(monkeypatch):
    monkeypatch.setattr("segpipe.training.distributed.unused_parameters.started_by_torchrun", lambda: True)
    for family, searched in {"unet": False, "mask_rcnn": True, "custom": True}.items():
        network = torch.nn.Conv2d(3, 3, 1)
        ignore_unused_parameters(network, make_plan(family=family))
        assert needs_search(network) == searched
