"""The settings of `train.loss`: the terms of the loss, each with its weight and options."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from segpipe.config.section import Section


class Term(Section):
    """A term of the loss. In params.yaml, a plain number means a term with this weight."""

    weight: float = Field(1.0, gt=0)
    """Factor of the term in the sum."""


class CrossEntropyTerm(Term):
    """Mean of -log p over pixels, weighted by class (`train.class_balance`)."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target probability that is spread over all classes; useful if labels are not exact to the pixel."""


class DiceTerm(Term):
    """1 - soft Dice, averaged over the classes that are present, so that small classes count as much as large ones."""


class TverskyTerm(Term):
    """1 - Tversky index: like Dice, with separate weights for the two kinds of error (0.5 and 0.5 give Dice)."""

    false_positive: float = Field(0.3, gt=0, le=1)
    """Weight of a pixel that is wrongly assigned to the class."""
    false_negative: float = Field(0.7, gt=0, le=1)
    """Weight of a pixel of the class that is missed."""


class FocalTerm(Term):
    """Cross entropy with the additional weight (1 - p)^gamma, so that pixels that are already right count little."""

    gamma: float = Field(2.0, ge=0, le=10)
    """Exponent: the larger it is, the faster the weight falls with the probability p of the right class; 0 gives cross entropy."""


class LovaszTerm(Term):
    """Lovász-softmax, a surrogate of the IoU. It sorts all pixels once per class, so a step takes longer."""


class TopKTerm(Term):
    """Cross entropy over the hardest pixels of the batch only."""

    share: float = Field(0.2, gt=0, le=1)
    """Smallest share of the labelled pixels that is kept."""
    threshold: float | None = Field(None, gt=0, lt=1)
    """Keep in addition each pixel whose class has a probability below this value (online hard example mining); null: none."""


class BoundaryTerm(Term):
    """Cross entropy over the pixels near a border between classes, weighted by a Gaussian of the distance."""

    sigma: float = Field(2.0, gt=0, le=16)
    """Standard deviation of the Gaussian in pixels; pixels further than three of these from a border have weight 0."""


def _expand_number(value: Any) -> Any:
    return {"weight": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_NumberIsWeight = BeforeValidator(_expand_number)


class LossParams(Section):
    """The loss as a sum of terms; those that are null are off. A term is a number (its weight), or a mapping with `weight` and options."""

    cross_entropy: Annotated[CrossEntropyTerm | None, _NumberIsWeight] = None
    dice: Annotated[DiceTerm | None, _NumberIsWeight] = None
    tversky: Annotated[TverskyTerm | None, _NumberIsWeight] = None
    focal: Annotated[FocalTerm | None, _NumberIsWeight] = None
    lovasz: Annotated[LovaszTerm | None, _NumberIsWeight] = None
    top_k: Annotated[TopKTerm | None, _NumberIsWeight] = None
    boundary: Annotated[BoundaryTerm | None, _NumberIsWeight] = None

    @model_validator(mode="after")
    def _has_a_term(self) -> LossParams:
        if not self.terms:
            raise ValueError(f"at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def terms(self) -> dict[str, Term]:
        """The terms that are on, by name, in the order of the fields."""
        return {name: term for name in type(self).model_fields if (term := getattr(self, name)) is not None}

    def __str__(self) -> str:
        return " + ".join(_describe(name, term) for name, term in self.terms.items())


def _describe(name: str, term: Term) -> str:
    weight = "" if term.weight == 1 else f"{term.weight:g} "
    options = ", ".join(
        f"{key.replace('_', ' ')} {value:g}" for key, value in term.model_dump(exclude={"weight"}).items() if value
    )
    return f"{weight}{name.replace('_', ' ')}" + (f" ({options})" if options else "")
