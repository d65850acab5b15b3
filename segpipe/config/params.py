"""Read and check params.yaml.

Unknown keys are rejected with the nearest known one. The keys of a candidate (encoder and so on) belong to its family, which checks them
(`segpipe.models.registry`).
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
    """All settings of params.yaml."""

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
        """Return the candidate of this name.

        Raises:
            ConfigError: there is none; the message lists the candidates.
        """
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
        """Return the training settings of a candidate: the common ones, overridden by its own.

        Raises:
            ConfigError: there is no such candidate, or its settings are not valid.
        """
        overrides = self.candidate(name).train
        try:
            return TrainParams.model_validate(self.train.model_dump() | overrides)
        except ValidationError as error:
            raise validation_error(error, f"{PARAMS_FILE}: candidates.{name}.train", TrainParams) from error

    def explicit_settings(self, name: str) -> dict[str, Any]:
        """Return the settings of a candidate that params.yaml sets, without those that are left to their defaults.

        Returns:
            JSON values by key; the keys of training settings begin with "train.".
        """
        candidate, train = self.candidate(name), self.train_for(name)
        train_settings = train.model_dump(
            mode="json", include=self.train.model_fields_set | candidate.train.keys(), exclude_none=True
        )
        family_settings = candidate.model_dump(mode="json", exclude_unset=True, exclude={"train"})
        return family_settings | {f"train.{key}": value for key, value in train_settings.items()}


def load_params(root: Path = Path()) -> Params:
    """Read and check `root/params.yaml`.

    Raises:
        ConfigError: the file is missing or not valid.
    """
    path = root / PARAMS_FILE
    if not path.exists():
        raise ConfigError(
            "no params.yaml here",
            where=root.resolve(),
            fix="go to a workspace, or make one: segpipe init DIR --data IMAGES",
        )
    return parse_params(read_bytes(path, 1 << 20).decode(), PARAMS_FILE)


def parse_params(text: str, where: str = PARAMS_FILE) -> Params:
    """Parse and check the text of a params.yaml.

    Args:
        text: YAML.
        where: the name of the file, for error messages.

    Raises:
        ConfigError: the text is not YAML, or a key or value is not valid.
    """
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: impossible dates
        raise ConfigError(f"is not valid YAML: {error}", where=where) from error
    if not isinstance(content, dict):
        raise ConfigError(
            "holds no settings", where=where, found=type(content).__name__, expected="a mapping of sections"
        )
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise validation_error(error, where, Params) from error


_SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(budget: str) -> tuple[Literal["seconds", "steps", "epochs"], float]:
    """Parse a training budget: '90s' -> ("seconds", 90.0), '500 steps' -> ("steps", 500.0), '40 epochs' -> ("epochs", 40.0).

    Raises:
        ConfigError: the text is not a budget.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|step|epoch)s?\s*", budget)
    if not match or not float(match[1]):
        raise ConfigError("not a training budget", where="train.budget", found=repr(budget), expected=BUDGET_EXAMPLES)
    amount, unit = float(match[1]), match[2]
    if unit in _SECONDS_PER_UNIT:
        return "seconds", amount * _SECONDS_PER_UNIT[unit]
    return ("steps", amount) if unit == "step" else ("epochs", amount)
