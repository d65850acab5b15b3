"""`segpipe predict`: images, or a video, through the model that is live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json, print_table, workspace_root

if TYPE_CHECKING:
    from segpipe.config import DataParams
    from segpipe.inference.segmenter import Segmenter
    from segpipe.inference.video.segment_video import VideoReport

EXAMPLE = "segpipe predict scans/ --out predictions\nsegpipe predict --video drive.mp4 --out drive-overlay.mp4"

_MODELS = "The folder of a bundle; by default the one that is live, or bundle/ where nothing is."
_OUT = "Where masks and overlays go; of a video, a folder, or the overlay itself (.mp4, .avi)."
_VIDEO = "Instead of images: a video file, the number of a camera (0), or the URL of a stream (rtsp://...)."
_SMOOTHING = "Of a video: how much of the average over the frames before goes into a frame's probabilities; 0: nothing."
_SIZE = "Of a video: the longer edge in pixels at which the network sees the frames; by default as they are."
_MASKS = "Of a video: also write the mask of each frame into this folder, as PNG."


def predict(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders of them.", metavar="IMAGES...")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help=_OUT)] = Path("predictions"),
    model: Annotated[Path | None, typer.Option("--model", help=_MODELS)] = None,
    video: Annotated[str | None, typer.Option("--video", help=_VIDEO, metavar="FILE|CAMERA")] = None,
    smoothing: Annotated[float, typer.Option("--smoothing", min=0.0, max=0.99, help=_SMOOTHING)] = 0.6,
    size: Annotated[int | None, typer.Option("--size", min=32, help=_SIZE)] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help=_MASKS, metavar="DIR")] = None,
    json: Json = False,
) -> None:
    """Segment images: a mask and an overlay each, and predictions.json. Exit code 3 when an image could not be read.

    With --video, segment a video: its frames with the classes drawn over them. Ctrl-C finishes the file that is being written.
    Exit code 3 when the video is cut short: what could be read is kept.
    """
    from segpipe.config import DataParams, load_params
    from segpipe.errors import ConfigError
    from segpipe.inference.segmenter import Segmenter

    if bool(images) == (video is not None):
        found = "both" if images else "nothing"
        raise ConfigError("what is to be segmented?", found=found, expected="either image files or folders, or --video")
    limits = load_params(root := workspace_root()).data if model is None else DataParams()  # type: ignore[call-arg]
    segmenter = Segmenter.from_bundle(model or live_bundle(root))
    if video is not None:
        _predict_video(segmenter, video, limits, out, smoothing, size, masks, json)
    else:
        _predict_images(segmenter, images or [], limits, out, json)


def _predict_images(segmenter: Segmenter, images: list[Path], limits: DataParams, out: Path, json: bool) -> None:
    from segpipe.errors import DataError
    from segpipe.inference.files.batch import predict_files

    rows = predict_files(segmenter, images, out, limits)
    if json:
        print_json(rows)
    else:
        typer.echo(out)
    if failed := [row for row in rows if "error" in row]:
        raise DataError(f"{len(failed)} of {len(rows)} images could not be segmented, the first: {failed[0]['error']}")


def _predict_video(
    segmenter: Segmenter,
    where: str,
    limits: DataParams,
    out: Path,
    smoothing: float,
    size: int | None,
    masks: Path | None,
    json: bool,
) -> None:
    from contextlib import closing

    from segpipe.errors import ConfigError, DataError
    from segpipe.inference.video.frame_source import open_video
    from segpipe.inference.video.segment_video import overlay_path, segment_video
    from segpipe.progress import say
    from segpipe.signals import stop_requests

    with closing(open_video(where, limits)) as video, stop_requests() as stop:
        overlay = overlay_path(out, video)
        if overlay.resolve() == Path(where).resolve():
            raise ConfigError("the overlay would replace the video", where=overlay, fix="give another --out")
        if video.live:
            say(f"predict: {video.name}; Ctrl-C ends it")
        report = segment_video(segmenter, video, overlay, masks=masks, smoothing=smoothing, edge=size, stop=stop)
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        _show(report)
    if report.cut_short:
        raise DataError(
            "the video is cut short; what could be read is kept",
            where=where,
            found=f"{report.frames} frames",
            expected=f"{report.promised}, as its header says",
            fix="copy the file again from where it came",
        )
    if report.interrupted and not video.live:
        raise KeyboardInterrupt


def _show(report: VideoReport) -> None:
    """Rates and the table of steps, then where the overlay is."""
    width, height = report.size
    seen = "" if report.size == report.working_size else ", seen at {} x {}".format(*report.working_size)
    dropped = f" ({report.dropped} passed over)" if report.dropped else ""
    kept = f"smoothing {report.smoothing:g}, half-life {report.half_life_frames:.1f} frames"
    print(
        f"{report.frames} frames of {width} x {height}{seen}, {kept if report.smoothing else 'no smoothing'}{dropped}"
    )
    rows = [[s.step, f"{s.p50_ms:.1f}", f"{s.p95_ms:.1f}", f"{s.share:.0%}"] for s in report.steps]
    print_table(["step", "median ms", "95 % ms", "share"], rows)
    print(
        f"{report.fps:.1f} frames/s on {report.engine}; a frame is written {report.latency_p50_ms:.0f} ms after it was read "
        f"(95 %: {report.latency_p95_ms:.0f} ms)"
    )
    typer.echo(report.overlay)


def live_bundle(root: Path) -> Path:
    """The bundle that is live in the stage of params.yaml, or the pipeline's own where nothing is."""
    from segpipe.config import load_params
    from segpipe.errors import MissingError
    from segpipe.release import registry

    version = registry.live(root, load_params(root).release.stage)
    if version is not None:
        return registry.release_bundle(root, version)
    if not (root / "bundle").is_dir():
        raise MissingError("no model here yet", where=root, fix="segpipe run, or name one with --model")
    return root / "bundle"
