"""Training that goes on from a release: what is taken over, what starts anew, what is refused, and that it starts where it ended."""

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
from segpipe.inference.trained import load_trained
from segpipe.models.registry import build_network, family_config
from segpipe.models.weights.warm_start import release_model_folder
from segpipe.samples import ClassSpec, ClassTable, Sample
from segpipe.training.loop import build_stepper, train_on
from segpipe.training.planning.planner import plan_on
from segpipe.training.planning.warm_start import WarmStart, warm_start_of
from segpipe.training.scoring import segmenter_spec, validation_segmenter
from segpipe.training.tasks import samples_of
from tests.training.sampling.test_volume_crops import plan_of
from tests.worlds.tiny_training import CLASSES, MemoryReader, draw, fingerprint_of, make_plan
from tests.worlds.volumes import VolumeReader, ellipsoid

SOURCE = "segmenter@v0.3.0"


def table(*classes):
    """("sky", 3) is a class and its pixel value; a name alone has its place for a value."""
    pairs = [c if isinstance(c, tuple) else (c, place) for place, c in enumerate(classes)]
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
    ("before", "after", "channels", "said"),
    [
        (("sky", "road", "car"), ("sky", "road", "car"), [0, 1, 2], "with 3 of its 3 classes"),
        (("sky", "road", "car"), ("sky", ("car", 2), ("road", 1)), [0, 2, 1], "with 3 of its 3 classes"),
        (("sky", "car"), ("sky", ("road", 5), ("car", 1)), [0, None, 1], "with 2 of its 2 classes; road starts anew"),
        (("sky", "road", "car"), ("sky", ("car", 2)), [0, 2], "with 2 of its 3 classes; road is dropped"),
        (
            ("sky", "road", "car"),
            ("sky", "street", "car"),
            [0, 1, 2],
            r"with 2 of its 3 classes; street is road, renamed \(it has the same pixel value\)",
        ),
        (("sky", "road"), ("sky", ("tree", 9)), [0, None], "1 of its 2 classes; tree starts anew; road is dropped"),
        (
            ("sky", ("road", 1)),
            ("sky", ("tree", 1), ("road", 2)),
            [0, None, 1],
            "tree starts anew",
        ),  # road still has its name
    ],
)
def test_classes_go_on_by_name_and_renamed_ones_by_pixel_value(before, after, channels, said):
    after = table(*after)
    found, words = release(table(*before)).channels(after, Outputs(len(after)))
    assert found == channels
    assert words.startswith(f"{SOURCE}, with ") and re.search(said, words)


@pytest.mark.parametrize(("before", "after", "last"), [(True, True, [2]), (False, True, [None]), (True, False, [])])
def test_the_channel_of_the_distance_goes_on_where_both_have_it(before, after, last):
    found, _ = release(table("a", "b"), distance=before).channels(table("a", "b", "c"), Outputs(3, after))
    assert found == [0, 1, None, *last]


def test_settings_that_are_left_open_are_those_of_the_release():
    made = release(CLASSES, encoder="resnet18", atrous_rates=[6, 12, 18])
    filled = made.fill(Candidate(family="unet", encoder_weights=SOURCE, train={"seed": 3}, postprocess="off"))
    assert filled.options == {"encoder": "resnet18", "atrous_rates": [6, 12, 18], "encoder_weights": SOURCE}
    assert filled.train == {"seed": 3} and filled.postprocess == "off"
    assert made.fill(Candidate(family="unet", encoder="resnet34")).options["encoder"] == "resnet34", "what is set stays"
    with pytest.raises(ConfigError, match=r"v0.3.0 is a fpn .found family: unet.*set `family: fpn`"):
        release(CLASSES, family="fpn").fill(Candidate(family="unet"))


@pytest.mark.parametrize(
    ("stored", "found", "over_encoder", "fits"),
    [
        (3, 3, True, True),
        (3, 1, True, True),
        (3, 5, True, True),
        (1, 3, True, False),
        (3, 1, False, False),
        (1, 1, False, True),
    ],
)
def test_channels_that_a_first_layer_can_be_adapted_to(stored, found, over_encoder, fits):
    made, fingerprint = release(CLASSES, channels=stored), SimpleNamespace(channels=found)
    if fits:
        made.check(fingerprint, over_encoder)
    else:
        with pytest.raises(
            ConfigError, match=rf"looks at {stored} channel.*found images with {found}.*give images with {stored}"
        ):
            made.check(fingerprint, over_encoder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The plain U-Net, trained for a while: its images and its last loss, and the folder of a workspace that holds it as a release."""
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
    """A workspace of the test's own that holds the release."""
    *known, folder = trained
    shutil.copytree(folder / ".segpipe", tmp_path / ".segpipe")
    monkeypatch.chdir(tmp_path)
    return known


def plans(train, val, classes=CLASSES):
    """Plans of a candidate that goes on from the release, and of the same that starts anew."""
    settings = {
        "budget": "4 steps",
        "batch": 4,
        "patch": 32,
        "augment": "off",
        "precision": "fp32",
        "channels_last": False,
    }
    candidate = {"family": "unet_2015", "encoder_weights": SOURCE}
    params = Params.model_validate({"train": settings, "candidates": {"on": candidate}})
    on = plan_on("on", params, fingerprint_of(train, classes=classes), train, val)
    anew = {"options": on.options | {"encoder_weights": "none"}, "inherited": None, "encoder_sha256": None}
    return on, on.model_copy(update=anew)


def first_loss(plan, reader):
    stepper = build_stepper(plan)
    crops = samples_of(reader, plan)
    images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*(crops[i] for i in range(8)), strict=True))
    with torch.no_grad():
        return float(stepper.objective(stepper.model, (images, labels), torch.device("cpu")))


def test_training_starts_where_the_release_ended(workspace):
    train, val, last = workspace
    on, anew = plans(train, val)
    assert on.options["width"] == 6 and on.inherited == (0, 1, 2) and on.normalisation.mean == (0.4,) * 3
    assert first_loss(on, train) < 0.5 * first_loss(anew, train) and first_loss(on, train) < 1.5 * last
    image, before = val[0].image, load_trained(release_model_folder(Path(), "v0.3.0"))
    now = validation_segmenter(on, build_stepper(on), CLASSES).predict(image, probabilities=True)
    np.testing.assert_allclose(now.probabilities, before.predict(image, probabilities=True).probabilities, atol=1e-5)
    assert (
        "with 3 of its 3 classes" in on.reasons["first weights"]
        and "parent" not in segmenter_spec(anew, CLASSES).lineage
    )
    assert (
        segmenter_spec(on, CLASSES).lineage["parent"] == SOURCE and on.reasons["normalisation"] == f"that of {SOURCE}"
    )
    assert type(on).model_validate_json(on.model_dump_json()) == on and "inherited" not in anew.model_dump()


def test_it_starts_there_too_where_classes_changed_places(workspace):
    """The same images, whose classes another table numbers otherwise; one of them was never seen before."""
    train, _, _ = workspace
    turned = ClassTable.from_names(["bar", "new", "ground", "disc"])
    numbers = np.full(256, 255, np.uint8)
    numbers[[0, 1, 2]] = [2, 3, 0]
    samples = [Sample(s.key, s.image, numbers[s.labels]) for s in train.samples]
    reader = MemoryReader(samples)
    reader.class_pixels = np.array([np.bincount(s.labels.ravel(), minlength=256)[:4] for s in samples], np.int64)
    on, anew = plans(reader, reader, turned)
    assert on.inherited == (2, None, 0, 1) and "new starts anew" in on.reasons["first weights"]
    assert first_loss(on, reader) < 0.7 * first_loss(anew, reader)
    head, old = (build_stepper(plan).network.state_dict() for plan in (on, anew))
    stored = load_file(release_model_folder(Path(), "v0.3.0") / "weights.safetensors")
    last_weight = list(head)[-2]
    torch.testing.assert_close(head[last_weight][[2, 3, 0]], stored[last_weight])
    torch.testing.assert_close(head[last_weight][1], old[last_weight][1])


def test_a_plan_without_the_release_names_the_fix(workspace):
    train, val, _ = workspace
    on, _ = plans(train, val)
    weights = release_model_folder(Path(), "v0.3.0") / "weights.safetensors"
    other = weights.read_bytes()[:-4] + b"\0\0\0\1"
    weights.write_bytes(other)
    with pytest.raises(
        ConfigError,
        match=r"not those that the plan was made with.*segpipe plan on --refresh",
    ):
        build_stepper(on)
    weights.unlink()
    with pytest.raises(MissingError, match="segpipe plan CANDIDATE fetches it"):
        warm_start_of(on.options)


@pytest.mark.slow  # MONAI
def test_volumes_go_on_at_the_voxel_size_of_their_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = family_config(Candidate(family="vnet", channels=4, depth=3))
    first = build_network("vnet", config, 1, 3, seed=9)
    folder = release_model_folder(tmp_path, "v0.3.0")
    folder.mkdir(parents=True)
    save_file(first.state_dict(), folder / "weights.safetensors")
    own = plan_of().model_copy(update={"family": "vnet", "options": config.model_dump(mode="json")})
    spec = segmenter_spec(own, ClassTable.from_names(["background", "front", "back"]))
    spec.model_copy(update={"spacing": (1.0, 1.0, 2.0)}).write(folder)
    reader = VolumeReader([ellipsoid(i, spacing=(1.0, 1.0, 1.0)) for i in range(4)])
    params = Params.model_validate(
        {
            "train": {"budget": "2 steps", "patch3d": [16, 16, 16], "precision": "fp32", "channels_last": False},
            "candidates": {"on": {"family": "vnet", "encoder_weights": SOURCE}},
        }
    )
    facts = {"classes": spec.classes, "dtype": "float32"}
    plan = plan_on("on", params, fingerprint_of(_flat(reader), **facts), reader, reader)
    assert (
        plan.volume.spacing == (1.0, 1.0, 2.0)
        and plan.normalisation == spec.normalisation
        and plan.options["depth"] == 3
    )
    network = build_stepper(plan).network
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), first.state_dict().values(), strict=True)
    )


def _flat(reader):
    """One slice of each volume: what a fingerprint is made of here."""
    return MemoryReader([Sample(s.key, s.image[8], s.labels[8]) for s in reader.samples])
