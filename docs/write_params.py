"""Write docs/params.md from the types in segpipe/config/: ``python docs/write_params.py`` (``--check`` fails if it is out of date)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from segpipe.config import GateParams, LossParams, Params

PAGE = Path(__file__).resolve().parent / "params.md"
HEAD = """# params.yaml

Every key, its default and its meaning. Keys that are left out have their defaults, but keep the sections that `dvc.yaml` names, because DVC
needs them. An unknown key is rejected, and the error names the nearest known one.

A candidate takes `family`, the keys of its family (`segpipe families` lists them), a `train:` section that overrides the common one, and
`postprocess`, which selects how instances are found (docs/objects.md).

This page is generated from the types in `segpipe/config/` by `python docs/write_params.py`.
"""


def rows(model: type[BaseModel], prefix: str) -> list[str]:
    """Return a table row for each field of a section."""
    return [
        f"| `{prefix}{field.alias or name}` | {_default(field)} | {' '.join((field.description or '').split())} |"
        for name, field in model.model_fields.items()
    ]


def _default(field: FieldInfo) -> str:
    """Format a default as it would be written in params.yaml; a loss by the weights of its terms."""
    if field.is_required():
        return "required"
    match field.default:
        case None:
            return "`null`"
        case bool(value):
            return f"`{str(value).lower()}`"
        case ():
            return "`[]`"
        case LossParams() as loss:
            return "`{" + ", ".join(f"{name}: {term.weight}" for name, term in loss.terms.items()) + "}`"
        case value:
            return f"`{value}`"


def sections() -> list[tuple[str, type[BaseModel]]]:
    """Return the names of all sections and their models; each gate and each term of the loss is a section too."""
    models: list[tuple[str, type[BaseModel]]] = []
    for name, field in Params.model_fields.items():
        if isinstance(field.default, GateParams):
            gates = GateParams.model_fields.items()
            models += [(f"gates.{gate}", _model_in(gate_field.annotation)) for gate, gate_field in gates]
        elif isinstance(field.default, BaseModel):
            models.append((field.alias or name, type(field.default)))
        if name == "train":
            terms = LossParams.model_fields.items()
            models += [(f"train.loss.{term}", _model_in(term_field.annotation)) for term, term_field in terms]
    return models


def _model_in(annotation: Any) -> type[BaseModel]:
    """Return the model of an optional field or of a list: `Gate | None` -> Gate."""
    types = [annotation, *getattr(annotation, "__args__", ())]
    return next(kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel))


def page() -> str:
    """Return the page as Markdown."""
    lines = [HEAD]
    for name, model in sections():
        lines += [
            f"## {name}",
            "",
            str(model.__doc__),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
            *rows(model, f"{name}."),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/params.md is older than segpipe/config/. Fix: python docs/write_params.py")
    else:
        PAGE.write_text(page())
        print(PAGE.name)
