"""Predict files and write masks and overlays, for `segpipe predict`. Memory is bounded by one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segpipe.config import DataParams
from segpipe.errors import SegpipeError
from segpipe.files import write_bytes
from segpipe.inference.files.earlier_run import Existing, RunRecord
from segpipe.inference.files.inputs import decode_input
from segpipe.inference.files.instance_rows import ids_png, instance_rows
from segpipe.inference.files.output_names import list_files
from segpipe.inference.files.render import class_shares, mask_nifti, mask_png, overlay_png
from segpipe.inference.segmenter import Segmenter
from segpipe.progress import Progress, say


def predict_files(
    segmenter: Segmenter, paths: Sequence[Path], out: Path, limits: DataParams, existing: Existing = "refuse"
) -> list[dict[str, Any]]:
    """Segment files, and all images in folders.

    Writes `out/masks/NAME.png`, `out/overlays/NAME.png` and `out/predictions.json`; NAME is the path of the image below its folder
    (`segpipe.inference.files.output_names`). The mask of a volume is `NAME.nii.gz`, with the header and the order of voxels of its
    input, and that of a GeoTIFF is `NAME.tif` with its coordinate system and transform. If the model yields instances, their ids are
    written to `out/instances/NAME.png` (uint16).

    Args:
        segmenter: The model.
        paths: Files, and folders that are searched recursively.
        out: The folder for the results.
        limits: Limits on the size of files and images.
        existing: What happens to the results of an earlier run in `out`.

    Returns:
        One row per file: `file`, and either `mask`, `overlay` (relative to `out`), `width`, `height` (and `depth`) and `classes` (share of
        pixels by class name), or `error` if the file cannot be read or segmented. With instances also `instances` (relative to `out`) and
        `objects` (id, class, score, box and area of each). `notes` lists conversions of the input, if there were any.

    Raises:
        MissingError: There are no images.
        ConfigError: `out` holds results that would be mixed or replaced.
    """
    files = list_files(paths, out, segmenter.spec.dims)
    spec = segmenter.spec
    model = {"candidate": spec.candidate, "engine": segmenter.engine.name, "lineage": spec.lineage}
    record = RunRecord(out, model, files, existing)
    rows = []
    with Progress("predict", len(files)) as progress:
        for name, path in files.items():
            row = record.done.get(str(path))
            if row is None:
                try:
                    row = _predict_file(segmenter, path, out, name, limits)
                except SegpipeError as error:
                    say(f"predict: {error}")
                    row = {"file": str(path), "error": str(error)}
                record.add(row)
            rows.append(row)
            progress.advance(note=path.name)
    record.finish(rows)
    return rows


def _predict_file(segmenter: Segmenter, path: Path, out: Path, name: str, limits: DataParams) -> dict[str, Any]:
    from segpipe.data.images.formats.detached import read_image_file
    from segpipe.data.images.formats.dicom import dicom_files, series_volume
    from segpipe.data.images.formats.geotiff import encode_geotiff, geo_tags

    content = series_volume(dicom_files(path), limits) if path.is_dir() else read_image_file(path, limits)
    decoded = decode_input(content, str(path), limits, segmenter.spec)
    image = decoded.image
    try:
        prediction = segmenter.predict(image, spacing=decoded.spacing, instances=segmenter.spec.dims == 2)
    except SegpipeError as error:  # the segmenter gets an array and cannot name the file
        raise type(error)(error.what, where=path, found=error.found, expected=error.expected, fix=error.fix) from error
    classes = segmenter.spec.classes
    is_image = prediction.class_ids.ndim == 2
    place = geo_tags(content, str(path)) if is_image else ()
    suffix = "tif" if place else "png" if is_image else "nii.gz"
    row: dict[str, Any] = {"file": str(path), "mask": f"masks/{name}.{suffix}", "overlay": f"overlays/{name}.png"}
    if place:
        mask = encode_geotiff(classes.decode(prediction.class_ids), place)
    else:
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
    notes = {"notes": decoded.notes} if decoded.notes else {}
    return row | sizes | {"classes": shares} | notes
