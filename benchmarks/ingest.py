"""Measure how fast `ingest` reads a dataset, compared with only decoding the same files with OpenCV in as many processes.

    python benchmarks/ingest.py [--data FOLDER] [--count 60] [--kinds png jpg] [--repeat 4] [--jobs 2] [--rounds 3]

Without a folder in the canonical layout (images/, masks/, dataset.yaml), images of 1 to 2 megapixels with masks are generated in a
temporary folder, once as PNG and once as JPEG. `--repeat` reads the same files several times, as different images. Both sides take
turns, and the best round of each counts. The processes of OpenCV are running before its time is measured; the time of ingest includes
starting its processes. CPU time (without starting processes) is the more stable measure on a shared machine. Finally the manifest is
built once more from its cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from segpipe.config import DataParams, SplitParams
from segpipe.data.dataset import Dataset, Item, format_classes, load_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.describe import describe_item
from segpipe.samples import ClassTable


def generate(folder: Path, count: int, kind: str) -> Path:
    """Write images of smooth tones with sensor noise, and masks with blobs of two classes on background; return the folder."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        height, width = (int(edge) for edge in rng.integers(1000, 1414, 2))
        tone, shape = (
            cv2.resize(
                rng.normal(size=(height // 40, width // 40, depth)), (width, height), interpolation=cv2.INTER_CUBIC
            )
            for depth in (3, 2)
        )
        image = np.clip(128 + 50 * tone + rng.normal(0, 4, tone.shape), 0, 255).astype(np.uint8)
        mask = np.where(shape[:, :, 0] > 0.8, 1, np.where(shape[:, :, 1] > 1.0, 2, 0)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index:05d}.{kind}"), image)
        cv2.imwrite(str(folder / "masks" / f"{index:05d}.png"), mask)
    (folder / "dataset.yaml").write_text(format_classes(ClassTable.from_names(["background", "one", "two"])))
    return folder


def _decode(path: str) -> float:
    start = time.process_time()
    assert cv2.imread(path, cv2.IMREAD_UNCHANGED) is not None
    return time.process_time() - start


def _describe(item: Item, dataset: Dataset) -> float:
    start = time.process_time()
    describe_item(item, dataset.root, dataset.classes, DataParams())
    return time.process_time() - start


def compare(name: str, dataset: Dataset, jobs: int, rounds: int, cache: Path) -> None:
    limits, split, count = DataParams(), SplitParams(), len(dataset.items)
    files = [str(path) for item in dataset.items for path in (item.image, item.mask) if path]
    chunk = max(1, count // (16 * jobs))
    describe = partial(_describe, dataset=dataset)
    wall: dict[str, float] = defaultdict(lambda: float("inf"))
    cpu: dict[str, float] = defaultdict(lambda: float("inf"))

    def clock(side: str, run: Callable[[], object]) -> None:
        start = time.perf_counter()
        run()
        wall[side] = min(wall[side], time.perf_counter() - start)

    with multiprocessing.get_context("spawn").Pool(jobs, cv2.setNumThreads, (1,)) as pool:
        pool.map(_decode, files[: 8 * jobs], chunksize=1)
        pool.map(describe, dataset.items[: 8 * jobs], chunksize=1)
        for _ in range(rounds):
            clock("bare cv2", lambda: pool.map(_decode, files, chunksize=2 * chunk))
            clock("ingest", lambda: build_manifest(dataset, limits, split, jobs))
            cpu["bare cv2"] = min(cpu["bare cv2"], sum(pool.map(_decode, files, chunksize=2 * chunk)))
            cpu["ingest"] = min(cpu["ingest"], sum(pool.map(describe, dataset.items, chunksize=chunk)))
    for side, seconds in wall.items():
        print(
            f"{name:10} {side:10} {count / seconds:8.1f} images/s   {1000 * cpu[side] / count:7.2f} ms of CPU per image"
        )
    ratios = [times["bare cv2"] / times["ingest"] for times in (wall, cpu)]
    print(f"{name:10} {'ratio':10} {ratios[0]:8.2f} of bare     {ratios[1]:7.2f} by CPU time")
    build_manifest(dataset, limits, split, jobs, cache)
    wall["cached"] = float("inf")
    clock("cached", lambda: build_manifest(dataset, limits, split, jobs, cache))
    print(f"{name:10} {'cached':10} {count / wall['cached']:8.0f} images/s   {wall['cached']:.2f} s in total")


def _repeated(dataset: Dataset, times: int) -> Dataset:
    items = [replace(item, key=f"{item.key}-{repetition}") for repetition in range(times) for item in dataset.items]
    return replace(dataset, items=items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--kinds", nargs="+", default=["png", "jpg"])
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.data:
            compare(
                arguments.data.name,
                _repeated(load_dataset(arguments.data), arguments.repeat),
                arguments.jobs,
                arguments.rounds,
                folder,
            )
            return
        for kind in arguments.kinds:
            dataset = load_dataset(generate(folder / kind, arguments.count, kind))
            compare(
                kind, _repeated(dataset, arguments.repeat), arguments.jobs, arguments.rounds, folder / f"{kind}-cache"
            )


if __name__ == "__main__":
    main()
