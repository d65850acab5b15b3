"""Shards: decoded samples in few large files (Arrow IPC, one record batch per sample), read through a memory map.

Reading a sample decodes and copies nothing: its arrays are views of the page cache, which all processes of a machine share. Reading
needs only pyarrow and numpy.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segpipe.errors import DataError, MissingError
from segpipe.files import atomic_path
from segpipe.labels import Labelling, labelling_of
from segpipe.samples import Sample

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("depth", pa.int32()),  # slices; null for an image (2D)
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("channels", pa.int32(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("spacing", pa.list_(pa.float64())),  # size of a voxel in mm, by axis of the labels
        pa.field("image", pa.large_binary(), nullable=False),  # ([D,] H, W, C), C order, `dtype`, little-endian
        pa.field("labels", pa.large_binary()),  # ([D,] H, W), uint8 class ids or sets of classes
        pa.field("instances", pa.large_binary()),  # ([D,] H, W), uint16 instance ids, little-endian
        pa.field("class_pixels", pa.list_(pa.int64()), nullable=False),  # pixels of each class, by class id
    ]
)
_CACHED_SAMPLES = 1 << 14
"""The number of samples that a reader remembers. They are views of about 2 kB each, and finding one again takes longer than copying a
small crop."""

_DTYPES = {"uint8": "<u1", "uint16": "<u2", "float32": "<f4"}


def write_shards(
    folder: Path, split: str, samples: Iterable[Sample], classes: int | Labelling, max_bytes: int = 256 << 20
) -> list[Path]:
    """Write samples in their order to `folder/{split}-00000.arrow`, `folder/{split}-00001.arrow` and so on.

    The same samples give the same bytes. Each file is written completely or not at all, and files of an earlier, longer set are
    removed. At most two samples are in memory: the one being written and the next one.

    Args:
        folder: the folder to write to.
        split: train, val or test.
        samples: the samples of the split.
        classes: the number of classes, or the meaning of the labels.
        max_bytes: a new file begins when the current one has reached this size.

    Returns:
        The paths of the files.
    """
    paths: list[Path] = []
    iterator = iter(samples)
    sample = next(iterator, None)
    while sample is not None:
        target = folder / f"{split}-{len(paths):05d}.arrow"
        with atomic_path(target) as path, pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            while sample is not None and sink.tell() < max_bytes:
                writer.write_batch(_to_batch(sample, labelling_of(classes)))
                sample = next(iterator, None)
        paths.append(target)
    for stale in set(_shard_paths(folder, split)) - set(paths):
        stale.unlink()
    return paths


class ShardReader:
    """A sequence of the samples of one split.

    Indexing copies and decodes nothing: the arrays of a `Sample` are read-only views of the memory map. A reader can be pickled and
    used after a fork: each process maps the files itself.

    Args:
        folder: the folder with the shards.
        split: train, val or test.

    Attributes:
        keys: the keys of the samples, in order.
        class_pixels: (n, n_classes), int64, the number of pixels of each class in each sample.

    Raises:
        MissingError: if the split has no shards.
        DataError: if a shard is damaged, or if another version of segpipe wrote it.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = Path(folder), split
        self._paths = _shard_paths(self.folder, split)
        if not self._paths:
            raise MissingError(f"no shards of split {split}", where=folder, fix="`segpipe prepare` writes them")
        self._files = [_open(path) for path in self._paths]
        self._starts = np.cumsum([0] + [f.num_record_batches for f in self._files]).tolist()
        self._cached_sample = lru_cache(_CACHED_SAMPLES)(self._read)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._cached_sample(index % len(self))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the samples, in order."""
        return [self._batch(i).column("key")[0].as_py() for i in range(len(self))]

    @cached_property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """The number of pixels of each class in each sample, (n, n_classes); ignored pixels count for no class."""
        return np.array([self._batch(i).column("class_pixels")[0].as_py() for i in range(len(self))], np.int64)

    def _read(self, index: int) -> Sample:
        batch = self._batch(index)
        key, group, depth, height, width, channels, dtype, spacing = (
            batch.column(n)[0].as_py() for n in _SCHEMA.names[:8]
        )
        shape = (height, width) if depth is None else (depth, height, width)
        image = _view(batch, "image", _DTYPES[dtype], (*shape, channels))
        assert image is not None
        labels, instances = _view(batch, "labels", "<u1", shape), _view(batch, "instances", "<u2", shape)
        return Sample(key, image, labels, instances, group, None if spacing is None else tuple(spacing))

    def _batch(self, index: int) -> pa.RecordBatch:
        shard = bisect_right(self._starts, index) - 1
        return self._files[shard].get_batch(index - self._starts[shard])

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _shard_paths(folder: Path, split: str) -> list[Path]:
    return sorted(
        p for p in folder.glob(f"{split}-*.arrow") if re.fullmatch(r"\d{5}", p.stem.removeprefix(f"{split}-"))
    )


def _open(path: Path) -> pa.ipc.RecordBatchFileReader:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"is not a complete shard: {error}", where=path, fix="`dvc repro prepare` writes it again"
        ) from error
    if reader.schema != _SCHEMA:
        raise DataError(
            "is a shard of another version of segpipe",
            where=path,
            fix="`dvc repro --force --single-item prepare` writes it again",
        )
    return reader


def _view(batch: pa.RecordBatch, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the one value of a binary column as a view of the memory map; None for null. A scalar's `as_buffer` would copy it."""
    column = batch.column(name)
    if column.null_count:
        return None
    _, _, content = column.buffers()
    return np.frombuffer(content, dtype, count=math.prod(shape)).reshape(shape)


def _to_batch(sample: Sample, labelling: Labelling) -> pa.RecordBatch:
    *depth, height, width, channels = sample.image.shape
    dtype = sample.image.dtype.name
    values: dict[str, Any] = {
        "key": sample.key,
        "group": sample.group,
        "depth": depth[0] if depth else None,
        "height": height,
        "width": width,
        "channels": channels,
        "dtype": dtype,
        "spacing": sample.spacing,
        "class_pixels": labelling.count_pixels(() if sample.labels is None else sample.labels),
    }
    arrays: dict[str, pa.Array] = {
        "image": _binary(sample.image, _DTYPES[dtype]),
        "labels": _binary(sample.labels, "<u1"),
        "instances": _binary(sample.instances, "<u2"),
    }
    return pa.record_batch(
        [arrays[f.name] if f.name in arrays else pa.array([values[f.name]], f.type) for f in _SCHEMA], schema=_SCHEMA
    )


def _binary(array: np.ndarray | None, dtype: str) -> pa.Array:
    """Return a binary column with one value that shares the memory of the array."""
    if array is None:
        return pa.array([None], pa.large_binary())
    content = np.ascontiguousarray(array, dtype)
    ends = np.array([0, content.nbytes], np.int64)
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(ends), pa.py_buffer(content)])
