"""Measure the frame rate of `segpipe predict --video`, end to end (decoding to encoding), for all engines in one run.

    python benchmarks/video.py ../shared/data --budget 5m --work /tmp/video
    python benchmarks/video.py ../shared/data --family unet --encoder tf_efficientnet_lite0 --budget 5m
    python benchmarks/video.py ../shared/data --smoothing 0

Trains the family on CamVid (results in the work folder are reused), exports and quantises it, and segments a video of the test images at
`--size` x `--size`. The engines take turns, and the best turn of each counts. The target is 30 frames per second on two cores at 256 x 256.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from time_to_quality import prepare, segpipe

from segpipe.config import DataParams
from segpipe.workspace.params_file import set_params

CANDIDATE = "bench"


def trained(root: Path, arguments: argparse.Namespace) -> Path:
    """Train in a workspace with CamVid's shards, and return the folder of the trained model."""
    model = root / "models" / CANDIDATE
    if not (root / "artifacts" / "shards").exists():
        prepare(root, arguments.data, "camvid", arguments.budget, 0, {CANDIDATE: arguments.family})
    if not model.exists():
        candidate = {"family": arguments.family, "encoder_weights": arguments.weights} | (
            {"encoder": arguments.encoder} if arguments.encoder else {}
        )
        set_params(root, {"candidates": {CANDIDATE: candidate}, "train.budget": arguments.budget})
        for stage in ("plan", "train"):
            segpipe(root, stage, CANDIDATE)
    return model


def make_video(reader: Any, path: Path, size: int, frames: int) -> None:
    """Write a video of the images of a split at `size` x `size`, repeated as often as needed."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (size, size))
    for index in range(frames):
        image = reader[index % len(reader)].image[..., ::-1]
        writer.write(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))
    writer.release()


def engines(model: Path, shards: Path, folder: Path) -> dict[str, Any]:
    """Return a segmenter for each available engine, by name: float32, bfloat16, and int8 calibrated on the training images."""
    from segpipe.data.shards import ShardReader
    from segpipe.inference.engines.engine import GRAPH_ENGINES, INT8_ENGINES
    from segpipe.inference.engines.graph_export import export_graph
    from segpipe.inference.segmenter import Segmenter
    from segpipe.inference.spec import GRAPH_FILE, INT8_FILE
    from segpipe.inference.trained_model import load_trained
    from segpipe.release.export.int8 import calibration_batches, quantise

    network = load_trained(model)
    export_graph(network, folder / GRAPH_FILE)
    segmenters = {name: Segmenter(network.spec, make(folder / GRAPH_FILE, 0)) for name, make in GRAPH_ENGINES.items()}
    inputs = calibration_batches(segmenters["onnxruntime"], ShardReader(shards, "train"))
    quantise(folder / GRAPH_FILE, inputs, folder / INT8_FILE)
    return segmenters | {
        name: Segmenter(network.spec, make(folder / INT8_FILE, 0)) for name, make in INT8_ENGINES.items()
    }


def main() -> None:
    """Train if needed, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds camvid/")
    parser.add_argument("--family", default="lraspp_mobilenetv3")
    parser.add_argument("--encoder", default=None)
    parser.add_argument("--weights", default="none", help="initial weights of the encoder")
    parser.add_argument("--budget", default="5m", help="budget of the training")
    parser.add_argument("--work", type=Path, default=None, help="folder of the workspace; by default a temporary one")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--smoothing", type=float, default=0.6)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    from segpipe.data.shards import ShardReader
    from segpipe.inference.video.frame_source import open_video
    from segpipe.inference.video.segment_video import VideoReport, segment_video
    from segpipe.training.scoring import score_split

    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder)
        root = arguments.work or temporary / "work"
        model, shards = trained(root, arguments), root / "artifacts" / "shards"
        make_video(ShardReader(shards, "test"), temporary / "camvid.mp4", arguments.size, arguments.frames)
        segmenters = engines(model, shards, temporary)
        for segmenter in segmenters.values():  # compiles the engine for this size
            segmenter.predict(np.zeros((arguments.size, arguments.size, 3), np.uint8))
        best: dict[str, VideoReport] = {}
        for turn in range(arguments.turns):
            for name, segmenter in segmenters.items():
                with closing(open_video(str(temporary / "camvid.mp4"), DataParams())) as video:
                    report = segment_video(segmenter, video, temporary / "out.mp4", smoothing=arguments.smoothing)
                print(f"turn {turn + 1}  {name:<18} {report.fps:7.1f} frames/s", flush=True)
                if name not in best or report.fps > best[name].fps:
                    best[name] = report
        print(f"{arguments.family}, {arguments.size} x {arguments.size}, smoothing {arguments.smoothing:g}")
        print(f"{'engine':<18} frames/s       vs fp32  latency ms (95 %)  network ms  other steps ms  val IoU")
        for name, report in best.items():
            steps = {step.step: step.p50_ms for step in report.steps}
            rest = sum(steps.values()) - steps["network"]
            val = score_split(segmenters[name], ShardReader(shards, "val")).iou_macro
            print(
                f"{name:<18} {report.fps:8.1f}  {report.fps / best['openvino'].fps:12.2f}  "
                f"{report.latency_p50_ms:9.0f} ({report.latency_p95_ms:4.0f})  {steps['network']:10.1f}  {rest:14.1f}  {val:7.4f}"
            )


if __name__ == "__main__":
    main()
