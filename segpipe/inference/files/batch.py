"""Files in, masks and overlays out: what `segpipe predict` does. Memory is bounded by one image."""

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
    """Segment files, and folders of files, into `out/masks/NAME.png`, `out/overlays/NAME.png` and `out/predictions.json`; a
    volume's mask is `NAME.nii.gz`, with the affine of its input. Where the model tells objects apart, their ids go into
    `out/instances/NAME.png` (uint16), and a row has them as `objects` (class, score, box, area).

    Returns one row a file: `file`, and either `mask`, `overlay` (relative to `out`), `width`, `height` (`depth`) and `classes`
    (share by name), or `error`: a file that cannot be read is reported and the rest goes on.
    """
    jobs = _named(_expand(paths, out, segmenter.spec.dims))
    rows = []
    with Progress("predict", len(jobs)) as progress:
        for name, path in jobs.items():
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

    given = decode_input(read_bytes(path, max_bytes(limits)), str(path), limits, segmenter.spec.dims)
    image = given.image
    try:
        prediction = segmenter.predict(image, spacing=given.spacing, instances=segmenter.spec.dims == 2)
    except SegpipeError as error:  # the segmenter sees an array and knows of no file
        raise type(error)(error.what, where=path, found=error.found, expected=error.expected, fix=error.fix) from error
    classes = segmenter.spec.classes
    flat = prediction.class_ids.ndim == 2
    suffix = "png" if flat else "nii.gz"
    row: dict[str, Any] = {"file": str(path), "mask": f"masks/{name}.{suffix}", "overlay": f"overlays/{name}.png"}
    mask = mask_png(prediction, classes) if flat else mask_nifti(prediction, classes, given.geometry)
    write_bytes(out / row["mask"], mask)
    write_bytes(out / row["overlay"], overlay_png(image, prediction, classes))
    if prediction.instances is not None:
        row["instances"] = f"instances/{name}.png"
        write_bytes(out / row["instances"], ids_png(prediction.instances))
        row["objects"] = [found.model_dump(exclude_none=True) for found in instance_rows(prediction.instances, classes)]
    shares = {share.name: round(share.share, 6) for share in class_shares(prediction, classes)}
    sizes = dict(zip(("width", "height", "depth"), reversed(image.shape[:-1]), strict=False))
    return row | sizes | {"classes": shares}


def _expand(paths: Sequence[Path], out: Path, dims: int) -> list[Path]:
    """The files that are meant, each once, in order. Folders are walked for images (or volumes: `dims` 3), but not into `out`."""
    from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES, suffix_of

    suffixes = SUFFIXES if dims == 2 else (*VOLUME_SUFFIXES, ".tif", ".tiff")
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(p for p in path.rglob("*") if suffix_of(p) in suffixes and p.is_file())
        files += [p for p in found if out.resolve() not in p.resolve().parents]
    if not files:
        raise MissingError(
            "no images",
            where=", ".join(map(str, paths)) or None,
            fix=f"give files or folders that hold {' '.join(suffixes)}",
        )
    return list(dict.fromkeys(files))


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """A name for each file's outputs: its stem, with a number where that is taken."""
    from segpipe.data.images import stem_of

    named: dict[str, Path] = {}
    for path in files:
        stem = safe_name(stem_of(path))
        name, count = stem, 1
        while name in named:
            count += 1
            name = f"{stem}-{count}"
        named[name] = path
    return named
