"""A trained model becomes a bundle: an ONNX graph, the fastest engine that agrees with the trained network, golden images, a card."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from segpipe.config import ExportParams, Params
from segpipe.drift.reference import REFERENCE_FILE, Reference
from segpipe.errors import ConfigError, MissingError
from segpipe.files import atomic_folder, sha256_file, write_json
from segpipe.gates.selection import Selection
from segpipe.inference.engines.engine import GRAPH_ENGINES, INT8_ENGINES, TorchEngine
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import GRAPH_FILE, INT8_FILE, TORCH, WEIGHTS_FILE
from segpipe.progress import say
from segpipe.release.bundle import ENGINES_FILE, Golden, golden_pairs
from segpipe.release.card import write_card
from segpipe.release.export.engine_selection import (
    EngineComparison,
    EngineTrial,
    choose_engine,
    engine_loaders,
    median_ms,
    require_agreement,
)
from segpipe.release.export.golden import Reader, write_expected, write_inputs
from segpipe.release.export.int8 import QuantisationData, describe_int8, try_int8

OPSET = 17


def export_winner(
    selection_file: Path,
    params: Params,
    shards: Path,
    models: Path,
    reference: Reference,
    out: Path,
) -> None:
    """Write the bundle of the winner of a selection, with the reference for drift, and judge its latency.

    Args:
        selection_file: selection.json.
        params: the settings of the workspace.
        shards: the folder that `prepare` wrote.
        models: the folder of the trained models, one per candidate.
        reference: what the images are like that the winner was trained on.
        out: the folder of the bundle.

    Raises:
        MissingError: the selection has no winner.
        GateBlocked: no engine agrees with the trained network, or the winner is too slow for the latency gate.
        UndecidedError: the latency gate cannot tell.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.gates.latency import check_latency

    selection = Selection.read(selection_file)
    if selection.winner is None:
        raise MissingError(
            "there is no winner to export", where=selection_file, fix="add a trainable candidate to params.yaml"
        )
    examples = None
    if params.export.int8 != "off":
        examples = QuantisationData(ShardReader(shards, "train"), ShardReader(shards, "val"))
    export_bundle(models / selection.winner, ShardReader(shards, "test"), selection, params.export, out, examples)
    reference.write(out / REFERENCE_FILE)
    check_latency(params.gates, out, [pair.given() for pair in golden_pairs(out)], selection_file)


def export_bundle(
    model: Path,
    reader: Reader,
    selection: Selection,
    params: ExportParams,
    out: Path,
    examples: QuantisationData | None = None,
) -> None:
    """Write the bundle of a trained model (models/NAME) into `out`; see `write_bundle`."""
    from segpipe.inference.trained_model import load_trained

    weights = sha256_file(model / WEIGHTS_FILE)
    write_bundle(load_trained(model), weights, reader, selection, params, out, examples)


def write_bundle(
    trained: Segmenter,
    weights_sha256: str,
    reader: Reader,
    selection: Selection,
    params: ExportParams,
    out: Path,
    examples: QuantisationData | None = None,
) -> None:
    """Write the bundle of a network that runs on torch into `out`, whole or not at all.

    reader: the test images, of which `params.golden` travel along. selection: selection.json, for the card. examples: images of
    train and val, with which int8 is tried where `params.int8` asks for that. Everything but engines.json (timings), and the words
    on int8 in the card, is a function of the inputs and the engine that is chosen. Raises GateBlocked when no engine agrees with
    the network.
    """
    with atomic_folder(out) as staging:
        pairs = write_inputs(reader, params.golden, staging)
        if trained.spec.task == "instance":
            trials = [keep_on_torch(trained, staging, pairs)]
        else:
            export_graph(trained, staging / GRAPH_FILE)
            trials = try_engines(trained, staging, pairs, params, examples)
        chosen = choose_engine(trials, params.min_agreement)
        write_json(staging / ENGINES_FILE, [trial.model_dump() for trial in trials])
        lineage = trained.spec.lineage | {"weights_sha256": weights_sha256}
        shipped = {"engine": chosen.engine, "lineage": lineage, "temperature": selection.temperature}
        spec = trained.spec.model_copy(update=shipped)
        spec.write(staging)
        if chosen.engine not in INT8_ENGINES:
            (staging / INT8_FILE).unlink(missing_ok=True)
        int8 = describe_int8(trials, chosen) if any(trial.engine in INT8_ENGINES for trial in trials) else None
        write_expected(Segmenter.from_bundle(staging), pairs)
        assert chosen.agreement is not None, "an eligible engine has an agreement"
        write_card(spec, selection, chosen.agreement, pairs, staging, int8)
    say(f"export: {spec.candidate} on {chosen.engine}, {chosen.median_ms} ms for a golden image; it {chosen.reason}")
    if int8:
        say(f"export: {int8}")


def export_graph(trained: Segmenter, path: Path) -> None:
    """Write a network as ONNX with free batch size, height and width; one for volumes with its window alone."""
    import torch

    from segpipe.ops.exportable_pooling import exportable_pooling

    engine, spec = trained.engine, trained.spec
    if not isinstance(engine, TorchEngine):
        raise ConfigError(
            "the winner is no network and has no ONNX graph",
            where=spec.candidate,
            found=f"family {spec.family}",
            fix="add a network to `candidates:` in params.yaml (segpipe families lists them)",
        )
    module = engine.module.eval().float().cpu()
    sizes = spec.patch3d or (2 * spec.stride, 2 * spec.stride)
    free = {0: "n"} if spec.patch3d else {0: "n", 2: "h", 3: "w"}
    example = torch.zeros(1, spec.normalisation.channels, *sizes)
    with warnings.catch_warnings(), torch.no_grad(), exportable_pooling():
        warnings.simplefilter("ignore")  # the tracer warns about shape checks that free sizes do not touch
        try:
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes=dict.fromkeys(("image", "logits"), free),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ConfigError(
                f"ONNX can't express the network: {next(iter(str(error).splitlines()), type(error).__name__)[:200]}",
                where=spec.candidate,
                found=f"family {spec.family}",
                fix="say the same in other layers, or drop the candidate",
            ) from error


def keep_on_torch(trained: Segmenter, bundle: Path, pairs: Sequence[Golden]) -> EngineTrial:
    """Write the weights of a detector, which has no graph of fixed inputs and outputs: torch runs it wherever it goes."""
    from safetensors.torch import save_file

    assert isinstance(trained.engine, TorchEngine), "a detector runs on torch"
    save_file(
        {name: value.contiguous() for name, value in trained.engine.module.state_dict().items()}, bundle / WEIGHTS_FILE
    )
    median = median_ms({TORCH: trained}, pairs[0].given())[TORCH]
    reason = "is what the detector was trained on: boxes, scores and masks of any number have no ONNX graph here"
    return EngineTrial(engine=TORCH, median_ms=median, agreement=1.0, eligible=True, reason=reason)


def try_engines(
    trained: Segmenter, bundle: Path, pairs: Sequence[Golden], params: ExportParams, examples: QuantisationData | None
) -> list[EngineTrial]:
    """Time every graph engine and hold its masks of the golden images against those of the trained network in float32; with
    `examples`, also those in 8-bit integers, if `params.int8` asks for them."""
    inputs = [pair.given() for pair in pairs]
    contest = EngineComparison(trained.spec, inputs, [trained.predict(**given).class_ids for given in inputs])
    graph = bundle / GRAPH_FILE
    contest.enter(engine_loaders(GRAPH_ENGINES, graph), require_agreement(params.min_agreement))
    if params.int8 != "off" and examples is not None:
        try_int8(contest, graph, examples, params.int8_max_drop)
    return contest.timed()
