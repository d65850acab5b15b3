"""Predict files and write masks and overlays, for `segpipe predict`. Memory is bounded by one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segpipe.config import DataParams
from segpipe.errors import MissingError, SegpipeError
from segpipe.files import read_bytes, safe_name, write_bytes, write_json
from segpipe.inference.files.inputs import decode_input
from segpipe.inference.files.instance_rows import ids_png, instance_rows
from segpipe.inference.files.render import class_shares, mask_nifti, mask_png, overlay_png
from segpipe.inference.segmenter import Segmenter
from segpipe.progress import Progress, say


def predict_files(segmenter: Segmenter, paths: Sequence[Path], out: Path, limits: DataParams) -> list[dict[str, Any]]:
    """Segment files, and all images in folders.

    Writes `out/masks/NAME.png`, `out/overlays/NAME.png` and `out/predictions.json`. The mask of a volume is `NAME.nii.gz`, with the affine
    of its input. If the model yields instances, their ids are written to `out/instances/NAME.png` (uint16).

    Args:
        segmenter: The model.
        paths: Files, and folders that are searched recursively.
        out: The folder for the results.
        limits: Limits on the size of files and images.

    Returns:
        One row per file: `file`, and either `mask`, `overlay` (relative to `out`), `width`, `height` (and `depth`) and `classes` (share of
        pixels by class name), or `error` if the file cannot be read or segmented. With instances also `instances` (relative to `out`) and
        `objects` (id, class, score, box and area of each).

    Raises:
        MissingError: There are no images.
    """
    files = _output_names(_list_files(paths, out, segmenter.spec.dims))
    rows = []
    with Progress("predict", len(files)) as progress:
        for name, path in files.items():
            try:
                row = _predict_file(segmenter, path, out, name, limits)
            except SegpipeError as error:
                say(f"predict: {error}")
                row = {"file": str(path), "error": str(error)}
            rows.append(row)
            progress.advance(note=path.name)
    spec = segmenter.spec
    model = {"candidate": spec.candidate, "engine": segmenter.engine.name, "lineage": spec.lineage}
    write_json(out / "predictions.json", {"model": model, "images": rows})
    return rows


def _predict_file(segmenter: Segmenter, path: Path, out: Path, name: str, limits: DataParams) -> dict[str, Any]:
    from segpipe.data.images import max_bytes

    decoded = decode_input(read_bytes(path, max_bytes(limits)), str(path), limits, segmenter.spec.dims)
    image = decoded.image
    try:
        prediction = segmenter.predict(image, spacing=decoded.spacing, instances=segmenter.spec.dims == 2)
    except SegpipeError as error:  # the segmenter gets an array and cannot name the file
        raise type(error)(error.what, where=path, found=error.found, expected=error.expected, fix=error.fix) from error
    classes = segmenter.spec.classes
    is_image = prediction.class_ids.ndim == 2
    suffix = "png" if is_image else "nii.gz"
    row: dict[str, Any] = {"file": str(path), "mask": f"masks/{name}.{suffix}", "overlay": f"overlays/{name}.png"}
    mask = mask_png(prediction, classes) if is_image else mask_nifti(prediction, classes, decoded.geometry)
    write_bytes(out / row["mask"], mask)
    write_bytes(out / row["overlay"], overlay_png(image, prediction, classes))
    if prediction.instances is not None:
        row["instances"] = f"instances/{name}.png"
        write_bytes(out / row["instances"], ids_png(prediction.instances))
        instances = instance_rows(prediction.instances, classes)
        row["objects"] = [instance.model_dump(exclude_none=True) for instance in instances]
    shares = {share.name: round(share.share, 6) for share in class_shares(prediction, classes)}
    sizes = dict(zip(("width", "height", "depth"), reversed(image.shape[:-1]), strict=False))
    return row | sizes | {"classes": shares}


def _list_files(paths: Sequence[Path], out: Path, dims: int) -> list[Path]:
    """List files and the images (`dims` 2) or volumes (3) in folders, each once, in order. The folder `out` is not searched."""
    from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES, suffix_of

    suffixes = SUFFIXES if dims == 2 else (*VOLUME_SUFFIXES, ".tif", ".tiff")
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        images = sorted(p for p in path.rglob("*") if suffix_of(p) in suffixes and p.is_file())
        files += [p for p in images if out.resolve() not in p.resolve().parents]
    if not files:
        raise MissingError(
            "no images",
            where=", ".join(map(str, paths)) or None,
            fix=f"give files or folders that hold {' '.join(suffixes)}",
        )
    return list(dict.fromkeys(files))


def _output_names(files: Sequence[Path]) -> dict[str, Path]:
    """Choose a unique name for the outputs of each file: its stem, with a number if the stem is already used."""
    from segpipe.data.images import stem_of

    files_by_name: dict[str, Path] = {}
    for path in files:
        stem = safe_name(stem_of(path))
        name, count = stem, 1
        while name in files_by_name:
            count += 1
            name = f"{stem}-{count}"
        files_by_name[name] = path
    return files_by_name
