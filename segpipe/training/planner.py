"""How a plan is made: chosen from settings and data, then measured on this machine, and pinned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from segpipe.errors import ConfigError
from segpipe.models.registry import family, family_config
from segpipe.training.choices import choose_normalisation, choose_recipe, describe_encoder
from segpipe.training.plan import Plan

if TYPE_CHECKING:
    from segpipe.config import Params, TrainParams
    from segpipe.data.manifest import Fingerprint
    from segpipe.training.batches import Reader


def make_plan(name: str, params: Params, fingerprint: Fingerprint, shards: Path) -> Plan:
    """Plan how a candidate is trained: choose from settings and data, then measure on this machine.

    shards: the folder that `prepare` wrote. Raises ConfigError or MissingError where a setting, the encoder or its weights
    can't be.
    """
    from segpipe.data.shards import ShardReader

    return plan_on(name, params, fingerprint, ShardReader(shards, "train"), ShardReader(shards, "val"))


def plan_on(name: str, params: Params, fingerprint: Fingerprint, train: Reader, val: Reader) -> Plan:
    """`make_plan` on readers that are open."""
    _check_flat(train)
    candidate, wanted = params.candidate(name), params.train_for(name)
    config = family_config(candidate)
    common: dict[str, Any] = {
        "candidate": name, "family": candidate.family, "options": config.model_dump(mode="json"), "seed": wanted.seed,
        "classes": len(fingerprint.classes), "dtype": fingerprint.dtype, "data_hash": fingerprint.data_hash,
    }  # fmt: skip
    if family(candidate.family).kind == "classical":
        reasons = {"training": f"{candidate.family} is fitted once to the training split, without steps"}
        return Plan(**common, normalisation=choose_normalisation(fingerprint, None), reasons=reasons)
    return _plan_network(common, config, wanted, fingerprint, train, val)


def _check_flat(train: Reader) -> None:
    if len(train) and train[0].image.ndim == 4:
        raise ConfigError(
            "the dataset holds volumes, and no family of candidates learns from volumes", found=f"{train[0].key}, D x H x W x C",
            expected="images of one slice", fix="import the slices as images, with the volume as group (--group)",
        )  # fmt: skip


def _plan_network(
    common: dict[str, Any], config: BaseModel, wanted: TrainParams, fingerprint: Fingerprint, train: Reader, val: Reader
) -> Plan:
    from segpipe.models.registry import build_network
    from segpipe.models.weights import preprocessing, state_sha256
    from segpipe.training.execution import measure

    encoder, source = getattr(config, "encoder", None), getattr(config, "encoder_weights", "none")
    network = build_network(common["family"], config, fingerprint.channels, common["classes"], common["seed"])
    pretrained = preprocessing(encoder, source) if encoder else None
    reasons: dict[str, str] = {"encoder": describe_encoder(encoder, source)} if encoder else {}
    draft = Plan(
        **common,
        normalisation=choose_normalisation(fingerprint, pretrained),
        encoder_sha256=state_sha256(network.encoder.state_dict()) if pretrained else None,  # type: ignore[operator, arg-type, union-attr]
        recipe=choose_recipe(wanted, family(common["family"]), fingerprint, train, reasons),
        reasons={},
    )
    own = draft.normalisation.high != (255.0,) * fingerprint.channels
    reasons["normalisation"] = (
        "intensity window and mean of the training images"
        if own or not pretrained
        else "what the encoder's weights were trained on"
    )
    found = measure(draft, network, wanted, fingerprint.classes, train, val)
    return draft.model_copy(
        update={"recipe": found.recipe, "execution": found.execution, "reasons": reasons | found.reasons}
    )
