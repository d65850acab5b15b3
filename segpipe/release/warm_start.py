"""The trained model of a release, as training left it: what ``encoder_weights: NAME@VERSION`` goes on from."""

from __future__ import annotations

from pathlib import Path

from segpipe.config import load_params
from segpipe.errors import ConfigError, DataError
from segpipe.files import sha256_file
from segpipe.models.weights.released_weights import parse_release, release_model_folder
from segpipe.release.registry import find_version
from segpipe.workspace.dvc import fetch_out


def fetch_trained(root: Path, source: str) -> Path | None:
    """Bring the model that NAME@VERSION means into the workspace, once; its folder. None for every other kind of source.

    Raises ConfigError for another name than that of this workspace's releases, MissingError for a version that there is not or
    whose model neither the DVC cache nor its remote has.
    """
    parsed = parse_release(source)
    if parsed is None:
        return None
    name, version = parsed
    own = load_params(root).release.name
    if name != own:
        raise ConfigError(
            "no release of this workspace", where="encoder_weights", found=source, expected=f"{own}@VERSION"
        )
    made, folder = find_version(root, version), release_model_folder(root, version)
    weights = folder / "weights.safetensors"
    if not weights.exists() or sha256_file(weights) != made.weights_sha256:
        fetch_out(root, source, f"models/{made.candidate}", folder)
    if sha256_file(weights) != made.weights_sha256:
        raise DataError(
            "the weights are not those that were released", where=weights, fix="dvc fetch, or rebuild the release"
        )
    return folder
