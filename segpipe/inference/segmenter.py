"""`Segmenter`: preprocessing, engine and tiling in one object. Training's validation, evaluation, batch prediction and the
server all call the same `predict`, so that what is measured is what serves.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.inference.cleaning import remove_small_regions
from segpipe.inference.engines.engine import INT8_ENGINES, Engine, graph_engine
from segpipe.inference.postprocess import MAX_PIXELS, separate
from segpipe.inference.preprocess import fit_channels, pad_to_multiple
from segpipe.inference.spec import GRAPH_FILE, INT8_FILE, TORCH, SegmenterSpec
from segpipe.inference.tiling import predict_tiled
from segpipe.inference.tta import run_averaged
from segpipe.inference.volumes import labels_on_grid, predict_windows, resample, resampled_shape, spacing_ratios
from segpipe.metrics.calibration import apply_temperature
from segpipe.samples import Prediction, Sample


class Segmenter:
    """A model that is ready to segment images. `predict` may be called from several threads."""

    def __init__(self, spec: SegmenterSpec, engine: Engine) -> None:
        self.spec, self.engine = spec, engine

    @classmethod
    def from_bundle(cls, folder: Path, engine: str | None = None, threads: int = 0) -> Segmenter:
        """Load an exported bundle (segmenter.json + model.onnx) with the engine it pins, or with the one named.

        Needs torch only where the engine is torch (weights.safetensors stands for the graph then). `threads` 0 lets the engine
        choose.
        """
        spec = SegmenterSpec.read(folder)
        name = engine or spec.engine
        if name == TORCH:
            from segpipe.inference.trained_engine import trained_engine

            return cls(spec, trained_engine(spec, folder))
        graph = folder / (INT8_FILE if name in INT8_ENGINES else GRAPH_FILE)
        return cls(spec, graph_engine(name, graph, threads))

    def predict(
        self,
        image: np.ndarray,
        probabilities: bool = False,
        spacing: tuple[float, ...] | None = None,
        instances: bool = False,
    ) -> Prediction:
        """Segment one image: (H, W), or (H, W, C), in the dtype that the training images had; or one volume, with D before.

        spacing: the size of a voxel in mm, by axis; None takes it for that of the training volumes. instances: also the objects,
        where the model yields any (`yields_instances`); a semantic one does not in images of more than `MOST_PIXELS`.
        """
        found = self._untempered(image, probabilities, spacing, instances)
        if found.probabilities is None or self.spec.temperature == 1:
            return found
        return replace(found, probabilities=apply_temperature(found.probabilities, self.spec.temperature))

    def segment(self, sample: Sample, probabilities: bool = False, instances: bool = False) -> Prediction:
        """Segment a labelled sample, as `predict` does its image: what evaluation and choices on validation images ask for."""
        return self.predict(sample.image, probabilities, sample.spacing, instances)

    def but(self, **changes: Any) -> Segmenter:
        """The same model with other settings (fields of the spec)."""
        return Segmenter(self.spec.model_copy(update=changes), self.engine)

    def _untempered(
        self, image: np.ndarray, probabilities: bool, spacing: tuple[float, ...] | None, instances: bool
    ) -> Prediction:
        """The answer before the temperature: classes and objects follow from it, as they were chosen on val."""
        if self.spec.task == "instance":
            return self._predict_objects(image, probabilities)
        how = self.spec.postprocess if instances and math.prod(image.shape[: self.spec.dims]) <= MAX_PIXELS else None
        if self.spec.dims == 3:
            found = self._predict_volume(image, probabilities or how is not None, spacing)
        else:
            found = self._predict_image(image, probabilities or how is not None)
        if how is None or found.probabilities is None:
            return found
        objects = separate(found.class_ids, found.probabilities, how, found.distance)
        told = found if probabilities else Prediction(found.class_ids)
        return replace(told, instances=objects)

    @property
    def yields_instances(self) -> bool:
        """Whether `predict` can tell objects apart."""
        return self.spec.task == "instance" or self.spec.postprocess is not None

    def _predict_objects(self, image: np.ndarray, wanted: bool) -> Prediction:
        from segpipe.inference.detector import (
            DEFAULT_POSTPROCESS,
            DetectorEngine,
            class_probabilities,
            detect_tiled,
            paste_instances,
        )

        spec, how = self.spec, self.spec.postprocess or DEFAULT_POSTPROCESS
        chw = spec.normalisation.apply(fit_channels(image, spec.normalisation.channels))
        shape = (chw.shape[1], chw.shape[2])
        assert isinstance(self.engine, DetectorEngine), "a detector runs on torch"
        found = detect_tiled(self.engine, pad_to_multiple(chw, spec.stride), spec.tile, spec.overlap)
        objects = paste_instances(found, shape, how)
        sure = class_probabilities(found, shape, len(spec.classes), how.min_score) if wanted else None
        told = self._told(objects.class_map(), sure)
        return Prediction(told.class_ids, told.probabilities, objects)

    def _predict_image(self, image: np.ndarray, probabilities: bool) -> Prediction:
        spec = self.spec
        chw = spec.normalisation.apply(fit_channels(image, spec.normalisation.channels))
        height, width = chw.shape[1:]
        outputs = spec.outputs
        kept: npt.NDArray[np.float32] | None = (
            np.empty((outputs.channels, height, width), np.float32) if probabilities else None
        )
        if height * width <= spec.tile**2:
            scores = self._scores(pad_to_multiple(chw, spec.stride)[None])[0, :, :height, :width]
            if kept is not None:
                kept[:] = outputs.values(scores, axis=0)
            return self._told(outputs.labels_of_logits(scores), kept)
        class_ids = np.empty((height, width), np.uint8)
        padded = pad_to_multiple(chw, spec.stride, least=spec.tile)
        for top, band in predict_tiled(
            padded, lambda x: outputs.values(self._scores(x)), outputs.channels, spec.tile, spec.overlap
        ):
            rows = min(band.shape[1], height - top)
            if rows <= 0:
                break
            class_ids[top : top + rows] = outputs.labels(band[:, :rows, :width])
            if kept is not None:
                kept[:, top : top + rows] = band[:, :rows, :width]
        return self._told(class_ids, kept)

    def _scores(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (N, channels, ...) of a normalised batch (N, C, ...), over its symmetries and raised where the model asks for that."""
        scores = run_averaged(self.engine, self.spec.tta, batch, self.spec.outputs, self.spec.stride)
        raised = self.spec.cleaning.raised if self.spec.cleaning is not None else ()
        if raised:
            scores = scores.copy()
            scores[:, : len(raised)] += np.asarray(raised, np.float32).reshape(-1, *(1,) * (scores.ndim - 2))
        return scores

    def at_temperature(self, temperature: float) -> Segmenter:
        """The same model, its probabilities at another temperature."""
        return self.but(temperature=temperature)

    def classes_of(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """The class ids (H, W) that `predict` gives where these, (n_classes, H, W), are the probabilities: the likeliest, mended."""
        return self._told(self.spec.outputs.labels(probabilities), None).class_ids

    def _told(self, class_ids: npt.NDArray[np.uint8], values: npt.NDArray[np.float32] | None) -> Prediction:
        """The answer, cleaned; its values (`Outputs.values`) know of no specks."""
        if self.spec.cleaning is not None:
            class_ids = remove_small_regions(class_ids, self.spec.cleaning.least)
        if values is None:
            return Prediction(class_ids)
        probabilities, distance = self.spec.outputs.split(values)
        return Prediction(class_ids, probabilities, distance=distance)

    def _predict_volume(self, volume: np.ndarray, probabilities: bool, spacing: tuple[float, ...] | None) -> Prediction:
        spec, outputs = self.spec, self.spec.outputs
        assert spec.patch3d is not None, "a model for volumes knows its window"
        channels = spec.normalisation.apply(fit_channels(volume, spec.normalisation.channels, dims=3))
        depth, height, width = channels.shape[1:]
        own = resample(channels, resampled_shape(channels.shape[1:], spacing_ratios(spacing, spec.spacing)))
        found = predict_windows(own, lambda x: outputs.values(self._scores(x)), outputs.channels, spec.patch3d)  # type: ignore[arg-type]
        return self._told(*labels_on_grid(found, (depth, height, width), probabilities, outputs))
