"""Stages called as functions, from a source of small volumes to metrics.json."""

from __future__ import annotations

import json
from pathlib import Path

from segpipe import stages
from segpipe.data.images import encode_nifti
from segpipe.data.importer import ImportOptions, import_dataset
from tests.worlds.volumes import ellipsoid


def write_volumes(folder: Path, count: int) -> None:
    """Write a source of volumes with their labels as NIfTI files."""
    for index in range(count):
        sample = ellipsoid(index)
        for part, voxels in (("images", sample.image[..., 0]), ("labels", sample.labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / part / f"{sample.key}.nii.gz").write_bytes(encode_nifti(voxels))


def run_stages(root: Path, source: Path, params: str, names: list[str]) -> dict:
    """Run every stage and return metrics.json by candidate."""
    root.mkdir()
    (root / "params.yaml").write_text(params)
    (root / "champion.json").write_text('{"version": null}')
    import_dataset(source, root / "data", "auto", ImportOptions())
    stages.ingest(root)
    stages.validate(root)
    stages.prepare(root)
    for name in names:
        stages.plan(root, name)
        stages.train(root, name)
        stages.evaluate(root, name)
    return {name: json.loads((root / "evaluation" / name / "metrics.json").read_text()) for name in names}
