"""What every family of networks must do; a new line in FAMILIES is tested by being there."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segpipe.config import Candidate, TrainParams
from segpipe.errors import ConfigError
from segpipe.inference.engines import TorchEngine
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter, SegmenterSpec
from segpipe.models.registry import FAMILIES, build_network, family, family_config
from segpipe.samples import ClassTable
from segpipe.training.losses import SegmentationLoss

ENCODER = "mobilenetv3_small_050"  # the smallest one: what is tested is the family
NETWORKS = [name for name, f in FAMILIES.items() if f.kind == "network"]


def build(name: str, channels: int = 3, classes: int = 3, seed: int = 0, weights: str = "none") -> torch.nn.Module:
    config = family_config(Candidate(family=name, encoder=ENCODER, encoder_weights=weights))
    return build_network(name, config, channels, classes, seed)


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks on a machine that other tests share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_tells_its_settings_and_defaults(name):
    assert family_config(Candidate(family=name)) == family(name).config()
    assert family(name).summary and family(name).paper
    with pytest.raises(ConfigError, match="unknown key `encodre`"):
        family_config(Candidate(family=name, encodre="resnet18"))


def test_an_unknown_family_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean `deeplabv3`"):
        family("deeplabv4")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 12), (5, 3)])
def test_odd_sizes_go_through_the_segmenter(name, channels, classes):
    table = ClassTable.from_names([f"c{i}" for i in range(classes)])
    plain = Normalisation(low=(0,) * channels, high=(1,) * channels, mean=(0,) * channels, std=(1,) * channels)
    spec = SegmenterSpec(candidate="x", family=name, classes=table, normalisation=plain, stride=family(name).stride)
    segmenter = Segmenter(spec, TorchEngine(build(name, channels, classes)))
    image = np.random.default_rng(0).random((45, 71, channels), np.float32)
    prediction = segmenter.predict(image, probabilities=True)
    assert prediction.class_ids.shape == (45, 71) and prediction.class_ids.max() < classes
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(prediction.probabilities.argmax(0), prediction.class_ids)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_learns(name):
    network = build(name).train()
    logits = network(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 3, 64, 64) and logits.dtype == torch.float32
    logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_first_weights_follow_from_the_seed_alone(name):
    torch.manual_seed(1)
    first = build(name, seed=5).state_dict()
    after = torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(after, torch.random.get_rng_state()), "building a network moved the global random state"
    torch.manual_seed(2)
    second, third = build(name, seed=5).state_dict(), build(name, seed=6).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], third[k]) for k in first)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_survive_a_file(name, tmp_path):
    network = build(name).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    other = build(name, seed=9).eval()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(x), other(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_learns_four_images_by_heart(name):
    generator = torch.Generator().manual_seed(3)
    labels = torch.zeros(4, 64, 64, dtype=torch.long)
    for index in range(4):
        labels[index, 8 * index + 4 : 8 * index + 28, 10:50] = 1
        labels[index, 40:, 8 * index : 8 * index + 24] = 2
    images = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    images += 0.3 * torch.randn(images.shape, generator=generator)
    network = build(name).train()
    loss = SegmentationLoss([1.0, 1.0, 1.0], TrainParams().loss)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss(network(images), labels).backward()
        optimizer.step()
    accuracy = (network(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.9


def test_an_encoder_that_does_not_fit_says_so():
    config = family_config(Candidate(family="deeplabv3plus", encoder="vgg11", encoder_weights="none"))
    with pytest.raises(ConfigError, match="encoder `vgg11` does not fit DeepLabV3Plus"):
        build_network("deeplabv3plus", config, 3, 2, 0)


def test_any_encoder_of_timm_can_be_named_plainly():
    config = family_config(Candidate(family="unet", encoder="mobilenetv3_small_050", encoder_weights="none"))
    assert build_network("unet", config, 3, 2, 0).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 32, 32)
