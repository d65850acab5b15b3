"""params.yaml as types: one source of defaults, of checks and of the words that explain a key.

Unknown keys are refused, with the nearest known one named. A candidate's own keys (encoder and so on) belong to its family
(`segpipe.models.registry`), which checks them; here they are carried.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segpipe.config.gates import GateParams
from segpipe.config.sections import (
    BUDGET_EXAMPLES,
    Candidate,
    DataParams,
    EvaluateParams,
    ExportParams,
    ReleaseParams,
    ServeParams,
    SplitParams,
    TrainParams,
    ValidateParams,
)
from segpipe.errors import ConfigError
from segpipe.files import read_bytes
from segpipe.json_models import validation_error

PARAMS_FILE = "params.yaml"


class Params(BaseModel):
    """The whole of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: DataParams = DataParams()
    split: SplitParams = SplitParams()
    validation: ValidateParams = Field(ValidateParams(), alias="validate")
    train: TrainParams = TrainParams()
    candidates: dict[Annotated[str, Field(pattern=r"^[a-zA-Z][\w-]*$")], Candidate] = Field(min_length=1)
    evaluate: EvaluateParams = EvaluateParams()
    gates: GateParams = GateParams()
    export: ExportParams = ExportParams()
    release: ReleaseParams = ReleaseParams()
    serve: ServeParams = ServeParams()

    def candidate(self, name: str) -> Candidate:
        """The candidate of this name, or an error that lists those there are."""
        if name not in self.candidates:
            raise ConfigError(
                "no such candidate",
                where=PARAMS_FILE,
                found=name,
                expected=" or ".join(self.candidates),
                fix=f"name one of them, or add `{name}:` under `candidates:`",
            )
        return self.candidates[name]

    def train_for(self, name: str) -> TrainParams:
        """The common training settings with the candidate's own over them."""
        own = self.candidate(name).train
        try:
            return TrainParams.model_validate(self.train.model_dump() | own)
        except ValidationError as error:
            raise validation_error(error, f"{PARAMS_FILE}: candidates.{name}.train", TrainParams) from error

    def explicit_settings(self, name: str) -> dict[str, Any]:
        """What is set of a candidate and its training, as JSON, by key; what is left to its default is not there."""
        candidate, train = self.candidate(name), self.train_for(name)
        said = train.model_dump(
            mode="json", include=self.train.model_fields_set | candidate.train.keys(), exclude_none=True
        )
        own = candidate.model_dump(mode="json", exclude_unset=True, exclude={"train"})
        return own | {f"train.{key}": value for key, value in said.items()}


def load_params(root: Path = Path()) -> Params:
    """Read and check `root/params.yaml`."""
    path = root / PARAMS_FILE
    if not path.exists():
        raise ConfigError(
            "no params.yaml here",
            where=root.resolve(),
            fix="go to a workspace, or make one: segpipe init DIR --data IMAGES",
        )
    return parse_params(read_bytes(path, 1 << 20).decode(), PARAMS_FILE)


def parse_params(text: str, where: str = PARAMS_FILE) -> Params:
    """Parse and check the text of a params.yaml."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"is not valid YAML: {error}", where=where) from error
    if not isinstance(content, dict):
        raise ConfigError(
            "holds no settings", where=where, found=type(content).__name__, expected="a mapping of sections"
        )
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise validation_error(error, where, Params) from error


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(budget: str) -> tuple[Literal["seconds", "steps", "epochs"], float]:
    """'90s' -> ("seconds", 90.0), '500 steps' -> ("steps", 500.0), '40 epochs' -> ("epochs", 40.0)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|step|epoch)s?\s*", budget)
    if not match or not float(match[1]):
        raise ConfigError("not a training budget", where="train.budget", found=repr(budget), expected=BUDGET_EXAMPLES)
    amount, unit = float(match[1]), match[2]
    if unit in _UNITS:
        return "seconds", amount * _UNITS[unit]
    return ("steps", amount) if unit == "step" else ("epochs", amount)
