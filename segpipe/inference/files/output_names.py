"""List the files to segment, and name their outputs: the tree of the input is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segpipe.errors import MissingError
from segpipe.progress import say


def list_files(paths: Sequence[Path], out: Path, dims: int) -> dict[str, Path]:
    """List files, and the images or volumes in folders, with the names of their outputs.

    The name of an output is the path of the file below the folder that was given, without its ending. If several folders are given, it
    begins with the name of the folder. For a model of volumes, a folder with DICOM files is one volume. Files that would share a name keep
    their endings in it: `a.jpg` and `a.png`.

    Args:
        paths: Files, and folders that are searched recursively. Hidden files are left out.
        out: The folder for the results, which is not searched.
        dims: 2 for images, 3 for volumes.

    Returns:
        The files by the names of their outputs, each file once, in order.

    Raises:
        MissingError: There are no images.
    """
    from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES, is_image_file, stem_of, suffix_of
    from segpipe.data.images.formats.dicom import dicom_files

    suffixes = SUFFIXES if dims == 2 else (*VOLUME_SUFFIXES, ".tif", ".tiff", ".npy", ".npz", ".h5", ".hdf5")
    several = sum(path.is_dir() for path in paths) > 1
    relative: dict[Path, Path] = {}
    unread: Counter[str] = Counter()
    series: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            relative.setdefault(path, Path(path.name))
            continue
        if dims == 3:
            for folder in [path, *sorted(child for child in path.rglob("*") if child.is_dir())]:
                if out.resolve() not in [folder.resolve(), *folder.resolve().parents] and (
                    slices := dicom_files(folder)
                ):
                    series.update(slices)
                    below = folder.relative_to(path)
                    relative.setdefault(
                        folder, Path(path.resolve().name) / below if several or folder == path else below
                    )
        for file in sorted(path.rglob("*")):
            if file in series:
                continue
            if not file.is_file() or out.resolve() in file.resolve().parents:
                continue
            if is_image_file(file) and suffix_of(file) in suffixes:
                below = file.relative_to(path)
                relative.setdefault(file, Path(path.resolve().name) / below if several else below)
            else:
                unread["hidden files" if file.name.startswith(".") else file.suffix or "files without an ending"] += 1
    if unread:
        say("predict: not read: " + ", ".join(f"{count} {kind}" for kind, count in sorted(unread.items())))
    if not relative:
        raise MissingError(
            "no images",
            where=", ".join(map(str, paths)) or None,
            fix=f"give files or folders that hold {' '.join(suffixes)}",
        )
    stems = {
        file: (below if file.is_dir() else below.parent / stem_of(below)).as_posix() for file, below in relative.items()
    }
    shared = Counter(stems.values())
    files: dict[str, Path] = {}
    for file, below in relative.items():
        name = stems[file] if shared[stems[file]] == 1 else below.as_posix()
        unique, count = name, 1
        while unique in files:
            count += 1
            unique = f"{name}-{count}"
        files[unique] = file
    return files
