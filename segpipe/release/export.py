"""A trained model becomes a bundle: an ONNX graph, the fastest engine that agrees with the trained network, golden images, a card."""

from __future__ import annotations

import shutil
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from segpipe.config import ExportParams
from segpipe.errors import ConfigError, GateBlocked, SegpipeError
from segpipe.files import sha256_file, write_json
from segpipe.inference.engines import GRAPH_ENGINES, TorchEngine
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import GRAPH_FILE, TORCH, WEIGHTS_FILE
from segpipe.progress import say
from segpipe.release.bundle import ENGINES_FILE, Golden
from segpipe.release.card import write_card
from segpipe.release.golden import Reader, write_expected, write_inputs

Mask = npt.NDArray[np.uint8]

OPSET = 17
_ROUNDS = 9
_SECONDS = 20.0
_AS_GOOD = 1.10
"""Engines this close to the fastest count as equally fast: the choice should not hang on the noise of a timing."""


class EngineTrial(BaseModel):
    """How one engine did on the golden images."""

    engine: str
    median_ms: float | None = None
    """Whole `predict` of the first golden image."""
    agreement: float | None = None
    """Share of golden pixels with the class that the trained network gives."""
    eligible: bool
    reason: str


def export_bundle(model: Path, reader: Reader, selection: dict[str, Any], params: ExportParams, out: Path) -> None:
    """Write the bundle of a trained model (models/NAME) into `out`; see `write_bundle`."""
    from segpipe.inference.trained import load_trained

    weights = sha256_file(model / WEIGHTS_FILE)
    write_bundle(load_trained(model), weights, reader, selection, params, out)


def write_bundle(
    trained: Segmenter,
    weights_sha256: str,
    reader: Reader,
    selection: dict[str, Any],
    params: ExportParams,
    out: Path,
) -> None:
    """Write the bundle of a network that runs on torch into `out`, whole or not at all.

    reader: the test images, of which `params.golden` travel along. selection: selection.json, for the card. Everything but
    engines.json (timings) is a function of the inputs and the engine that is chosen. Raises GateBlocked when no engine agrees
    with the network.
    """
    staging = out.with_name(f".{out.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    pairs = write_inputs(reader, params.golden, staging)
    if trained.spec.task == "instance":
        trials = [keep_on_torch(trained, staging, pairs)]
    else:
        export_graph(trained, staging / GRAPH_FILE)
        trials = try_engines(trained, staging, pairs, params.min_agreement)
    chosen = choose_engine(trials, params.min_agreement)
    write_json(staging / ENGINES_FILE, [trial.model_dump() for trial in trials])
    lineage = trained.spec.lineage | {"weights_sha256": weights_sha256}
    shipped = {"engine": chosen.engine, "lineage": lineage, "temperature": selection.get("temperature", 1.0)}
    spec = trained.spec.model_copy(update=shipped)
    spec.write(staging)
    write_expected(Segmenter.from_bundle(staging), pairs)
    assert chosen.agreement is not None, "an eligible engine has an agreement"
    write_card(spec, selection, chosen.agreement, pairs, staging)
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    say(f"export: {spec.candidate} on {chosen.engine}, {chosen.median_ms} ms for a golden image; it {chosen.reason}")


def export_graph(trained: Segmenter, path: Path) -> None:
    """Write a network as ONNX with free batch size, height and width; one for volumes with its window alone."""
    import torch

    from segpipe.models.exportable import exportable

    engine, spec = trained.engine, trained.spec
    if not isinstance(engine, TorchEngine):
        raise ConfigError(
            "the winner is no network and has no ONNX graph", where=spec.candidate, found=f"family {spec.family}",
            fix="add a network to `candidates:` in params.yaml (segpipe families lists them)",
        )  # fmt: skip
    module = engine.module.eval().float().cpu()
    sizes = spec.patch3d or (2 * spec.stride, 2 * spec.stride)
    free = {0: "n"} if spec.patch3d else {0: "n", 2: "h", 3: "w"}
    example = torch.zeros(1, spec.normalisation.channels, *sizes)
    with warnings.catch_warnings(), torch.no_grad(), exportable():
        warnings.simplefilter("ignore")  # the tracer warns about shape checks that free sizes do not touch
        try:
            torch.onnx.export(
                module, (example,), str(path), dynamo=False, opset_version=OPSET, input_names=["image"], output_names=["logits"],
                dynamic_axes=dict.fromkeys(("image", "logits"), free),
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            raise ConfigError(
                f"ONNX can't express the network: {next(iter(str(error).splitlines()), type(error).__name__)[:200]}",
                where=spec.candidate, found=f"family {spec.family}",
                fix="say the same in other layers, or drop the candidate",
            ) from error  # fmt: skip


def keep_on_torch(trained: Segmenter, bundle: Path, pairs: Sequence[Golden]) -> EngineTrial:
    """Write the weights of a detector, which has no graph of fixed inputs and outputs: torch runs it wherever it goes."""
    from safetensors.torch import save_file

    assert isinstance(trained.engine, TorchEngine), "a detector runs on torch"
    save_file(
        {name: value.contiguous() for name, value in trained.engine.module.state_dict().items()}, bundle / WEIGHTS_FILE
    )
    median = _median_ms({TORCH: trained}, pairs[0].given())[TORCH]
    reason = "is what the detector was trained on: boxes, scores and masks of any number have no ONNX graph here"
    return EngineTrial(engine=TORCH, median_ms=median, agreement=1.0, eligible=True, reason=reason)


def try_engines(trained: Segmenter, bundle: Path, pairs: Sequence[Golden], min_agreement: float) -> list[EngineTrial]:
    """Time every graph engine and hold its masks of the golden images against those of the trained network in float32."""
    inputs = [pair.given() for pair in pairs]
    wanted = [trained.predict(**given).class_ids for given in inputs]
    running: dict[str, Segmenter] = {}
    trials: dict[str, EngineTrial] = {}
    for name in GRAPH_ENGINES:
        try:
            segmenter = Segmenter(trained.spec, GRAPH_ENGINES[name](bundle / GRAPH_FILE, 0))
            masks = [segmenter.predict(**given).class_ids for given in inputs]
        except (ImportError, RuntimeError, SegpipeError) as error:
            why = f"does not run here: {' '.join(str(error).split())[:200]}"
            trials[name] = EngineTrial(engine=name, eligible=False, reason=why)
        else:
            running[name] = segmenter
            trials[name] = _agreement(name, masks, wanted, min_agreement)
    times = _median_ms(running, inputs[0])
    return [trial.model_copy(update={"median_ms": times.get(name)}) for name, trial in trials.items()]


def _agreement(name: str, masks: list[Mask], wanted: list[Mask], least: float) -> EngineTrial:
    same = sum(int((a == b).sum()) for a, b in zip(masks, wanted, strict=True))
    share = same / sum(mask.size for mask in wanted)
    words = f"gives the trained network's class on {share:.4%} of golden pixels"
    reason = words if share >= least else f"{words}, {least:.4%} needed"
    return EngineTrial(engine=name, agreement=share, eligible=share >= least, reason=reason)


def _median_ms(segmenters: Mapping[str, Segmenter], given: Mapping[str, Any]) -> dict[str, float]:
    """Median milliseconds of each `predict`, in rounds, so that a busy moment of the machine meets all of them alike.

    Slow models get fewer rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in segmenters}
    began = time.perf_counter()
    for done in range(_ROUNDS):
        if done >= 2 and time.perf_counter() - began > _SECONDS:
            break
        for name, segmenter in segmenters.items():
            start = time.perf_counter()
            segmenter.predict(**given)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(taken), 2) for name, taken in times.items()}


def choose_engine(trials: Sequence[EngineTrial], min_agreement: float) -> EngineTrial:
    """The first of the engines (in their fixed order) that agree and are about as fast as the fastest of those."""
    eligible = [trial for trial in trials if trial.eligible and trial.median_ms is not None]
    if not eligible:
        found = "; ".join(f"{trial.engine} {trial.reason}" for trial in trials)
        raise GateBlocked(
            "no engine gives the trained network's masks", found=found, expected=f"agreement of at least {min_agreement}",
            fix="lower `export.min_agreement` in params.yaml if that is good enough, or train in fp32",
        )  # fmt: skip
    fastest = min(trial.median_ms for trial in eligible if trial.median_ms is not None)
    return next(trial for trial in eligible if trial.median_ms is not None and trial.median_ms <= _AS_GOOD * fastest)
