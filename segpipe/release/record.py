"""The model record: what segpipe knows about a trained model, declared once.

The model card (`bundle.Card`), the record of a release (`registry.Release`) and the answer of `GET /v1/model`
(`segpipe.serving.model_holder.ModelInfo`) derive from it and add only their own fields. All of them are flat JSON objects.
To add a fact about models, add a field with a default here and fill it in `segpipe.release.card.write_card`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Score(BaseModel):
    """A metric on the test images, with its confidence interval."""

    model_config = ConfigDict(extra="forbid")
    value: float
    low: float | None = None
    high: float | None = None


class RecordedVerdict(BaseModel):
    """The verdict of one gate on the model."""

    model_config = ConfigDict(extra="forbid")
    name: str
    verdict: str
    sentence: str


class ModelRecord(BaseModel):
    """The facts about a model that its card, its release and its endpoint have in common."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    candidate: str
    """The name of the candidate in params.yaml."""
    data_hash: str
    """Hash of the dataset that the model was trained and tested on."""
    weights_sha256: str
    """Hash of the trained weights."""
    metric: str
    """The metric by which models are compared; a key of `scores`."""
    scores: dict[str, Score]
    """Metrics on the test images, by name."""
    gates: list[RecordedVerdict]
    """The verdicts of the gates."""
    engine: str | None = None
    """The inference engine that runs the model; null in records of early releases."""
    int8: str | None = None
    """Result of the attempt to run the model in 8-bit integers, in words; null if it was not attempted."""

    def values_of(self, record: type[ModelRecord]) -> dict[str, Any]:
        """Return the values of the fields that a base class declares.

        Args:
            record: `ModelRecord`, or another base class of this model.

        Returns:
            Values by field name, to construct another kind of record from.
        """
        return {name: getattr(self, name) for name in record.model_fields}


class DetailedModelRecord(ModelRecord):
    """A model record with settings and lineage, which a release has in its commit."""

    engine: str
    """The inference engine that runs the model; always known here."""
    family: str
    """The model family (`segpipe families` lists them)."""
    options: dict[str, Any]
    """The settings of the family that the model was built with."""
    lineage: dict[str, str]
    """Hashes of everything the model was made from, by name."""
