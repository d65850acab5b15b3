"""What changed between two states of a workspace, as far as it bears on a model: data, settings, plan, code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Read = Callable[[str], bytes | None]
"""The content of a file of the workspace, by its path; None where there is none."""

_MEASURED = (
    "timings",
    "ms_per_step",
    "step_ms",
    "ms_per_validation",
    "peak_memory_mib",
    "data_hash",
    "candidate",
    "settings",
)
"""Keys of a plan that are measured, or said elsewhere: no choice of anybody's."""


@dataclass(frozen=True)
class State:
    """What a model was made from. plan: of that model; code: facts by name, such as segpipe's version. Empty where not known."""

    data: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, read: Read, candidate: str, code: Mapping[str, str]) -> State:
        """The state that files of a workspace tell of; what can't be read is not known. candidate: whose plan counts."""
        return cls(
            data=_data(_json(read("artifacts/fingerprint.json"))),
            params=flatten(_yaml(read("params.yaml"))),
            plan=flatten(_plan(_json(read(f"plans/{candidate}.json")))),
            code={name: value for name, value in code.items() if value},
        )


@dataclass(frozen=True)
class Change:
    """One thing that differs; None: it is not there."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ChangeGroup:
    """What changed in one respect. known: whether both sides tell anything of it."""

    title: str
    known: bool
    changes: list[Change]


def compare_states(before: State, after: State) -> list[ChangeGroup]:
    """What differs, by respect, in the order in which it is told."""
    return [
        _part("Data", before.data, after.data),
        _part("Settings", before.params, after.params),
        _part("Plan", before.plan, after.plan),
        _part("Code", before.code, after.code),
    ]


def _part(title: str, before: Mapping[str, str], after: Mapping[str, str]) -> ChangeGroup:
    names = list(dict.fromkeys([*after, *before]))
    found = [Change(n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)]
    return ChangeGroup(title, bool(before) and bool(after), found if before and after else [])


def flatten(content: Any, prefix: str = "") -> dict[str, str]:
    """{a: {b: 1}} -> {"a.b": "1"}; lists are values, and what is null is not there."""
    if isinstance(content, Mapping) and content:
        found: dict[str, str] = {}
        for key, value in content.items():
            found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: _word(content)} if prefix and content is not None else {}


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value == {}:
        return "as by default"
    return value if isinstance(value, str) else json.dumps(value)


def _data(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    if not fingerprint:
        return {}
    counts = {f"{split} images": f"{n:,}" for split, n in (fingerprint.get("n_images") or {}).items()}
    names = [c.get("name", "?") for c in (fingerprint.get("classes") or {}).get("classes", [])]
    told = {key: str(fingerprint[key]) for key in ("channels", "dtype", "groups") if key in fingerprint}
    return {"hash": str(fingerprint.get("data_hash", ""))[:12], **counts, "classes": ", ".join(names), **told}


def _plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in plan.items() if key not in (*_MEASURED, "reasons", "normalisation")}
    if isinstance(kept.get("execution"), Mapping):
        kept["execution"] = {k: v for k, v in kept["execution"].items() if k not in _MEASURED}
    return kept


def _json(content: bytes | None) -> dict[str, Any]:
    return _mapping(content, json.loads)


def _yaml(content: bytes | None) -> dict[str, Any]:
    import yaml

    return _mapping(content, yaml.safe_load)


def _mapping(content: bytes | None, parse: Callable[[bytes], Any]) -> dict[str, Any]:
    """A file of another version may hold anything: what is no mapping tells nothing."""
    parsed = parse(content) if content else {}
    return parsed if isinstance(parsed, dict) else {}
