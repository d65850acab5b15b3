"""Random folders as people have them: a dataset with odd names in some layout, and clutter of every kind beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from tests.worlds.faulty_data import png

SIZE = (12, 16)
_ODD_LETTERS = " {}[]()%'\"\\*?~#&;,`$\n\t!@^=+<>|:-_.é雪\u202eß0aZ"
STEMS = st.one_of(
    st.text("abXY019", min_size=1, max_size=6),
    st.text(_ODD_LETTERS, min_size=1, max_size=12),
    st.sampled_from(
        ["-rf", "--images", "{0}", "{}", "%s", "[a]", "a b", "a\nb", "x" * 180, "CON", "雪" * 60, "a..b", "*"]
    ),
).filter(lambda stem: not stem.startswith(".") and stem not in ("", ".."))
"""Names of images without their ending."""
_FOLDERS = ("", "extra", "images", "masks", "notes/old", ".git", "images/.cache", "a{b}", "-x", "odd\nname")
_OTHER_FILES = ("a.txt", "b.heic", "Thumbs.db", ".DS_Store", "README", "c.png.bak", "._a.png", "ü{}.pdf", "-r", "d.PNG")


@dataclass
class Tree:
    """A folder that has been written.

    Attributes:
        source: the folder.
        contents: the bytes of each file in it, by its path; empty for links and special files.
        texts: the annotation files, which an import uses though it does not copy them.
    """

    source: Path
    contents: dict[Path, bytes] = field(default_factory=dict)
    texts: set[Path] = field(default_factory=set)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file, unless another one has this name in any case of letters or a file stands where a folder is needed."""
        path = self.source / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(path):
                path.write_bytes(content)
                self.contents[path] = content
        except (FileExistsError, NotADirectoryError):
            pass
        return path


@dataclass(frozen=True)
class Clutter:
    """Something in a folder that does not belong to the dataset.

    Attributes:
        kind: the kind: other, image, mask, empty folder, link to a file, link to a folder, broken link, pipe, unreadable.
        folder: where it is.
        name: its name.
    """

    kind: str
    folder: str
    name: str


CLUTTER = st.builds(
    Clutter,
    st.sampled_from(
        [
            *["other"] * 3,
            "image",
            "mask",
            "empty folder",
            "link to a file",
            "link to a folder",
            "broken link",
            "pipe",
            "unreadable",
        ]
    ),
    st.sampled_from(_FOLDERS),
    st.sampled_from(_OTHER_FILES),
)


def image_content(seed: int) -> bytes:
    """Return the bytes of an image that no other seed gives."""
    return png(np.random.default_rng(seed).integers(0, 255, (*SIZE, 3)).astype(np.uint8))


def mask_content(seed: int) -> bytes:
    """Return the bytes of a mask of the values 0, 1 and 2 that no other seed gives."""
    mask = np.random.default_rng(seed).integers(0, 3, SIZE).astype(np.uint8)
    mask[:3] = mask[-2:] = 0
    return png(mask)


def write_folder(tree: Tree, stems: list[str]) -> None:
    """Write images/ and masks/."""
    for number, stem in enumerate(stems):
        tree.write(f"images/{stem}.png", image_content(number))
        tree.write(f"masks/{stem}.png", mask_content(number))


def write_splits(tree: Tree, stems: list[str]) -> None:
    """Write train/ and val/, with images/ and masks/ in each."""
    for number, stem in enumerate(stems):
        split = ("train", "val")[number % 2]
        tree.write(f"{split}/images/{stem}.png", image_content(number))
        tree.write(f"{split}/masks/{stem}.png", mask_content(number))


def write_coco(tree: Tree, stems: list[str]) -> None:
    """Write images/ and one JSON."""
    images, annotations = [], []
    for number, stem in enumerate(stems, start=1):
        tree.write(f"images/{stem}.png", image_content(number))
        images.append({"id": number, "file_name": f"{stem}.png", "height": SIZE[0], "width": SIZE[1]})
        polygon = [2, 2, 9, 2, 9, 9, 2, 9]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": [polygon]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    tree.texts.add(tree.write("annotations.json", json.dumps(content).encode()))


def write_labelme(tree: Tree, stems: list[str]) -> None:
    """Write one JSON next to each image."""
    for number, stem in enumerate(stems):
        tree.write(f"{stem}.png", image_content(number))
        shape = {"label": "cell", "shape_type": "polygon", "points": [[2, 2], [9, 2], [9, 9]]}
        content = {"imagePath": f"{stem}.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": [shape]}
        tree.texts.add(tree.write(f"{stem}.json", json.dumps(content).encode()))


def write_yolo(tree: Tree, stems: list[str]) -> None:
    """Write data.yaml, images/ and labels/."""
    tree.texts.add(tree.write("data.yaml", b"train: images/train\nval: images/val\nnames: [cell]\n"))
    for number, stem in enumerate(stems):
        split = ("train", "val")[number % 2]
        tree.write(f"images/{split}/{stem}.png", image_content(number))
        tree.texts.add(tree.write(f"labels/{split}/{stem}.txt", b"0 0.1 0.1 0.5 0.1 0.5 0.6\n"))


LAYOUTS: dict[str, Callable[[Tree, list[str]], None]] = {
    "folder": write_folder,
    "splits": write_splits,
    "coco": write_coco,
    "labelme": write_labelme,
    "yolo": write_yolo,
}
"""Writes a dataset with these names."""


def add_clutter(tree: Tree, clutter: Clutter, seed: int) -> None:
    """Add something that does not belong to the dataset."""
    name = f"{clutter.folder}/{clutter.name}".lstrip("/")
    path = tree.source / name
    if clutter.kind in ("other", "unreadable"):
        path = tree.write(name, f"other {seed}".encode())
        if clutter.kind == "unreadable" and path in tree.contents:
            path.chmod(0)
        return
    if clutter.kind == "image":
        tree.write(f"{clutter.folder}/lone {seed}.png".lstrip("/"), image_content(10_000 + seed))
        return
    if clutter.kind == "mask":
        tree.write(f"masks/lone {seed}_x.png", mask_content(10_000 + seed))
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _add_special(tree, clutter.kind, path.with_name(f"{seed}{path.name}"))
    except (FileExistsError, NotADirectoryError):
        return


def _add_special(tree: Tree, kind: str, path: Path) -> None:
    if kind == "empty folder":
        path.mkdir()
    elif kind == "link to a file":
        path.symlink_to(next(iter(sorted(tree.contents))))
    elif kind == "link to a folder":
        (tree.source.parent / "elsewhere").mkdir(exist_ok=True)
        (tree.source.parent / "elsewhere" / "far.txt").write_bytes(b"far")
        path.symlink_to(tree.source.parent / "elsewhere", target_is_directory=True)
    elif kind == "broken link":
        path.symlink_to("nowhere.png")
    else:
        os.mkfifo(path)


def files_below(source: Path) -> Iterator[Path]:
    """Yield everything below a folder that is not a folder; a folder with several names is entered once."""
    visited: set[str] = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        if os.path.realpath(folder) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(folder))
        yield from (Path(folder) / name for name in names)
