"""Export a trained model as a bundle: ONNX graph, fastest engine that agrees with the trained network, golden images, model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segpipe.config import ExportParams, Params
from segpipe.drift.reference import REFERENCE_FILE, Reference
from segpipe.errors import MissingError
from segpipe.files import atomic_folder, sha256_file, write_json
from segpipe.gates.selection import Selection
from segpipe.inference.engines.engine import GRAPH_ENGINES, INT8_ENGINES, TorchEngine
from segpipe.inference.engines.graph_export import export_graph
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
        reference: statistics of the images that the winner was trained on.
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
            "there is no winner to export",
            where=selection_file,
            fix="add a network to `candidates:` in params.yaml (segpipe families lists them)",
        )
    quantisation_data = None
    if params.export.int8 != "off":
        quantisation_data = QuantisationData(ShardReader(shards, "train"), ShardReader(shards, "val"))
    test_images = ShardReader(shards, "test")
    export_bundle(models / selection.winner, test_images, selection, params.export, out, quantisation_data)
    reference.write(out / REFERENCE_FILE)
    inputs = [pair.predict_arguments() for pair in golden_pairs(out)]
    check_latency(params.gates, out, inputs, selection_file)


def export_bundle(
    model: Path,
    reader: Reader,
    selection: Selection,
    params: ExportParams,
    out: Path,
    quantisation_data: QuantisationData | None = None,
) -> None:
    """Write the bundle of a trained model.

    Args:
        model: the folder of the model, models/NAME.
        reader: see `write_bundle`, also for the other arguments.
        selection: selection.json.
        params: the section `export` of params.yaml.
        out: the folder of the bundle.
        quantisation_data: images for int8.
    """
    from segpipe.inference.trained_model import load_trained

    weights = sha256_file(model / WEIGHTS_FILE)
    write_bundle(load_trained(model), weights, reader, selection, params, out, quantisation_data)


def write_bundle(
    trained: Segmenter,
    weights_sha256: str,
    reader: Reader,
    selection: Selection,
    params: ExportParams,
    out: Path,
    quantisation_data: QuantisationData | None = None,
) -> None:
    """Write the bundle of a network that runs on torch, completely or not at all.

    All files except engines.json (timings), and the int8 result in the card, depend only on the arguments and the chosen engine.

    Args:
        trained: the trained network.
        weights_sha256: hash of its weights file.
        reader: the test images; `params.golden` of them become golden images.
        selection: selection.json, for the card and the temperature.
        params: the section `export` of params.yaml.
        out: the folder of the bundle.
        quantisation_data: images of train and val for int8, which is tried if `params.int8` asks for it; None does not try it.

    Raises:
        GateBlocked: no engine agrees with the network.
        ConfigError: the network cannot be written as an ONNX graph.
    """
    with atomic_folder(out) as staging:
        pairs = write_inputs(reader, params.golden, staging)
        if trained.spec.task == "instance":
            trials = [keep_on_torch(trained, staging, pairs)]
        else:
            export_graph(trained, staging / GRAPH_FILE)
            trials = try_engines(trained, staging, pairs, params, quantisation_data)
        chosen = choose_engine(trials, params.min_agreement)
        write_json(staging / ENGINES_FILE, [trial.model_dump() for trial in trials])
        lineage = trained.spec.lineage | {"weights_sha256": weights_sha256}
        update = {"engine": chosen.engine, "lineage": lineage, "temperature": selection.temperature}
        spec = trained.spec.model_copy(update=update)
        spec.write(staging)
        if chosen.engine not in INT8_ENGINES:
            (staging / INT8_FILE).unlink(missing_ok=True)
        int8 = describe_int8(trials, chosen) if any(trial.engine in INT8_ENGINES for trial in trials) else None
        write_expected(Segmenter.from_bundle(staging), pairs)
        assert chosen.agreement is not None, "an eligible engine has an agreement"
        write_card(spec, selection, chosen.agreement, pairs, staging, int8)
    say(f"export: {spec.candidate} runs on {chosen.engine}, {chosen.median_ms} ms per golden image; it {chosen.reason}")
    if int8:
        say(f"export: {int8}")


def keep_on_torch(trained: Segmenter, bundle: Path, pairs: Sequence[Golden]) -> EngineTrial:
    """Write the weights of a detector, which runs on torch when it is served: it has no graph with fixed inputs and outputs.

    Args:
        trained: the detector.
        bundle: the folder of the bundle.
        pairs: the golden images; the first one is timed.

    Returns:
        The trial of the engine torch.
    """
    from safetensors.torch import save_file

    assert isinstance(trained.engine, TorchEngine), "a detector runs on torch"
    save_file(
        {name: value.contiguous() for name, value in trained.engine.module.state_dict().items()}, bundle / WEIGHTS_FILE
    )
    median = median_ms({TORCH: trained}, pairs[0].predict_arguments())[TORCH]
    reason = "is the engine that the detector was trained on: a variable number of boxes, scores and masks has no ONNX graph here"
    return EngineTrial(engine=TORCH, median_ms=median, agreement=1.0, eligible=True, reason=reason)


def try_engines(
    trained: Segmenter,
    bundle: Path,
    pairs: Sequence[Golden],
    params: ExportParams,
    quantisation_data: QuantisationData | None,
) -> list[EngineTrial]:
    """Time every graph engine, and compare its masks of the golden images with those of the trained network in float32.

    Args:
        trained: the trained network.
        bundle: the folder of the bundle, with the ONNX graph.
        pairs: the golden images.
        params: the section `export` of params.yaml.
        quantisation_data: images for int8, which is also tried if `params.int8` asks for it; None does not try it.

    Returns:
        The trials, in the order of the engines.
    """
    inputs = [pair.predict_arguments() for pair in pairs]
    comparison = EngineComparison(trained.spec, inputs, [trained.predict(**each).class_ids for each in inputs])
    graph = bundle / GRAPH_FILE
    comparison.add(engine_loaders(GRAPH_ENGINES, graph), require_agreement(params.min_agreement))
    if params.int8 != "off" and quantisation_data is not None:
        try_int8(comparison, graph, quantisation_data, params.int8_max_drop)
    return comparison.timed_trials()
