"""Drift: do today's images look like those that the model in production learned from?

Every image is a few numbers: mean and standard deviation of each channel, and the share of each class. `Reference` holds these by
image, for the data of one model; two of them are compared quantity by quantity.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.config import ValidateParams
from segpipe.data.manifest.table import usable
from segpipe.errors import DataError
from segpipe.files import read_json, write_text
from segpipe.json_models import validation_error
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd

REFERENCE_FILE = "reference.json"
BINS = 10
"""Quantile bins of the population stability index."""

_MOST_IMAGES = 5000
"""Images that a reference keeps, drawn by hash: quantiles need no more, and the file stays small."""
_FLOOR = 1e-4
"""The least share that a bin counts with, so that an empty one does not make the index infinite."""


class Reference(BaseModel):
    """The numbers of a dataset's images, by quantity: {"mean of channel 1": [one an image], ...}."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: str
    images: int
    """How many the dataset has; the lists may hold fewer."""
    values: dict[str, list[float]]

    @classmethod
    def read(cls, path: Path) -> Reference | None:
        """The reference in a file; None where there is no file, or an empty one (`{}`): nothing is in production."""
        content = read_json(path) if path.exists() else {}
        try:
            return cls.model_validate(content) if content else None
        except ValidationError as error:
            first = validation_error(error, path, cls)
            raise DataError(
                f"is no reference for drift: {first.what}",
                where=path,
                found=first.found,
                expected=first.expected,
                fix="write {} into it; the next release fills it again",
            ) from error

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_text(path, self.model_dump_json() + "\n")


class Drift(BaseModel):
    """How one quantity moved from the reference to today."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    quantity: str
    psi: float
    """Population stability index over the quantile bins of the reference."""
    ks: float
    """Two-sample Kolmogorov-Smirnov distance, 0..1."""
    p_value: float
    """Of the two-sided Kolmogorov-Smirnov test, for this quantity alone."""
    drifted: bool
    before: float
    """Median of the reference."""
    now: float
    """Median today."""
    edges: list[float]
    """The bins' limits, those without an end included: the smallest and the largest value of both."""
    shares_before: list[float]
    """Share of the images in each bin."""
    shares_now: list[float]


def make_reference(manifest: pd.DataFrame, classes: ClassTable) -> Reference:
    """The numbers of a manifest's usable images of the usual kind, to six digits. Raises DataError where there are none."""
    rows = manifest[usable(manifest)]
    if rows.empty:
        raise DataError("no usable image to take a reference from", fix="repair the files that validation names")
    dtype, channels = str(rows["dtype"].mode().iloc[0]), int(rows["channels"].mode().iloc[0])
    rows = rows[(rows["dtype"] == dtype) & (rows["channels"] == channels)]
    kept = rows.sort_values("sha256").head(_MOST_IMAGES).sort_values("key")
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name, words in (("mean", "mean"), ("std", "deviation")):
        table = np.stack(kept[name].to_list()).astype(float)
        columns |= {f"{words} of channel {index + 1}": column for index, column in enumerate(table.T)}
    pixels = np.stack(kept["class_pixels"].to_list()).astype(float)
    shares = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    columns |= {f"share of {name}": column for name, column in zip(classes.names, shares.T, strict=True)}
    values = {name: [float(f"{value:.6g}") for value in column] for name, column in columns.items()}
    return Reference(dtype=dtype, images=len(rows), values=values)


def compare(today: Reference, before: Reference, params: ValidateParams) -> list[Drift]:
    """Each quantity that both have, the most drifted first.

    One has drifted where its index or its distance reaches the threshold and the test says that chance is no explanation: in small
    collections both are large by chance alone (the index is about ``(bins - 1) (1/n + 1/m)`` for n and m images of one kind).
    """
    names = [name for name in before.values if name in today.values]
    drifts = [_compare(name, before.values[name], today.values[name], params, len(names)) for name in names]
    return sorted(drifts, key=lambda drift: (not drift.drifted, -drift.psi))


def _compare(name: str, old: list[float], new: list[float], params: ValidateParams, tests: int) -> Drift:
    from scipy.stats import ks_2samp

    before, now = np.array(old), np.array(new)
    inner = quantile_edges(before)
    shares_before, shares_now = bin_shares(before, inner), bin_shares(now, inner)
    psi = stability_index(shares_before, shares_now)
    test = ks_2samp(before, now)
    far = psi >= params.drift_psi or test.statistic >= params.drift_ks
    return Drift(
        quantity=name,
        psi=psi,
        ks=float(test.statistic),
        p_value=float(test.pvalue),
        drifted=bool(far and test.pvalue * tests < params.drift_p_value),
        before=float(np.median(before)),
        now=float(np.median(now)),
        edges=[min(before.min(), now.min()), *inner.tolist(), max(before.max(), now.max())],
        shares_before=shares_before.tolist(),
        shares_now=shares_now.tolist(),
    )


def quantile_edges(values: npt.NDArray[np.float64], bins: int = BINS) -> npt.NDArray[np.float64]:
    """The limits between `bins` bins with equally many values each; fewer where values repeat (as a class share of 0 does).

    A value on a limit belongs to the bin below; a limit at the largest value, with nothing above it, marks what is new beyond.
    """
    return np.unique(np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf"))


def bin_shares(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The share of the values in each of the ``len(edges) + 1`` bins, the first and the last open-ended."""
    places = np.searchsorted(edges, values, side="left")
    return np.bincount(places, minlength=len(edges) + 1) / len(values)


def stability_index(before: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
    """Population stability index: sum over bins of (now - before) ln(now / before), shares no less than 0.0001.

    The symmetrised Kullback-Leibler divergence (Jeffreys) of the two histograms; 0 for equal ones.
    """
    p, q = np.maximum(before, _FLOOR), np.maximum(now, _FLOOR)
    return float(np.sum((q - p) * np.log(q / p)))
