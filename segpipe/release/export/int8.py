"""A network in 8-bit integers: quantised after training, on training images, and judged by what that costs on validation images.

Static quantisation (ONNX Runtime's tools): the weights of convolutions become int8, with a scale for each output channel, what goes
in uint8, by the range that it has on training images. Masks then differ on some pixels, so that agreement with the trained network is no
criterion. What counts is how far the score on the validation split falls; the test split has no say.
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
"""Training images whose activations set the ranges."""
VALIDATION_IMAGES = 200
"""Validation images, evenly spaced, on which the score is compared."""

_QUANTISED = ["Conv", "ConvTranspose"]
"""Operators whose inputs and weights are rounded. Their results are not: what follows (an activation, a sum) takes them whole, and
is computed in one go with the convolution."""


@dataclass(frozen=True)
class QuantisationData:
    """The labelled images that int8 is made and judged with."""

    train: Reader
    val: Reader


class Int8Trial(EngineTrial):
    """How an engine did in 8-bit integers; scores in float32 and then in int8, of the same validation images."""

    val_images: int
    val_iou: tuple[float, float]
    val_dice: tuple[float, float]
    """Macro over classes, counted over the whole split."""
    worst_class: str
    worst_iou: tuple[float, float]
    """Of the class whose IoU falls most."""


def try_int8(contest: EngineComparison, graph: Path, examples: QuantisationData, max_drop: float) -> None:
    """Quantise a graph into INT8_FILE beside it, and try it on each engine that computes in integers.

    max_drop: how far macro IoU and macro Dice of the validation split may fall against the float32 network. An engine that can't
    quantise or run is no candidate, and says why.
    """
    floating = next((contest.running[name] for name, trial in contest.trials.items() if trial.eligible), None)
    if floating is None:
        return  # no engine serves at all, and the choice will say so
    quantised = graph.with_name(INT8_FILE)
    try:
        quantise(graph, calibration_batches(floating, examples.train), quantised)
    except (RuntimeError, ValueError) as error:
        contest.trials |= {name: failed_trial(name, error) for name in INT8_ENGINES}
        return
    indices = evenly_spaced(len(examples.val), VALIDATION_IMAGES)
    before = _tally(floating, examples.val, indices)
    names = contest.spec.classes.names

    def judge(name: str, segmenter: Segmenter, share: float) -> EngineTrial:
        return judge_int8(name, share, before, _tally(segmenter, examples.val, indices), names, len(indices), max_drop)

    contest.enter(engine_loaders(INT8_ENGINES, quantised), judge)


def judge_int8(
    name: str, share: float, before: Tallies, after: Tallies, classes: list[str], images: int, max_drop: float
) -> Int8Trial:
    """The verdict on an engine in int8, from the tallies (3, n_classes) of the float32 network and its own."""
    iou, dice = ((float(macro(ratio, before)), float(macro(ratio, after))) for ratio in ("iou", "dice"))
    was, now = np.nan_to_num(per_class("iou", before)), np.nan_to_num(per_class("iou", after))
    worst = int(np.argmax(was - now))
    drop = max(iou[0] - iou[1], dice[0] - dice[1])
    words = (
        f"changes val IoU {iou[0]:.4f} -> {iou[1]:.4f}, Dice {dice[0]:.4f} -> {dice[1]:.4f} on {images} images "
        f"(worst class {classes[worst]}: IoU {was[worst]:.4f} -> {now[worst]:.4f})"
    )
    accepted = bool(drop <= max_drop)  # not where a score is NaN
    return Int8Trial(
        engine=name,
        agreement=share,
        eligible=accepted,
        val_images=images,
        val_iou=iou,
        val_dice=dice,
        worst_class=classes[worst],
        worst_iou=(float(was[worst]), float(now[worst])),
        reason=words if accepted else f"{words}, a fall of {drop:.4f} where `export.int8_max_drop` allows {max_drop:g}",
    )


def describe_int8(trials: list[EngineTrial], chosen: EngineTrial) -> str:
    """What became of int8, in a sentence for the card."""
    whole = [t for t in trials if t.engine not in INT8_ENGINES and t.eligible and t.median_ms]
    fastest = min(whole, key=lambda t: t.median_ms or 0.0, default=None)
    tried = [t for t in trials if t.engine in INT8_ENGINES]
    best = min(tried, key=lambda t: (t is not chosen, not t.eligible, t.median_ms or np.inf))
    words = f"int8 ({best.engine}) {best.reason}"
    if best.eligible and best.median_ms and fastest and fastest.median_ms:
        words += f"; {fastest.median_ms / best.median_ms:.2f} times as fast as {fastest.engine}"
    return f"{words}; {'serves' if best is chosen else f'does not serve, {chosen.engine} does'}"


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of 0 .. count - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _tally(segmenter: Segmenter, reader: Reader, indices: list[int]) -> Tallies:
    from segpipe.training.scoring import count_split

    return tallies(count_split(segmenter, reader, indices), segmenter.spec.classes.labelling)


class _Recorder:
    """An engine that keeps what it is given."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name = engine, engine.name
        self.batches: list[Batch] = []

    def __call__(self, batch: Batch) -> npt.NDArray[np.float32]:
        self.batches.append(batch)
        return self.engine(batch)


def calibration_batches(segmenter: Segmenter, reader: Reader) -> Iterator[Batch]:
    """What the network is given of some training images, (N, C, H, W), float32: just as `predict` prepares and tiles them."""
    recorder = _Recorder(segmenter.engine)
    recording = Segmenter(segmenter.spec, recorder)
    for index in evenly_spaced(len(reader), CALIBRATION_IMAGES):
        recording.segment(reader[index])
        yield from recorder.batches
        recorder.batches.clear()


class _Batches:
    """Batches as ONNX Runtime's calibration asks for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Batch] | None:
        """The next batch by the name of the graph's input; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def quantise(graph: Path, batches: Iterator[Batch], out: Path) -> None:
    """Write an ONNX graph of float32 as one with 8-bit weights and activations (QDQ form).

    batches: inputs of the graph, as calibration. Raises RuntimeError or ValueError where ONNX Runtime can't.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory(prefix="segpipe-int8-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        root.setLevel(logging.ERROR)  # it gives advice by way of the root logger
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
