"""Shards: what goes in comes out, without a copy, from any process, with the same bytes."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segpipe.config import DataParams
from segpipe.data import dataset
from segpipe.data.dataset import Item
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import DataError, MissingError
from segpipe.samples import IGNORE, ClassTable, Sample

RNG = np.random.default_rng(3)


def sample(
    key: str,
    height: int = 17,
    width: int = 23,
    channels: int = 3,
    dtype: str = "uint8",
    bare: bool = False,
    depth: int | None = None,
) -> Sample:
    shape = (height, width) if depth is None else (depth, height, width)
    image = (RNG.random((*shape, channels)) * 250).astype(dtype)
    if bare:
        return Sample(key, image)
    labels = RNG.choice(np.array([0, 1, 2, IGNORE], np.uint8), shape)
    instances = RNG.integers(0, 60_000, shape, dtype=np.uint16)
    return Sample(key, image, labels, instances, f"group {key}", None if depth is None else (2.5, 0.7, 0.7))


def same(a: Sample, b: Sample) -> None:
    assert (a.key, a.group, a.spacing) == (b.key, b.group, b.spacing)
    for x, y in ((a.image, b.image), (a.labels, b.labels), (a.instances, b.instances)):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
def test_what_goes_in_comes_out(tmp_path: Path, kinds: list[tuple], max_bytes: int) -> None:
    samples = [sample(f"k{i}", *kind) for i, kind in enumerate(kinds)]
    paths = write_shards(tmp_path, "train", iter(samples), 3, max_bytes)
    assert sorted(tmp_path.glob("train-*.arrow")) == paths
    reader = ShardReader(tmp_path, "train")
    assert len(reader) == len(samples)
    assert reader.keys == [s.key for s in samples]
    for index, expected in enumerate(samples):
        same(reader[index], expected)
        same(reader[index - len(samples)], expected)
    counted = [[0, 0, 0] if s.labels is None else [(s.labels == c).sum() for c in range(3)] for s in samples]
    np.testing.assert_array_equal(reader.class_pixels, counted)
    assert reader.class_pixels.dtype == np.int64


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[Sample]]:
    samples = [sample(f"k{i}", 40 + i, depth=2 if i % 2 else None) for i in range(7)]
    write_shards(tmp_path, "val", samples, 3, max_bytes=20_000)
    return tmp_path, samples


def test_arrays_are_read_only_views_of_the_mapped_file(written: tuple[Path, list[Sample]]) -> None:
    folder, _ = written
    reader = ShardReader(folder, "val")
    before = pa.total_allocated_bytes()
    held = [reader[i] for i in range(len(reader))]
    assert pa.total_allocated_bytes() == before
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".arrow")]
    mapped = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in maps]
    for one in held:
        for array in (one.image, one.labels, one.instances):
            assert array is not None
            address = array.__array_interface__["data"][0]
            assert any(low <= address and address + array.nbytes <= high for low, high in mapped)
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def _read(reader: ShardReader, index: int, out: multiprocessing.Queue) -> None:
    out.put(int(reader[index].image.astype(np.int64).sum()))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_readers_travel_to_other_processes(written: tuple[Path, list[Sample]], start: str) -> None:
    folder, samples = written
    reader = ShardReader(folder, "val")
    same(pickle.loads(pickle.dumps(reader))[6], samples[6])
    context = multiprocessing.get_context(start)
    out = context.Queue()
    child = context.Process(target=_read, args=(reader, 6, out))
    child.start()
    assert out.get(timeout=60) == samples[6].image.astype(np.int64).sum()
    child.join()


def test_same_samples_same_bytes_and_no_file_of_before_stays(written: tuple[Path, list[Sample]]) -> None:
    folder, samples = written
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert len(first) > 2
    write_shards(folder, "val", samples, 3, max_bytes=20_000)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    write_shards(folder, "val", samples[:1], 3)
    assert [p.name for p in folder.iterdir()] == ["val-00000.arrow"]


def test_samples_are_asked_for_as_they_are_written(tmp_path: Path) -> None:
    """Memory is bounded by a sample: no more than the one being written and the next are alive."""
    images: list[weakref.ref] = []

    def samples() -> Iterator[Sample]:
        for index in range(20):
            one = sample(f"k{index}")
            images.append(weakref.ref(one.image))
            yield one
            del one
            assert sum(ref() is not None for ref in images) <= 2

    write_shards(tmp_path, "train", samples(), 3)
    assert len(ShardReader(tmp_path, "train")) == 20


def test_a_failing_source_leaves_no_half_shard(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield sample("a")
        yield sample("b")
        raise DataError("no")

    with pytest.raises(DataError):
        write_shards(tmp_path, "train", broken(), 3)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_or_not_whole_is_said(written: tuple[Path, list[Sample]]) -> None:
    folder, samples = written
    with pytest.raises(MissingError, match="no shards of split train"):
        ShardReader(folder, "train")
    with pytest.raises(IndexError):
        ShardReader(folder, "val")[len(samples)]
    path = folder / "val-00000.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="no whole shard"):
        ShardReader(folder, "val")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("x", pa.int8())])):
        pass
    with pytest.raises(DataError, match="another version"):
        ShardReader(folder, "val")


_CROP = """
import resource, sys
import numpy as np
from segpipe.config import DataParams
from segpipe.data import dataset
from segpipe.data.dataset import Item
from segpipe.data.shards import ShardReader

def mapped_kb():
    total = wanted = 0
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            wanted = line.rstrip().endswith(".arrow")
        elif wanted and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total

reader = ShardReader(sys.argv[1], "train")
one = reader[0]
np.zeros(1 << 20).sum()
before, faults = mapped_kb(), sum(resource.getrusage(resource.RUSAGE_SELF)[6:8])
crop = one.image[..., 5000:5256, 7000:7256, :]
touched = int(crop.sum(dtype=np.int64))
faults = sum(resource.getrusage(resource.RUSAGE_SELF)[6:8]) - faults
print(touched, faults, mapped_kb() - before)
"""


@pytest.mark.parametrize("depth", [None, 3])
def test_a_crop_of_a_large_image_touches_its_own_pages_alone(tmp_path: Path, depth: int | None) -> None:
    """256 x 256 pixels of 10,000 x 10,000: a page fault or two a row, and no more mapped than the band that holds the rows."""
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
    huge_kb = 2048  # of what the page cache holds, a fault maps its neighbours too, up to a huge page
    assert mapped_kb <= planes * (band_kb + 2 * huge_kb)


_WRITE = """
import sys
import numpy as np
from segpipe.config import DataParams
from segpipe.data import dataset
from segpipe.data.dataset import Item
from segpipe.data.shards import write_shards
from segpipe.samples import Sample
edge = int(sys.argv[2])
image, labels = np.zeros((edge, edge, 3), np.uint8), np.zeros((edge, edge), np.uint8)
image += 1; labels += 1

def peak():  # kB; the usage that the resource module tells begins with the parent's
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
    """Many threads, but no more than about the agreed bytes of decoded images at a time; the order stays."""
    alive: list[weakref.ref] = []
    most = 0

    def load(item: Item, *_: object) -> Sample:
        made = Sample(item.key, np.zeros((100, 100, 1), np.uint8))
        alive.append(weakref.ref(made.image))
        return made

    monkeypatch.setattr(dataset, "load_sample", load)
    monkeypatch.setattr(dataset, "_AHEAD_BYTES", 30_000)
    items = [Item(f"{i:02d}", tmp_path) for i in range(40)]
    keys = []
    for made in dataset.load_samples(items, ClassTable.from_names(["a", "b"]), DataParams(), jobs=16):
        keys.append(made.key)
        most = max(most, sum(ref() is not None for ref in alive))
    assert keys == [item.key for item in items]
    assert most <= 8, "of 40, by 16 threads; one that was read may be held for a moment"
