"""A tiny dataset in memory and plans for it, so that tests of training take seconds."""

import time

import numpy as np
import pytest
import torch

from segpipe.config import Params, TrainParams
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.inference.preprocess import Normalisation
from segpipe.models.registry import get_family
from segpipe.samples import IGNORE, ClassTable, Sample
from segpipe.training.plan import ClassicalPlan, Execution, Machine, NetworkPlan, Recipe, StepSetting
from segpipe.training.planning.plan_draft import PlanDraft
from tests.worlds.readers import MemoryReader

CLASSES = ClassTable.from_names(["ground", "disc", "bar"])
SMALL = {"encoder": "mobilenetv3_small_050", "encoder_weights": "none"}


def draw(seed, height=72, width=88, channels=3, dtype="uint8", bar=True):
    """An image of a disc and a bar on the ground, with noise and an ignored first row."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.integers(20, 50, 2)
    labels[(y - cy) ** 2 + (x - cx) ** 2 < 200] = 1
    if bar:
        top = rng.integers(0, height - 8)
        labels[top : top + 6, 5:40] = 2
    levels = np.array([60, 130, 200])[labels][:, :, None] + rng.normal(0, 12, (height, width, channels))
    labels[0, :] = IGNORE
    scale = {"uint8": 1, "uint16": 200, "float32": 0.01}[dtype]
    return Sample(f"s{seed}", (np.clip(levels, 0, 255) * scale).astype(dtype), labels)


def fingerprint_of(reader, **changes):
    """The fingerprint of a reader of images, with these changes."""
    image = reader[0].image
    channels = image.shape[2]
    pixels = np.concatenate([s.image.reshape(-1, channels) for s in reader.samples]).astype(float)
    sizes = [
        {"min": min(v), "median": int(np.median(v)), "max": max(v)}
        for v in zip(*(s.image.shape[:2] for s in reader.samples), strict=True)
    ]
    counts = reader.class_pixels.sum(0).tolist()
    fields = {
        "data_hash": "d" * 64,
        "classes": CLASSES,
        "n_images": {"train": len(reader), "val": 2, "test": 2},
        "channels": channels,
        "dtype": image.dtype.name,
        "height": sizes[0],
        "width": sizes[1],
        "class_pixels": {"train": counts, "val": counts, "test": counts},
        "ignored_pixels": {"train": 0, "val": 0, "test": 0},
        "low": np.percentile(pixels, 0.5, 0).tolist(),
        "high": np.percentile(pixels, 99.5, 0).tolist(),
        "mean": pixels.mean(0).tolist(),
        "std": pixels.std(0).tolist(),
        "groups": 0,
        "instances": False,
    }
    return Fingerprint.model_validate(fields | changes)


def make_recipe(**changes):
    recipe = {
        "steps": 6,
        "patch": 64,
        "batch": 2,
        "learning_rate": 2e-3,
        "optimizer": "adamw",
        "momentum": 0.9,
        "nesterov": True,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "warmup_steps": 2,
        "clip_norm": 5.0,
        "loss": {"cross_entropy": 1.0, "dice": 0.5},
        "class_weights": [1.0, 2.0, 3.0],
        "rare_crops": 0.5,
        "ema": 0.9,
        "augment": "medium",
        "free_orientation": False,
        "val_every": 3,
        "checkpoint_every": 100,
    }
    return Recipe(**(recipe | changes))


def make_plan(setting=None, workers=0, channels=3, dtype="uint8", family="unet", **recipe):
    """A plan of a small network, with these changes of its recipe."""
    machine = Machine(device="cpu", processor="any", threads=1, memory_mib=1, torch="any")
    return NetworkPlan(
        **_common(family, channels, dtype, dict(SMALL)),
        recipe=make_recipe(**recipe),
        execution=Execution(
            setting=setting or StepSetting(precision="fp32", channels_last=False),
            workers=workers,
            ms_per_step=1.0,
            ms_per_validation=1.0,
            peak_memory_mib=1,
            timings=[],
            machine=machine,
        ),
    )


def make_classical_plan(options=None):
    return ClassicalPlan(**_common("kmeans", 3, "uint8", options or {"clusters": 8}))


def _common(family, channels, dtype, options):
    """The fields of any plan."""
    return {
        "candidate": "tiny",
        "family": family,
        "options": options,
        "seed": 3,
        "classes": 3,
        "dtype": dtype,
        "normalisation": Normalisation(
            low=(0,) * channels, high=(255,) * channels, mean=(0.4,) * channels, std=(0.2,) * channels
        ),
        "reasons": {},
        "data_hash": "d" * 64,
    }


def draft_of(reader=None, name="unet", plan=None, fingerprint=None, **settings):
    """A draft of a plan for a family and these `train` settings. plan: the plan that the draft has come to."""
    of = plan.model_family if plan else get_family(name)
    config = of.config.model_validate(plan.options) if plan else of.config()
    fields = {key: getattr(plan, key) for key in type(plan).model_fields} if plan else {"postprocess": None}
    for key in ("execution", "reasons", "options"):
        fields.pop(key, None)
    return PlanDraft(TrainParams(**settings), of, config, fingerprint, reader, None, time.perf_counter(), fields=fields)


@pytest.fixture(scope="session")
def train_reader():
    return MemoryReader([draw(i, bar=i % 4 == 0) for i in range(8)])


@pytest.fixture(scope="session")
def val_reader():
    return MemoryReader([draw(100 + i) for i in range(2)])


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Trainings in tests are small: more threads would not help."""


def candidate_params(train=None, **candidate):
    """Parameters with one candidate, `net`: a small U-Net with these settings."""
    return Params.model_validate(
        {"train": train or {}, "candidates": {"net": {"family": "unet", **SMALL, **candidate}}}
    )


def random_batch(n, ignored=False):
    """Random images (N, 3, 32, 32) and labels (N, 32, 32) of three classes; the first image may have ignored rows."""
    draws = torch.Generator().manual_seed(5)
    images = torch.randn(n, 3, 32, 32, generator=draws)
    labels = torch.randint(0, 3, (n, 32, 32), generator=draws, dtype=torch.uint8)
    if ignored:
        labels[0, :20] = 255
    return images, labels
