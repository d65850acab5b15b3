"""Tracks of CVAT for video: the shapes that the file states for single frames.

Nothing is interpolated: between two stated frames the position of an instance is not known, so that a frame in which a visible track is
not stated is left out.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

from segpipe.data.formats.annotations.painter import CLIPPED
from segpipe.data.formats.annotations.tools.cvat_shapes import (
    NOT_DRAWN,
    SHAPES,
    WITHOUT_AREA,
    parse_shape,
    whole_number,
)
from segpipe.data.formats.annotations.tools.image_finder import ImageFinder
from segpipe.data.formats.annotations.tools.labelled_images import BOXES, IncompleteImage, LabelledImage, LabelledShape
from segpipe.data.formats.source import ReadResult
from segpipe.data.images import stem_of
from segpipe.errors import DataError

INTERPOLATED = "frames left out: a visible track is not stated there, and would have to be interpolated"
NO_FILE = "frames with annotations, but without an image file"
NOT_ANNOTATED = "frames before or after the annotated part of the video, left out"
ALIKE = "frames of a video resemble each other: `--group` or a table says which of them stay in one split"
_FRAME = re.compile(r"frame_?(\d{1,9})", re.IGNORECASE)
_MAX_FRAMES_SHOWN = 3
_MAX_DIGITS = 7


@dataclass(frozen=True)
class Track:
    """One instance in the frames of a video.

    label: its class name.
    shapes: {frame: the element of its shape}; None where it is outside the picture.
    name: its name for the user.
    task: the id of the task, "" if the file does not give it.
    """

    label: str
    shapes: dict[int, Element | None]
    name: str
    task: str = ""
    frames: list[int] = field(default_factory=list)

    def state(self, frame: int) -> int | None:
        """Return the last frame, not after this one, for which something is stated; None before the track begins."""
        index = bisect.bisect_right(self.frames, frame)
        return self.frames[index - 1] if index else None


@dataclass(frozen=True)
class VideoFrames:
    """The frames of a video: (height, width) in pixels, and the numbers of the first and the last annotated frame, None if not known."""

    size: tuple[int, int] | None = None
    first: int | None = None
    last: int | None = None

    @classmethod
    def from_meta(cls, meta: Element) -> VideoFrames:
        """Return what the element `meta` says about the video."""
        height, width, first, last = (
            _digits(meta.findtext(path))
            for path in (
                ".//original_size/height",
                ".//original_size/width",
                ".//start_frame",
                ".//stop_frame",
            )
        )
        return cls((height, width) if height and width else None, first, last)


def _digits(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS else None


def parse_track(element: Element, name: str, result: ReadResult) -> Track:
    """Return a track. A shape without a valid frame number is left out with the reason."""
    shapes: dict[int, Element | None] = {}
    for entry in element:
        try:
            frame = whole_number(entry, "frame")
        except DataError as error:
            result.skipped.append((f"{name}: {entry.tag}", str(error)))
            continue
        is_outside = entry.get("outside") == "1"
        if not is_outside or frame not in shapes:
            shapes[frame] = None if is_outside else _copy(entry)
    label = (element.get("label") or "").strip()
    task = element.get("task_id") or ""
    return Track(label, shapes, name, task, sorted(shapes))


def _copy(entry: Element) -> Element:
    """Return an element without its children, which are not used: a long video has many of them."""
    return Element(entry.tag, entry.attrib)


def add_frames(
    tracks: Sequence[Track],
    video: VideoFrames,
    path: Path,
    finder: ImageFinder,
    result: ReadResult,
    counts: Counter[str],
    group: str | None,
) -> list[LabelledImage]:
    """Return the frames of a video that have a file, each with the shapes that are stated for it.

    Args:
        tracks: the tracks of one file.
        video: the size and the length of the video.
        path: the file, for errors and to find the frames.
        finder: the image files.
        result: gets the reasons for shapes that are left out.
        counts: gets the decisions.
        group: the group of all frames.

    Raises:
        DataError: there are no files of frames, they are numbered otherwise, or the tracks are those of several tasks.
    """
    if len(tasks := {track.task for track in tracks}) > 1:
        raise DataError(
            "tracks of several tasks, whose frames have the same numbers",
            where=path,
            found=f"tasks {', '.join(sorted(tasks)[:_MAX_FRAMES_SHOWN])}",
            expected="one video",
            fix="export each task by itself",
        )
    files = _frame_files(path, finder)
    stated = {frame for track in tracks for frame in track.shapes}
    frames = _annotated(path, files, stated, video, counts)
    counts[NO_FILE] += len(stated - files.keys())
    if group is None:
        result.notes.append(ALIKE)
    images = []
    for frame in frames:
        file = files[frame]
        states = [(track, track.state(frame)) for track in tracks]
        if any(at is not None and at != frame and track.shapes[at] is not None for track, at in states):
            counts[INTERPOLATED] += 1
            continue
        visible = [
            (track, element) for track, at in states if at == frame and (element := track.shapes[at]) is not None
        ]
        try:
            size = video.size or finder.size_of(file)
            drawn = [_shape(track, element, size, result, counts, frame) for track, element in visible]
        except DataError as error:
            result.skipped.append((file.name, str(error)))
            continue
        shapes = [shape for shape in drawn if shape is not None]
        images.append(LabelledImage(finder.name_of(file), file, size, shapes, group=group))
    return images


def _shape(
    track: Track, element: Element, size: tuple[int, int], result: ReadResult, counts: Counter[str], frame: int
) -> LabelledShape | None:
    if element.tag not in SHAPES:
        if element.tag not in WITHOUT_AREA:
            raise IncompleteImage(element.tag)
        counts[NOT_DRAWN.format(kind=element.tag[:40])] += 1
        return None
    try:
        if not track.label:
            raise DataError("has no label")
        shape, is_clipped = parse_shape(element, size)
        layer = whole_number(element, "z_order") if element.get("z_order") else 0
    except DataError as error:
        result.skipped.append((f"{track.name}: frame {frame}", str(error)))
        return None
    counts[CLIPPED] += is_clipped
    counts[BOXES] += element.tag == "box"
    return LabelledShape(track.label, shape, layer)


def _frame_files(path: Path, finder: ImageFinder) -> dict[int, Path]:
    """Return the files of frames by their numbers: those next to the annotations or, if there are none, all of the source."""
    by_number: dict[int, list[Path]] = {}
    frames = [(match, file) for file in finder.files if (match := _FRAME.fullmatch(stem_of(file)))]
    near = [(match, file) for match, file in frames if file.is_relative_to(path.parent)]
    for match, file in near or frames:
        by_number.setdefault(int(match[1]), []).append(file)
    if not by_number:
        raise DataError(
            "has tracks of a video, but there are no files of its frames",
            where=path,
            expected="images/frame_000000.PNG and so on",
            fix="export the task from CVAT with its images; or write the frames of the video: "
            "`ffmpeg -i VIDEO -start_number 0 images/frame_%06d.png`. If the images have names of their own, export the task as "
            "`CVAT for images 1.1`, which names them",
        )
    several = [files for files in by_number.values() if len(files) > 1]
    if several:
        raise DataError(
            "several files could be the same frame",
            where=path,
            found=", ".join(
                sorted(file.relative_to(finder.root).as_posix() for file in several[0])[:_MAX_FRAMES_SHOWN]
            ),
            fix="put each annotations.xml into the folder of its video, or name the folder of frames (--images)",
        )
    return {number: files[0] for number, files in sorted(by_number.items())}


def _annotated(
    path: Path, files: dict[int, Path], stated: set[int], video: VideoFrames, counts: Counter[str]
) -> list[int]:
    """Return the numbers of the frames that have a file and were annotated.

    Raises:
        DataError: the files are numbered otherwise than the annotations, for instance from 1.
    """
    last = video.last if video.last is not None else max(stated, default=0)
    first = video.first or 0
    if max(files) > last and min(files) > first and (video.last is not None or max(files) == last + 1):
        raise DataError(
            "the files of frames are numbered otherwise than the annotations",
            where=path,
            found=f"{files[min(files)].name} to {files[max(files)].name}",
            expected=f"frames {first} to {last}",
            fix="number them from 0: `ffmpeg -i VIDEO -start_number 0 images/frame_%06d.png`, or export them from CVAT",
        )
    inside = [frame for frame in files if frame >= first and (video.last is None or frame <= last)]
    counts[NOT_ANNOTATED] += len(files) - len(inside)
    return inside
