"""A bundle: the folder that is a model. `model.onnx` (of a detector `weights.safetensors`; where int8 serves, `model-int8.onnx`
beside it) and `segmenter.json`, which `Segmenter.from_bundle` loads; `card.json` and `README.md` (what is known of it),
`engines.json` (what was measured), `golden/` (images and the masks that belong to them).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.config import DataParams
from segpipe.errors import DataError, MissingError
from segpipe.files import read_bytes, read_json, sha256_bytes, sha256_file, sha256_tree, write_json
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import GRAPH_FILE, INT8_FILE, SPEC_FILE, WEIGHTS_FILE
from segpipe.json_models import read_model

CARD_FILE = "card.json"
CARD_PAGE = "README.md"
ENGINES_FILE = "engines.json"
BUILD_FILE = "build.json"
"""Beside the bundle in a Bento: the version and the commit that it was built as."""
GOLDEN_DIR = "golden"
GOLDEN_FILE = "golden/golden.json"

_MAX_GOLDEN_BYTES = 1 << 30
GOLDEN_LIMITS = DataParams(max_megapixels=1000.0)  # type: ignore[call-arg]
"""Golden images came out of the dataset, whose limits held for them."""


class Score(BaseModel):
    """A metric on the test images, with the interval that resampling them gives."""

    model_config = ConfigDict(extra="forbid")
    value: float
    low: float | None = None
    high: float | None = None


class Verdict(BaseModel):
    """What one gate said of the model."""

    model_config = ConfigDict(extra="forbid")
    name: str
    verdict: str
    sentence: str


class Card(BaseModel):
    """card.json: what is known of a model, for machines; README.md says the same to people."""

    model_config = ConfigDict(extra="forbid")
    format: int = 1
    candidate: str
    family: str
    options: dict[str, Any]
    classes: list[str]
    data_hash: str
    weights_sha256: str
    lineage: dict[str, str]
    engine: str
    agreement: float
    """Share of golden pixels on which the engine and the trained network say the same."""
    int8: str | None = None
    """What became of int8, in words; None where it was not asked for."""
    promotable: bool
    metric: str
    """The score by which models are compared; a key of `scores`."""
    scores: dict[str, Score]
    gates: list[Verdict]

    @classmethod
    def read(cls, bundle: Path) -> Card:
        """Read and check a bundle's card."""
        path = bundle / CARD_FILE
        if not path.exists():
            raise MissingError("no model bundle here", where=bundle, fix="make one: segpipe run, or dvc repro export")
        return read_model(path, cls)

    def write(self, bundle: Path) -> None:
        """Write the card into a bundle."""
        write_json(bundle / CARD_FILE, self.model_dump(mode="json"))


@dataclass(frozen=True)
class Golden:
    """One image that travels with a bundle, and the mask that every copy of the model must give for it."""

    key: str
    input: Path
    """An image file as a user would upload it."""
    expected: Path
    """A PNG of class ids, of a volume NIfTI."""

    def image(self) -> np.ndarray:
        """The input, (H, W, C), of a volume (D, H, W, C)."""
        return _decoded(self.input)

    def given(self) -> dict[str, Any]:
        """What `Segmenter.predict` is given of the input: the image, and of a volume the size of a voxel."""
        from segpipe.data.images import decode_geometry

        geometry = decode_geometry(read_bytes(self.input, _MAX_GOLDEN_BYTES), str(self.input))
        return {"image": self.image(), "spacing": None if geometry is None else geometry.spacing}

    def class_ids(self) -> npt.NDArray[np.uint8]:
        """The expected mask, (H, W), of a volume (D, H, W)."""
        return _decoded(self.expected)[..., 0]


def _decoded(path: Path) -> np.ndarray:
    from segpipe.data.images import decode_image

    return decode_image(read_bytes(path, _MAX_GOLDEN_BYTES), str(path), GOLDEN_LIMITS)


def golden_pairs(bundle: Path) -> list[Golden]:
    """The golden images of a bundle."""
    listed = read_json(bundle / GOLDEN_FILE)["images"]
    folder = bundle / GOLDEN_DIR
    return [Golden(row["key"], folder / Path(row["input"]).name, folder / Path(row["expected"]).name) for row in listed]


@dataclass(frozen=True)
class MaskComparison:
    """How far masks are from the golden ones."""

    images: int
    pixels: int
    differing: int
    worst: str | None = None
    """The golden image with most differing pixels, in words; None where all are identical."""

    @property
    def identical(self) -> bool:
        """Whether every pixel is the same."""
        return self.differing == 0


def compare_masks(pairs: list[Golden], masks: list[npt.NDArray[np.uint8]]) -> MaskComparison:
    """Compare masks of class ids with the golden ones; a mask of another size differs everywhere."""
    pixels, counts = 0, []
    for pair, mask in zip(pairs, masks, strict=True):
        expected = pair.class_ids()
        pixels += expected.size
        counts.append(int((expected != mask).sum()) if expected.shape == mask.shape else expected.size)
    worst = int(np.argmax(counts)) if any(counts) else None
    words = None if worst is None else f"{counts[worst]:,} pixels of {pairs[worst].input.name} ({pairs[worst].key})"
    return MaskComparison(len(pairs), pixels, sum(counts), words)


def replay_golden(segmenter: Segmenter, bundle: Path) -> MaskComparison:
    """Segment the golden images of a bundle and compare."""
    pairs = golden_pairs(bundle)
    return compare_masks(pairs, [segmenter.predict(**pair.given()).class_ids for pair in pairs])


def bundle_sha256(bundle: Path) -> str:
    """The hash of a whole bundle, of every name and byte."""
    return sha256_tree(bundle)


def model_sha256(bundle: Path) -> str:
    """The hash of what decides the answers (graph or weights, and segmenter.json): the same for two exports of one model."""
    return sha256_bytes(f"{sha256_file(network_file(bundle))} {sha256_file(bundle / SPEC_FILE)}".encode())


def network_file(bundle: Path) -> Path:
    """The network of a bundle: its graph (that in int8 where there is one), or the weights that torch runs where there is none."""
    return next((bundle / name for name in (WEIGHTS_FILE, INT8_FILE) if (bundle / name).exists()), bundle / GRAPH_FILE)


def check_bundle(bundle: Path, sha256: str) -> None:
    """Raise where a bundle is not, byte for byte, the one that was released."""
    if not network_file(bundle).exists() or not (bundle / SPEC_FILE).exists():
        raise MissingError("no model bundle here", where=bundle, expected=f"{GRAPH_FILE} and {SPEC_FILE}")
    found = bundle_sha256(bundle)
    if found != sha256:
        raise DataError(
            "the bundle is not the one that was released",
            where=bundle,
            found=f"sha256 {found[:12]}",
            expected=sha256[:12],
            fix="delete the folder: it is restored from the DVC cache when it is needed",
        )
