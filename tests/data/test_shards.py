"""Shards: samples are read back unchanged, without a copy, in any process, and written with the same bytes."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from segpipe.config import DataParams
from segpipe.data import dataset
from segpipe.data.dataset import Item
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import DataError, MissingError
from segpipe.samples import IGNORE, ClassTable, Sample
from tests.worlds.property_tests import examples

RNG = np.random.default_rng(3)


def make_sample(
    key: str,
    height: int = 17,
    width: int = 23,
    channels: int = 3,
    dtype: str = "uint8",
    unlabelled: bool = False,
    depth: int | None = None,
) -> Sample:
    shape = (height, width) if depth is None else (depth, height, width)
    image = (RNG.random((*shape, channels)) * 250).astype(dtype)
    if unlabelled:
        return Sample(key, image)
    labels = RNG.choice(np.array([0, 1, 2, IGNORE], np.uint8), shape)
    instances = RNG.integers(0, 60_000, shape, dtype=np.uint16)
    return Sample(key, image, labels, instances, f"group {key}", None if depth is None else (2.5, 0.7, 0.7))


def assert_equal(a: Sample, b: Sample) -> None:
    assert (a.key, a.group, a.spacing) == (b.key, b.group, b.spacing)
    for x, y in ((a.image, b.image), (a.labels, b.labels), (a.instances, b.instances)):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(
        st.tuples(
            st.integers(1, 9),
            st.integers(1, 9),
            st.sampled_from([1, 3, 7]),
            st.sampled_from(["uint8", "uint16", "float32"]),
            st.booleans(),
            st.sampled_from([None, 1, 4]),
        ),
        min_size=1,
        max_size=8,
    ),
    max_bytes=st.sampled_from([1, 2000, 1 << 20]),
)
def test_samples_are_read_back_unchanged(tmp_path: Path, kinds: list[tuple], max_bytes: int) -> None:
    samples = [make_sample(f"k{i}", *kind) for i, kind in enumerate(kinds)]
    paths = write_shards(tmp_path, "train", iter(samples), 3, max_bytes)
    assert sorted(tmp_path.glob("train-*.arrow")) == paths
    reader = ShardReader(tmp_path, "train")
    assert len(reader) == len(samples)
    assert reader.keys == [s.key for s in samples]
    for index, expected in enumerate(samples):
        assert_equal(reader[index], expected)
        assert_equal(reader[index - len(samples)], expected)
    expected_pixels = [[0, 0, 0] if s.labels is None else [(s.labels == c).sum() for c in range(3)] for s in samples]
    np.testing.assert_array_equal(reader.class_pixels, expected_pixels)
    assert reader.class_pixels.dtype == np.int64


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[Sample]]:
    samples = [make_sample(f"k{i}", 40 + i, depth=2 if i % 2 else None) for i in range(7)]
    write_shards(tmp_path, "val", samples, 3, max_bytes=20_000)
    return tmp_path, samples


def test_arrays_are_read_only_views_of_the_mapped_file(written: tuple[Path, list[Sample]]) -> None:
    folder, _ = written
    reader = ShardReader(folder, "val")
    before = pa.total_allocated_bytes()
    samples = [reader[i] for i in range(len(reader))]
    assert pa.total_allocated_bytes() == before
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".arrow")]
    mapped = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in maps]
    for sample in samples:
        for array in (sample.image, sample.labels, sample.instances):
            assert array is not None
            address = array.__array_interface__["data"][0]
            assert any(low <= address and address + array.nbytes <= high for low, high in mapped)
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def _read(reader: ShardReader, index: int, out: multiprocessing.Queue) -> None:
    out.put(int(reader[index].image.astype(np.int64).sum()))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_readers_work_in_other_processes(written: tuple[Path, list[Sample]], start: str) -> None:
    folder, samples = written
    reader = ShardReader(folder, "val")
    assert_equal(pickle.loads(pickle.dumps(reader))[6], samples[6])
    context = multiprocessing.get_context(start)
    out = context.Queue()
    child = context.Process(target=_read, args=(reader, 6, out))
    child.start()
    assert out.get(timeout=60) == samples[6].image.astype(np.int64).sum()
    child.join()


def test_the_same_samples_give_the_same_bytes_and_stale_files_are_removed(written: tuple[Path, list[Sample]]) -> None:
    folder, samples = written
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert len(first) > 2
    write_shards(folder, "val", samples, 3, max_bytes=20_000)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    write_shards(folder, "val", samples[:1], 3)
    assert [p.name for p in folder.iterdir()] == ["val-00000.arrow"]


def test_samples_are_produced_as_they_are_written(tmp_path: Path) -> None:
    """At most two samples are in memory: the one being written and the next one."""
    images: list[weakref.ref] = []

    def samples() -> Iterator[Sample]:
        for index in range(20):
            sample = make_sample(f"k{index}")
            images.append(weakref.ref(sample.image))
            yield sample
            del sample
            assert sum(ref() is not None for ref in images) <= 2

    write_shards(tmp_path, "train", samples(), 3)
    assert len(ShardReader(tmp_path, "train")) == 20


def test_a_failing_source_leaves_no_incomplete_shard(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield make_sample("a")
        yield make_sample("b")
        raise DataError("no")

    with pytest.raises(DataError):
        write_shards(tmp_path, "train", broken(), 3)
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_shards_are_errors(written: tuple[Path, list[Sample]]) -> None:
    folder, samples = written
    with pytest.raises(MissingError, match="no shards of split train"):
        ShardReader(folder, "train")
    with pytest.raises(IndexError):
        ShardReader(folder, "val")[len(samples)]
    path = folder / "val-00000.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a complete shard"):
        ShardReader(folder, "val")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("x", pa.int8())])):
        pass
    with pytest.raises(DataError, match="another version"):
        ShardReader(folder, "val")


_CROP = """
import resource, sys
import numpy as np
from segpipe.data.shards import ShardReader

def mapped_kb():
    total, in_shard = 0, False
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            in_shard = line.rstrip().endswith(".arrow")
        elif in_shard and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total

reader = ShardReader(sys.argv[1], "train")
sample = reader[0]
np.zeros(1 << 20).sum()
before, faults = mapped_kb(), sum(resource.getrusage(resource.RUSAGE_SELF)[6:8])
crop = sample.image[..., 5000:5256, 7000:7256, :]
total = int(crop.sum(dtype=np.int64))
faults = sum(resource.getrusage(resource.RUSAGE_SELF)[6:8]) - faults
print(total, faults, mapped_kb() - before)
"""


@pytest.mark.parametrize("depth", [None, 3])
def test_a_crop_of_a_large_image_reads_only_its_own_pages(tmp_path: Path, depth: int | None) -> None:
    """A crop of 256 x 256 from 10,000 x 10,000 pixels: at most two page faults per row, and only the rows of the crop are mapped."""
    rows = np.arange(10_000, dtype=np.uint8)[:, None, None]
    image = (
        np.broadcast_to(rows, (10_000, 10_000, 1)) if depth is None else np.broadcast_to(rows, (3, 10_000, 10_000, 1))
    )
    write_shards(tmp_path, "train", [Sample("large", image)], 3)
    out = subprocess.run([sys.executable, "-c", _CROP, tmp_path], capture_output=True, text=True, check=True).stdout
    total, faults, mapped_kb = map(int, out.split())
    planes = depth or 1
    assert total == planes * 256 * int(rows[5000:5256].astype(int).sum())
    assert faults <= 2 * 256 * planes + 50
    band_kb = 256 * 10_000 // 1024
    huge_kb = 2048  # a fault also maps neighbouring pages that are in the page cache, up to a huge page
    assert mapped_kb <= planes * (band_kb + 2 * huge_kb)


_WRITE = """
import sys
import numpy as np
from segpipe.data.shards import write_shards
from segpipe.samples import Sample
edge = int(sys.argv[2])
image, labels = np.zeros((edge, edge, 3), np.uint8), np.zeros((edge, edge), np.uint8)
image += 1; labels += 1

def peak():  # kB; the resource module would count the parent process, too
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

before = peak()
write_shards(__import__("pathlib").Path(sys.argv[1]), "train", [Sample("large", image, labels)], 3)
print(before, peak())
"""


def test_writing_a_large_image_copies_it_no_more_than_once(tmp_path: Path) -> None:
    edge = 6000
    command = [sys.executable, "-c", _WRITE, tmp_path, str(edge)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, after = map(int, out.split())
    assert (after - before) * 1024 < edge * edge * 4


def test_large_images_are_not_decoded_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads: only about `_AHEAD_BYTES` of decoded images are in memory at once, and the order is kept."""
    alive: list[weakref.ref] = []
    most_alive = 0

    def load(item: Item, *_: object) -> Sample:
        sample = Sample(item.key, np.zeros((100, 100, 1), np.uint8))
        alive.append(weakref.ref(sample.image))
        return sample

    monkeypatch.setattr(dataset, "load_sample", load)
    monkeypatch.setattr(dataset, "_AHEAD_BYTES", 30_000)
    items = [Item(f"{i:02d}", tmp_path) for i in range(40)]
    keys = []
    for sample in dataset.load_samples(items, ClassTable.from_names(["a", "b"]), DataParams(), jobs=16):
        keys.append(sample.key)
        most_alive = max(most_alive, sum(ref() is not None for ref in alive))
    assert keys == [item.key for item in items]
    assert most_alive <= 8, "of 40 images, with 16 threads; a used sample may stay in memory for a moment"
