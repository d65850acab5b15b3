"""`segpipe predict`: segment images or a video with the live model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json, print_table, workspace_root

if TYPE_CHECKING:
    from segpipe.config import DataParams
    from segpipe.inference.files.earlier_run import Existing
    from segpipe.inference.segmenter import Segmenter
    from segpipe.inference.video.segment_video import VideoReport

EXAMPLE = "segpipe predict scans/ --out predictions\nsegpipe predict --video drive.mp4 --out drive-overlay.mp4"

_MODEL = "Folder of the bundle to use. Default: the live version, or bundle/ if nothing is live."
_OUT = "Folder for masks and overlays. For a video: a folder, or the file of the overlay (.mp4, .avi)."
_RESUME = (
    "Continue an earlier run in the folder: images whose results are there, and newer than the image, are skipped."
)
_OVERWRITE = "Replace the results of an earlier run in the folder. Only files that it wrote are removed."
_VIDEO = "Instead of images: a video file, the number of a camera (0), or the URL of a stream (rtsp://...)."
_SMOOTHING = "For a video: weight of the running average of earlier frames in the probabilities of a frame; 0 turns smoothing off."
_SIZE = "For a video: longer edge in pixels to which frames are resized for the network. Default: no resizing."
_MASKS = "For a video: also write the mask of each frame into this folder, as PNG."


def predict(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders with image files.", metavar="IMAGES...")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help=_OUT)] = Path("predictions"),
    model: Annotated[Path | None, typer.Option("--model", help=_MODEL)] = None,
    video: Annotated[str | None, typer.Option("--video", help=_VIDEO, metavar="FILE|CAMERA")] = None,
    smoothing: Annotated[float, typer.Option("--smoothing", min=0.0, max=0.99, help=_SMOOTHING)] = 0.6,
    size: Annotated[int | None, typer.Option("--size", min=32, help=_SIZE)] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help=_MASKS, metavar="DIR")] = None,
    resume: Annotated[bool, typer.Option("--resume", help=_RESUME)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE)] = False,
    json: Json = False,
) -> None:
    """Segment images or a video: write a mask and an overlay for each image, or an overlay video.

    The masks keep the folders and names of the images, and predictions.json lists the results. For a video, Ctrl-C ends the prediction and
    completes the output file.

    Exit codes:
    - 0: done
    - 3: an image could not be segmented, or the video is truncated; everything that could be read was written
    - 6: there is no model
    - 130: interrupted
    """
    from segpipe.config import DataParams, load_params
    from segpipe.errors import ConfigError
    from segpipe.inference.segmenter import Segmenter

    if bool(images) == (video is not None):
        raise ConfigError(
            "needs either images or --video",
            found="images and --video" if images else "neither images nor --video",
            expected="exactly one of them",
        )
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", fix="give one of them")
    if model is None:
        root = workspace_root()
        model, limits = live_bundle(root), load_params(root).data
    else:
        limits = DataParams()
    segmenter = Segmenter.from_bundle(model)
    if video is not None:
        _predict_video(segmenter, video, limits, out, smoothing, size, masks, json)
    else:
        existing: Existing = "resume" if resume else "overwrite" if overwrite else "refuse"
        _predict_images(segmenter, images or [], limits, out, existing, json)


def _predict_images(
    segmenter: Segmenter, images: list[Path], limits: DataParams, out: Path, existing: Existing, json: bool
) -> None:
    from segpipe.errors import DataError
    from segpipe.inference.files.batch import predict_files

    rows = predict_files(segmenter, images, out, limits, existing)
    if json:
        print_json(rows)
    else:
        typer.echo(out)
    if failed := [row for row in rows if "error" in row]:
        raise DataError(f"{len(failed)} of {len(rows)} images could not be segmented, the first: {failed[0]['error']}")


def _predict_video(
    segmenter: Segmenter,
    source: str,
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

    with closing(open_video(source, limits)) as video, stop_requests() as stop:
        overlay = overlay_path(out, video)
        if overlay.resolve() == Path(source).resolve():
            raise ConfigError("the overlay would overwrite the video", where=overlay, fix="choose another --out")
        if video.live:
            say(f"predict: {video.name}; Ctrl-C ends the prediction")
        report = segment_video(segmenter, video, overlay, masks=masks, smoothing=smoothing, edge=size, stop=stop)
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        _show(report)
    if report.cut_short:
        raise DataError(
            "the video is truncated; the frames that could be read are in the output",
            where=source,
            found=f"{report.frames} frames",
            expected=f"{report.promised}, according to its header",
            fix="copy the file again from its source",
        )
    if report.interrupted and not video.live:
        raise KeyboardInterrupt


def _show(report: VideoReport) -> None:
    """Print frame rates, the time of each step, and the path of the overlay."""
    width, height = report.size
    resized = "" if report.size == report.working_size else ", resized to {} x {}".format(*report.working_size)
    dropped = f" ({report.dropped} dropped)" if report.dropped else ""
    smoothing = "no smoothing"
    if report.smoothing:
        smoothing = f"smoothing {report.smoothing:g}, half-life {report.half_life_frames:.1f} frames"
    print(f"{report.frames} frames of {width} x {height}{resized}, {smoothing}{dropped}")
    rows = [[s.step, f"{s.p50_ms:.1f}", f"{s.p95_ms:.1f}", f"{s.share:.0%}"] for s in report.steps]
    print_table(["step", "median ms", "95 % ms", "share"], rows)
    print(
        f"{report.fps:.1f} frames/s on {report.engine}; frames are written {report.latency_p50_ms:.0f} ms after they are read "
        f"(95 %: {report.latency_p95_ms:.0f} ms)"
    )
    typer.echo(report.overlay)


def live_bundle(root: Path) -> Path:
    """Return the live bundle of the stage in params.yaml, or the pipeline's bundle if nothing is live.

    Raises:
        MissingError: there is neither.
    """
    from segpipe.config import load_params
    from segpipe.errors import MissingError
    from segpipe.release import promotion, registry
    from segpipe.workspace.paths import Paths

    version = promotion.live(root, load_params(root).release.stage)
    if version is not None:
        return registry.release_bundle(root, version)
    bundle = Paths(root).bundle
    if not bundle.is_dir():
        raise MissingError(
            "no model in this workspace yet", where=root, fix="segpipe run, or name a bundle with --model"
        )
    return bundle
