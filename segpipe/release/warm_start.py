"""Fetch the trained model of a release, from which a training with ``encoder_weights: NAME@VERSION`` starts."""

from __future__ import annotations

from pathlib import Path

from segpipe.config import load_params
from segpipe.errors import ConfigError, DataError
from segpipe.files import sha256_file
from segpipe.models.weights.released_weights import parse_release, release_model_folder
from segpipe.release.registry import find_version
from segpipe.workspace.dvc import fetch_out


def fetch_trained(root: Path, source: str) -> Path | None:
    """Fetch the trained model of a release into the workspace, unless it is there already.

    Args:
        root: the workspace.
        source: a value of `encoder_weights`.

    Returns:
        The folder of the model; None if the source is not of the form NAME@VERSION.

    Raises:
        ConfigError: NAME is not the name of this workspace's releases.
        MissingError: there is no such version, or neither the DVC cache nor the DVC remote has its model.
        DataError: the fetched weights are not those that were released.
    """
    parsed = parse_release(source)
    if parsed is None:
        return None
    name, version = parsed
    workspace_name = load_params(root).release.name
    if name != workspace_name:
        raise ConfigError(
            "not a release of this workspace",
            where="encoder_weights",
            found=source,
            expected=f"{workspace_name}@VERSION",
            fix="segpipe models lists the versions",
        )
    release, folder = find_version(root, version), release_model_folder(root, version)
    weights = folder / "weights.safetensors"
    if not weights.exists() or sha256_file(weights) != release.weights_sha256:
        fetch_out(root, source, f"models/{release.candidate}", folder)
    if sha256_file(weights) != release.weights_sha256:
        raise DataError(
            "the weights are not those that were released",
            where=weights,
            fix=f"segpipe verify {version} shows what differs",
        )
    return folder
