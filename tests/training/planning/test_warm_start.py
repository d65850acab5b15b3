"""Training that continues from a release: what it takes over, what starts from new weights, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segpipe.config import Candidate, Params
from segpipe.errors import ConfigError, MissingError
from segpipe.inference.outputs import Outputs
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_model import load_trained
from segpipe.models.registry import build_network, family_config
from segpipe.models.weights.released_weights import release_model_folder
from segpipe.samples import ClassSpec, ClassTable, Sample
from segpipe.training.planning.planner import plan_on
from segpipe.training.planning.warm_start import WarmStart, warm_start_of
from segpipe.training.scoring import segmenter_spec, validation_segmenter
from segpipe.training.step import build_stepper
from segpipe.training.tasks import samples_of
from segpipe.training.train import train_on
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draw, fingerprint_of, make_plan
from tests.worlds.volumes import ellipsoid, volume_plan

SOURCE = "segmenter@v0.3.0"


def table(*classes):
    """("sky", 3) is a class and its pixel value; a name alone has its index as its value."""
    pairs = [c if isinstance(c, tuple) else (c, index) for index, c in enumerate(classes)]
    return ClassTable(classes=tuple(ClassSpec(name=name, value=value, color=(value, 0, 0)) for name, value in pairs))


def release(classes, channels=3, family="unet", distance=False, **options):
    plain = Normalisation(low=(0,) * channels, high=(9,) * channels, mean=(0.5,) * channels, std=(1,) * channels)
    return WarmStart(
        SOURCE,
        SegmenterSpec(
            candidate="x",
            family=family,
            options=options,
            classes=classes,
            normalisation=plain,
            distance=distance,
        ),
    )


@pytest.mark.parametrize(
    ("before", "after", "channels", "words"),
    [
        (("sky", "road", "car"), ("sky", "road", "car"), [0, 1, 2], "with 3 of its 3 classes"),
        (("sky", "road", "car"), ("sky", ("car", 2), ("road", 1)), [0, 2, 1], "with 3 of its 3 classes"),
        (
            ("sky", "car"),
            ("sky", ("road", 5), ("car", 1)),
            [0, None, 1],
            "with 2 of its 2 classes; road starts from new weights",
        ),
        (("sky", "road", "car"), ("sky", ("car", 2)), [0, 2], "with 2 of its 3 classes; road is dropped"),
        (
            ("sky", "road", "car"),
            ("sky", "street", "car"),
            [0, 1, 2],
            r"with 2 of its 3 classes; street is road, renamed \(it has the same pixel value\)",
        ),
        (
            ("sky", "road"),
            ("sky", ("tree", 9)),
            [0, None],
            "1 of its 2 classes; tree starts from new weights; road is dropped",
        ),
        (
            ("sky", ("road", 1)),
            ("sky", ("tree", 1), ("road", 2)),
            [0, None, 1],
            "tree starts from new weights",
        ),  # road still has its name
    ],
)
def test_classes_continue_by_name_and_renamed_ones_by_pixel_value(before, after, channels, words):
    after = table(*after)
    mapped, reason = release(table(*before)).map_channels(after, Outputs(len(after)))
    assert mapped == channels
    assert reason.startswith(f"{SOURCE}, with ") and re.search(words, reason)


@pytest.mark.parametrize(("before", "after", "last"), [(True, True, [2]), (False, True, [None]), (True, False, [])])
def test_the_channel_of_the_distance_continues_if_both_have_it(before, after, last):
    channels, _ = release(table("a", "b"), distance=before).map_channels(table("a", "b", "c"), Outputs(3, after))
    assert channels == [0, 1, None, *last]


def test_settings_that_are_left_open_are_those_of_the_release():
    warm_start = release(CLASSES, encoder="resnet18", atrous_rates=[6, 12, 18])
    filled = warm_start.fill(Candidate(family="unet", encoder_weights=SOURCE, train={"seed": 3}, postprocess="off"))
    assert filled.options == {"encoder": "resnet18", "atrous_rates": [6, 12, 18], "encoder_weights": SOURCE}
    assert filled.train == {"seed": 3} and filled.postprocess == "off"
    overridden = warm_start.fill(Candidate(family="unet", encoder="resnet34"))
    assert overridden.options["encoder"] == "resnet34", "what is set stays"
    with pytest.raises(ConfigError, match=r"v0.3.0 is of family fpn .found family: unet.*set `family: fpn`"):
        release(CLASSES, family="fpn").fill(Candidate(family="unet"))


@pytest.mark.parametrize(
    ("stored", "present", "has_encoder", "fits"),
    [
        (3, 3, True, True),
        (3, 1, True, True),
        (3, 5, True, True),
        (1, 3, True, False),
        (3, 1, False, False),
        (1, 1, False, True),
    ],
)
def test_channels_to_which_a_first_layer_can_be_adapted(stored, present, has_encoder, fits):
    warm_start, fingerprint = release(CLASSES, channels=stored), SimpleNamespace(channels=present)
    if fits:
        warm_start.check_channels(fingerprint, has_encoder)
    else:
        with pytest.raises(
            ConfigError,
            match=rf"expects images with {stored} channel.*found images with {present}.*use images with {stored}",
        ):
            warm_start.check_channels(fingerprint, has_encoder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained plain U-Net: its images, its last loss, and the folder of a workspace that holds it as a release."""
    torch.set_num_threads(1)
    tmp_path = tmp_path_factory.mktemp("release")
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(100 + i) for i in range(2)])
    options = {"width": 6, "batch_norm": True, "dropout": 0.0}
    plan = make_plan(
        family="unet_2015", steps=60, patch=32, batch=4, learning_rate=0.01, val_every=60, augment="off", ema=0.0
    )
    plan = plan.model_copy(update={"options": options})
    train_on(plan, CLASSES, train, val, release_model_folder(tmp_path, "v0.3.0"), tmp_path / "live", tmp_path / "c")
    loss = json.loads((release_model_folder(tmp_path, "v0.3.0") / "history.json").read_text())["train"][-1]["loss"]
    return train, val, loss, tmp_path


@pytest.fixture
def workspace(trained, tmp_path, monkeypatch):
    """A new workspace that holds the release."""
    *readers_and_loss, folder = trained
    shutil.copytree(folder / ".segpipe", tmp_path / ".segpipe")
    monkeypatch.chdir(tmp_path)
    return readers_and_loss


def plans(train, val, classes=CLASSES):
    """Plans of a candidate that continues from the release, and of the same from random weights."""
    settings = {
        "budget": "4 steps",
        "batch": 4,
        "patch": 32,
        "augment": "off",
        "precision": "fp32",
        "channels_last": False,
    }
    candidate = {"family": "unet_2015", "encoder_weights": SOURCE}
    params = Params.model_validate({"train": settings, "candidates": {"warm": candidate}})
    warm = plan_on("warm", params, fingerprint_of(train, classes=classes), train, val)
    changes = {"options": warm.options | {"encoder_weights": "none"}, "inherited": None, "encoder_sha256": None}
    return warm, warm.model_copy(update=changes)


def first_loss(plan, reader):
    stepper = build_stepper(plan)
    crops = samples_of(reader, plan)
    images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*(crops[i] for i in range(8)), strict=True))
    with torch.no_grad():
        return float(stepper.objective(stepper.model, (images, labels), torch.device("cpu")))


def test_training_starts_with_the_loss_of_the_release(workspace):
    train, val, last = workspace
    warm, cold = plans(train, val)
    assert warm.options["width"] == 6 and warm.inherited == (0, 1, 2) and warm.normalisation.mean == (0.4,) * 3
    assert first_loss(warm, train) < 0.5 * first_loss(cold, train) and first_loss(warm, train) < 1.5 * last
    image, before = val[0].image, load_trained(release_model_folder(Path(), "v0.3.0"))
    now = validation_segmenter(warm, build_stepper(warm), CLASSES).predict(image, probabilities=True)
    np.testing.assert_allclose(now.probabilities, before.predict(image, probabilities=True).probabilities, atol=1e-5)
    assert (
        "with 3 of its 3 classes" in warm.reasons["first weights"]
        and "parent" not in segmenter_spec(cold, CLASSES).lineage
    )
    assert (
        segmenter_spec(warm, CLASSES).lineage["parent"] == SOURCE
        and warm.reasons["normalisation"] == f"that of {SOURCE}"
    )
    assert type(warm).model_validate_json(warm.model_dump_json()) == warm and "inherited" not in cold.model_dump()


def test_training_starts_with_the_loss_of_the_release_if_classes_are_renumbered(workspace):
    """The same images with another table of classes, one of which is new."""
    train, _, _ = workspace
    renumbered = ClassTable.from_names(["bar", "new", "ground", "disc"])
    numbers = np.full(256, 255, np.uint8)
    numbers[[0, 1, 2]] = [2, 3, 0]
    samples = [Sample(s.key, s.image, numbers[s.labels]) for s in train.samples]
    reader = MemoryReader(samples)
    reader.class_pixels = np.array([np.bincount(s.labels.ravel(), minlength=256)[:4] for s in samples], np.int64)
    warm, cold = plans(reader, reader, renumbered)
    assert warm.inherited == (2, None, 0, 1) and "new starts from new weights" in warm.reasons["first weights"]
    assert first_loss(warm, reader) < 0.7 * first_loss(cold, reader)
    head, random_head = (build_stepper(plan).network.state_dict() for plan in (warm, cold))
    stored = load_file(release_model_folder(Path(), "v0.3.0") / "weights.safetensors")
    last_weight = list(head)[-2]
    torch.testing.assert_close(head[last_weight][[2, 3, 0]], stored[last_weight])
    torch.testing.assert_close(head[last_weight][1], random_head[last_weight][1])


def test_a_plan_without_the_release_names_the_fix(workspace):
    train, val, _ = workspace
    warm, _ = plans(train, val)
    weights = release_model_folder(Path(), "v0.3.0") / "weights.safetensors"
    other = weights.read_bytes()[:-4] + b"\0\0\0\1"
    weights.write_bytes(other)
    with pytest.raises(
        ConfigError,
        match=r"not those that the plan was made with.*segpipe plan warm --refresh",
    ):
        build_stepper(warm)
    weights.unlink()
    with pytest.raises(
        MissingError, match=r"v0.3.0 is missing in this workspace.*run `segpipe plan CANDIDATE`.*copies it"
    ):
        warm_start_of(warm.options)


@pytest.mark.slow  # MONAI
def test_volumes_continue_at_the_voxel_size_of_their_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = family_config(Candidate(family="vnet", channels=4, depth=3))
    first = build_network("vnet", config, 1, 3, seed=9)
    folder = release_model_folder(tmp_path, "v0.3.0")
    folder.mkdir(parents=True)
    save_file(first.state_dict(), folder / "weights.safetensors")
    trained_plan = volume_plan().model_copy(update={"family": "vnet", "options": config.model_dump(mode="json")})
    spec = segmenter_spec(trained_plan, ClassTable.from_names(["background", "front", "back"]))
    spec.model_copy(update={"spacing": (1.0, 1.0, 2.0)}).write(folder)
    reader = MemoryReader([ellipsoid(i, spacing=(1.0, 1.0, 1.0)) for i in range(4)])
    params = Params.model_validate(
        {
            "train": {"budget": "2 steps", "patch3d": [16, 16, 16], "precision": "fp32", "channels_last": False},
            "candidates": {"warm": {"family": "vnet", "encoder_weights": SOURCE}},
        }
    )
    changes = {"classes": spec.classes, "dtype": "float32"}
    plan = plan_on("warm", params, fingerprint_of(_one_slice_each(reader), **changes), reader, reader)
    assert (
        plan.volume.spacing == (1.0, 1.0, 2.0)
        and plan.normalisation == spec.normalisation
        and plan.options["depth"] == 3
    )
    network = build_stepper(plan).network
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), first.state_dict().values(), strict=True)
    )


def _one_slice_each(reader):
    """One slice of each volume, from which the fingerprint is made."""
    return MemoryReader([Sample(s.key, s.image[8], s.labels[8]) for s in reader.samples])
