"""How fast `ingest` reads a dataset, against nothing but decoding the same files by OpenCV in as many processes.

    python benchmarks/ingest.py [--data FOLDER] [--count 60] [--kinds png jpg] [--jobs 2] [--rounds 3]

Without a folder in the canonical layout (images/, masks/, dataset.yaml), images of 1 to 2 megapixels with masks are generated in a
temporary folder, once as PNG and once as JPEG. Both sides take turns and include the start of their processes; the best round of
each counts. Printed are images a second, processor seconds, and the ratio of both: processor time is the steadier one where the
machine is shared. Then the same manifest once more from its cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from segpipe.config import DataParams, SplitParams
from segpipe.data.dataset import Dataset, format_classes, load_dataset
from segpipe.data.manifest import build_manifest
from segpipe.samples import ClassTable


def generate(folder: Path, count: int, kind: str) -> Path:
    """Smooth tones with sensor noise, and masks with blobs of two classes on background."""
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


def _decode(path: str) -> int:
    return cv2.imread(path, cv2.IMREAD_UNCHANGED).size


def bare(dataset: Dataset, jobs: int) -> None:
    """Every file decoded, and nothing else."""
    files = [str(path) for item in dataset.items for path in (item.image, item.mask) if path]
    with multiprocessing.get_context("spawn").Pool(jobs, cv2.setNumThreads, (1,)) as pool:
        pool.map(_decode, files, chunksize=max(1, len(files) // (16 * jobs)))
        pool.close()
        pool.join()


def measure(run: Callable[[], object]) -> tuple[float, float]:
    """(seconds, processor seconds) of this process and its children."""

    def processor() -> float:
        found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in found)

    began, used = time.perf_counter(), processor()
    run()
    return time.perf_counter() - began, processor() - used


def compare(name: str, dataset: Dataset, jobs: int, rounds: int, cache: Path) -> None:
    limits, split = DataParams(), SplitParams()
    count = len(dataset.items)
    sides: dict[str, Callable[[], object]] = {
        "bare cv2": lambda: bare(dataset, jobs),
        "ingest": lambda: build_manifest(dataset, limits, split, jobs),
    }
    taken = {side: [measure(run) for _ in range(rounds)] for side, run in sides.items()} if rounds == 1 else {}
    taken = taken or {side: [] for side in sides}
    while len(taken["ingest"]) < rounds:
        for side, run in sides.items():
            taken[side].append(measure(run))
    best = {side: [min(values) for values in zip(*times, strict=True)] for side, times in taken.items()}
    for side, (wall, used) in best.items():
        print(f"{name:10} {side:10} {count / wall:8.1f} images/s   {1000 * used / count:7.2f} ms of processor an image")
    ratios = [b / i for b, i in zip(best["bare cv2"], best["ingest"], strict=True)]
    print(f"{name:10} {'ratio':10} {ratios[0]:8.2f} of bare     {ratios[1]:7.2f} by processor time")
    build_manifest(dataset, limits, split, jobs, cache)
    again, _ = measure(lambda: build_manifest(dataset, limits, split, jobs, cache))
    print(f"{name:10} {'again':10} {count / again:8.0f} images/s   {again:.2f} s in all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--kinds", nargs="+", default=["png", "jpg"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if wanted.data:
            compare(wanted.data.name, load_dataset(wanted.data), wanted.jobs, wanted.rounds, folder)
            return
        for kind in wanted.kinds:
            dataset = load_dataset(generate(folder / kind, wanted.count, kind))
            compare(kind, dataset, wanted.jobs, wanted.rounds, folder / f"{kind}-cache")


if __name__ == "__main__":
    main()
