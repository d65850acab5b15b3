"""params.yaml as types: one source of defaults, of checks and of the words that explain a key.

Unknown keys are refused, with the nearest known one named. A candidate's own keys (encoder and so on) belong to its family
(`segpipe.models.registry`), which checks them; here they are carried.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from segpipe.config.gates import GateParams
from segpipe.config.sections import (
    BUDGET_PATTERN,
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

PARAMS_FILE = "params.yaml"


class Params(BaseModel):
    """The whole of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: DataParams = DataParams()
    split: SplitParams = SplitParams()  # type: ignore[call-arg]
    validation: ValidateParams = Field(ValidateParams(), alias="validate")  # type: ignore[call-arg]
    train: TrainParams = TrainParams()  # type: ignore[call-arg]
    candidates: dict[Annotated[str, Field(pattern=r"^[a-zA-Z][\w-]*$")], Candidate] = Field(min_length=1)
    evaluate: EvaluateParams = EvaluateParams()  # type: ignore[call-arg]
    gates: GateParams = GateParams()
    export: ExportParams = ExportParams()  # type: ignore[call-arg]
    release: ReleaseParams = ReleaseParams()  # type: ignore[call-arg]
    serve: ServeParams = ServeParams()  # type: ignore[call-arg]

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
            raise config_error(error, f"{PARAMS_FILE}: candidates.{name}.train", TrainParams) from error

    def set_for(self, name: str) -> dict[str, Any]:
        """What is set of a candidate and its training, as JSON, by key; what is left to its default is not there."""
        candidate, train = self.candidate(name), self.train_for(name)
        said = train.model_dump(
            mode="json", include=self.train.model_fields_set | candidate.train.keys(), exclude_none=True
        )
        own = candidate.model_dump(mode="json", exclude_unset=True, exclude={"train"})
        return own | {f"train.{key}": value for key, value in said.items()}


def config_error(error: ValidationError, where: str | Path, model: type[BaseModel]) -> ConfigError:
    """The first complaint of pydantic as one line: the key, the value found, what was expected, the nearest known key."""
    complaints = error.errors()
    first, place = complaints[0], _place(model, complaints[0]["loc"])
    of_it = [complaint for complaint in complaints if _place(model, complaint["loc"]) == place]
    key = ".".join(str(part) for part in place)
    others = len({_place(model, complaint["loc"]) for complaint in complaints}) - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        return ConfigError(f"unknown key `{key}`{more}", where=where, fix=fix)
    found = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
    nearest = [c for c in of_it if not c["type"].endswith(_OF_ANOTHER_TYPE)] or of_it
    expected = " or ".join(dict.fromkeys(_expected(complaint) for complaint in nearest))
    return ConfigError(
        f"`{key}` is wrong{more}" if key else f"wrong{more}", where=where, found=found, expected=expected
    )


def _place(model: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The keys of a complaint; what pydantic adds for each type that a value might have had is left out."""
    kind = model
    for depth, part in enumerate(location):
        kinds = [k for k in _alternatives(kind) if k is not type(None)]
        if len(kinds) != 1:
            return location[:depth]
        if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
            fields = kinds[0].model_fields.items()
            kind = next((field.annotation for name, field in fields if part in (name, field.alias)), None)
        else:
            kind = next(reversed(get_args(kinds[0])), None)
    return location


def _alternatives(kind: Any) -> list[Any]:
    """The types that a value may have, without what is annotated to them."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [inner for member in get_args(kind) for inner in _alternatives(member)]
    return [kind]


_WORDS = {
    "missing": "a value",
    "model_type": "a mapping of settings",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "bool_parsing": "true or false",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
}
"""What pydantic expected, where its own words are for programmers."""
_OF_ANOTHER_TYPE = ("_type", "_parsing", "literal_error")
"""How its names for complaints end where a value is of another type. Where it might have had one of several and is of one, what is wrong
with it as that one says more."""


def _expected(complaint: ErrorDetails) -> str:
    context = complaint.get("ctx", {})
    if context.get("pattern") == BUDGET_PATTERN:
        return _A_BUDGET
    if complaint["type"] in _WORDS:
        return _WORDS[complaint["type"]].format(**context)
    message = re.sub(r"^(Value error, |Input should be )", "", complaint["msg"])
    return message[:1].lower() + message[1:]


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that a model knows at a place such as ("gates", "floor")."""
    for part in (part for part in location if isinstance(part, str)):  # places in a list are passed over
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        types = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return [f.alias or name for name, f in model.model_fields.items()]


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
        raise config_error(error, where, Params) from error


_A_BUDGET = 'such as "90s", "10m", "2h", "500 steps" or "40 epochs"'
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(budget: str) -> tuple[Literal["seconds", "steps", "epochs"], float]:
    """'90s' -> ("seconds", 90.0), '500 steps' -> ("steps", 500.0), '40 epochs' -> ("epochs", 40.0)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|step|epoch)s?\s*", budget)
    if not match or not float(match[1]):
        raise ConfigError("not a training budget", where="train.budget", found=repr(budget), expected=_A_BUDGET)
    amount, unit = float(match[1]), match[2]
    if unit in _UNITS:
        return "seconds", amount * _UNITS[unit]
    return ("steps", amount) if unit == "step" else ("epochs", amount)
