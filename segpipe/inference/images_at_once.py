"""Choose how many images are predicted at once, and with how many threads each.

Small images are predicted several at once with one thread each: this uses the cores better than one image on all cores, because
everything else that is done with an image (resizing, softmax, instances, counting) runs in parallel, too. Of large images there is one
in memory at a time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from segpipe.inference.engines.checked_graph import CheckedGraphEngine
from segpipe.inference.engines.engine import Int8Engine, OpenVinoEngine, TorchEngine

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter
    from segpipe.inference.spec import SegmenterSpec
    from segpipe.samples import Sample

_MAX_VALUES = 1 << 24
"""Probabilities (classes x pixels) of the images that are predicted at once: 64 MiB in float32."""
_MAX_INPUT_PIXELS = 1 << 21
"""Pixels that networks process at once: two tiles of 1024 x 1024. A U-Net needs about 1 GiB for that many."""
_MAX_JOBS = 8
_SAMPLED_IMAGES = 32


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fitting_images(spec: SegmenterSpec, sample: Sample) -> int:
    """Return how many images of the size of this one may be predicted at once, at least 1, whatever the number of cores.

    Args:
        spec: the model.
        sample: an image or a volume.
    """
    pixels = sample.image[..., 0].size
    window = int(np.prod(spec.patch3d)) if spec.patch3d else spec.tile**2
    return max(1, min(_MAX_VALUES // (len(spec.classes) * pixels), _MAX_INPUT_PIXELS // min(pixels, window)))


def engine_threads(spec: SegmenterSpec, reader: ShardReader, cores: int | None = None) -> int:
    """Choose the number of threads of the engine for the images of a split.

    Args:
        spec: the model.
        reader: the split, of which a few images are looked at.
        cores: the number of cores; by default those that are available.

    Returns:
        The cores are shared by as many images as may be predicted at once. 0, all cores, for volumes: their engine, OpenVINO, predicts
        one at a time.
    """
    if spec.dims == 3:
        return 0
    cores = cores or available_cores()
    indices = np.unique(np.linspace(0, len(reader) - 1, _SAMPLED_IMAGES).astype(int)).tolist() if len(reader) else []
    at_once = min((fitting_images(spec, reader[index]) for index in indices), default=1)
    return max(1, cores // min(at_once, _MAX_JOBS))


def parallel_jobs(segmenter: Segmenter, cores: int | None = None) -> int:
    """Return how many images a model may predict at once in threads; 1 if its engine uses all cores for one image.

    Args:
        segmenter: the model.
        cores: the number of cores; by default those that are available.
    """
    threads = engine_thread_count(segmenter)
    return 1 if threads == 0 else max(1, min(_MAX_JOBS, (cores or available_cores()) // threads))


def engine_thread_count(segmenter: Segmenter) -> int:
    """Return the number of threads that a model's engine uses for one image; 0: all cores.

    torch and OpenVINO use all cores; a classical model uses one.
    """
    engine = segmenter.engine
    if isinstance(engine, CheckedGraphEngine):
        engine = engine.graph
    if isinstance(engine, TorchEngine | OpenVinoEngine | Int8Engine):
        return 0
    return int(getattr(engine, "threads", 1))
