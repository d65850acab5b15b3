"""Search for the files of annotation tools, and for the image files that they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segpipe.data.formats.annotations.listed_images import find_listed
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.data.images import is_image_file, read_size, stem_of
from segpipe.errors import ConfigError, DataError

BY_NAME_ALONE = "images in another folder than their annotations say, recognised by their file name"

_OTHER_ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".vsi", ".czi", ".qptiff", ".bif", ".lif", ".nd2", ".heic", ".heif")
"""Endings of images that are not read; names in annotations may have them after the images were converted."""


@dataclass(frozen=True)
class AnnotationFile:
    """A file of annotations: its path, resolved except for links to the file itself, and its name for the user."""

    path: Path
    name: str


def annotation_files(
    probe: SourceProbe, options: ReadOptions, endings: tuple[str, ...], is_annotation: Callable[[Path], bool]
) -> Iterator[AnnotationFile]:
    """Yield the annotation files of a source at any depth, in name order; if `options.masks` names one, this alone.

    Args:
        probe: the source.
        options: `masks` is used.
        endings: the endings of their names, in lower case.
        is_annotation: returns whether the content of a file looks like the tool's.

    Raises:
        ConfigError: `options.masks` is not a file.
    """
    source = probe.source.resolve()
    if options.masks:
        path = (source / options.masks).resolve()
        if not path.is_file():
            raise ConfigError("no such file", where="--masks", found=options.masks, expected="the annotation file")
        yield AnnotationFile(path, path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name)
        return
    for path in probe.listing.files_below(probe.source):
        if path.suffix.lower() in endings and is_annotation(path):
            name = path.relative_to(probe.source)
            yield AnnotationFile(source / name, name.as_posix())


class ImageFinder:
    """The image files of a source, or of the folder that the user names, found by the names in annotations.

    A file is looked for by its path; then by its file name, and then by the name without its ending, if only one file below the folder
    has it.

    Args:
        probe: the source.
        options: `images` and `limits` are used.

    Raises:
        ConfigError: `options.images` is not a folder.
    """

    def __init__(self, probe: SourceProbe, options: ReadOptions) -> None:
        source = probe.source.resolve()
        self.root = source if options.images is None else (source / options.images).resolve()
        if not self.root.is_dir():
            raise ConfigError("is not a folder", where="--images", found=options.images)
        self.limits = options.limits
        self.counts: Counter[str] = Counter()
        folder = probe.source if self.root == source else self.root
        files = [file for file in probe.listing.files_below(folder) if is_image_file(file)]
        self.files = [self.root / file.relative_to(folder) for file in files]
        self._by_key: dict[str, list[Path]] = {}
        for file in self.files:
            stem = stem_of(file).lower()
            for key in {file.name.lower(), stem, stem.removesuffix(".ome")} - {""}:
                self._by_key.setdefault(key, []).append(file)

    def find(self, name: str, folders: Sequence[Path], where: Path | str) -> Path:
        """Return the image file, resolved, that an annotation names.

        Args:
            name: the name in the annotation: a path, with slashes or backslashes, or a URL; its ending may be missing.
            folders: where to look for it first; those outside the folder of images are left out.
            where: the annotation, for errors.

        Raises:
            DataError: there is no such file, several fit, or the name leads out of the folder.
        """
        folders = [folder for folder in (*folders, self.root) if folder.is_relative_to(self.root)]
        error = None
        try:
            image = find_listed(self.root, folders, name, where)
            if is_image_file(image):
                return image
        except DataError as not_found:
            if "outside its folder" in not_found.what or "not a valid file name" in not_found.what:
                raise
            error = not_found
        path = PurePosixPath(name.replace("\\", "/"))
        for key in dict.fromkeys((path.name.lower(), _without_ending(path.name).lower())):
            candidates = self._by_key.get(key, [])
            if not candidates:
                continue
            likely = [file for file in candidates if file.parent in folders] or _most_alike(candidates, path)
            if len(likely) > 1:
                raise DataError(
                    "names an image that several files could be",
                    where=where,
                    found=f"{name}: {', '.join(sorted(f.relative_to(self.root).as_posix() for f in likely)[:3])}",
                    fix="keep the folders of the export, or name the folder of images (--images)",
                )
            if likely[0].parent not in folders:
                self.counts[BY_NAME_ALONE] += 1
            return self._resolved(likely[0], where)
        raise error or DataError("names a file that is not an image", where=where, found=name)

    def _resolved(self, file: Path, where: Path | str) -> Path:
        path = file.resolve()
        if not path.is_relative_to(self.root):
            raise DataError("names a link that leads out of its folder", where=where, found=file.name)
        return path

    def name_of(self, image: Path) -> str:
        """Return the name of the item of an image: its path relative to the folder, without the ending."""
        return (image.relative_to(self.root).parent / stem_of(image)).as_posix()

    def size_of(self, image: Path) -> tuple[int, int]:
        """Return (height, width) of an image in pixels. Raises DataError if it cannot be read."""
        size = read_size(image, self.limits)
        return size[-2], size[-1]


def _without_ending(name: str) -> str:
    """Return a file name without the endings of an image, also `.ome.tif`."""
    stem = stem_of(Path(name)) if is_image_file(Path(name)) or name.lower().endswith(_OTHER_ENDINGS) else name
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


def _most_alike(files: list[Path], path: PurePosixPath) -> list[Path]:
    """Return the files with the most last folders in common with a path."""

    def n_common(file: Path) -> int:
        pairs = zip(reversed(file.parent.parts), reversed(path.parent.parts), strict=False)
        return next((n for n, (one, other) in enumerate(pairs) if one != other), len(path.parent.parts))

    most = max(map(n_common, files))
    return [file for file in files if n_common(file) == most]
