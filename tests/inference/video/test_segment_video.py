"""Segmenting videos that are made here frame by frame: masks, smoothing, cameras, interruption and errors."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.drawing import overlay
from segpipe.data.images import encode_png, read_mask
from segpipe.errors import ConfigError, DataError, MissingError
from segpipe.inference.cleaning import Cleaning
from segpipe.inference.files.batch import predict_files
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.video.closable_queue import ClosableQueue
from segpipe.inference.video.frame_source import Video, open_video
from segpipe.inference.video.painting import Painter
from segpipe.inference.video.segment_video import overlay_path, segment_video
from segpipe.inference.video.smoothing import Smoother, half_life
from segpipe.samples import ClassTable
from tests.worlds.segmenters import Pixelwise
from tests.worlds.videos import clip, frames_of, write_video

LIMITS = DataParams()
CLASSES = ClassTable.from_names(["background", "cell", "nucleus"], [0, 128, 255])


def make_segmenter(engine=None, channels: int = 3, **settings) -> Segmenter:
    spec = SegmenterSpec(
        candidate="toy",
        family="unet",
        classes=CLASSES,
        stride=4,
        tile=96,
        overlap=32,
        engine="toy",
        normalisation=Normalisation(
            low=(0.0,) * channels, high=(255.0,) * channels, mean=(0.0,) * channels, std=(1.0,) * channels
        ),
        **settings,
    )
    return Segmenter(spec, engine or Pixelwise())


class FakeCapture:
    """Replaces OpenCV's capture."""

    def __init__(self, pictures: list[np.ndarray], promised: int = 0):
        self.pictures, self.promised, self.released = list(pictures), promised, False
        self.empty = threading.Event()

    def get(self, which: int) -> float:
        return {cv2.CAP_PROP_FPS: 10.0, cv2.CAP_PROP_FRAME_COUNT: float(self.promised)}.get(which, 0.0)

    def read(self):
        if not self.pictures:
            self.empty.set()
            return False, None
        return True, self.pictures.pop(0)

    def release(self) -> None:
        self.released = True


class Around(Pixelwise):
    """Scores minus a threshold, so that sigmoids are on both sides of 0.5."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def __call__(self, batch):
        return super().__call__(batch) - np.float32(self.threshold)


class Hooked(Pixelwise):
    """An engine that calls a function before each call."""

    def __init__(self, hook):
        super().__init__()
        self.hook = hook

    def __call__(self, batch):
        self.hook(len(self.shapes))
        return super().__call__(batch)


def run(path: Path, out: Path, engine=None, **options):
    video = open_video(str(path), LIMITS)
    try:
        return segment_video(make_segmenter(engine), video, out, **options)
    finally:
        video.close()


def grey_frames(count: int) -> list[np.ndarray]:
    return [np.full((16, 24, 3), 40 + i % 200, np.uint8) for i in range(count)]


@pytest.mark.parametrize(("channels", "overlapping"), [(3, False), (1, False), (3, True)])
def test_each_mask_equals_that_of_the_frame_as_an_image(tmp_path: Path, channels: int, overlapping: bool) -> None:
    """The mask of a frame has the same bytes as that of the frame as a PNG in `segpipe predict`."""
    path = clip(tmp_path / "clip.avi")
    frames = frames_of(path)
    if channels == 1:
        frames = [np.repeat(frame[:, :, 1:2], 3, 2) for frame in frames]
        path = write_video(tmp_path / "grey.mkv", frames)
        assert all((stored == frame).all() for stored, frame in zip(frames_of(path), frames, strict=True))
    sets = CLASSES.from_names(CLASSES.names, [0, 1, 2]).model_copy(update={"overlapping": True})
    model = make_segmenter(Around(0.5), channels=channels).with_changes(classes=sets if overlapping else CLASSES)
    images = [tmp_path / f"{i:06d}.png" for i in range(len(frames))]
    for image, frame in zip(images, frames, strict=True):
        image.write_bytes(encode_png(frame[:, :, ::-1]))
    predict_files(model, images, tmp_path / "images", LIMITS)
    video = open_video(str(path), LIMITS)
    report = segment_video(model, video, tmp_path / "out.mp4", masks=tmp_path / "masks")
    video.close()
    expected = {p.name: p.read_bytes() for p in (tmp_path / "images" / "masks").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "masks").iterdir()} == expected
    assert len(set(expected.values())) == 7, "the masks differ, so that the comparison is meaningful"
    assert (report.frames, report.promised, report.dropped, report.cut_short, report.interrupted) == (
        7,
        7,
        0,
        False,
        False,
    )
    assert report.size == report.working_size == (50, 38)
    assert {s.step for s in report.steps} >= {"decode", "prepare", "network", "classes", "draw", "write"}
    assert sum(s.share for s in report.steps) == pytest.approx(1, abs=1e-3)
    assert 0 < report.latency_p50_ms <= report.latency_p95_ms and report.fps > 0


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_the_overlay_has_the_frames_and_the_rate_of_the_video(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path / "clip.avi", 9, 120, 161)
    assert run(path, tmp_path / name).frames == 9
    capture = cv2.VideoCapture(str(tmp_path / name))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    drawn, frames = frames_of(tmp_path / name), frames_of(path)
    assert len(drawn) == len(frames) == 9
    assert drawn[0].shape[:2] == (120, 160), "FFV1 stores an even number of columns"
    for picture, frame in zip(drawn, frames, strict=True):
        expected = overlay(frame[:, :, ::-1], make_segmenter().predict(frame[:, :, ::-1]).class_ids, CLASSES.colors)
        difference = np.abs(picture[40:, :, ::-1].astype(int) - expected[40:])  # below the text in the corner
        without_overlay = np.abs(frame[40:, :, ::-1].astype(int) - expected[40:])
        assert np.median(difference) < 12 and without_overlay.mean() > 2 * difference.mean()


def test_an_odd_size_is_padded_to_an_even_one(tmp_path: Path) -> None:
    video = Video(FakeCapture([np.full((33, 47, 3), 90, np.uint8)] * 3), "odd", live=False)
    segment_video(make_segmenter(), video, tmp_path / "odd.mp4")
    assert [frame.shape for frame in frames_of(tmp_path / "odd.mp4")] == [(34, 48, 3)] * 3


def test_smoothing_equals_the_closed_form() -> None:
    values = np.random.default_rng(1).dirichlet(np.ones(3), (12, 5, 7)).transpose(0, 3, 1, 2).astype(np.float32)
    smoother = Smoother(0.7)
    for t, probabilities in enumerate(values):
        weights = np.array([0.3 * 0.7 ** (t - i) if i else 0.7**t for i in range(t + 1)])
        expected = np.tensordot(weights, values[: t + 1].astype(float), 1)
        mean = smoother(probabilities)
        np.testing.assert_allclose(mean, expected, atol=1e-6)
        np.testing.assert_allclose(mean.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(smoother(values[0, :, :2]), values[0, :, :2])  # another size starts again
    assert 0.7 ** half_life(0.7) == pytest.approx(0.5) and half_life(0.5) == pytest.approx(1) and half_life(0) == 0


def test_smoothed_masks_follow_the_average_and_a_flash_is_suppressed(tmp_path: Path) -> None:
    still, flash = np.full((16, 24, 3), 250, np.uint8), np.full((16, 24, 3), 2, np.uint8)
    path = write_video(tmp_path / "flash.avi", [still] * 4 + [flash] + [still] * 3)
    masks = {}
    for smoothing in (0.0, 0.8):
        run(path, tmp_path / "out.mp4", masks=(folder := tmp_path / f"masks-{smoothing}"), smoothing=smoothing)
        masks[smoothing] = [int(read_mask(p, LIMITS)[5, 5]) for p in sorted(folder.iterdir())]
    assert masks == {0.0: [0, 0, 0, 0, 128, 0, 0, 0], 0.8: [0] * 8}

    path = clip(tmp_path / "clip.avi")
    run(path, tmp_path / "out.mp4", masks=tmp_path / "smooth", smoothing=0.6)
    mean = None
    for index, frame in enumerate(frames_of(path)):
        probabilities = make_segmenter().predict(frame[:, :, ::-1], probabilities=True).probabilities.astype(float)
        mean = probabilities if mean is None else 0.6 * mean + 0.4 * probabilities
        top = np.sort(mean, 0)
        clear = top[-1] - top[-2] > 1e-5
        ids = CLASSES.encode(read_mask(tmp_path / "smooth" / f"{index:06d}.png", LIMITS))
        assert clear.mean() > 0.99 and (ids == mean.argmax(0))[clear].all()


def test_small_regions_are_removed_after_smoothing(tmp_path: Path) -> None:
    """A region of four pixels is removed if regions need nine pixels, with and without smoothing, and kept if they need three."""
    speckled = np.full((16, 24, 3), 250, np.uint8)
    speckled[4:6, 4:6] = 2
    path = write_video(tmp_path / "specks.avi", [speckled] * 3)
    for smoothing in (0.0, 0.5):
        for least, remains in (((0, 9, 0), False), ((0, 3, 0), True)):
            model = make_segmenter(cleaning=Cleaning(least=least))
            video, folder = open_video(str(path), LIMITS), tmp_path / f"{smoothing}-{remains}"
            segment_video(model, video, tmp_path / "out.mp4", masks=folder, smoothing=smoothing)
            video.close()
            assert [128 in read_mask(p, LIMITS) for p in sorted(folder.iterdir())] == [remains] * 3


def test_a_detector_draws_its_classes(tmp_path: Path) -> None:
    from segpipe.inference.detector import DetectorEngine
    from tests.worlds.detections import make_detections

    class TwoInstances(DetectorEngine):
        def __init__(self) -> None:
            pass

        def detect(self, batch):
            return make_detections(((2, 2, 12, 10), 1, 0.9), ((14, 4, 20, 14), 2, 0.8))

    model = make_segmenter(TwoInstances(), task="instance")
    for smoothing in (0.0, 0.5):
        folder = tmp_path / str(smoothing)
        report = segment_video(
            model,
            Video(FakeCapture(grey_frames(3)), "x", live=False),
            tmp_path / "out.mp4",
            masks=folder,
            smoothing=smoothing,
        )
        ids = CLASSES.encode(read_mask(folder / "000002.png", LIMITS))
        np.testing.assert_array_equal(ids, model.predict(grey_frames(1)[0]).class_ids)
        assert (ids == 1).sum() == 80 and (ids == 2).sum() == 60
        assert "network" in {step.step for step in report.steps}


def test_frames_are_resized_for_the_network(tmp_path: Path) -> None:
    path, engine = clip(tmp_path / "clip.avi", 3, 64, 96), Pixelwise()
    report = run(path, tmp_path / "out.mp4", engine, masks=tmp_path / "masks", edge=48)
    assert engine.shapes == [(1, 3, 32, 48)] * 3
    assert (report.size, report.working_size) == ((96, 64), (48, 32))
    small = cv2.resize(frames_of(path)[1], (48, 32), interpolation=cv2.INTER_AREA)
    ids = np.kron(make_segmenter().predict(small[:, :, ::-1]).class_ids, np.ones((2, 2), np.uint8))
    np.testing.assert_array_equal(CLASSES.encode(read_mask(tmp_path / "masks" / "000001.png", LIMITS)), ids)


def test_the_newest_frame_of_a_camera_is_segmented(tmp_path: Path) -> None:
    capture = FakeCapture(grey_frames(30))
    engine = Hooked(lambda call: capture.empty.wait(60))  # the network is slow: meanwhile all frames arrive
    report = segment_video(
        make_segmenter(engine), Video(capture, "camera-0", live=True), tmp_path / "out.mp4", masks=tmp_path / "masks"
    )
    assert report.frames in (1, 2) and report.frames + report.dropped == 30
    assert (tmp_path / "masks" / "000029.png").exists(), "the last frame is always segmented"
    assert report.promised is None and not report.cut_short


def test_no_frame_of_a_file_is_dropped_if_the_network_is_slow(tmp_path: Path) -> None:
    engine = Hooked(lambda call: time.sleep(0.003))
    report = segment_video(
        make_segmenter(engine), Video(FakeCapture(grey_frames(30), 30), "file", live=False), tmp_path / "out.mp4"
    )
    assert (report.frames, report.dropped) == (30, 0) and len(frames_of(tmp_path / "out.mp4")) == 30


def test_frames_of_an_irregular_camera_are_repeated(tmp_path: Path) -> None:
    """The header says ten frames per second, but three frames take 0.6 s: the overlay lasts as long."""
    segmented = threading.Semaphore(1)

    class IrregularCamera(Video):
        def read(self):
            assert segmented.acquire(timeout=60), "so that no frame is dropped"
            frame = super().read()
            return frame and replace(frame, read_at=0.3 * frame.index)

    model = make_segmenter(Hooked(lambda call: segmented.release()))
    report = segment_video(
        model, IrregularCamera(FakeCapture(grey_frames(3)), "camera-0", live=True), tmp_path / "out.mp4"
    )
    assert report.frames == 3 and len(frames_of(tmp_path / "out.mp4")) == 7


def test_ctrl_c_leaves_a_video_that_plays(tmp_path: Path) -> None:
    stop = threading.Event()
    engine = Hooked(lambda call: stop.set() if call == 5 else None)
    report = run(clip(tmp_path / "clip.avi", 40), tmp_path / "out.mp4", engine, stop=stop)
    assert report.interrupted and not report.cut_short and report.frames == 6
    assert len(frames_of(tmp_path / "out.mp4")) == 6
    assert threading.active_count() == 1 or all(not t.name.startswith("video") for t in threading.enumerate())


def test_ctrl_c_before_the_first_frame_leaves_no_file(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        segment_video(
            make_segmenter(), Video(FakeCapture(grey_frames(3)), "x", live=False), tmp_path / "out.mp4", stop=stop
        )
    assert not list(tmp_path.iterdir())


def test_the_frames_of_a_file_that_is_cut_short_are_kept(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.avi", 40, 120, 160)
    content = whole.read_bytes()
    (tmp_path / "half.avi").write_bytes(content[: len(content) // 2])
    report = run(tmp_path / "half.avi", tmp_path / "out.mp4")
    assert report.cut_short and report.promised == 40 and 5 < report.frames < 35
    assert len(frames_of(tmp_path / "out.mp4")) == report.frames


@pytest.mark.parametrize(
    ("promised", "count", "cut_short"), [(40, 39, False), (40, 38, True), (1000, 990, False), (0, 5, False)]
)
def test_headers_need_not_be_exact(tmp_path: Path, promised: int, count: int, cut_short: bool) -> None:
    video = Video(FakeCapture(grey_frames(count), promised), "x", live=False)
    assert segment_video(make_segmenter(), video, tmp_path / "out.avi").cut_short is cut_short


def test_errors_of_bad_sources_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_bytes(b"these are words" * 99)
    with pytest.raises(MissingError, match=r"absent\.mp4: no such video.*camera"):
        open_video(str(tmp_path / "absent.mp4"), LIMITS)
    with pytest.raises(DataError, match=r"notes\.mp4: cannot be opened.*1,485 bytes.*ffmpeg"):
        open_video(str(tmp_path / "notes.mp4"), LIMITS)
    with pytest.raises(MissingError, match=r"no such camera.*found 97"):
        open_video("97", LIMITS)
    with pytest.raises(DataError, match=r"too many pixels.*max_megapixels"):
        open_video(str(clip(tmp_path / "clip.avi", 2)), DataParams(max_megapixels=0.001))
    with pytest.raises(DataError, match="no frame can be read"):
        segment_video(make_segmenter(), Video(FakeCapture([], 9), "empty", live=False), tmp_path / "out.mp4")
    volumes = make_segmenter(dims=3, patch3d=(8, 8, 8))
    with pytest.raises(DataError, match="takes volumes"):
        segment_video(volumes, Video(FakeCapture(grey_frames(2)), "x", live=False), tmp_path / "out.mp4")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "000000.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="already contains masks"):
        segment_video(
            make_segmenter(),
            Video(FakeCapture(grey_frames(2)), "x", live=False),
            tmp_path / "out.mp4",
            masks=tmp_path / "masks",
        )
    assert not list(tmp_path.glob("*out*")), "a failed run leaves no file"


def test_the_path_of_the_overlay(tmp_path: Path) -> None:
    video = Video(FakeCapture([]), "my drive", live=False)
    assert overlay_path(tmp_path / "x.avi", video) == tmp_path / "x.avi"
    assert overlay_path(tmp_path / "new", video) == tmp_path / "new" / "my_drive.mp4"
    with pytest.raises(ConfigError, match=r"found x\.mkv, expected \.mp4 or \.avi"):
        overlay_path(tmp_path / "x.mkv", video)


def test_an_error_in_any_thread_ends_the_run_and_leaves_no_file(tmp_path: Path) -> None:
    def explode(call: int) -> None:
        if call == 3:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(clip(tmp_path / "clip.avi", 40), tmp_path / "out.mp4", Hooked(explode))

    capture = FakeCapture(grey_frames(40))
    capture.read = lambda: (_ for _ in ()).throw(OSError("camera unplugged"))
    with pytest.raises(OSError, match="unplugged"):
        segment_video(make_segmenter(), Video(capture, "x", live=False), tmp_path / "out.mp4")

    import shutil

    masks = tmp_path / "masks"
    engine = Hooked(lambda call: shutil.rmtree(masks) if call == 3 else None)
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "clip.avi", tmp_path / "out.mp4", engine, masks=masks)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.avi"]


def test_the_painter_draws_the_same_as_overlays() -> None:
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    ids = np.kron(rng.integers(0, 3, (5, 6)), np.ones((8, 10))).astype(np.uint8)
    ids[:4] = 255
    expected = overlay(frame[:, :, ::-1], ids, CLASSES.colors)
    difference = np.abs(Painter(CLASSES)(frame, ids)[:, :, ::-1].astype(int) - expected)
    assert difference.max() <= 2 and np.abs(frame[:, :, ::-1].astype(int) - expected).max() > 50


def test_a_queue_keeps_the_order_and_waits_for_room() -> None:
    queue: ClosableQueue[int] = ClosableQueue(2)
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.extend(queue))
    assert queue.put(0) and queue.put(1)
    reader.start()
    assert all(queue.put(i) for i in range(2, 100))
    queue.close()
    reader.join(60)
    assert taken == list(range(100)) and queue.dropped == 0


def test_abandoning_a_queue_releases_a_waiting_producer() -> None:
    queue: ClosableQueue[int] = ClosableQueue(1)
    queue.put(0)
    results: list[bool] = []
    writer = threading.Thread(target=lambda: results.append(queue.put(1)))
    writer.start()
    queue.abandon()
    writer.join(60)
    assert results == [False] and list(queue) == []


def test_the_newest_item_replaces_the_oldest() -> None:
    queue: ClosableQueue[int] = ClosableQueue(2, newest=True)
    assert all(queue.put(i) for i in range(5))
    queue.close()
    assert list(queue) == [3, 4] and queue.dropped == 3
