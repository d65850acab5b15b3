"""How fast an epoch is read from shards, against decoding the image files anew with OpenCV, in the same run.

    python benchmarks/shards.py [SOURCE ...] [--crop 256] [--epochs 3] [--rounds 3]

SOURCE: a folder that `segpipe data import` recognises (CamVid, say); the demo data come first in any case. An epoch is one random
crop of each image with its labels, or each image whole; both sides hand over a copy, as a batch would be made of it. Each side
runs in a process of its own, in turns, and the best of its rounds counts, so that a busy moment of the machine hurts neither.
Peak memory is that of the process beyond what it held before the first epoch; of it, what shards map is the page cache's,
shared by all processes and given back when others need it.
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
    """Seconds of the fastest epoch, and the peak memory beyond what was there before, in MB: all of it, and what files it maps."""
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
    """The most memory that this process ever held (its resource usage would count its parent's, too)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def mapped_mb() -> float:
    """Resident memory that belongs to shards."""
    total, wanted = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            wanted = line.endswith(".arrow")
        elif wanted and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total / 1024


def prepare(source: Path | None, folder: Path) -> str:
    """Import a source, write its training shards and the list of its files; returns what it is, in words."""
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
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if side not in best or found["seconds"] < best[side]["seconds"]:
                best[side] = found
    what = f"random crops of {crop} x {crop}" if crop else "whole images"
    print(f"  an epoch of {what}")
    for side, name in (("shards", "shards"), ("files", "decoded by cv2")):
        one = best[side]
        mapped = f", of it {one['mapped_mb']:.0f} MB of the page cache" if side == "shards" else ""
        print(f"    {name:<15} {1000 * one['seconds']:9.1f} ms   peak {one['peak_mb']:6.1f} MB{mapped}")
    print(f"    ratio           {best['files']['seconds'] / best['shards']['seconds']:9.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", type=Path)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["shards", "files"], help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.side:
        print(json.dumps(measure(wanted.side, wanted.sources[0], wanted.crop, wanted.epochs)))
        return
    for source in (None, *wanted.sources):
        with tempfile.TemporaryDirectory(prefix="segpipe-shards-") as folder:
            print(f"{source.name if source else 'demo'}: {prepare(source, Path(folder))}")
            for crop in (wanted.crop, 0):
                compare(Path(folder), crop, wanted.epochs, wanted.rounds)


if __name__ == "__main__":
    main()
