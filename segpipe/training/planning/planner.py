"""How a plan is made: chosen from settings and data, then measured on this machine, and pinned."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from segpipe.errors import ConfigError
from segpipe.inference.outputs import Outputs
from segpipe.models.registry import FAMILIES, Family, family, family_config
from segpipe.models.semantic.encoder_decoders import EncoderConfig, shrinks_by
from segpipe.models.volumetric.networks import VolumeConfig
from segpipe.training.finishing.instance_search import choose_instance_method
from segpipe.training.folds import check_folds, choose_folds, deal_out, describe_folds
from segpipe.training.plan import Plan, Recipe, VolumeGrid
from segpipe.training.planning.normalisation import choose_normalisation, holds_volumes
from segpipe.training.planning.progressive import choose_first_crops
from segpipe.training.planning.recipe import (
    LEAST_BATCH,
    can_shrink,
    choose_recipe,
    describe_encoder,
    with_frozen_encoder,
    with_optimiser,
)
from segpipe.training.planning.volume_recipe import (
    CLASSICAL_VOXELS,
    Spacing,
    choose_grid,
    choose_patch3d,
    choose_spacing,
    choose_volume_recipe,
)
from segpipe.training.planning.warm_start import warm_start_of
from segpipe.training.sampling.detection import DETECTOR_REASONS, fit_to_objects

if TYPE_CHECKING:
    import torch

    from segpipe.config import Params, TrainParams
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.inference.preprocess import Normalisation
    from segpipe.training.planning.execution import Measured
    from segpipe.training.sampling.crops import Reader


def make_plan(name: str, params: Params, fingerprint: Fingerprint, shards: Path) -> Plan:
    """Plan how a candidate is trained: choose from settings and data, then measure on this machine.

    shards: the folder that `prepare` wrote. Raises ConfigError or MissingError where a setting, the encoder or its weights
    can't be.
    """
    from segpipe.data.shards import ShardReader

    train, val = ShardReader(shards, "train"), ShardReader(shards, "val")
    candidate, wanted = params.candidate(name), params.train_for(name)
    if wanted.folds is None or family(candidate.family).kind == "classical":
        return plan_on(name, params, fingerprint, train, val)
    check_folds(candidate, family(candidate.family))
    folds = choose_folds(wanted.folds, params, shards)
    dealt = deal_out(folds, wanted.seed, train, val, shards)
    made = plan_on(name, params, fingerprint, dealt.rest(0), dealt.left_out(0))
    reasons = {"folds": describe_folds(folds, dealt, wanted)} | made.reasons
    return made.model_copy(update={"folds": folds, "reasons": reasons})


def plan_on(name: str, params: Params, fingerprint: Fingerprint, train: Reader, val: Reader) -> Plan:
    """`make_plan` on readers that are open."""
    began, candidate, wanted = time.perf_counter(), params.candidate(name), params.train_for(name)
    volumes = holds_volumes(train)
    _check_dims(family(candidate.family), volumes)
    if fingerprint.classes.overlapping:
        _check_overlapping(family(candidate.family))
    heritage = warm_start_of(candidate.options)
    candidate = heritage.fill(candidate) if heritage else candidate
    config = family_config(candidate)
    reasons: dict[str, str] = {}
    size = wanted.spacing or (heritage.spec.spacing if heritage else None)
    spacing = choose_spacing(train, size, reasons) if volumes else None
    if spacing and isinstance(config, VolumeConfig):
        config = config.fitted(spacing)
    if family(candidate.family).kind == "detector":
        config = fit_to_objects(config, train, reasons)  # type: ignore[arg-type]
    common: dict[str, Any] = {
        "candidate": name,
        "family": candidate.family,
        "options": config.model_dump(mode="json"),
        "seed": wanted.seed,
        "classes": len(fingerprint.classes),
        "dtype": fingerprint.dtype,
        "data_hash": fingerprint.data_hash,
        "settings": params.set_for(name),
        "postprocess": choose_instance_method(
            candidate, family(candidate.family), fingerprint.instances, fingerprint.classes.overlapping
        ),
    }
    if heritage:
        heritage.check(fingerprint, hasattr(config, "encoder"))
        outputs = Outputs(common["classes"], common["postprocess"] == "distance")
        common["inherited"], reasons["first weights"] = heritage.channels(fingerprint.classes, outputs)
    if family(candidate.family).kind == "classical":
        reasons["training"] = f"{candidate.family} is fitted once to the training split, without steps" + (
            " or folds" if wanted.folds else ""
        )
        normalisation, reasons["normalisation"] = choose_normalisation(wanted.normalisation, fingerprint, train)
        if volumes:
            common["volume"] = VolumeGrid(
                patch=choose_patch3d(train, spacing, (1, 1, 1), CLASSICAL_VOXELS)[0],
                spacing=spacing,
                flips=(False,) * 3,
            )
        return Plan(**common, normalisation=normalisation, reasons=reasons)
    if volumes:
        return _plan_volumes(common, config, wanted, fingerprint, train, val, spacing, reasons, began)
    return _plan_network(common, config, wanted, fingerprint, train, val, reasons, began)


def _check_dims(of: Family, volumes: bool) -> None:
    """A family that looks at images learns nothing from volumes, nor the other way round."""
    dims = 3 if volumes else 2
    if of.dims in (dims, None):
        return
    fitting = [f.name for f in FAMILIES.values() if f.dims in (dims, None)]
    raise ConfigError(
        f"{of.name} learns from {'volumes' if of.dims == 3 else 'images'}, and the dataset holds "
        f"{'volumes' if volumes else 'images'}",
        where="params.yaml",
        expected=" or ".join(fitting),
        fix="name one of these families under `candidates`"
        + (", or import the slices as images, with the volume as group (--group)" if volumes else ""),
    )


def _check_overlapping(of: Family) -> None:
    """Where classes overlap, a family has to say of each class by itself whether it is there."""
    if of.kind == "network":
        return
    fitting = [f.name for f in FAMILIES.values() if f.kind == "network" and of.dims in (f.dims, None)]
    raise ConfigError(
        f"{of.name} gives each pixel one class, and the classes of the dataset overlap",
        where="params.yaml",
        expected=" or ".join(fitting),
        fix="name one of these families under `candidates`, or import without --overlapping",
    )


def _plan_volumes(
    common: dict[str, Any],
    config: BaseModel,
    wanted: TrainParams,
    fingerprint: Fingerprint,
    train: Reader,
    val: Reader,
    spacing: Spacing | None,
    reasons: dict[str, str],
    began: float,
) -> Plan:
    from segpipe.models.registry import build_network, first_weights_sha256
    from segpipe.training.machine import choose_device

    of, device = family(common["family"]), choose_device(wanted.accelerator)
    steps = config.steps if isinstance(config, VolumeConfig) else (of.stride,) * 3
    grid = choose_grid(wanted, steps, train, spacing, device, reasons, fingerprint.classes.labelling)
    normalisation, reasons["normalisation"] = choose_normalisation(
        wanted.normalisation, fingerprint, train, heritage=warm_start_of(common["options"])
    )
    recipe = choose_volume_recipe(wanted, of, grid, fingerprint, train, device, reasons)
    recipe = recipe.model_copy(update={"first": choose_first_crops(wanted, of, grid.patch, steps, reasons)})
    draft = Plan(
        **common, normalisation=normalisation, volume=grid, recipe=_learning(recipe, common, reasons), reasons={}
    )
    network = build_network(of.name, config, fingerprint.channels, draft.outputs.channels, draft.seed, draft.inherited)
    if draft.inherited:
        draft = draft.model_copy(update={"encoder_sha256": first_weights_sha256(network, whole=True)})
    draft = with_optimiser(draft, network, wanted, reasons)
    found = _measured(draft, network, wanted, fingerprint, train, val, reasons, began)
    return draft.model_copy(
        update={"recipe": found.recipe, "execution": found.execution, "reasons": reasons | found.reasons}
    )


def _plan_network(
    common: dict[str, Any],
    config: BaseModel,
    wanted: TrainParams,
    fingerprint: Fingerprint,
    train: Reader,
    val: Reader,
    reasons: dict[str, str],
    began: float,
) -> Plan:
    from segpipe.models.registry import first_preprocessing, first_weights_sha256

    encoder, source = getattr(config, "encoder", None), getattr(config, "encoder_weights", "none")
    pretrained = first_preprocessing(config)
    reasons |= {"encoder": describe_encoder(encoder, source)} if encoder else {}
    wanted = with_frozen_encoder(wanted, family(common["family"]), pretrained is not None, reasons)
    heritage = warm_start_of(common["options"])
    normalisation, reasons["normalisation"] = choose_normalisation(
        wanted.normalisation, fingerprint, train, pretrained, heritage
    )
    draft, network = _drafted(common, config, wanted, fingerprint, normalisation, train, reasons)
    if pretrained or heritage:
        draft = draft.model_copy(update={"encoder_sha256": first_weights_sha256(network, bool(draft.inherited))})
    if family(common["family"]).kind == "detector":
        reasons |= DETECTOR_REASONS
    draft = with_optimiser(draft, network, wanted, reasons)
    found = _measured(draft, network, wanted, fingerprint, train, val, reasons, began)
    return draft.model_copy(
        update={"recipe": found.recipe, "execution": found.execution, "reasons": reasons | found.reasons}
    )


def _drafted(
    common: dict[str, Any],
    config: BaseModel,
    wanted: TrainParams,
    fingerprint: Fingerprint,
    normalisation: Normalisation,
    train: Reader,
    reasons: dict[str, str],
) -> tuple[Plan, torch.nn.Module]:
    """The plan of a network for images but for what is measured, and that network, at a resolution that the budget can pay for."""
    from segpipe.models.registry import build_network
    from segpipe.models.semantic.reduced_resolution import shrunk
    from segpipe.training.planning.resolution_budget import MIN_STEPS, WORTH, measure_step_price

    of = family(common["family"])
    left_open = isinstance(config, EncoderConfig) and config.shrink == "auto"

    def draw_up(config: BaseModel, wanted: TrainParams) -> Plan:
        shrink = shrinks_by(config)
        recipe = _learning(choose_recipe(wanted, of, fingerprint, train, reasons, shrink), common, reasons)
        first = choose_first_crops(wanted, of, (recipe.patch,) * 2, (of.stride * shrink,) * 2, reasons)
        own = common | {"options": config.model_dump(mode="json"), "normalisation": normalisation}
        return Plan(**own, recipe=recipe.model_copy(update={"first": first}), reasons={})

    config = config.model_copy(update={"shrink": 1}) if left_open else config
    draft = draw_up(config, wanted)
    network = build_network(of.name, config, fingerprint.channels, draft.outputs.channels, draft.seed, draft.inherited)
    if of.kind != "network":
        return draft, network
    price = measure_step_price(draft, network, wanted, train)
    assert draft.recipe is not None
    why = f"{price.steps(draft):.0f} steps of {draft.recipe.batch} crops are all that the budget would buy"
    if price.steps(draft) < MIN_STEPS and left_open and draft.inherited is None and can_shrink(fingerprint):
        half = config.model_copy(update={"shrink": 2})
        smaller, its_network = draw_up(half, wanted), shrunk(copy.deepcopy(network), 2)
        its_price = measure_step_price(smaller, its_network, wanted, train)
        if its_price.steps(smaller) > WORTH * price.steps(draft):  # a light network's steps hardly get shorter
            config, draft, network, price = half, smaller, its_network, its_price
            reasons["resolution"] = f"half of the images': at full resolution, {why}"
        else:
            draft = draw_up(config, wanted)
    elif draft.shrink > 1:
        reasons["resolution"] = f"1/{draft.shrink} of the images', as set"
    parts = wanted.accumulate * wanted.devices * wanted.num_nodes
    if price.steps(draft) < MIN_STEPS and wanted.batch is None and parts == 1 and of.batch > LEAST_BATCH:
        draft = draw_up(config, wanted.model_copy(update={"batch": LEAST_BATCH}))
        reasons["batch"] = f"{LEAST_BATCH}: {why}" + (" at full resolution" if "resolution" in reasons else "")
    return draft, network


def _learning(recipe: Recipe, common: dict[str, Any], reasons: dict[str, str]) -> Recipe:
    """The recipe, with one more channel to learn where objects are to be told apart by it."""
    if common["postprocess"] != "distance":
        return recipe
    reasons["objects"] = "one more channel learns how deep in its object a pixel lies; the watershed floods it"
    reasons["loss"] += " + the binary cross entropy of that depth"
    return recipe.model_copy(update={"distance": True})


def _measured(
    draft: Plan,
    network: torch.nn.Module,
    wanted: TrainParams,
    fingerprint: Fingerprint,
    train: Reader,
    val: Reader,
    reasons: dict[str, str],
    began: float,
) -> Measured:
    """What `measure` finds, with the batch in as many parts as memory asks for."""
    from segpipe.training.machine import choose_device
    from segpipe.training.memory import planned_to_fit
    from segpipe.training.planning.execution import measure
    from segpipe.training.planning.footprint import available_bytes, in_parts_that_fit

    ranks = wanted.devices * wanted.num_nodes
    if choose_device(wanted.accelerator) == "cpu":
        draft = in_parts_that_fit(draft, network, available_bytes(), reasons, ranks)

    def look(draft: Plan) -> Measured:
        return measure(draft, network, wanted, fingerprint.classes, train, val, began)

    return planned_to_fit(draft, look, reasons, ranks)
