"""Make the plan of a candidate: choose from settings and data, then measure on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from segpipe.errors import ConfigError
from segpipe.inference.outputs import Outputs
from segpipe.models.registry import FAMILIES, Family, family_config, get_family
from segpipe.models.volumetric.volume_config import VolumeConfig
from segpipe.training.finishing.instance_search import choose_instance_method
from segpipe.training.folds import check_folds, choose_folds, describe_folds, make_folds
from segpipe.training.plan import ClassicalPlan, NetworkPlan, VolumeGrid
from segpipe.training.planning.detector_recipe import explain_detector, fit_to_instances
from segpipe.training.planning.normalisation import choose_normalisation, holds_volumes
from segpipe.training.planning.plan_draft import PlanDraft
from segpipe.training.planning.recipe import (
    add_distance_channel,
    choose_frozen_share,
    describe_encoder,
    prefer_muon,
)
from segpipe.training.planning.resolution_budget import choose_first_crops
from segpipe.training.planning.volume_recipe import (
    MAX_CLASSICAL_VOXELS,
    Spacing,
    choose_grid,
    choose_patch3d,
    choose_spacing,
    choose_volume_recipe,
)
from segpipe.training.planning.warm_start import WarmStart, warm_start_of

if TYPE_CHECKING:
    import torch

    from segpipe.config import Candidate, Params
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.models.detection.mask_rcnn_config import MaskRcnnConfig
    from segpipe.models.weights.encoder_weights import Preprocessing
    from segpipe.training.sampling.crops import Reader


def make_plan(
    name: str,
    params: Params,
    fingerprint: Fingerprint,
    shards: Path,
    reuse_speeds: bool = True,
    started: float | None = None,
) -> NetworkPlan | ClassicalPlan:
    """Plan how a candidate is trained: choose from settings and data, then measure on this machine.

    Args:
        name: the candidate.
        params: params.yaml.
        fingerprint: statistics of the training split.
        shards: the folder that `prepare` wrote.
        reuse_speeds: whether speeds that earlier plans measured on this machine are used.
        started: the moment when the command began (`time.perf_counter`), before its imports; None: now.

    Raises:
        ConfigError: A setting does not fit the family, the data or this machine.
        MissingError: The encoder's weights or the release to continue from are not available.
    """
    from segpipe.data.shards import ShardReader

    train, val = ShardReader(shards, "train"), ShardReader(shards, "val")
    candidate, settings = params.candidate(name), params.train_for(name)
    model_family = get_family(candidate.family)
    if settings.folds is None or model_family.kind == "classical":
        return plan_on(name, params, fingerprint, train, val, reuse_speeds, started)
    check_folds(candidate, model_family)
    folds = choose_folds(settings.folds, params, shards)
    fold_images = make_folds(folds, settings.seed, train, val, shards)
    plan = plan_on(
        name, params, fingerprint, fold_images.without_fold(0), fold_images.only_fold(0), reuse_speeds, started
    )
    reasons = {"folds": describe_folds(folds, fold_images, settings)} | plan.reasons
    return plan.model_copy(update={"folds": folds, "reasons": reasons})


def plan_on(
    name: str,
    params: Params,
    fingerprint: Fingerprint,
    train: Reader,
    val: Reader,
    reuse_speeds: bool = True,
    started: float | None = None,
) -> NetworkPlan | ClassicalPlan:
    """Plan a candidate, like `make_plan`, on open readers.

    Args:
        name: the candidate.
        params: params.yaml.
        fingerprint: statistics of the training split.
        train: the training split.
        val: the validation split.
        reuse_speeds: whether speeds that earlier plans measured on this machine are used.
        started: the moment when the command began (`time.perf_counter`), before its imports; None: now.
    """
    started, candidate = started or time.perf_counter(), params.candidate(name)
    model_family, volumes = get_family(candidate.family), holds_volumes(train)
    _check_dims(model_family, volumes)
    if fingerprint.classes.overlapping:
        _check_overlapping(model_family)
    warm_start = warm_start_of(candidate.options)
    candidate = warm_start.fill(candidate) if warm_start else candidate
    draft = PlanDraft(params.train_for(name), model_family, family_config(candidate), fingerprint, train, val, started)
    draft.reuse_speeds, draft.start_up_s = reuse_speeds, time.perf_counter() - started
    spacing = None
    if volumes:
        released = warm_start.spec.spacing if warm_start else None
        spacing = choose_spacing(draft, draft.settings.spacing or released)
    if spacing and isinstance(draft.config, VolumeConfig):
        draft.config = draft.config.for_spacing(spacing)
    if model_family.kind == "detector":
        draft.config = fit_to_instances(draft, cast("MaskRcnnConfig", draft.config))
    _choose_common(draft, name, params, candidate)
    if warm_start:
        _choose_inherited(draft, warm_start)
    if model_family.kind == "classical":
        return _plan_classical(draft, volumes, spacing)
    network = _draw_up_volumes(draft, warm_start, spacing) if volumes else _draw_up_images(draft, warm_start)
    prefer_muon(draft, network)
    return _measure_within_memory(draft, network)


def _choose_common(draft: PlanDraft, name: str, params: Params, candidate: Candidate) -> None:
    """Choose the fields that every plan has."""
    fingerprint = draft.fingerprint
    draft.choose(
        candidate=name,
        family=draft.family.name,
        seed=draft.settings.seed,
        classes=len(fingerprint.classes),
        dtype=fingerprint.dtype,
        data_hash=fingerprint.data_hash,
        settings=params.explicit_settings(name),
        postprocess=choose_instance_method(
            candidate, draft.family, fingerprint.instances, fingerprint.classes.overlapping
        ),
    )


def _choose_inherited(draft: PlanDraft, warm_start: WarmStart) -> None:
    """Assign the channels of the release that training continues from."""
    classes = draft.fingerprint.classes
    warm_start.check_channels(draft.fingerprint, hasattr(draft.config, "encoder"))
    outputs = Outputs(len(classes), draft.fields["postprocess"] == "distance")
    channels, reason = warm_start.map_channels(classes, outputs)
    draft.choose(inherited=channels)
    draft.explain("first weights", reason)


def _plan_classical(draft: PlanDraft, volumes: bool, spacing: Spacing | None) -> ClassicalPlan:
    without = "steps or folds" if draft.settings.folds else "steps"
    draft.explain("training", f"{draft.family.name} is fitted once to the training split, without {without}")
    _choose_normalisation(draft)
    if volumes:
        patch, _ = choose_patch3d(draft.train, spacing, (1, 1, 1), MAX_CLASSICAL_VOXELS)
        draft.choose(volume=VolumeGrid(patch=patch, spacing=spacing, flips=(False,) * 3))
    return draft.classical_plan()


def _draw_up_volumes(draft: PlanDraft, warm_start: WarmStart | None, spacing: Spacing | None) -> torch.nn.Module:
    """Choose everything about a network for volumes that is not measured. Returns the network."""
    from segpipe.models.registry import build_network, initial_weights_sha256
    from segpipe.training.machine import choose_device

    config, device = draft.config, choose_device(draft.settings.accelerator)
    multiples = config.patch_multiple if isinstance(config, VolumeConfig) else (draft.family.stride,) * 3
    grid = choose_grid(draft, multiples, spacing, device)
    _choose_normalisation(draft, warm_start)
    recipe = choose_volume_recipe(draft, grid, device)
    first = choose_first_crops(draft, grid.patch, multiples)
    recipe = add_distance_channel(draft, recipe.model_copy(update={"first": first}))
    draft.choose(volume=grid, recipe=recipe)
    plan = draft.plan
    with draft.counted_as_start_up():
        network = build_network(
            plan.family, config, draft.fingerprint.channels, plan.outputs.channels, plan.seed, plan.inherited
        )
    if plan.inherited:
        draft.choose(encoder_sha256=initial_weights_sha256(network, whole=True))
    return network


def _draw_up_images(draft: PlanDraft, warm_start: WarmStart | None) -> torch.nn.Module:
    """Choose everything about a network for images that is not measured. Returns the network."""
    from segpipe.models.registry import initial_weights_sha256, pretrained_preprocessing
    from segpipe.training.planning.resolution_budget import choose_resolution

    config = draft.config
    pretrained = pretrained_preprocessing(config)
    if encoder := getattr(config, "encoder", None):
        draft.explain("encoder", describe_encoder(encoder, getattr(config, "encoder_weights", "none")))
    frozen_share = choose_frozen_share(draft, pretrained is not None)
    draft.settings = draft.settings.model_copy(update={"freeze_encoder": frozen_share})
    _choose_normalisation(draft, warm_start, pretrained)
    network = choose_resolution(draft)
    if pretrained or warm_start:
        draft.choose(encoder_sha256=initial_weights_sha256(network, bool(draft.plan.inherited)))
    if draft.family.kind == "detector":
        explain_detector(draft)
    return network


def _choose_normalisation(
    draft: PlanDraft, warm_start: WarmStart | None = None, pretrained: Preprocessing | None = None
) -> None:
    setting = draft.settings.normalisation
    normalisation, reason = choose_normalisation(setting, draft.fingerprint, draft.train, pretrained, warm_start)
    draft.choose(normalisation=normalisation)
    draft.explain("normalisation", reason)


def _measure_within_memory(draft: PlanDraft, network: torch.nn.Module) -> NetworkPlan:
    """Measure the draft, with its batch in as many parts as memory requires."""
    from segpipe.training.machine import choose_device
    from segpipe.training.planning.execution import measure
    from segpipe.training.planning.footprint import available_bytes, measure_within_memory, split_to_fit

    if choose_device(draft.settings.accelerator) == "cpu":
        split_to_fit(draft, network, available_bytes(), draft.world_size)
    return measure_within_memory(draft, lambda: measure(draft, network), draft.world_size)


def _check_dims(model_family: Family, volumes: bool) -> None:
    """Raise ConfigError if the family is for images and the dataset holds volumes, or the other way round."""
    dims = 3 if volumes else 2
    if model_family.dims in (dims, None):
        return
    fitting = [f.name for f in FAMILIES.values() if f.dims in (dims, None)]
    raise ConfigError(
        f"{model_family.name} learns from {'volumes' if model_family.dims == 3 else 'images'}, and the dataset holds "
        f"{'volumes' if volumes else 'images'}",
        where="params.yaml",
        expected=" or ".join(fitting),
        fix="name one of these families under `candidates`"
        + (", or import the slices as images, with the volume as group (--group)" if volumes else ""),
    )


def _check_overlapping(model_family: Family) -> None:
    """Raise ConfigError if the family cannot give a pixel several classes."""
    if model_family.kind == "network":
        return
    fitting = [f.name for f in FAMILIES.values() if f.kind == "network" and model_family.dims in (f.dims, None)]
    raise ConfigError(
        f"{model_family.name} gives each pixel one class, and the classes of the dataset overlap",
        where="params.yaml",
        expected=" or ".join(fitting),
        fix="name one of these families under `candidates`, or import without --overlapping",
    )
