"""Networks trained by scripts as people write them, on the shards of a workspace, against the clock: what `time_to_quality.py
--against` holds segpipe's defaults against.

    python benchmarks/by_hand.py WORKSPACE tutorial --seconds 600 --seed 0

Both train an FPN over the encoder with installed ImageNet weights, to the last second, without validation, on batches of 8:

- tutorial: as segmentation_models_pytorch's tutorial for CamVid has it: flipped, scaled, shifted crops of 320, Dice, Adam at 2e-4 by a
  cosine, float32.
- bare: what a practised hand sets: crops of 192, half of them around a pixel of a class drawn by lot, zoom, flips and tones; cross
  entropy weighted by 1 / frequency to the power of 0.5, and Dice; AdamW at 2e-3 by a cosine, a running average of weights, channels-last,
  bfloat16 where the processor computes in it.

Prints the IoU over all pixels of the test split, mean of the classes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_BEGAN = time.perf_counter()
_PREPARE_S = 8.0
"""What is left of the seconds for Python's start, before the clock's, and for the last step."""


def tutorial(train: Any, seed: int) -> tuple[Any, Any, Callable[..., Any], float, bool]:
    """Augmentation, crop, loss, rate, and whether it has an average of weights, and bfloat16 where that is to be had."""
    import albumentations as A
    import segmentation_models_pytorch as smp

    steps = [
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(0.5, 1.5), translate_percent=(-0.1, 0.1), fill_mask=255, p=1),
        A.PadIfNeeded(320, 320, fill_mask=255),
        A.RandomCrop(320, 320),
        A.GaussNoise(p=0.2),
        A.OneOf([A.CLAHE(), A.RandomBrightnessContrast(), A.RandomGamma()], p=0.9),
        A.OneOf([A.Sharpen(), A.Blur(blur_limit=3), A.MotionBlur(blur_limit=3)], p=0.9),
        A.OneOf([A.RandomBrightnessContrast(), A.HueSaturationValue()], p=0.9),
    ]
    dice = smp.losses.DiceLoss("multiclass", ignore_index=255)
    return A.Compose(steps, seed=seed), _anywhere, dice, 2e-4, False


def bare(train: Any, seed: int) -> tuple[Any, Any, Callable[..., Any], float, bool]:
    """As `tutorial`."""
    import albumentations as A
    import segmentation_models_pytorch as smp
    import torch

    steps = [
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(0.67, 1.5), fill_mask=255, p=0.8),
        A.PadIfNeeded(192, 192, fill_mask=255),
        A.CenterCrop(192, 192),
        A.ColorJitter((0.75, 1.25), (0.75, 1.25), (0.75, 1.25), (-0.03, 0.03), p=0.8),
    ]
    pixels = np.asarray(train.class_pixels).sum(0)
    weights = (pixels.sum() / np.maximum(pixels, 1)) ** 0.5
    weight = torch.tensor(weights * pixels.sum() / (weights * pixels).sum(), dtype=torch.float32)
    dice = smp.losses.DiceLoss("multiclass", ignore_index=255)

    def cost(logits: Any, truth: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, truth, weight, ignore_index=255) + 0.5 * dice(logits, truth)

    return A.Compose(steps, seed=seed), _around_rare, cost, 2e-3, True


RECIPES = {"tutorial": tutorial, "bare": bare}


def _anywhere(train: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    sample = train[int(rng.integers(len(train)))]
    return np.asarray(sample.image), np.asarray(sample.labels)


def _around_rare(train: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A window of 256 anywhere, or around a pixel of a class drawn by lot."""
    present = np.asarray(train.class_pixels) > 0
    if rng.random() < 0.5:
        image, labels = _anywhere(train, rng)
        center = [int(rng.integers(n)) for n in labels.shape]
    else:
        wanted = int(rng.choice(np.flatnonzero(present.any(0))))
        sample = train[int(rng.choice(np.flatnonzero(present[:, wanted])))]
        image, labels = np.asarray(sample.image), np.asarray(sample.labels)
        places = np.argwhere(labels == wanted)
        center = (places[rng.integers(len(places))] + rng.integers(-64, 65, 2)).tolist()
    top, left = (min(max(0, c - 128), max(0, n - 256)) for c, n in zip(center, labels.shape, strict=True))
    return image[top : top + 256, left : left + 256], labels[top : top + 256, left : left + 256]


def fit(recipe: str, train: Any, classes: int, seed: int, seconds: float) -> tuple[Any, Any, int]:
    """The network, what normalises images, and the steps taken when the seconds were over."""
    import torch

    from segpipe.config import Candidate
    from segpipe.models.registry import build_network, family_config, pretrained_preprocessing
    from segpipe.training.machine import has_bf16
    from segpipe.training.step import configure_process

    configure_process(torch.get_num_threads())
    augment, crop, cost, rate, modern = RECIPES[recipe](train, seed)
    config = family_config(Candidate(family="fpn"))
    network, own = build_network("fpn", config, 3, classes, seed).train(), pretrained_preprocessing(config)
    assert own is not None
    mean, std = (np.array(v, np.float32) * 255 for v in (own.mean, own.std))
    layout = torch.channels_last if modern else torch.contiguous_format
    network = network.to(memory_format=layout)
    average = copy.deepcopy(network)
    kind = torch.optim.AdamW if modern else torch.optim.Adam
    optimizer, rng, step = kind(network.parameters(), lr=rate), np.random.default_rng(seed), 0
    while (done := (time.perf_counter() - _BEGAN) / (seconds - _PREPARE_S)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done)) * min(1, (step + 1) / 50 if modern else 1)
        images, labels = [], []
        for _ in range(8):
            image, known = crop(train, rng)
            out = augment(image=image, mask=known)
            images.append(((out["image"] - mean) / std).transpose(2, 0, 1))
            labels.append(out["mask"])
        batch, truth = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=modern and has_bf16("cpu")):
            logits = network(batch.contiguous(memory_format=layout))
        loss = cost(logits.float(), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        decay = min(0.99, step / (step + 10)) if modern else 0.0
        with torch.no_grad():
            for mine, theirs in zip(
                [*average.parameters(), *average.buffers()], [*network.parameters(), *network.buffers()], strict=True
            ):
                mine.lerp_(theirs, 1 - decay) if mine.is_floating_point() else mine.copy_(theirs)
    return average.eval(), lambda image: ((image - mean) / std).transpose(2, 0, 1), step


def main() -> None:
    """Train and score."""
    import torch
    import torch.nn.functional as F

    from segpipe.data.shards import ShardReader
    from segpipe.metrics import confusion, macro, tallies

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shards = arguments.workspace / "artifacts" / "shards"
    train, test = ShardReader(shards, "train"), ShardReader(shards, "test")
    classes = np.asarray(train.class_pixels).shape[1]
    network, normalised, steps = fit(arguments.recipe, train, classes, arguments.seed, arguments.seconds)
    seconds, counts = time.perf_counter() - _BEGAN, np.zeros((classes, classes), np.int64)
    for index in range(len(test)):
        sample = test[index]
        assert sample.labels is not None
        image = torch.from_numpy(normalised(np.asarray(sample.image)))[None]
        around = [(-n) % 32 for n in image.shape[2:]]
        with torch.inference_mode():
            logits = network(F.pad(image, (0, around[1], 0, around[0]), mode="reflect"))
        ids = logits[0, :, : image.shape[2], : image.shape[3]].argmax(0).numpy().astype(np.uint8)
        counts += confusion(sample.labels, ids, classes)
    print(json.dumps({"seconds": round(seconds, 1), "steps": steps, "iou": float(macro("iou", tallies(counts)))}))


if __name__ == "__main__":
    main()
