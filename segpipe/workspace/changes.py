"""Compare two states of a workspace in all that affects a model: data, settings, plan, code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Read = Callable[[str], bytes | None]
"""Returns the content of a file of the workspace by its path, or None if there is no such file."""

_NOT_A_CHOICE = (
    "timings",
    "ms_per_step",
    "step_ms",
    "ms_per_validation",
    "peak_memory_mib",
    "data_hash",
    "candidate",
    "settings",
)
"""Keys of a plan that are measured, or compared elsewhere: nobody chose them."""


@dataclass(frozen=True)
class State:
    """The state that a model was made from: data, settings, plan and code. A mapping is empty if nothing is known.

    data: facts about the dataset by name; params: params.yaml with dotted keys; plan: the plan of the model with dotted keys; code: facts
    about the code by name, such as segpipe's version.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, read: Read, candidate: str, code: Mapping[str, str]) -> State:
        """Read a state from the files of a workspace; a file that is missing counts as not known.

        Args:
            read: returns the content of a file by its path.
            candidate: the candidate whose plan is read.
            code: facts about the code by name; empty values are left out.
        """
        return cls(
            data=_data(_json(read("artifacts/fingerprint.json"))),
            params=flatten(_yaml(read("params.yaml"))),
            plan=flatten(_plan(_json(read(f"plans/{candidate}.json")))),
            code={name: value for name, value in code.items() if value},
        )


@dataclass(frozen=True)
class Change:
    """One value that differs; None means that it does not exist on that side."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ChangeGroup:
    """The changes of the data, the settings, the plan or the code. known: whether both sides are known."""

    title: str
    known: bool
    changes: list[Change]


def compare_states(before: State, after: State) -> list[ChangeGroup]:
    """Return the differences, grouped by data, settings, plan and code, in the order in which it is shown."""
    return [
        _compare("Data", before.data, after.data),
        _compare("Settings", before.params, after.params),
        _compare("Plan", before.plan, after.plan),
        _compare("Code", before.code, after.code),
    ]


def _compare(title: str, before: Mapping[str, str], after: Mapping[str, str]) -> ChangeGroup:
    if not (before and after):
        return ChangeGroup(title, False, [])
    names = list(dict.fromkeys([*after, *before]))
    changes = [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]
    return ChangeGroup(title, True, changes)


def flatten(content: Any, prefix: str = "") -> dict[str, str]:
    """Turn nested mappings into one with dotted keys: {a: {b: 1}} -> {"a.b": "1"}. Lists are values; null values are left out."""
    if isinstance(content, Mapping) and content:
        flat: dict[str, str] = {}
        for key, value in content.items():
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: _format(content)} if prefix and content is not None else {}


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value == {}:
        return "defaults"
    return value if isinstance(value, str) else json.dumps(value)


def _data(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    if not fingerprint:
        return {}
    counts = {f"{split} images": f"{n:,}" for split, n in (fingerprint.get("n_images") or {}).items()}
    names = [c.get("name", "?") for c in (fingerprint.get("classes") or {}).get("classes", [])]
    facts = {key: str(fingerprint[key]) for key in ("channels", "dtype", "groups") if key in fingerprint}
    return {"hash": str(fingerprint.get("data_hash", ""))[:12], **counts, "classes": ", ".join(names), **facts}


def _plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    choices = {key: value for key, value in plan.items() if key not in (*_NOT_A_CHOICE, "reasons", "normalisation")}
    if isinstance(choices.get("execution"), Mapping):
        choices["execution"] = {key: value for key, value in choices["execution"].items() if key not in _NOT_A_CHOICE}
    return choices


def _json(content: bytes | None) -> dict[str, Any]:
    return _mapping(content, json.loads)


def _yaml(content: bytes | None) -> dict[str, Any]:
    import yaml

    return _mapping(content, yaml.safe_load)


def _mapping(content: bytes | None, parse: Callable[[bytes], Any]) -> dict[str, Any]:
    """Parse a file of any version of segpipe; content that is not a mapping counts as empty."""
    parsed = parse(content) if content else {}
    return parsed if isinstance(parsed, dict) else {}
