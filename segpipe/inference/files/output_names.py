"""List the files to segment, and name their outputs: the tree of the input is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES

    suffixes = SUFFIXES if dims == 2 else (*VOLUME_SUFFIXES, ".tif", ".tiff", ".npy", ".npz", ".h5", ".hdf5")
    several = sum(path.is_dir() for path in paths) > 1
    relative: dict[Path, Path] = {}
    unread: Counter[str] = Counter()
    for path in paths:
        if not path.is_dir():
            relative.setdefault(path, Path(path.name))
            continue
        for file in _files_below(path, out, suffixes, unread, series=dims == 3):
            below = file.relative_to(path)
            named = several or file == path  # a folder that is itself a series has no name below itself
            relative.setdefault(file, Path(path.resolve().name) / below if named else below)
    if unread:
        say("predict: not read: " + ", ".join(f"{count} {kind}" for kind, count in sorted(unread.items())))
    if not relative:
        raise MissingError(
            "no images",
            where=", ".join(map(str, paths)) or None,
            fix=f"give files or folders that hold {' '.join(suffixes)}",
        )
    return _unique_names(relative)


def _files_below(
    folder: Path, out: Path, suffixes: tuple[str, ...], unread: Counter[str], series: bool
) -> Iterator[Path]:
    """Yield the images below a folder, and with `series` the folders of DICOM slices; count the other files by kind."""
    from segpipe.data.images import is_image_file, suffix_of
    from segpipe.data.images.formats.dicom import dicom_files

    slices: set[Path] = set()
    for path in [folder, *sorted(folder.rglob("*"))]:
        if out.resolve() in (path.resolve(), *path.resolve().parents):
            continue
        if path.is_dir():
            files = dicom_files(path) if series else []
            slices.update(files)
            if files:
                yield path
        elif path in slices or not path.is_file():
            continue
        elif is_image_file(path) and suffix_of(path) in suffixes:
            yield path
        else:
            unread["hidden files" if path.name.startswith(".") else path.suffix or "files without an ending"] += 1


def _unique_names(relative: Mapping[Path, Path]) -> dict[str, Path]:
    """Name the outputs of files by their relative paths, without endings where that leaves them different."""
    from segpipe.data.images import stem_of

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
