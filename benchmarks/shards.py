"""Measure how fast an epoch is read from shards, compared with decoding the image files again with OpenCV.

    python benchmarks/shards.py [SOURCE ...] [--crop 256] [--epochs 3] [--rounds 3]

SOURCE is a folder that `segpipe data import` recognises (CamVid, for example); the demo data is always measured first. An epoch is one
random crop of each image with its labels, or each whole image. Both sides return a copy, as making a batch needs. Each side runs in a
process of its own, in turns, and the best of its rounds counts, so that a busy moment of the machine affects neither. Peak memory is
that of the process beyond what it held before the first epoch. The part that shards map belongs to the page cache, which all processes
share and which is freed when others need memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
Read = Callable[[int], Pair]


def from_shards(folder: Path) -> tuple[Read, int]:
    from segpipe.data.shards import ShardReader

    reader = ShardReader(folder / "shards", "train")

    def read(index: int) -> Pair:
        sample = reader[index]
        assert sample.labels is not None
        return sample.image, sample.labels

    return read, len(reader)


def from_files(folder: Path) -> tuple[Read, int]:
    import cv2

    cv2.setNumThreads(1)
    names = json.loads((folder / "files.json").read_text())

    def read(index: int) -> Pair:
        paths = names[index]
        image, mask = cv2.imread(paths[0], cv2.IMREAD_COLOR), cv2.imread(paths[1], cv2.IMREAD_UNCHANGED)
        assert image is not None and mask is not None, paths
        return image, mask

    return read, len(names)


def measure(side: str, folder: Path, crop: int, epochs: int) -> dict[str, float]:
    """Measure the seconds of the fastest epoch, the additional peak memory in MB, and the part of it that maps shards."""
    read, count = {"shards": from_shards, "files": from_files}[side](folder)
    rng = np.random.default_rng(0)
    before = peak_mb()

    def epoch() -> float:
        start = time.perf_counter()
        for index in rng.permutation(count):
            image, labels = read(int(index))
            if crop:
                y, x = (int(rng.integers(0, max(1, edge - crop + 1))) for edge in labels.shape)
                image, labels = image[y : y + crop, x : x + crop], labels[y : y + crop, x : x + crop]
            image.copy(), labels.copy()
        return time.perf_counter() - start

    seconds = min(epoch() for _ in range(epochs))
    return {"seconds": seconds, "peak_mb": peak_mb() - before, "mapped_mb": mapped_mb()}


def peak_mb() -> float:
    """Return the peak memory of this process in MB. The resource module would count the parent process, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def mapped_mb() -> float:
    """Return the resident memory that maps shards, in MB."""
    total, in_shard = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            in_shard = line.endswith(".arrow")
        elif in_shard and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total / 1024


def prepare(source: Path | None, folder: Path) -> str:
    """Import a source (None: the demo data), write its training shards and the list of its files; return a description."""
    from segpipe.config import DataParams
    from segpipe.data.dataset import load_dataset, load_samples
    from segpipe.data.demo.write import write_demo
    from segpipe.data.importer import ImportOptions, import_dataset
    from segpipe.data.shards import write_shards

    if source is None:
        write_demo(folder / "data")
    else:
        import_dataset(source, folder / "data", "auto", ImportOptions())
    dataset = load_dataset(folder / "data")
    items = [item for item in dataset.items if item.mask]
    write_shards(folder / "shards", "train", load_samples(items, dataset.classes, DataParams()), len(dataset.classes))
    (folder / "files.json").write_text(json.dumps([[str(item.image), str(item.mask)] for item in items]))
    from segpipe.data.shards import ShardReader

    sample = ShardReader(folder / "shards", "train")[0]
    size = sum(path.stat().st_size for path in (folder / "shards").iterdir()) / 2**20
    return f"{len(items)} images of about {' x '.join(map(str, sample.image.shape))}, {size:.0f} MB of shards"


def compare(folder: Path, crop: int, epochs: int, rounds: int) -> None:
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for side in ("shards", "files"):
            command = [
                sys.executable,
                __file__,
                "--side",
                side,
                str(folder),
                "--crop",
                str(crop),
                "--epochs",
                str(epochs),
            ]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if side not in best or result["seconds"] < best[side]["seconds"]:
                best[side] = result
    content = f"random crops of {crop} x {crop}" if crop else "whole images"
    print(f"  one epoch of {content}")
    for side, name in (("shards", "shards"), ("files", "decoded by cv2")):
        result = best[side]
        mapped = f", of it {result['mapped_mb']:.0f} MB of page cache" if side == "shards" else ""
        print(f"    {name:<15} {1000 * result['seconds']:9.1f} ms   peak {result['peak_mb']:6.1f} MB{mapped}")
    print(f"    ratio           {best['files']['seconds'] / best['shards']['seconds']:9.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", type=Path)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["shards", "files"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.sources[0], arguments.crop, arguments.epochs)))
        return
    for source in (None, *arguments.sources):
        with tempfile.TemporaryDirectory(prefix="segpipe-shards-") as folder:
            print(f"{source.name if source else 'demo'}: {prepare(source, Path(folder))}")
            for crop in (arguments.crop, 0):
                compare(Path(folder), crop, arguments.epochs, arguments.rounds)


if __name__ == "__main__":
    main()
