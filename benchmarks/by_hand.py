"""Train networks for a fixed time with scripts as people write them, on the shards of a workspace.

`time_to_quality.py --against` compares segpipe's defaults with these scripts.

    python benchmarks/by_hand.py WORKSPACE tutorial --seconds 600 --seed 0

Both train an FPN on the encoder whose ImageNet weights are installed, for the whole time, without validation, with batches of 8:

- tutorial: the CamVid tutorial of segmentation_models_pytorch: flipped, scaled, shifted crops of 320, Dice, Adam with 2e-4 and a cosine
  schedule, float32.
- bare: what an experienced user would write: crops of 192, half of them around a pixel of a random class, zoom, flips and colour jitter;
  cross entropy weighted by 1 / frequency to the power of 0.5, and Dice; AdamW with 2e-3 and a cosine schedule, a running average of
  weights, channels-last, bfloat16 if the processor supports it.

Prints the IoU over all pixels of the test split, averaged over classes.
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

_START = time.perf_counter()
_RESERVED_S = 8.0
"""Seconds reserved for the start of Python, before the clock starts, and for the last step."""


def tutorial(train: Any, seed: int) -> tuple[Any, Any, Callable[..., Any], float, bool]:
    """Return augmentation, crop function, loss, learning rate, and whether weights are averaged and bfloat16 is used if available."""
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
    """Return the same as `tutorial`."""
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
    """Return a window of 256 at a random position, or around a pixel of a random class."""
    present = np.asarray(train.class_pixels) > 0
    if rng.random() < 0.5:
        image, labels = _anywhere(train, rng)
        center = [int(rng.integers(n)) for n in labels.shape]
    else:
        class_id = int(rng.choice(np.flatnonzero(present.any(0))))
        sample = train[int(rng.choice(np.flatnonzero(present[:, class_id])))]
        image, labels = np.asarray(sample.image), np.asarray(sample.labels)
        pixels = np.argwhere(labels == class_id)
        center = (pixels[rng.integers(len(pixels))] + rng.integers(-64, 65, 2)).tolist()
    top, left = (min(max(0, c - 128), max(0, n - 256)) for c, n in zip(center, labels.shape, strict=True))
    return image[top : top + 256, left : left + 256], labels[top : top + 256, left : left + 256]


def fit(recipe: str, train: Any, classes: int, seed: int, seconds: float) -> tuple[Any, Any, int]:
    """Train for a time; return the network, the function that normalises an image, and the number of steps."""
    import torch

    from segpipe.config import Candidate
    from segpipe.models.registry import build_network, family_config, pretrained_preprocessing
    from segpipe.training.machine import has_bf16
    from segpipe.training.step import configure_process

    configure_process(torch.get_num_threads())
    augment, crop, cost, rate, modern = RECIPES[recipe](train, seed)
    config = family_config(Candidate(family="fpn"))
    network, preprocessing = build_network("fpn", config, 3, classes, seed).train(), pretrained_preprocessing(config)
    assert preprocessing is not None
    mean, std = (np.array(values, np.float32) * 255 for values in (preprocessing.mean, preprocessing.std))
    layout = torch.channels_last if modern else torch.contiguous_format
    network = network.to(memory_format=layout)
    average = copy.deepcopy(network)
    kind = torch.optim.AdamW if modern else torch.optim.Adam
    optimizer, rng, step = kind(network.parameters(), lr=rate), np.random.default_rng(seed), 0
    while (progress := (time.perf_counter() - _START) / (seconds - _RESERVED_S)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * progress)) * min(1, (step + 1) / 50 if modern else 1)
        images, labels = [], []
        for _ in range(8):
            image, mask = crop(train, rng)
            augmented = augment(image=image, mask=mask)
            images.append(((augmented["image"] - mean) / std).transpose(2, 0, 1))
            labels.append(augmented["mask"])
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
            for averaged, current in zip(
                [*average.parameters(), *average.buffers()], [*network.parameters(), *network.buffers()], strict=True
            ):
                averaged.lerp_(current, 1 - decay) if averaged.is_floating_point() else averaged.copy_(current)
    return average.eval(), lambda image: ((image - mean) / std).transpose(2, 0, 1), step


def main() -> None:
    """Train, score, and print one line of JSON."""
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
    network, normalise, steps = fit(arguments.recipe, train, classes, arguments.seed, arguments.seconds)
    seconds, counts = time.perf_counter() - _START, np.zeros((classes, classes), np.int64)
    for index in range(len(test)):
        sample = test[index]
        assert sample.labels is not None
        image = torch.from_numpy(normalise(np.asarray(sample.image)))[None]
        padding = [(-n) % 32 for n in image.shape[2:]]
        with torch.inference_mode():
            logits = network(F.pad(image, (0, padding[1], 0, padding[0]), mode="reflect"))
        ids = logits[0, :, : image.shape[2], : image.shape[3]].argmax(0).numpy().astype(np.uint8)
        counts += confusion(sample.labels, ids, classes)
    print(json.dumps({"seconds": round(seconds, 1), "steps": steps, "iou": float(macro("iou", tallies(counts)))}))


if __name__ == "__main__":
    main()
