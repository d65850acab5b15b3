"""Generated images and volumes in memory, with the interface of a shard reader: the training data of the benchmarks."""

from __future__ import annotations

import numpy as np

from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.samples import ClassTable, Sample

CLASSES = ClassTable.from_names(["background", "cytoplasm", "nucleus"])
_TONES = np.array([[220, 210, 225], [190, 120, 170], [90, 60, 140]])


class Cells:
    """Random discs (balls in volumes), each with a nucleus, on noise; every disc is an instance."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.samples = [self._draw(np.random.default_rng(i), shape, i) for i in range(count)]
        self.keys = [s.key for s in self.samples]
        self.class_pixels = np.array([count_pixels(s) for s in self.samples])

    @staticmethod
    def _draw(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Sample:
        labels, instances = np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)
        grid = np.indices(shape)
        radius = 22 if len(shape) == 2 else 9
        for number, center in enumerate(rng.integers(0, shape, (30 if len(shape) == 2 else 6, len(shape))), 1):
            squared_distance = ((grid - center.reshape(-1, *[1] * len(shape))) ** 2).sum(0)
            labels[squared_distance < radius**2] = 1
            labels[squared_distance < radius**2 / 4] = 2
            instances[squared_distance < radius**2] = number
        tones = _TONES[labels] if len(shape) == 2 else _TONES[labels][..., :1]
        image = np.clip(tones + rng.normal(0, 12, tones.shape), 0, 255).astype(np.uint8)
        spacing = (1.0,) * 3 if len(shape) == 3 else None
        return Sample(str(index), image, labels, instances=instances, spacing=spacing)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def count_pixels(sample: Sample) -> np.ndarray:
    """Count the pixels of each class, (3,)."""
    assert sample.labels is not None
    return np.bincount(sample.labels.ravel(), minlength=len(CLASSES.classes))


def fingerprint_of(reader: Cells) -> Fingerprint:
    """Return the fingerprint that `ingest` would compute."""
    *depth, height, width, channels = reader[0].image.shape
    sizes = {
        name: {"min": edge, "median": edge, "max": edge}
        for name, edge in (("depth", depth[0] if depth else None), ("height", height), ("width", width))
        if edge
    }
    counts = dict.fromkeys(("train", "val", "test"), reader.class_pixels.sum(0).tolist())
    return Fingerprint.model_validate(
        {
            "data_hash": "generated",
            "classes": CLASSES,
            "n_images": dict.fromkeys(counts, len(reader)),
            "channels": channels,
            "dtype": "uint8",
            **sizes,
            "class_pixels": counts,
            "ignored_pixels": dict.fromkeys(counts, 0),
            "low": [0.0] * channels,
            "high": [255.0] * channels,
            "mean": [128.0] * channels,
            "std": [64.0] * channels,
            "groups": 0,
            "instances": not depth,
            "task": "volume" if depth else "instance",
            "spacing": [1.0] * 3 if depth else None,
        }
    )
