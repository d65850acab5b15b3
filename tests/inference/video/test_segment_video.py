"""Videos, made here frame by frame: what each frame's mask is, what smoothing does, and what becomes of bad ones."""

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

LIMITS = DataParams()
CLASSES = ClassTable.from_names(["background", "cell", "nucleus"], [0, 128, 255])


def segmenter(engine=None, channels: int = 3, **more) -> Segmenter:
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
        **more,
    )
    return Segmenter(spec, engine or Pixelwise())


def frames_of(path: Path) -> list[np.ndarray]:
    """What a player sees, (H, W, 3), BGR."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(read[1])
    capture.release()
    return found


def clip(path: Path, count: int = 7, height: int = 38, width: int = 50) -> Path:
    """Blobs that wander."""
    coarse = np.random.default_rng(0).integers(0, 255, (height // 8 + 2, width // 8 + 2 + count, 3)).astype(np.uint8)
    rows = [np.kron(coarse[:, i:], np.ones((8, 8, 1), np.uint8))[:height, :width] for i in range(count)]
    return write(path, rows)


def write(path: Path, pictures: list[np.ndarray]) -> Path:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 12.0, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture))
    writer.release()
    return path


class Reel:
    """Stands for OpenCV's capture."""

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
    """Scores less a threshold, so that sigmoids are on either side of a half."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def __call__(self, batch):
        return super().__call__(batch) - np.float32(self.threshold)


class Hooked(Pixelwise):
    """An engine that something happens to at each call."""

    def __init__(self, hook):
        super().__init__()
        self.hook = hook

    def __call__(self, batch):
        self.hook(len(self.shapes))
        return super().__call__(batch)


def run(path: Path, out: Path, engine=None, **how):
    video = open_video(str(path), LIMITS)
    try:
        return segment_video(segmenter(engine), video, out, **how)
    finally:
        video.close()


def grey(count: int) -> list[np.ndarray]:
    return [np.full((16, 24, 3), 40 + i % 200, np.uint8) for i in range(count)]


@pytest.mark.parametrize(("channels", "overlapping"), [(3, False), (1, False), (3, True)])
def test_each_mask_is_that_of_the_frame_as_an_image(tmp_path: Path, channels: int, overlapping: bool) -> None:
    """Two ways to the same bytes: the frame out of the video, and as a PNG through `segpipe predict`."""
    path = clip(tmp_path / "clip.avi")
    frames = frames_of(path)
    if channels == 1:
        frames = [np.repeat(frame[:, :, 1:2], 3, 2) for frame in frames]
        path = write(tmp_path / "grey.mkv", frames)
        assert all((frame == kept).all() for frame, kept in zip(frames_of(path), frames, strict=True))
    sets = CLASSES.from_names(CLASSES.names, [0, 1, 2]).model_copy(update={"overlapping": True})
    model = segmenter(Around(0.5), channels=channels).but(classes=sets if overlapping else CLASSES)
    images = [tmp_path / f"{i:06d}.png" for i in range(len(frames))]
    for image, frame in zip(images, frames, strict=True):
        image.write_bytes(encode_png(frame[:, :, ::-1]))
    predict_files(model, images, tmp_path / "images", LIMITS)
    video = open_video(str(path), LIMITS)
    report = segment_video(model, video, tmp_path / "out.mp4", masks=tmp_path / "masks")
    video.close()
    wanted = {p.name: p.read_bytes() for p in (tmp_path / "images" / "masks").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "masks").iterdir()} == wanted
    assert len(set(wanted.values())) == 7, "a test that can fail: every mask is another"
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
def test_the_overlay_plays_frame_for_frame_at_the_rate_of_the_video(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path / "clip.avi", 9, 120, 161)
    assert run(path, tmp_path / name).frames == 9
    capture = cv2.VideoCapture(str(tmp_path / name))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    drawn, frames = frames_of(tmp_path / name), frames_of(path)
    assert len(drawn) == len(frames) == 9
    assert drawn[0].shape[:2] == (120, 160), "FFV1 kept an even number of columns"
    for picture, frame in zip(drawn, frames, strict=True):
        wanted = overlay(frame[:, :, ::-1], segmenter().predict(frame[:, :, ::-1]).class_ids, CLASSES.colors)
        gap = np.abs(picture[40:, :, ::-1].astype(int) - wanted[40:])  # below the counter
        assert np.median(gap) < 12 and np.abs(frame[40:, :, ::-1].astype(int) - wanted[40:]).mean() > 2 * gap.mean()


def test_an_odd_edge_is_kept_whole(tmp_path: Path) -> None:
    video = Video(Reel([np.full((33, 47, 3), 90, np.uint8)] * 3), "odd", live=False)
    segment_video(segmenter(), video, tmp_path / "odd.mp4")
    assert [frame.shape for frame in frames_of(tmp_path / "odd.mp4")] == [(34, 48, 3)] * 3


def test_smoothing_is_the_closed_form() -> None:
    said = np.random.default_rng(1).dirichlet(np.ones(3), (12, 5, 7)).transpose(0, 3, 1, 2).astype(np.float32)
    smoother = Smoother(0.7)
    for t, probabilities in enumerate(said):
        weights = np.array([0.3 * 0.7 ** (t - i) if i else 0.7**t for i in range(t + 1)])
        wanted = np.tensordot(weights, said[: t + 1].astype(float), 1)
        mean = smoother(probabilities)
        np.testing.assert_allclose(mean, wanted, atol=1e-6)
        np.testing.assert_allclose(mean.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(smoother(said[0, :, :2]), said[0, :, :2]), "another size begins anew"
    assert 0.7 ** half_life(0.7) == pytest.approx(0.5) and half_life(0.5) == pytest.approx(1) and half_life(0) == 0


def test_smoothed_masks_follow_the_average_and_a_flash_does_not_show(tmp_path: Path) -> None:
    still, flash = np.full((16, 24, 3), 250, np.uint8), np.full((16, 24, 3), 2, np.uint8)
    path = write(tmp_path / "flash.avi", [still] * 4 + [flash] + [still] * 3)
    masks = {}
    for smoothing in (0.0, 0.8):
        run(path, tmp_path / "out.mp4", masks=(folder := tmp_path / f"masks-{smoothing}"), smoothing=smoothing)
        masks[smoothing] = [int(read_mask(p, LIMITS)[5, 5]) for p in sorted(folder.iterdir())]
    assert masks == {0.0: [0, 0, 0, 0, 128, 0, 0, 0], 0.8: [0] * 8}

    path = clip(tmp_path / "clip.avi")
    run(path, tmp_path / "out.mp4", masks=tmp_path / "smooth", smoothing=0.6)
    mean = None
    for index, frame in enumerate(frames_of(path)):
        told = segmenter().predict(frame[:, :, ::-1], probabilities=True).probabilities.astype(float)
        mean = told if mean is None else 0.6 * mean + 0.4 * told
        top = np.sort(mean, 0)
        sure = top[-1] - top[-2] > 1e-5
        ids = CLASSES.encode(read_mask(tmp_path / "smooth" / f"{index:06d}.png", LIMITS))
        assert sure.mean() > 0.99 and (ids == mean.argmax(0))[sure].all()


def test_specks_are_mended_after_the_smoothing(tmp_path: Path) -> None:
    """Of four pixels: gone where nine are asked for, with or without the average, and there where three are enough."""
    speckled = np.full((16, 24, 3), 250, np.uint8)
    speckled[4:6, 4:6] = 2
    path = write(tmp_path / "specks.avi", [speckled] * 3)
    for smoothing in (0.0, 0.5):
        for least, left in (((0, 9, 0), False), ((0, 3, 0), True)):
            model = segmenter(cleaning=Cleaning(least=least))
            video, folder = open_video(str(path), LIMITS), tmp_path / f"{smoothing}-{left}"
            segment_video(model, video, tmp_path / "out.mp4", masks=folder, smoothing=smoothing)
            video.close()
            assert [128 in read_mask(p, LIMITS) for p in sorted(folder.iterdir())] == [left] * 3


def test_a_detector_draws_its_classes(tmp_path: Path) -> None:
    from segpipe.inference.detector import DetectorEngine
    from tests.inference.test_detector import found

    class Finds(DetectorEngine):
        def __init__(self) -> None:
            pass

        def detect(self, batch):
            return found(((2, 2, 12, 10), 1, 0.9), ((14, 4, 20, 14), 2, 0.8))

    model = segmenter(Finds(), task="instance")
    for smoothing in (0.0, 0.5):
        folder = tmp_path / str(smoothing)
        report = segment_video(
            model, Video(Reel(grey(3)), "x", live=False), tmp_path / "out.mp4", masks=folder, smoothing=smoothing
        )
        ids = CLASSES.encode(read_mask(folder / "000002.png", LIMITS))
        np.testing.assert_array_equal(ids, model.predict(grey(1)[0]).class_ids)
        assert (ids == 1).sum() == 80 and (ids == 2).sum() == 60
        assert "network" in {step.step for step in report.steps}


def test_a_working_size_is_what_the_network_sees(tmp_path: Path) -> None:
    path, engine = clip(tmp_path / "clip.avi", 3, 64, 96), Pixelwise()
    report = run(path, tmp_path / "out.mp4", engine, masks=tmp_path / "masks", edge=48)
    assert engine.shapes == [(1, 3, 32, 48)] * 3
    assert (report.size, report.working_size) == ((96, 64), (48, 32))
    small = cv2.resize(frames_of(path)[1], (48, 32), interpolation=cv2.INTER_AREA)
    ids = np.kron(segmenter().predict(small[:, :, ::-1]).class_ids, np.ones((2, 2), np.uint8))
    np.testing.assert_array_equal(CLASSES.encode(read_mask(tmp_path / "masks" / "000001.png", LIMITS)), ids)


def test_a_camera_shows_its_newest_frame(tmp_path: Path) -> None:
    reel = Reel(grey(30))
    engine = Hooked(lambda call: reel.empty.wait(60))  # the network is slow: meanwhile the camera shows all it has
    report = segment_video(
        segmenter(engine), Video(reel, "camera-0", live=True), tmp_path / "out.mp4", masks=tmp_path / "masks"
    )
    assert report.frames in (1, 2) and report.frames + report.dropped == 30
    assert (tmp_path / "masks" / "000029.png").exists(), "the last one is always seen"
    assert report.promised is None and not report.cut_short


def test_a_file_loses_no_frame_however_slow_the_network(tmp_path: Path) -> None:
    engine = Hooked(lambda call: time.sleep(0.003))
    report = segment_video(segmenter(engine), Video(Reel(grey(30), 30), "file", live=False), tmp_path / "out.mp4")
    assert (report.frames, report.dropped) == (30, 0) and len(frames_of(tmp_path / "out.mp4")) == 30


def test_a_camera_that_stutters_is_shown_at_its_own_pace(tmp_path: Path) -> None:
    """Ten frames a second by the header, three in 0.6 s: played back, they last as long as they took."""
    answered = threading.Semaphore(1)

    class Stutters(Video):
        def read(self):
            assert answered.acquire(timeout=60), "so that none is passed over"
            frame = super().read()
            return frame and replace(frame, read_at=0.3 * frame.index)

    model = segmenter(Hooked(lambda call: answered.release()))
    report = segment_video(model, Stutters(Reel(grey(3)), "camera-0", live=True), tmp_path / "out.mp4")
    assert report.frames == 3 and len(frames_of(tmp_path / "out.mp4")) == 7


def test_ctrl_c_leaves_a_video_that_plays(tmp_path: Path) -> None:
    stop = threading.Event()
    engine = Hooked(lambda call: stop.set() if call == 5 else None)
    report = run(clip(tmp_path / "clip.avi", 40), tmp_path / "out.mp4", engine, stop=stop)
    assert report.interrupted and not report.cut_short and report.frames == 6
    assert len(frames_of(tmp_path / "out.mp4")) == 6
    assert threading.active_count() == 1 or all(not t.name.startswith("video") for t in threading.enumerate())


def test_ctrl_c_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        segment_video(segmenter(), Video(Reel(grey(3)), "x", live=False), tmp_path / "out.mp4", stop=stop)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_cut_short_keeps_what_was_read(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.avi", 40, 120, 160)
    content = whole.read_bytes()
    (tmp_path / "half.avi").write_bytes(content[: len(content) // 2])
    report = run(tmp_path / "half.avi", tmp_path / "out.mp4")
    assert report.cut_short and report.promised == 40 and 5 < report.frames < 35
    assert len(frames_of(tmp_path / "out.mp4")) == report.frames


@pytest.mark.parametrize(
    ("promised", "there", "cut"), [(40, 39, False), (40, 38, True), (1000, 990, False), (0, 5, False)]
)
def test_headers_may_be_off_a_little(tmp_path: Path, promised: int, there: int, cut: bool) -> None:
    video = Video(Reel(grey(there), promised), "x", live=False)
    assert segment_video(segmenter(), video, tmp_path / "out.avi").cut_short is cut


def test_bad_sources_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_bytes(b"these are words" * 99)
    with pytest.raises(MissingError, match=r"absent\.mp4: no such video.*camera"):
        open_video(str(tmp_path / "absent.mp4"), LIMITS)
    with pytest.raises(DataError, match=r"notes\.mp4: cannot be opened.*1,485 bytes.*ffmpeg"):
        open_video(str(tmp_path / "notes.mp4"), LIMITS)
    with pytest.raises(MissingError, match=r"no such camera.*found 97"):
        open_video("97", LIMITS)
    with pytest.raises(DataError, match=r"too many pixels.*max_megapixels"):
        open_video(str(clip(tmp_path / "clip.avi", 2)), DataParams(max_megapixels=0.001))
    with pytest.raises(DataError, match="no frame"):
        segment_video(segmenter(), Video(Reel([], 9), "empty", live=False), tmp_path / "out.mp4")
    volumes = segmenter(dims=3, patch3d=(8, 8, 8))
    with pytest.raises(DataError, match="takes volumes"):
        segment_video(volumes, Video(Reel(grey(2)), "x", live=False), tmp_path / "out.mp4")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "000000.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds masks already"):
        segment_video(
            segmenter(), Video(Reel(grey(2)), "x", live=False), tmp_path / "out.mp4", masks=tmp_path / "masks"
        )
    assert not list(tmp_path.glob("*out*")), "nothing is left of what failed"


def test_where_the_overlay_goes(tmp_path: Path) -> None:
    video = Video(Reel([]), "my drive", live=False)
    assert overlay_path(tmp_path / "x.avi", video) == tmp_path / "x.avi"
    assert overlay_path(tmp_path / "new", video) == tmp_path / "new" / "my_drive.mp4"
    with pytest.raises(ConfigError, match=r"found x\.mkv, expected \.mp4 or \.avi"):
        overlay_path(tmp_path / "x.mkv", video)


def test_what_fails_in_any_thread_ends_all_and_leaves_no_file(tmp_path: Path) -> None:
    def explode(call: int) -> None:
        if call == 3:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(clip(tmp_path / "clip.avi", 40), tmp_path / "out.mp4", Hooked(explode))

    reel = Reel(grey(40))
    reel.read = lambda: (_ for _ in ()).throw(OSError("camera unplugged"))
    with pytest.raises(OSError, match="unplugged"):
        segment_video(segmenter(), Video(reel, "x", live=False), tmp_path / "out.mp4")

    import shutil

    masks = tmp_path / "masks"
    engine = Hooked(lambda call: shutil.rmtree(masks) if call == 3 else None)
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "clip.avi", tmp_path / "out.mp4", engine, masks=masks)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.avi"]


def test_the_painter_draws_what_overlays_show() -> None:
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    ids = np.kron(rng.integers(0, 3, (5, 6)), np.ones((8, 10))).astype(np.uint8)
    ids[:4] = 255
    wanted = overlay(frame[:, :, ::-1], ids, CLASSES.colors)
    gap = np.abs(Painter(CLASSES)(frame, ids)[:, :, ::-1].astype(int) - wanted)
    assert gap.max() <= 2 and np.abs(frame[:, :, ::-1].astype(int) - wanted).max() > 50


def test_a_channel_hands_over_in_order_and_waits_for_room() -> None:
    channel: ClosableQueue[int] = ClosableQueue(2)
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.extend(channel))
    assert channel.put(0) and channel.put(1)
    reader.start()
    assert all(channel.put(i) for i in range(2, 100))
    channel.close()
    reader.join(60)
    assert taken == list(range(100)) and channel.dropped == 0


def test_a_channel_that_is_abandoned_frees_who_waits() -> None:
    channel: ClosableQueue[int] = ClosableQueue(1)
    channel.put(0)
    answers: list[bool] = []
    writer = threading.Thread(target=lambda: answers.append(channel.put(1)))
    writer.start()
    channel.abandon()
    writer.join(60)
    assert answers == [False] and list(channel) == []


def test_the_newest_takes_the_place_of_the_oldest() -> None:
    channel: ClosableQueue[int] = ClosableQueue(2, newest=True)
    assert all(channel.put(i) for i in range(5))
    channel.close()
    assert list(channel) == [3, 4] and channel.dropped == 3
