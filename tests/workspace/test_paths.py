"""The paths of a workspace are declared in one place."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from segpipe.workspace.paths import Paths

FOLDERS = r"data|artifacts|reports|models|training|evaluation|plans|bundle|predictions|flows|\.segpipe"
FILES = r"(?:selection|champion|reference)\.json"
HAND_WRITTEN = re.compile(rf'\b(?:root|workspace|folder)\s*/\s*"(?:{FOLDERS}|{FILES})"|"\.segpipe"')
ELSEWHERE = {
    "segpipe/workspace/paths.py": "declares them",
    "segpipe/release/registry.py": "folder / bundle is the copy inside a release",
}


def test_only_paths_names_the_folders_of_a_workspace(repo_root: Path) -> None:
    found = []
    for source in [*(repo_root / "segpipe").rglob("*.py"), *(repo_root / "flows").glob("*.py")]:
        name = source.relative_to(repo_root).as_posix()
        if name not in ELSEWHERE:
            lines = source.read_text().splitlines()
            found += [f"{name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if HAND_WRITTEN.search(line)]
    assert not found, "use segpipe.workspace.paths.Paths:\n" + "\n".join(found)


def test_dvc_yaml_has_the_same_outs(repo_root: Path) -> None:
    """What the stages write, by dvc.yaml, is what Paths names."""
    stages = yaml.safe_load((repo_root / "dvc.yaml").read_text())["stages"]
    paths = Paths(Path())
    expected = {
        "ingest": [paths.manifest, paths.fingerprint],
        "validate": [paths.validation],
        "prepare": [paths.splits, paths.shards],
        "plan": [paths.plan("unet")],
        "train": [paths.model("unet"), paths.training("unet") / "metrics.json"],
        "evaluate": [paths.metrics("unet"), paths.scores("unet")],
        "select": [paths.selection, paths.report],
        "export": [paths.bundle],
    }
    assert expected.keys() == stages.keys()
    for name, stage in stages.items():
        body = stage.get("do", stage)
        entries = [entry for key in ("outs", "metrics", "plots") for entry in body.get(key, [])]
        written = {next(iter(e)) if isinstance(e, dict) else e for e in entries}
        named = {path.as_posix().replace("unet", "${key}") for path in expected[name]}
        assert named <= written, name
