"""`train.loss`: the terms of the loss, each with its weight and its own options."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from segpipe.config.section import Section


class Term(Section):
    """A part of the loss. A number in its place is its weight."""

    weight: float = Field(1.0, gt=0)
    """What the term is multiplied by in the sum."""


class CrossEntropyTerm(Term):
    """The mean over pixels of -log p, weighted by class (`train.class_balance`)."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes, against labels that are not to be trusted to the pixel."""


class DiceTerm(Term):
    """1 - soft Dice, averaged over the classes present: small classes count as much as large ones."""


class TverskyTerm(Term):
    """1 - Tversky index, as Dice, with a price of its own for each kind of error (0.5 and 0.5: Dice)."""

    false_positive: float = Field(0.3, gt=0, le=1)
    """Price of a pixel that is wrongly given to the class."""
    false_negative: float = Field(0.7, gt=0, le=1)
    """Price of a pixel of the class that is missed."""


class FocalTerm(Term):
    """Cross entropy with (1 - p)^gamma as further weight: what is already right counts little."""

    gamma: float = Field(2.0, ge=0, le=10)
    """How fast the weight falls with p; 0 gives cross entropy."""


class LovaszTerm(Term):
    """Lovász-softmax: the surrogate of the IoU itself. Sorts all pixels once a class, so a step takes longer."""


class TopKTerm(Term):
    """Cross entropy over the hardest pixels of the batch alone."""

    share: float = Field(0.2, gt=0, le=1)
    """Share of the counted pixels that is kept, at least."""
    threshold: float | None = Field(None, gt=0, lt=1)
    """Keep besides each pixel whose class has a lower probability than this (online hard example mining); null: none."""


class BoundaryTerm(Term):
    """Cross entropy over the pixels near a border between classes, by a bell curve of the distance."""

    sigma: float = Field(2.0, gt=0, le=16)
    """Width of the bell in pixels; what is further than three of it from a border counts nothing here."""


def _weight_alone(value: Any) -> Any:
    return {"weight": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_Short = BeforeValidator(_weight_alone)


class LossParams(Section):
    """The sum of the terms named; the others are null. A term is a number, its weight, or a mapping with `weight` and options."""

    cross_entropy: Annotated[CrossEntropyTerm | None, _Short] = None
    dice: Annotated[DiceTerm | None, _Short] = None
    tversky: Annotated[TverskyTerm | None, _Short] = None
    focal: Annotated[FocalTerm | None, _Short] = None
    lovasz: Annotated[LovaszTerm | None, _Short] = None
    top_k: Annotated[TopKTerm | None, _Short] = None
    boundary: Annotated[BoundaryTerm | None, _Short] = None

    @model_validator(mode="after")
    def _something(self) -> LossParams:
        if not self.terms:
            raise ValueError(f"at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def terms(self) -> dict[str, Term]:
        """The terms that are on, in the order of the fields."""
        return {name: term for name in type(self).model_fields if (term := getattr(self, name)) is not None}

    def __str__(self) -> str:
        return " + ".join(_in_words(name, term) for name, term in self.terms.items())


def _in_words(name: str, term: Term) -> str:
    weight = "" if term.weight == 1 else f"{term.weight:g} "
    options = ", ".join(
        f"{key.replace('_', ' ')} {value:g}" for key, value in term.model_dump(exclude={"weight"}).items() if value
    )
    return f"{weight}{name.replace('_', ' ')}" + (f" ({options})" if options else "")
