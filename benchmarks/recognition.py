"""Recognition of a large source against a plain walk of the same files: seconds, memory and their ratio.

Each side runs in a process of its own, so that the memory of one does not count for the other, and reads the same folders just before,
so that both find them in the cache of the operating system.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FILES = 100_000
_FOLDER_SIZE = 2500
MAX_SECONDS, MAX_MIB = 10, 300


def _png(value: int, colour: bool) -> bytes:
    import cv2
    import numpy as np

    pixels = np.full((8, 8, 3) if colour else (8, 8), 90, np.uint8)
    pixels[2:6, 2 : 3 + value % 4] = 1 if not colour else 200
    return bytes(cv2.imencode(".png", pixels)[1])


def _write(root: Path, name: str, content: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_folder(root: Path, files: int) -> None:
    """Write images/ and masks/."""
    image, masks = _png(0, True), [_png(value, False) for value in range(4)]
    for number in range(files // 2):
        _write(root, f"images/{number:06d}.png", image)
        _write(root, f"masks/{number:06d}.png", masks[number % 4])


def write_tiles(root: Path, files: int) -> None:
    """Write images/SCENE/ and masks/SCENE/, with a few thousand tiles each."""
    image, masks = _png(0, True), [_png(value, False) for value in range(4)]
    for number in range(files // 2):
        scene = number // _FOLDER_SIZE
        _write(root, f"images/scene{scene:03d}/{number % _FOLDER_SIZE}.png", image)
        _write(root, f"masks/scene{scene:03d}/{number % _FOLDER_SIZE}.png", masks[number % 4])


def write_yolo(root: Path, files: int) -> None:
    """Write data.yaml, images/ and labels/."""
    image = _png(0, True)
    _write(root, "data.yaml", b"train: images/train\nval: images/val\nnames: [cell]\n")
    for number in range(files // 2):
        split = "val" if number % 5 == 0 else "train"
        _write(root, f"images/{split}/{number:06d}.png", image)
        _write(root, f"labels/{split}/{number:06d}.txt", b"0 0.1 0.1 0.5 0.1 0.5 0.6\n")


def write_voc(root: Path, files: int) -> None:
    """Write JPEGImages/, SegmentationClass/ and lists."""
    image, masks = _png(0, True), [_png(value, False) for value in range(4)]
    names = [f"{number:06d}" for number in range(files // 2)]
    for number, name in enumerate(names):
        _write(root, f"JPEGImages/{name}.jpg", image)
        _write(root, f"SegmentationClass/{name}.png", masks[number % 4])
    _write(root, "ImageSets/Segmentation/train.txt", "\n".join(names[10:]).encode())
    _write(root, "ImageSets/Segmentation/val.txt", "\n".join(names[:10]).encode())


def write_labelme(root: Path, files: int) -> None:
    """Write one JSON next to each image."""
    image = _png(0, True)
    shape = {"label": "cell", "shape_type": "polygon", "points": [[2, 2], [6, 2], [6, 6]]}
    for number in range(files // 2):
        content = {"imagePath": f"{number:06d}.png", "imageHeight": 8, "imageWidth": 8, "shapes": [shape]}
        _write(root, f"{number:06d}.png", image)
        _write(root, f"{number:06d}.json", json.dumps(content).encode())


LAYOUTS: dict[str, Callable[[Path, int], None]] = {
    "folder": write_folder,
    "tiles": write_tiles,
    "yolo": write_yolo,
    "voc": write_voc,
    "labelme": write_labelme,
}


def walk(root: Path) -> str:
    """Count the files by a plain walk."""
    return str(sum(len(names) for _, _, names in os.walk(root)))


def recognise(root: Path) -> str:
    """Return the layout that an import would take."""
    from segpipe.config import DataParams
    from segpipe.data.formats.probe import SourceProbe
    from segpipe.data.importer import ImportOptions, read_source

    return read_source(SourceProbe(root), "auto", ImportOptions(yes=True), DataParams()).layout


SIDES: dict[str, Callable[[Path], str]] = {"walk": walk, "recognise": recognise}


def measure(side: str, root: Path) -> dict[str, float | str]:
    """Measure one side in this process, after its imports and a first walk."""
    import segpipe.data.importer  # noqa: F401 - imports are not part of the measurement

    walk(root)
    before = time.perf_counter(), time.process_time()
    answer = SIDES[side](root)
    seconds, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"answer": answer, "seconds": seconds, "cpu": cpu, "peak_mib": peak}


def in_child(side: str, root: Path) -> dict[str, float | str]:
    """Measure one side in a new process."""
    command = [sys.executable, __file__, "--side", side, "--root", str(root)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float | str] = json.loads(output)
    return result


def compare(layout: str, files: int) -> dict[str, float | str]:
    """Write a source and measure both sides. The ratio is that of CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        LAYOUTS[layout](Path(folder), files)
        plain, ours = in_child("walk", Path(folder)), in_child("recognise", Path(folder))
    ratio = float(ours["cpu"]) / max(float(plain["cpu"]), 1e-3)
    return {"layout": layout, "files": files, "walk_cpu": plain["cpu"], **ours, "ratio": ratio}


def main() -> None:
    """Print one line for each layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS))
    parser.add_argument("--side")
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.root)))
        return
    for layout in arguments.layouts:
        row = compare(layout, arguments.files)
        fits = float(row["cpu"]) < MAX_SECONDS and float(row["peak_mib"]) < MAX_MIB
        print(
            f"{layout:8} {row['files']:,} files, recognised as {row['answer']}: {row['seconds']:.2f} s "
            f"({row['cpu']:.2f} s CPU, {row['ratio']:.0f} times a plain walk), {row['peak_mib']:.0f} MiB"
            f"{'' if fits else f'  above {MAX_SECONDS} s or {MAX_MIB} MiB'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
