"""`cvat`: the XML files of CVAT, version 1.1, for images and for videos.

```
SRC/annotations.xml   SRC/images/a.jpg             one task; also SRC/images/SUBSET/FOLDER/a.jpg
SRC/task_1/annotations.xml   SRC/task_1/images/... several tasks or jobs, imported together
SRC/annotations.xml   SRC/images/frame_000000.PNG  a video: tracks, and its frames by number
```

Boxes and ellipses may be turned. A higher `z_order` covers a lower one. Shapes with the same label and `group_id` are parts of one
instance. Lines, points, skeletons and tags are counted; an image with a cuboid is left out. The format: https://docs.cvat.ai/docs/other/xml_format.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from segpipe.data.formats.annotations.json_document import peek
from segpipe.data.formats.annotations.painter import CLIPPED
from segpipe.data.formats.annotations.tools.cvat_shapes import (
    NOT_DRAWN,
    SHAPES,
    WITHOUT_AREA,
    parse_shape,
    whole_number,
)
from segpipe.data.formats.annotations.tools.cvat_tracks import Track, VideoFrames, add_frames, parse_track
from segpipe.data.formats.annotations.tools.image_finder import ImageFinder, annotation_files
from segpipe.data.formats.annotations.tools.labelled_images import (
    BOXES,
    IncompleteImage,
    LabelledImage,
    LabelledShape,
    LabelTable,
    add_items,
    parse_hex_color,
)
from segpipe.data.formats.folder_names import SPLIT_FOLDERS
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.words import listed

_MAX_XML_BYTES = 1 << 30
_ROOT = re.compile(rb"<annotations[\s>]")
_ENTRIES = (b"<image ", b"<track ", b"<meta>")
_MAX_FILES_CHECKED = 3
"""XML files of a folder that recognition looks at."""
_MAX_DEPTH = 64
_MAX_FOLDERS_SHOWN = 8
_TYPES_NOT_DRAWN = ("skeleton", "points", "polyline", "tag", "cuboid")
_MIN_VIDEOS_FOR_GROUPS = 3
_ATTRIBUTES = "attributes of shapes, which are not used"


@dataclass
class _File:
    """The content of one XML file."""

    path: Path
    images: list[LabelledImage] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    video: VideoFrames = field(default_factory=VideoFrames)


def recognise_cvat(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: an XML file of CVAT in it, or one folder down. None otherwise."""
    for folder in (probe.source, *probe.listing.folders(probe.source)):
        for path in probe.listing.matching(folder, "*.xml")[:_MAX_FILES_CHECKED]:
            if _is_cvat(path):
                return f"{path.relative_to(probe.source).as_posix()} with `annotations` of CVAT"
    return None


def _is_cvat(path: Path) -> bool:
    content = peek(path)
    return bool(_ROOT.search(content)) and any(entry in content for entry in _ENTRIES)


def read_cvat(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read every XML file of CVAT, at any depth. A broken shape is left out with the reason, and a broken file too.

    Args:
        probe: the source.
        options: `images` names the folder of images, `masks` one annotation file; `overlapping` is used.

    Raises:
        DataError: there is no such file, or none of them has a shape that can be drawn; or the frames of a video are not those of its
            annotations.
        ConfigError: a folder or file that the user names does not exist.
    """
    source = probe.source.resolve()
    result = ReadResult([], classes_from="the labels of CVAT")
    finder, labels, counts = ImageFinder(probe, options), LabelTable(), Counter[str]()
    files = []
    for entry in annotation_files(probe, options, (".xml",), _is_cvat):
        reader = _FileReader(entry.path, entry.name, finder, result, labels, counts)
        try:
            files.append(reader.read())
            result.used_files.add(entry.path)
        except DataError as error:
            result.skipped.append((entry.name, str(error)))
    if len(files) > 1:
        folders = sorted({file.path.parent.relative_to(source).as_posix() for file in files})
        result.notes.append(f"several files imported together, from {listed(folders, _MAX_FOLDERS_SHOWN)}")
    if not files:
        raise DataError(
            "no annotations of CVAT",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else None,
            expected="annotations.xml with <annotations>",
            fix="export the task from CVAT as `CVAT for images 1.1`, or choose another --format",
        )
    images = [image for file in files for image in file.images]
    videos = [file for file in files if file.tracks]
    for file in videos:
        group = file.path.parent.name if len(videos) >= _MIN_VIDEOS_FOR_GROUPS else None
        images += add_frames(file.tracks, file.video, file.path, finder, result, counts, group)
    add_items(result, images, labels, counts + finder.counts, source, options)
    return result


class _FileReader:
    """Reads one XML file, element by element, so that only its shapes are kept in memory."""

    def __init__(
        self,
        path: Path,
        name: str,
        finder: ImageFinder,
        result: ReadResult,
        labels: LabelTable,
        counts: Counter[str],
    ) -> None:
        self.path, self.finder, self.result, self.labels, self.counts = path, finder, result, labels, counts
        self.name = name

    def read(self) -> _File:
        """Return the content of the file. Raises DataError if it is not valid XML."""
        file = _File(self.path)
        for element in _elements(self.path):
            if element.tag == "label":
                self._add_label(element)
            elif element.tag == "meta":
                file.video = VideoFrames.from_meta(element)
            elif element.tag == "image":
                self._add_image(element, file)
            elif element.tag == "track":
                track = parse_track(element, f"{self.name}: track {element.get('id')}", self.result)
                file.tracks.append(track)
                self.labels.not_drawn[track.label] += all(
                    e is None or e.tag not in SHAPES for e in track.shapes.values()
                )
        return file

    def _add_label(self, element: ElementTree.Element) -> None:
        name, kind = (element.findtext("name") or "").strip(), element.findtext("type")
        if name and element.find("parent") is None:  # parents are those of the points of a skeleton
            self.labels.add(name, parse_hex_color(element.findtext("color")))
            if kind in _TYPES_NOT_DRAWN:
                self.labels.not_drawn[name] += 1

    def _add_image(self, element: ElementTree.Element, file: _File) -> None:
        name, subset = element.get("name") or "", element.get("subset") or ""
        try:
            image = self.finder.find(name, _image_folders(self.path.parent, subset), self.name)
            width, height = (whole_number(element, key) if element.get(key) else 0 for key in ("width", "height"))
            size = (height, width) if height > 0 and width > 0 else self.finder.size_of(image)
        except DataError as error:
            self.result.skipped.append((f"{self.name}: {name[:200]}", str(error)))
            return
        shapes = []
        for number, entry in enumerate(element):
            try:
                shape = self._shape(entry, size, f"{self.name}: {name}: {entry.tag} {number}")
            except IncompleteImage as error:
                self.result.skipped.append((f"{self.name}: {name}", str(error)))
                return
            shapes += [shape] if shape else []
        split = SPLIT_FOLDERS.get(subset.lower())
        file.images.append(LabelledImage(self.finder.name_of(image), image, size, shapes, split))

    def _shape(self, entry: ElementTree.Element, size: tuple[int, int], name: str) -> LabelledShape | None:
        label = (entry.get("label") or "").strip()
        self.counts[_ATTRIBUTES] += sum(child.tag == "attribute" for child in entry)
        if entry.tag not in SHAPES:
            if entry.tag not in WITHOUT_AREA:
                raise IncompleteImage(entry.tag)
            self.counts[NOT_DRAWN.format(kind=entry.tag[:40])] += 1
            self.labels.not_drawn[label] += 1
            return None
        try:
            if not label:
                raise DataError("has no label")
            shape, is_clipped = parse_shape(entry, size)
            group, layer = (whole_number(entry, key) if entry.get(key) else 0 for key in ("group_id", "z_order"))
        except DataError as error:
            self.result.skipped.append((name, str(error)))
            return None
        self.counts[CLIPPED] += is_clipped
        self.counts[BOXES] += entry.tag == "box"
        return LabelledShape(label, shape, layer, group or None)


def _image_folders(folder: Path, subset: str) -> list[Path]:
    """Return where the images of an export may lie, the most likely folder first."""
    images = folder / "images"
    named = [images / subset, folder / subset] if subset and subset not in (".", "..") and "\0" not in subset else []
    return [*named, images, folder]


def _elements(path: Path) -> Iterator[ElementTree.Element]:
    """Yield the complete elements `label`, `meta`, `image` and `track` of a file; each is emptied after its use.

    Raises:
        DataError: the file is too large, not UTF-8 or not valid XML, is nested too deeply, or it declares entities or a document type,
            which could expand to any size.
    """
    content = read_bytes(path, _MAX_XML_BYTES)
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("is not a text in UTF-8", where=path, fix="save it as UTF-8") from error
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(
            "declares a document type or entities", where=path, expected="XML as CVAT writes it", fix="remove <!DOCTYPE"
        )
    depth = 0
    try:
        # Entities were refused above; the encoding that a file declares does not count, since its bytes were checked as UTF-8.
        parser = ElementTree.XMLParser(encoding="utf-8")  # noqa: S314
        for event, element in ElementTree.iterparse(io.BytesIO(content), ("start", "end"), parser):  # noqa: S314
            depth += 1 if event == "start" else -1
            if depth > _MAX_DEPTH:
                raise DataError("is nested too deeply", where=path, expected="XML as CVAT writes it")
            if event == "end" and element.tag in ("label", "meta", "image", "track"):
                yield element
                if element.tag in ("image", "track"):
                    element.clear()
    except (ElementTree.ParseError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"is not valid XML: {error}", where=path, fix="export it again") from error
