"""Images of discs, a small Mask R-CNN for them, and a function that overfits it to some images."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from segpipe.samples import Sample
from segpipe.training.sampling.crops import batches
from segpipe.training.sampling.detection import InstanceCrops, detection_loss
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import make_plan

SMALL = {
    "encoder": "resnet18",
    "encoder_weights": "none",
    "channels": 32,
    "hidden": 64,
    "anchors": (10.0, 20.0),
    "first_stride": 4,
}


def discs(seed: int, edge: int = 96) -> Sample:
    """Discs of two classes that do not overlap, some of them touching."""
    rng = np.random.default_rng(seed)
    labels, ids = np.zeros((edge, edge), np.uint8), np.zeros((edge, edge), np.uint16)
    y, x = np.mgrid[:edge, :edge]
    for number in range(1, 9):
        (row, column), radius = rng.uniform(8, edge - 8, 2), rng.uniform(5, 9)
        disc = ((y - row) ** 2 + (x - column) ** 2 <= radius**2) & (ndimage.grey_dilation(ids, 3) == 0)
        if disc.sum() > 60:
            ids[disc], labels[disc] = number, 1 + number % 2
    image = np.array([50, 150, 230])[labels][:, :, None] + rng.normal(0, 8, (edge, edge, 3))
    return Sample(f"d{seed}", np.clip(image, 0, 255).astype(np.uint8), labels, ids)


def detector_plan(**recipe):
    plan = make_plan(family="mask_rcnn", **recipe)
    return plan.model_copy(update={"options": SMALL})


def overfit(network: torch.nn.Module, reader: MemoryReader, edge: int, steps: int) -> torch.nn.Module:
    """Train on all images of `reader` in each step, in the last 60 steps at a tenth of the rate. Returns the network for inference."""
    plan = detector_plan(patch=edge, batch=len(reader), steps=steps, augment="off", rare_crops=0.0)
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(network.train().parameters(), lr=1e-3)
    for step, batch in enumerate(batches(InstanceCrops(reader, plan), plan.recipe, 0)):
        optimiser.param_groups[0]["lr"] = 1e-3 if step < steps - 60 else 1e-4
        optimiser.zero_grad()
        detection_loss(network, batch, torch.device("cpu")).backward()
        optimiser.step()
    return network.eval()
