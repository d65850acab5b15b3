"""`segpipe predict --video`: one thread reads frames, one runs the network, one smooths, draws and writes."""

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

_AHEAD = 2
"""Frames of a file that wait for the network, and answers that wait to be drawn."""
_LOST = 0.01
"""A file that yields fewer of its frames is cut short; headers may be off by one."""


class VideoReport(BaseModel):
    """What became of a video."""

    video: str
    overlay: str
    masks: str | None
    candidate: str
    engine: str
    frames: int
    """Segmented and written."""
    dropped: int
    """Of a camera: passed over, because a newer one was there."""
    promised: int | None
    """How many frames the file says that it has."""
    cut_short: bool
    """Whether it has clearly fewer."""
    interrupted: bool
    size: tuple[int, int]
    """Width and height."""
    working_size: tuple[int, int]
    """What the network was shown."""
    smoothing: float
    half_life_frames: float
    seconds: float
    fps: float
    """Frames a second from end to end."""
    latency_p50_ms: float
    latency_p95_ms: float
    """From when a frame was read until it was written, waiting included."""
    steps: list[StepTime]


@dataclass(frozen=True)
class _Answer:
    """said: class probabilities (n_classes, h, w) where answers are smoothed, else class ids (h, w)."""

    frame: Frame
    said: np.ndarray


def overlay_path(out: Path, video: Video) -> Path:
    """Where the overlay goes: the file that `out` names, or a file in that folder named after the video."""
    if out.suffix in CODECS:
        return out
    if out.suffix and not out.is_dir():
        raise ConfigError("no kind of video that is written here", found=out.name, expected=" or ".join(CODECS))
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
    """Segment every frame of a file, of a camera always the newest one; write the frames with their classes drawn over them.

    overlay: .mp4 or .avi; it appears when the video ends. masks: a folder for a PNG of every frame. smoothing: see `Smoother`.
    edge: the longer edge at which the network sees frames; None leaves them as they are. Once `stop` is set, what was written so
    far is finished. The caller closes the video.

    Raises DataError for a model of volumes, for a video without frames, and as `Segmenter.predict` does; KeyboardInterrupt where `stop`
    was set before there was a frame.
    """
    if segmenter.spec.dims == 3:
        raise DataError(
            "the model takes volumes, and a video has pictures", where=video.name, fix="name another --model"
        )
    job = _Job(segmenter, video, smoothing, edge, stop or threading.Event())
    folder = MaskFolder(masks, segmenter.spec.classes) if masks else None
    with atomic_path(overlay) as path, closing(VideoFile(path, video.rate)) as file:
        job.run(file, folder)
        if not job.frames and job.stop.is_set():
            raise KeyboardInterrupt
        if not job.frames:
            raise DataError(
                "holds no frame that can be read",
                where=video.name,
                found=f"{video.promised or 0} promised",
                fix="give a video that plays",
            )
    return job.report(str(overlay), str(masks) if masks else None)


def _unmended(segmenter: Segmenter) -> Segmenter:
    """The model without the mending of specks, which comes after the smoothing; its threshold stays."""
    how = segmenter.spec.cleaning
    return segmenter if how is None else segmenter.but(cleaning=how.model_copy(update={"least": ()}))


class _Job:
    """A video on its way through the three threads; the network runs in the caller's."""

    def __init__(
        self, segmenter: Segmenter, video: Video, smoothing: float, edge: int | None, stop: threading.Event
    ) -> None:
        self.engine = TimedEngine(segmenter.engine) if segmenter.spec.task == "semantic" else None
        # Classes follow from probabilities before the temperature: the average of these decides here.
        self.segmenter = Segmenter(segmenter.spec, self.engine or segmenter.engine).at_temperature(1.0)
        self.asked = _unmended(self.segmenter) if smoothing else self.segmenter
        self.video, self.edge, self.stop = video, edge, stop
        self.smoothing, self.smoother, self.painter = smoothing, Smoother(smoothing), Painter(segmenter.spec.classes)
        self.name = segmenter.engine.name
        self.read: ClosableQueue[Frame] = ClosableQueue(1 if video.live else _AHEAD, newest=video.live)
        self.answered: ClosableQueue[_Answer] = ClosableQueue(_AHEAD)
        self.watch = Stopwatch()
        self.frames = 0
        self.size = self.working = (0, 0)
        self.began = self.ended = time.perf_counter()

    def run(self, file: VideoFile, masks: MaskFolder | None) -> None:
        """All frames; what fails in a thread fails here."""
        with ThreadPoolExecutor(2, "video") as pool:
            reading, writing = pool.submit(self._read), pool.submit(self._write, file, masks)
            try:
                for frame in self.read:
                    if self.stop.is_set() or not self.answered.put(_Answer(frame, self._ask(frame))):
                        break
            finally:
                self.read.abandon()
                self.answered.close()
        reading.result()
        writing.result()

    def _read(self) -> None:
        try:
            while not self.stop.is_set() and (frame := self.video.read()) is not None:
                self.watch.add("decode", frame.decode_s)
                if not self.read.put(frame):
                    break
        finally:
            self.read.close()

    def _ask(self, frame: Frame) -> np.ndarray:
        """What the network says of a frame, and how long the parts of that took."""
        began = time.perf_counter()
        grey = self.segmenter.spec.normalisation.channels == 1
        image = cv2.cvtColor(self._shown(frame.image), cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
        self.working = (image.shape[1], image.shape[0])
        if self.engine is not None:
            self.engine.start()
        found = self.asked.predict(image, probabilities=self.smoothing > 0)
        answered = time.perf_counter()
        asked, network = began, answered - began  # of a detector, that is all that is known
        if self.engine is not None and self.engine.asked_at is not None:
            asked, network = self.engine.asked_at, self.engine.seconds
        self.watch.add("prepare", asked - began)
        self.watch.add("network", network)
        self.watch.add("classes", answered - asked - network)
        if not self.smoothing:
            return found.class_ids
        assert found.probabilities is not None, "they were asked for"
        return found.probabilities

    def _shown(self, image: Picture) -> Picture:
        """The frame at the working size."""
        if self.edge is None:
            return image
        scale = self.edge / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)

    def _write(self, file: VideoFile, masks: MaskFolder | None) -> None:
        rate, first = FrameRate(), None
        try:
            with self._progress() as progress:
                for answer in self.answered:
                    frame = answer.frame
                    first = frame.read_at if first is None else first
                    with self._step("smoothing"):
                        ids = self.segmenter.classes_of(self.smoother(answer.said)) if self.smoothing else answer.said
                    with self._step("draw"):
                        self.size = (frame.image.shape[1], frame.image.shape[0])
                        if ids.shape != frame.image.shape[:2]:
                            ids = cv2.resize(ids, self.size, interpolation=cv2.INTER_NEAREST_EXACT)
                        picture = self.painter(frame.image, ids)
                        draw_corner_text(picture, told := f"{rate.tick():.1f} fps")
                    with self._step("write"):
                        file.write(picture, frame.read_at - first if self.video.live else None)
                        if masks:
                            masks.write(frame.index, ids)
                    self.ended = time.perf_counter()
                    self.watch.add("latency", self.ended - frame.read_at)
                    self.frames += 1
                    if progress:
                        progress.advance(note=told)
        finally:
            self.answered.abandon()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.watch.add(name, time.perf_counter() - began)

    @contextmanager
    def _progress(self) -> Iterator[Progress | None]:
        if self.video.promised is None:
            yield None
            return
        with Progress("predict", self.video.promised) as progress:
            yield progress

    def report(self, overlay: str, masks: str | None) -> VideoReport:
        """What became of it, after `run`."""
        half, most = self.watch.percentiles("latency")
        seconds, interrupted, promised = self.ended - self.began, self.stop.is_set(), self.video.promised
        missing = (promised or self.frames) - self.frames
        return VideoReport(
            video=self.video.name,
            overlay=overlay,
            masks=masks,
            candidate=self.segmenter.spec.candidate,
            engine=self.name,
            frames=self.frames,
            dropped=self.read.dropped,
            promised=promised,
            cut_short=not interrupted and missing > max(1, _LOST * (promised or 0)),
            interrupted=interrupted,
            size=self.size,
            working_size=self.working,
            smoothing=self.smoothing,
            half_life_frames=round(half_life(self.smoothing), 3),
            seconds=round(seconds, 3),
            fps=round(self.frames / seconds, 2),
            latency_p50_ms=half,
            latency_p95_ms=most,
            steps=self.watch.steps(),
        )
