"""``encoder_weights: NAME@VERSION``: training goes on from a release, head and normalisation included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segpipe.config import Candidate
from segpipe.errors import ConfigError, MissingError
from segpipe.files import write_json
from segpipe.models.registry import build_network, family_config, initial_weights_sha256
from segpipe.models.weights.released_weights import parse_release, release_model_folder

SMALL = {"encoder": "mobilenetv3_small_050"}
STORED = {"low": [1.0] * 3, "high": [99.0] * 3, "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3}


def build(source: str, family: str = "unet", channels: int = 3, classes: int = 2, seed: int = 0, **options: object):
    options = options or SMALL
    config = family_config(Candidate(family=family, encoder_weights=source, **options))
    return build_network(family, config, channels, classes, seed)


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A workspace that holds the model of v0.1.0."""
    network = build("none", seed=5)
    folder = release_model_folder(tmp_path, "v0.1.0")
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    write_json(folder / "segmenter.json", {"family": "unet", "normalisation": STORED})
    monkeypatch.chdir(tmp_path)
    return network


def test_sources_by_their_form():
    assert parse_release("segmenter@v0.2.10") == ("segmenter", "v0.2.10")
    assert not any(map(parse_release, ("auto", "none", "weights@home.safetensors", "a/b@v1.0.0", "seg@v1.0")))


def test_everything_is_taken_over_where_classes_are_the_same(released, capsys):
    network = build("segmenter@v0.1.0")
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), released.state_dict().values(), strict=True)
    )
    assert initial_weights_sha256(network) == initial_weights_sha256(released)
    assert "start anew" not in capsys.readouterr().err


def test_other_classes_get_a_new_head_and_other_channels_an_adapted_first_layer(released, capsys):
    network = build("segmenter@v0.1.0", channels=1, classes=7)
    mine, theirs = network.state_dict(), released.state_dict()
    fresh = [key for key in mine if mine[key].shape != theirs[key].shape]
    assert fresh == ["encoder.model.conv_stem.weight", "segmentation_head.0.weight", "segmentation_head.0.bias"]
    assert all(torch.equal(mine[key], theirs[key]) for key in mine if key not in fresh)
    torch.testing.assert_close(mine[fresh[0]], theirs[fresh[0]].sum(1, keepdim=True))
    assert torch.equal(mine[fresh[1]], build("none", channels=1, classes=7).state_dict()[fresh[1]])
    assert "2 tensors are not taken from segmenter@v0.1.0" in capsys.readouterr().err


def test_another_network_is_refused_with_what_would_fit(released):
    with pytest.raises(ConfigError, match=r"segmenter@v0.1.0 do not fit.*use the family \(unet\)"):
        build("segmenter@v0.1.0", encoder="resnet18")
    with pytest.raises(MissingError, match=r"segmenter@v9.0.0 is not here.*segpipe plan"):
        build("segmenter@v9.0.0")


def test_a_family_without_an_encoder_goes_on_too(tmp_path, monkeypatch):
    first = build("none", "unet_2015", seed=3, width=4)
    folder = release_model_folder(tmp_path, "v1.0.0")
    folder.mkdir(parents=True)
    save_file(first.state_dict(), folder / "weights.safetensors")
    write_json(folder / "segmenter.json", {"family": "unet_2015"})
    monkeypatch.chdir(tmp_path)
    again = build("segmenter@v1.0.0", "unet_2015", width=4)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(ConfigError, match="encoder_weights"):
        build("imagenet", "unet_2015", width=4)


def test_no_training_starts_from_an_ensemble(released, tmp_path):
    write_json(
        release_model_folder(tmp_path, "v0.1.0") / "segmenter.json",
        {"family": "unet", "normalisation": STORED, "members": 3},
    )
    with pytest.raises(ConfigError, match=r"several networks \(train\.folds\).*a release of one network"):
        build("segmenter@v0.1.0")
