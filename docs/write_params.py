"""Write docs/params.md from the types in segpipe/config.py: ``python docs/write_params.py`` (``--check`` fails where it is old)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from segpipe.config import GateParams, LossParams, Params

PAGE = Path(__file__).resolve().parent / "params.md"
HEAD = """# params.yaml

Every key, its default and what it does. segpipe fills in what is left out; DVC wants the section headings that `dvc.yaml` names, so keep
those.
An unknown key is refused, with the nearest known one named. A candidate takes, beside `family`, the keys of its family (`segpipe families`)
and a `train:` section of its own over the common one; and `postprocess`, how objects are found (docs/objects.md).

This page is written from the types: `python docs/write_params.py`.
"""


def rows(model: type[BaseModel], prefix: str) -> list[str]:
    """Table rows for the fields of a section."""
    lines = []
    for name, field in model.model_fields.items():
        default: Any = "null" if field.default is None else _short(field.default)
        lines.append(
            f"| `{prefix}{field.alias or name}` | `{default}` | {' '.join((field.description or '').split())} |"
        )
    return lines


def _short(default: Any) -> Any:
    """A loss as the weights of its terms; anything else as it is."""
    if not isinstance(default, LossParams):
        return default
    return "{" + ", ".join(f"{name}: {term.weight}" for name, term in default.terms.items()) + "}"


def sections() -> list[tuple[str, type[BaseModel]]]:
    """Section names and their models, with each gate and each term of the loss as a section of its own."""
    found: list[tuple[str, type[BaseModel]]] = []
    for name, field in Params.model_fields.items():
        if isinstance(field.default, GateParams):
            found += [(f"gates.{gate}", _model_in(of.annotation)) for gate, of in GateParams.model_fields.items()]
        elif isinstance(field.default, BaseModel):
            found.append((field.alias or name, type(field.default)))
        if name == "train":
            found += [(f"train.loss.{term}", _model_in(of.annotation)) for term, of in LossParams.model_fields.items()]
    return found


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model of an optional field or of a list: `Gate | None` -> Gate."""
    types = [annotation, *getattr(annotation, "__args__", ())]
    return next(t for t in types if isinstance(t, type) and issubclass(t, BaseModel))


def page() -> str:
    """The page as Markdown."""
    out = [HEAD]
    for name, model in sections():
        out += [
            f"## {name}",
            "",
            str(model.__doc__),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
            *rows(model, f"{name}."),
            "",
        ]
    return "\n".join(out)


if __name__ == "__main__":
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/params.md is older than segpipe/config.py. Fix: python docs/write_params.py")
    else:
        PAGE.write_text(page())
        print(PAGE.name)
