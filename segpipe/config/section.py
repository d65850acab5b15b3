"""The base class of all sections of params.yaml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of params.yaml: immutable, without unknown keys. The string under a field is the help text of its key."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
