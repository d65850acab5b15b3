"""`segpipe predict --video`: one thread reads frames, one runs the network, and one smooths, draws and writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel

from segpipe.errors import ConfigError, DataError
from segpipe.files import atomic_path, safe_name
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.video.closable_queue import ClosableQueue
from segpipe.inference.video.frame_sinks import CODECS, MaskFolder, VideoFile
from segpipe.inference.video.frame_source import Frame, Picture, Video
from segpipe.inference.video.painting import Painter, draw_corner_text
from segpipe.inference.video.smoothing import Smoother, half_life
from segpipe.inference.video.timing import FrameRate, StepTime, Stopwatch, TimedEngine
from segpipe.progress import Progress

_QUEUE_DEPTH = 2
"""Maximum number of frames of a file that wait for the network, and of results that wait to be drawn."""
_MAX_MISSING_SHARE = 0.01
"""A file is cut short if a larger share of its frames is missing. One frame may always be missing, because headers are not exact."""


class VideoReport(BaseModel):
    """Summary of a segmented video."""

    video: str
    """Name of the video."""
    overlay: str
    """Path of the overlay."""
    masks: str | None
    """Path of the folder with masks."""
    candidate: str
    engine: str
    frames: int
    """Number of frames that were segmented and written."""
    dropped: int
    """Number of frames of a camera that were skipped, because a newer one was available."""
    promised: int | None
    """Number of frames according to the file's header."""
    cut_short: bool
    """True if the file has clearly fewer frames than that."""
    interrupted: bool
    """True if the user stopped the command."""
    size: tuple[int, int]
    """Width and height of the frames."""
    working_size: tuple[int, int]
    """Width and height of the network's input."""
    smoothing: float
    half_life_frames: float
    """Number of frames after which the weight of a frame in the average has halved."""
    seconds: float
    fps: float
    """Frames per second, from the start to the end of the run."""
    latency_p50_ms: float
    """Median time from reading a frame until it was written, including waiting."""
    latency_p95_ms: float
    """95th percentile of that time."""
    steps: list[StepTime]


@dataclass(frozen=True)
class _Result:
    """A segmented frame: class probabilities (n_classes, h, w) if they are smoothed, otherwise class ids (h, w)."""

    frame: Frame
    output: np.ndarray


def overlay_path(out: Path, video: Video) -> Path:
    """Return the file for the overlay.

    Args:
        out: A file, or a folder in which a file is named after the video.
        video: The video.

    Raises:
        ConfigError: The suffix of the file is not supported.
    """
    if out.suffix in CODECS:
        return out
    if out.suffix and not out.is_dir():
        raise ConfigError("videos of this kind cannot be written", found=out.name, expected=" or ".join(CODECS))
    return out / f"{safe_name(video.name)}.mp4"


def segment_video(
    segmenter: Segmenter,
    video: Video,
    overlay: Path,
    *,
    masks: Path | None = None,
    smoothing: float = 0.0,
    edge: int | None = None,
    stop: threading.Event | None = None,
) -> VideoReport:
    """Segment a video and write its frames with the classes drawn over them.

    All frames of a file are segmented; of a camera or stream, always the newest one.

    Args:
        segmenter: The model.
        video: The open video, which the caller closes.
        overlay: The file for the overlay, .mp4 or .avi. It appears when the video has ended.
        masks: A folder for a PNG mask of every frame.
        smoothing: Weight of the past in the average of probabilities, 0 to below 1, see `Smoother`.
        edge: Length in pixels to which the longer edge of frames is resized for the network; None keeps their size.
        stop: Once it is set, the files are finished with the frames so far.

    Raises:
        DataError: The model takes volumes, the video has no frames, or the frames do not fit the model (`Segmenter.predict`).
        ConfigError: The folder for masks is not empty, or the overlay cannot be encoded.
        KeyboardInterrupt: `stop` was set before there was a frame.
    """
    if segmenter.spec.dims == 3:
        raise DataError("the model takes volumes, but a video has images", where=video.name, fix="name another --model")
    job = _Job(segmenter, video, smoothing, edge, stop or threading.Event())
    folder = MaskFolder(masks, segmenter.spec.classes) if masks else None
    with atomic_path(overlay) as path, closing(VideoFile(path, video.rate)) as file:
        job.run(file, folder)
        if not job.frames and job.stop.is_set():
            raise KeyboardInterrupt
        if not job.frames:
            raise DataError(
                "no frame can be read",
                where=video.name,
                found=f"{video.promised or 0} frames according to its header",
                fix="give a video that a media player can play",
            )
    return job.report(str(overlay), str(masks) if masks else None)


def _without_region_cleaning(segmenter: Segmenter) -> Segmenter:
    """Return the model without the removal of small regions, which must follow the smoothing; its threshold stays."""
    cleaning = segmenter.spec.cleaning
    if cleaning is None:
        return segmenter
    return segmenter.with_changes(cleaning=cleaning.model_copy(update={"least": ()}))


class _Job:
    """The state of one video while it is segmented. The network runs in the caller's thread."""

    def __init__(
        self, segmenter: Segmenter, video: Video, smoothing: float, edge: int | None, stop: threading.Event
    ) -> None:
        self.engine = TimedEngine(segmenter.engine) if segmenter.spec.task == "semantic" else None
        # Class ids follow from uncalibrated probabilities, so these are averaged.
        self.segmenter = Segmenter(segmenter.spec, self.engine or segmenter.engine).at_temperature(1.0)
        self.frame_segmenter = _without_region_cleaning(self.segmenter) if smoothing else self.segmenter
        self.video, self.edge, self.stop = video, edge, stop
        self.smoothing, self.smoother, self.painter = smoothing, Smoother(smoothing), Painter(segmenter.spec.classes)
        self.engine_name = segmenter.engine.name
        self.read_frames: ClosableQueue[Frame] = ClosableQueue(1 if video.live else _QUEUE_DEPTH, newest=video.live)
        self.results: ClosableQueue[_Result] = ClosableQueue(_QUEUE_DEPTH)
        self.stopwatch = Stopwatch()
        self.frames = 0
        self.size = self.working_size = (0, 0)
        self.began = self.ended = time.perf_counter()

    def run(self, file: VideoFile, masks: MaskFolder | None) -> None:
        """Segment all frames. Errors of the other threads are raised here."""
        with ThreadPoolExecutor(2, "video") as pool:
            reading, writing = pool.submit(self._read), pool.submit(self._write, file, masks)
            try:
                for frame in self.read_frames:
                    if self.stop.is_set() or not self.results.put(_Result(frame, self._segment(frame))):
                        break
            finally:
                self.read_frames.abandon()
                self.results.close()
        reading.result()
        writing.result()

    def _read(self) -> None:
        try:
            while not self.stop.is_set() and (frame := self.video.read()) is not None:
                self.stopwatch.add("decode", frame.decode_s)
                if not self.read_frames.put(frame):
                    break
        finally:
            self.read_frames.close()

    def _segment(self, frame: Frame) -> np.ndarray:
        """Segment a frame and measure the steps; return probabilities if they are smoothed, otherwise class ids."""
        began = time.perf_counter()
        grey = self.segmenter.spec.normalisation.channels == 1
        image = cv2.cvtColor(self._resized(frame.image), cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
        self.working_size = (image.shape[1], image.shape[0])
        if self.engine is not None:
            self.engine.start()
        prediction = self.frame_segmenter.predict(image, probabilities=self.smoothing > 0)
        ended = time.perf_counter()
        network_began, network_s = began, ended - began  # a detector's steps are not measured separately
        if self.engine is not None and self.engine.first_call_at is not None:
            network_began, network_s = self.engine.first_call_at, self.engine.seconds
        self.stopwatch.add("prepare", network_began - began)
        self.stopwatch.add("network", network_s)
        self.stopwatch.add("classes", ended - network_began - network_s)
        if not self.smoothing:
            return prediction.class_ids
        assert prediction.probabilities is not None, "they were requested"
        return prediction.probabilities

    def _resized(self, image: Picture) -> Picture:
        """Resize a frame for the network."""
        if self.edge is None:
            return image
        scale = self.edge / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)

    def _write(self, file: VideoFile, masks: MaskFolder | None) -> None:
        rate, first_read_at = FrameRate(), None
        try:
            with self._progress() as progress:
                for result in self.results:
                    frame, ids = result.frame, result.output
                    first_read_at = frame.read_at if first_read_at is None else first_read_at
                    with self._step("smoothing"):
                        if self.smoothing:
                            ids = self.segmenter.classes_of(self.smoother(result.output))
                    with self._step("draw"):
                        self.size = (frame.image.shape[1], frame.image.shape[0])
                        if ids.shape != frame.image.shape[:2]:
                            ids = cv2.resize(ids, self.size, interpolation=cv2.INTER_NEAREST_EXACT)
                        picture = self.painter(frame.image, ids)
                        rate_text = f"{rate.tick():.1f} fps"
                        draw_corner_text(picture, rate_text)
                    with self._step("write"):
                        file.write(picture, frame.read_at - first_read_at if self.video.live else None)
                        if masks:
                            masks.write(frame.index, ids)
                    self.ended = time.perf_counter()
                    self.stopwatch.add("latency", self.ended - frame.read_at)
                    self.frames += 1
                    if progress:
                        progress.advance(note=rate_text)
        finally:
            self.results.abandon()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.stopwatch.add(name, time.perf_counter() - began)

    @contextmanager
    def _progress(self) -> Iterator[Progress | None]:
        if self.video.promised is None:
            yield None
            return
        with Progress("predict", self.video.promised) as progress:
            yield progress

    def report(self, overlay: str, masks: str | None) -> VideoReport:
        """Summarise the job after `run`."""
        latency_p50, latency_p95 = self.stopwatch.percentiles("latency")
        seconds, interrupted, promised = self.ended - self.began, self.stop.is_set(), self.video.promised
        missing = (promised or self.frames) - self.frames
        return VideoReport(
            video=self.video.name,
            overlay=overlay,
            masks=masks,
            candidate=self.segmenter.spec.candidate,
            engine=self.engine_name,
            frames=self.frames,
            dropped=self.read_frames.dropped,
            promised=promised,
            cut_short=not interrupted and missing > max(1, _MAX_MISSING_SHARE * (promised or 0)),
            interrupted=interrupted,
            size=self.size,
            working_size=self.working_size,
            smoothing=self.smoothing,
            half_life_frames=round(half_life(self.smoothing), 3),
            seconds=round(seconds, 3),
            fps=round(self.frames / seconds, 2),
            latency_p50_ms=latency_p50,
            latency_p95_ms=latency_p95,
            steps=self.stopwatch.steps(),
        )
