"""Quantise a network to 8-bit integers after training, and judge it by its scores on validation images.

Static quantisation with ONNX Runtime's tools (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html): the
weights of convolutions become int8, with one scale per output channel; their inputs become uint8, scaled by their range on training
images. The masks then differ in some pixels, so agreement with the trained network cannot be the criterion. The criterion is the
drop of the score on the validation split; the test split is not used.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.inference.engines.engine import INT8_ENGINES, Batch, Engine
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import INT8_FILE
from segpipe.metrics import Tallies, macro, per_class, tallies
from segpipe.release.export.engine_selection import EngineComparison, EngineTrial, engine_loaders, failed_trial
from segpipe.training.sampling.crops import Reader

CALIBRATION_IMAGES = 64
"""Largest number of training images that set the ranges of the activations."""
VALIDATION_IMAGES = 200
"""Largest number of validation images, evenly spaced, on which the scores are compared."""

_QUANTISED = ["Conv", "ConvTranspose"]
"""Operators whose inputs and weights are quantised. Their outputs are not: engines fuse the next operation (an activation, a sum)
with the convolution, which only works on unrounded outputs."""


@dataclass(frozen=True)
class QuantisationData:
    """The labelled images for quantisation."""

    train: Reader
    """The training images, for calibration."""
    val: Reader
    """The validation images, for the scores."""


class Int8Trial(EngineTrial):
    """The result of an engine in 8-bit integers. Scores are pairs (float32, int8) on the same validation images."""

    val_images: int
    val_iou: tuple[float, float]
    """Macro IoU; pixels are counted over the whole split."""
    val_dice: tuple[float, float]
    """Macro Dice; pixels are counted over the whole split."""
    worst_class: str
    """The class whose IoU drops most."""
    worst_iou: tuple[float, float]
    """IoU of that class."""


def try_int8(comparison: EngineComparison, graph: Path, images: QuantisationData, max_drop: float) -> None:
    """Quantise a graph, and add each engine that computes in integers to a comparison.

    If quantisation fails or an engine does not run, the engine is not eligible and its trial has the reason.

    Args:
        comparison: a comparison with the float32 engines.
        graph: the float32 graph; the quantised graph is written next to it as INT8_FILE.
        images: images for calibration and scores.
        max_drop: the largest accepted drop of macro IoU and of macro Dice on the validation split, compared with float32.
    """
    float_model = next((comparison.running[name] for name, trial in comparison.trials.items() if trial.eligible), None)
    if float_model is None:
        return  # no engine is eligible at all; `choose_engine` raises the error
    quantised = graph.with_name(INT8_FILE)
    try:
        quantise(graph, calibration_batches(float_model, images.train), quantised)
    except (RuntimeError, ValueError) as error:
        comparison.trials |= {name: failed_trial(name, error) for name in INT8_ENGINES}
        return
    indices = evenly_spaced(len(images.val), VALIDATION_IMAGES)
    before = _tally(float_model, images.val, indices)
    names = comparison.spec.classes.names

    def judge(name: str, segmenter: Segmenter, share: float) -> EngineTrial:
        return judge_int8(name, share, before, _tally(segmenter, images.val, indices), names, len(indices), max_drop)

    comparison.add(engine_loaders(INT8_ENGINES, quantised), judge)


def judge_int8(
    name: str, share: float, before: Tallies, after: Tallies, classes: list[str], images: int, max_drop: float
) -> Int8Trial:
    """Judge an engine in int8 by its validation scores.

    Args:
        name: the engine.
        share: its agreement with the trained network on the golden images; recorded only.
        before: tallies (3, n_classes) of the float32 network on the validation images.
        after: tallies of the int8 network on the same images.
        classes: names of the classes.
        images: number of validation images.
        max_drop: the largest accepted drop of macro IoU and of macro Dice.
    """
    iou, dice = ((float(macro(ratio, before)), float(macro(ratio, after))) for ratio in ("iou", "dice"))
    class_iou, int8_class_iou = (np.nan_to_num(per_class("iou", tally)) for tally in (before, after))
    worst = int(np.argmax(class_iou - int8_class_iou))
    worst_iou = float(class_iou[worst]), float(int8_class_iou[worst])
    drop = max(iou[0] - iou[1], dice[0] - dice[1])
    words = (
        f"changes val IoU {iou[0]:.4f} -> {iou[1]:.4f}, Dice {dice[0]:.4f} -> {dice[1]:.4f} on {images} images "
        f"(worst class {classes[worst]}: IoU {worst_iou[0]:.4f} -> {worst_iou[1]:.4f})"
    )
    accepted = bool(drop <= max_drop)  # False if a score is NaN
    return Int8Trial(
        engine=name,
        agreement=share,
        eligible=accepted,
        val_images=images,
        val_iou=iou,
        val_dice=dice,
        worst_class=classes[worst],
        worst_iou=worst_iou,
        reason=words if accepted else f"{words}, a drop of {drop:.4f}, but `export.int8_max_drop` allows {max_drop:g}",
    )


def describe_int8(trials: list[EngineTrial], chosen: EngineTrial) -> str:
    """Describe the int8 result in a sentence for the card.

    Args:
        trials: all trials, at least one of them of an int8 engine.
        chosen: the trial of the engine that serves.
    """
    float_trials = [t for t in trials if t.engine not in INT8_ENGINES and t.eligible and t.median_ms]
    fastest = min(float_trials, key=lambda t: t.median_ms or 0.0, default=None)
    int8_trials = [t for t in trials if t.engine in INT8_ENGINES]
    best = min(int8_trials, key=lambda t: (t is not chosen, not t.eligible, t.median_ms or np.inf))
    words = f"int8 ({best.engine}) {best.reason}"
    if best.eligible and best.median_ms and fastest and fastest.median_ms:
        words += f"; it is {fastest.median_ms / best.median_ms:.2f} times as fast as {fastest.engine}"
    return f"{words}; {'it serves' if best is chosen else f'it does not serve, {chosen.engine} does'}"


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Return at most `limit` of the indices 0 .. count - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int)).tolist()


def _tally(segmenter: Segmenter, reader: Reader, indices: list[int]) -> Tallies:
    from segpipe.training.scoring import count_split

    return tallies(count_split(segmenter, reader, indices), segmenter.spec.classes.labelling)


class _Recorder:
    """An engine that records its inputs."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name = engine, engine.name
        self.batches: list[Batch] = []

    def __call__(self, batch: Batch) -> npt.NDArray[np.float32]:
        self.batches.append(batch)
        return self.engine(batch)


def calibration_batches(segmenter: Segmenter, reader: Reader) -> Iterator[Batch]:
    """Yield the network's input batches (N, C, H, W), float32, for some training images, prepared and tiled as `predict` does it.

    Args:
        segmenter: the model in float32.
        reader: the training images; at most `CALIBRATION_IMAGES` of them are used, evenly spaced.
    """
    recorder = _Recorder(segmenter.engine)
    recording = Segmenter(segmenter.spec, recorder)
    for index in evenly_spaced(len(reader), CALIBRATION_IMAGES):
        recording.segment(reader[index])
        yield from recorder.batches
        recorder.batches.clear()


class _Batches:
    """Batches in the form that ONNX Runtime's calibration expects (`CalibrationDataReader`)."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Batch] | None:
        """Return the next batch by the name of the graph's input; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def quantise(graph: Path, batches: Iterator[Batch], out: Path) -> None:
    """Quantise a float32 ONNX graph to 8-bit weights and activations (QDQ format).

    Args:
        graph: the float32 graph.
        batches: inputs of the graph, (N, C, H, W), for calibration.
        out: the file to write.

    Raises:
        RuntimeError: ONNX Runtime cannot quantise the graph.
        ValueError: ONNX Runtime cannot quantise the graph.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory(prefix="segpipe-int8-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        root.setLevel(logging.ERROR)  # ONNX Runtime logs advice with the root logger
        try:
            quant_pre_process(graph, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                out,
                _Batches(batches),
                QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": _QUANTISED},
            )
        finally:
            root.setLevel(level)
