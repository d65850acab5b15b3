"""`Segmenter`: preprocessing, engine, tiling and postprocessing in one object.

Validations during training, evaluation, batch prediction and the server all call `Segmenter.predict`, so that the model that is
measured is the model that serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.inference.cleaning import remove_small_regions
from segpipe.inference.engines.engine import INT8_ENGINES, Engine, graph_engine
from segpipe.inference.input_contract.values import to_training_values
from segpipe.inference.postprocess import MAX_PIXELS, separate
from segpipe.inference.preprocess import fit_channels, pad_to_multiple
from segpipe.inference.spec import GRAPH_FILE, INT8_FILE, TORCH, SegmenterSpec
from segpipe.inference.tiling import predict_tiled
from segpipe.inference.tta import run_averaged
from segpipe.inference.volumes import labels_on_grid, predict_windows, resample, resampled_shape, spacing_ratios
from segpipe.metrics.calibration import apply_temperature
from segpipe.samples import Prediction, Sample


class Segmenter:
    """A loaded model that segments images or volumes.

    Args:
        spec: Everything that defines the model except its weights (segmenter.json).
        engine: Runs the network on normalised batches.
    """

    def __init__(self, spec: SegmenterSpec, engine: Engine) -> None:
        self.spec, self.engine = spec, engine

    @classmethod
    def from_bundle(cls, folder: Path, engine: str | None = None, threads: int = 0) -> Segmenter:
        """Load an exported bundle.

        torch is imported only if the engine is torch.

        Args:
            folder: The bundle: segmenter.json with model.onnx, model-int8.onnx or (for the engine torch) weights.safetensors.
            engine: Name of the engine; None for the one that segmenter.json names.
            threads: Number of threads of the engine; 0 lets it choose.

        Raises:
            MissingError: The folder has no model, or the package of the engine is not installed.
            ConfigError: segmenter.json is invalid, there is no such engine, or the weights do not fit.
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
        """Segment one image or one volume.

        Images of any size are accepted: small ones are padded, large ones are predicted in tiles, and volumes in windows. The method may
        be called from several threads at the same time.

        Args:
            image: One image, (H, W) or (H, W, C), or for a model of volumes one volume, (D, H, W) or (D, H, W, C). The values are those
                of the file, without normalisation, in the dtype of the training images (uint8, uint16 or float32). Channels are in RGB
                order. Grey is accepted by a model of RGB and the other way round if the three channels are equal. Values of another
                number type are converted where that is exact (`segpipe.inference.input_contract.values`).
            probabilities: Also return the class probabilities (and the distance, if the network predicts it).
            spacing: For volumes: the size of a voxel in mm (depth, height, width). The volume is resampled from it to the network's voxel
                size (`spec.spacing`); None: no resampling.
            instances: Also return the instances, if the model yields them (`yields_instances`). A detector always returns them. A
                semantic model returns none for images with more than `MAX_PIXELS` pixels.

        Returns:
            A `Prediction` at the size of the image:

            - `class_ids`: (H, W) or (D, H, W), uint8, indices of `spec.classes`; for overlapping classes, labels that encode sets of them
              (`segpipe.labels.OverlappingLabelling`).
            - `probabilities`: (n_classes, H, W) or (n_classes, D, H, W), float32, 0..1, calibrated with the model's temperature. They sum
              to 1 over classes, unless classes overlap. None if not requested.
            - `instances`: ids, classes, scores and boxes; None if not requested or not available.
            - `distance`: (H, W) or (D, H, W), float32, 0..1; None if not requested or not predicted.

            The class of a pixel can differ from its most probable class, because of thresholds and of the removal of small regions
            (`spec.cleaning`).

        Raises:
            DataError: The array is not an image (a volume), is empty, has the wrong number of channels, or has values of another number
                type that cannot be converted exactly.
        """
        prediction = self._predict_uncalibrated(image, probabilities, spacing, instances)
        if prediction.probabilities is None or self.spec.temperature == 1:
            return prediction
        return replace(prediction, probabilities=apply_temperature(prediction.probabilities, self.spec.temperature))

    def segment(self, sample: Sample, probabilities: bool = False, instances: bool = False) -> Prediction:
        """Segment the image of a sample. Evaluation and all choices on the validation split call this method.

        Args:
            sample: The sample; its labels are not used.
            probabilities: See `predict`.
            instances: See `predict`.

        Returns:
            The result of `predict` for the sample's image and voxel size.
        """
        return self.predict(sample.image, probabilities, sample.spacing, instances)

    def with_changes(self, **changes: Any) -> Segmenter:
        """Return the same model with other settings.

        Args:
            **changes: Fields of `SegmenterSpec` with their new values, which are not validated.
        """
        return Segmenter(self.spec.model_copy(update=changes), self.engine)

    def on_engines(self, load: Callable[[Segmenter, str], Engine]) -> Segmenter:
        """Return the same model on another engine.

        Args:
            load: (model, name) -> the engine that runs the network of this model. The name is unique among the networks of the model,
                and can be used as a file name.
        """
        return Segmenter(self.spec, load(self, "network"))

    def at_temperature(self, temperature: float) -> Segmenter:
        """Return the same model with its probabilities at another temperature (1: uncalibrated)."""
        return self.with_changes(temperature=temperature)

    def classes_of(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return the class ids that `predict` derives from probabilities: the most probable classes, cleaned up.

        Args:
            probabilities: Uncalibrated probabilities (temperature 1), (n_classes, H, W), float32.

        Returns:
            (H, W), uint8.
        """
        return self._finish(self.spec.outputs.labels(probabilities), None).class_ids

    @property
    def yields_instances(self) -> bool:
        """True if `predict` can return instances."""
        return self.spec.task == "instance" or self.spec.postprocess is not None

    def _predict_uncalibrated(
        self, image: np.ndarray, probabilities: bool, spacing: tuple[float, ...] | None, instances: bool
    ) -> Prediction:
        """Predict at temperature 1: thresholds for classes and instances were chosen at that temperature."""
        if self.spec.needs_training_values and self.spec.input is not None and image.dtype != self.spec.input.dtype:
            image = to_training_values(image, self.spec.input)[0]
        if self.spec.task == "instance":
            return self._predict_with_detector(image, probabilities)
        too_large = math.prod(image.shape[: self.spec.dims]) > MAX_PIXELS
        postprocess = self.spec.postprocess if instances and not too_large else None
        needs_probabilities = probabilities or postprocess is not None
        if self.spec.dims == 3:
            prediction = self._predict_volume(image, needs_probabilities, spacing)
        else:
            prediction = self._predict_image(image, needs_probabilities)
        if postprocess is None or prediction.probabilities is None:
            return prediction
        separated = separate(prediction.class_ids, prediction.probabilities, postprocess, prediction.distance)
        requested = prediction if probabilities else Prediction(prediction.class_ids)
        return replace(requested, instances=separated)

    def _predict_with_detector(self, image: np.ndarray, probabilities: bool) -> Prediction:
        from segpipe.inference import detector

        spec = self.spec
        postprocess = spec.postprocess or detector.DEFAULT_POSTPROCESS
        chw = spec.normalisation.apply(fit_channels(image, spec.normalisation.channels))
        shape = (chw.shape[1], chw.shape[2])
        assert isinstance(self.engine, detector.DetectorEngine), "a detector runs on torch"
        detections = detector.detect_tiled(self.engine, pad_to_multiple(chw, spec.stride), spec.tile, spec.overlap)
        instances = detector.paste_instances(detections, shape, postprocess)
        values = None
        if probabilities:
            values = detector.class_probabilities(detections, shape, len(spec.classes), postprocess.min_score)
        prediction = self._finish(instances.class_map(), values)
        return Prediction(prediction.class_ids, prediction.probabilities, instances)

    def _predict_image(self, image: np.ndarray, probabilities: bool) -> Prediction:
        spec, outputs = self.spec, self.spec.outputs
        chw = spec.normalisation.apply(fit_channels(image, spec.normalisation.channels))
        height, width = chw.shape[1:]
        values: npt.NDArray[np.float32] | None = None
        if probabilities:
            values = np.empty((outputs.channels, height, width), np.float32)
        if height * width <= spec.tile**2:
            logits = self._logits(pad_to_multiple(chw, spec.stride)[None])[0, :, :height, :width]
            if values is not None:
                values[:] = outputs.values(logits, axis=0)
            return self._finish(outputs.labels_of_logits(logits), values)
        class_ids = np.empty((height, width), np.uint8)
        padded = pad_to_multiple(chw, spec.stride, min_size=spec.tile)
        for top, band in predict_tiled(
            padded, lambda x: outputs.values(self._logits(x)), outputs.channels, spec.tile, spec.overlap
        ):
            rows = min(band.shape[1], height - top)
            if rows <= 0:
                break  # the remaining bands are padding
            class_ids[top : top + rows] = outputs.labels(band[:, :rows, :width])
            if values is not None:
                values[:, top : top + rows] = band[:, :rows, :width]
        return self._finish(class_ids, values)

    def _predict_volume(self, volume: np.ndarray, probabilities: bool, spacing: tuple[float, ...] | None) -> Prediction:
        spec, outputs = self.spec, self.spec.outputs
        assert spec.patch3d is not None, "a model for volumes has a window"
        channels = spec.normalisation.apply(fit_channels(volume, spec.normalisation.channels, dims=3))
        depth, height, width = channels.shape[1:]
        ratio = spacing_ratios(spacing, spec.spacing)
        resampled = resample(channels, resampled_shape(channels.shape[1:], ratio))
        values = predict_windows(
            resampled,
            lambda x: outputs.values(self._logits(x)),
            outputs.channels,
            spec.patch3d,
        )
        return self._finish(*labels_on_grid(values, (depth, height, width), probabilities, outputs))

    def _logits(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the engine on a normalised batch, with test-time augmentation and shifted thresholds if the model has them.

        Args:
            batch: (N, C, H, W) or (N, C, D, H, W).

        Returns:
            Logits (N, channels, ...).
        """
        logits = run_averaged(self.engine, self.spec.tta, batch, self.spec.outputs, self.spec.stride)
        offsets = self.spec.cleaning.logit_offsets if self.spec.cleaning is not None else ()
        if offsets:
            logits = logits.copy()
            logits[:, : len(offsets)] += np.asarray(offsets, np.float32).reshape(-1, *(1,) * (logits.ndim - 2))
        return logits

    def _finish(self, class_ids: npt.NDArray[np.uint8], values: npt.NDArray[np.float32] | None) -> Prediction:
        """Remove small regions from class ids and make a prediction. Values (`Outputs.values`) are not cleaned up."""
        if self.spec.cleaning is not None:
            class_ids = remove_small_regions(class_ids, self.spec.cleaning.least)
        if values is None:
            return Prediction(class_ids)
        probabilities, distance = self.spec.outputs.split(values)
        return Prediction(class_ids, probabilities, distance=distance)
