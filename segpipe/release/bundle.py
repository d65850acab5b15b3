"""A bundle: the folder that holds an exported model.

- `segmenter.json` and the network (`model.onnx`; `weights.safetensors` for a detector; also `model-int8.onnx` if int8 serves),
  which `Segmenter.from_bundle` loads;
- `card.json` and `README.md`, the model card;
- `engines.json`, how each inference engine performed;
- `golden/`, test images with the masks that every copy of the model must give for them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from segpipe.config import DataParams
from segpipe.errors import DataError, MissingError
from segpipe.files import read_bytes, read_json, sha256_bytes, sha256_file, sha256_tree, write_json
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import GRAPH_FILE, INT8_FILE, SPEC_FILE, WEIGHTS_FILE
from segpipe.json_models import read_model
from segpipe.release.record import DetailedModelRecord

CARD_FILE = "card.json"
CARD_PAGE = "README.md"
ENGINES_FILE = "engines.json"
BUILD_FILE = "build.json"
"""Next to the bundle in a Bento: the version and the commit that it was built from."""
GOLDEN_DIR = "golden"
GOLDEN_FILE = "golden/golden.json"

_MAX_GOLDEN_BYTES = 1 << 30
GOLDEN_LIMITS = DataParams(max_megapixels=1000.0)
"""Decoding limits for golden images. They come from the dataset, whose own limits they already passed."""


class Card(DetailedModelRecord):
    """card.json: a model's record for programs. The bundle's README.md has the same content for people."""

    model_config = ConfigDict(extra="forbid")
    format: int = 1
    """Version of this file's layout."""
    classes: list[str]
    """Names of the classes, in the order of class ids."""
    agreement: float
    """Fraction of the pixels of the golden images for which the engine and the trained network give the same class."""
    promotable: bool
    """True if the gates allowed a release when the card was written."""

    @classmethod
    def read(cls, bundle: Path) -> Card:
        """Read and validate the card of a bundle.

        Args:
            bundle: the folder of the bundle.

        Raises:
            MissingError: the folder has no card.
            ConfigError: the card is not valid.
        """
        path = bundle / CARD_FILE
        if not path.exists():
            raise MissingError(
                "no model bundle in this folder", where=bundle, fix="segpipe run, or dvc repro export, makes one"
            )
        return read_model(path, cls)

    def write(self, bundle: Path) -> None:
        """Write card.json into a bundle."""
        write_json(bundle / CARD_FILE, self.model_dump(mode="json"))


@dataclass(frozen=True)
class Golden:
    """A golden image: an image in a bundle and the mask that every copy of the model must give for it."""

    key: str
    input: Path
    """An image file as a user could upload it."""
    expected: Path
    """The mask of class ids: a PNG, or a NIfTI file for a volume."""

    def image(self) -> np.ndarray:
        """Return the decoded input, (H, W, C), or (D, H, W, C) for a volume."""
        return _decode(self.input)

    def predict_arguments(self) -> dict[str, Any]:
        """Return the arguments of `Segmenter.predict` for the input: `image`, and `spacing`, which is None unless it is a volume."""
        from segpipe.data.images import decode_geometry

        geometry = decode_geometry(read_bytes(self.input, _MAX_GOLDEN_BYTES), str(self.input))
        return {"image": self.image(), "spacing": None if geometry is None else geometry.spacing}

    def class_ids(self) -> npt.NDArray[np.uint8]:
        """Return the expected mask, (H, W), or (D, H, W) for a volume."""
        return _decode(self.expected)[..., 0]


def _decode(path: Path) -> np.ndarray:
    from segpipe.data.images import decode_image

    return decode_image(read_bytes(path, _MAX_GOLDEN_BYTES), str(path), GOLDEN_LIMITS)


def golden_pairs(bundle: Path) -> list[Golden]:
    """List the golden images of a bundle."""
    rows = read_json(bundle / GOLDEN_FILE)["images"]
    folder = bundle / GOLDEN_DIR
    return [Golden(row["key"], folder / Path(row["input"]).name, folder / Path(row["expected"]).name) for row in rows]


@dataclass(frozen=True)
class MaskComparison:
    """The number of pixels in which masks differ from the golden masks."""

    images: int
    pixels: int
    differing: int
    worst: str | None = None
    """The golden image with the most differing pixels, in words; None if all masks are identical."""

    @property
    def identical(self) -> bool:
        """True if no pixel differs."""
        return self.differing == 0


def compare_masks(pairs: list[Golden], masks: list[npt.NDArray[np.uint8]]) -> MaskComparison:
    """Compare masks with the golden masks.

    Args:
        pairs: the golden images.
        masks: one mask of class ids per golden image. All pixels of a mask with another shape count as different.
    """
    pixels, counts = 0, []
    for pair, mask in zip(pairs, masks, strict=True):
        expected = pair.class_ids()
        pixels += expected.size
        counts.append(int((expected != mask).sum()) if expected.shape == mask.shape else expected.size)
    worst = int(np.argmax(counts)) if any(counts) else None
    words = None if worst is None else f"{counts[worst]:,} pixels of {pairs[worst].input.name} ({pairs[worst].key})"
    return MaskComparison(len(pairs), pixels, sum(counts), words)


def replay_golden(segmenter: Segmenter, bundle: Path) -> MaskComparison:
    """Segment the golden images of a bundle and compare the masks with the golden masks."""
    pairs = golden_pairs(bundle)
    return compare_masks(pairs, [segmenter.predict(**pair.predict_arguments()).class_ids for pair in pairs])


def bundle_sha256(bundle: Path) -> str:
    """Hash a whole bundle: all file names and all bytes."""
    return sha256_tree(bundle)


def model_sha256(bundle: Path) -> str:
    """Hash what a model is: its network in float32, segmenter.json without the engine, and whether 8-bit integers were asked for.

    Two exports of one model have the same hash, whichever engine was the fastest in a close race.
    """
    network = next(bundle / name for name in (WEIGHTS_FILE, GRAPH_FILE) if (bundle / name).exists())
    spec = {name: value for name, value in read_json(bundle / SPEC_FILE).items() if name != "engine"}
    with_int8 = Card.read(bundle).int8 is not None
    return sha256_bytes(f"{sha256_file(network)} {json.dumps(spec, sort_keys=True)} {with_int8}".encode())


def early_model_sha256(bundle: Path) -> str:
    """Hash a model as the records of early releases have it: the network that runs, and segmenter.json with the engine."""
    return sha256_bytes(f"{sha256_file(network_file(bundle))} {sha256_file(bundle / SPEC_FILE)}".encode())


def network_file(bundle: Path) -> Path:
    """Return the file of the network that runs: the weights of a detector, else the int8 graph if there is one, else the graph."""
    return next((bundle / name for name in (WEIGHTS_FILE, INT8_FILE) if (bundle / name).exists()), bundle / GRAPH_FILE)


def check_bundle(bundle: Path, sha256: str) -> None:
    """Check that a bundle is, byte for byte, the one that was released.

    Args:
        bundle: the folder of the bundle.
        sha256: `bundle_sha256` of the released bundle.

    Raises:
        MissingError: the folder has no bundle.
        DataError: the hash is another one.
    """
    if not network_file(bundle).exists() or not (bundle / SPEC_FILE).exists():
        raise MissingError("no model bundle in this folder", where=bundle, expected=f"{GRAPH_FILE} and {SPEC_FILE}")
    actual = bundle_sha256(bundle)
    if actual != sha256:
        raise DataError(
            "the bundle is not the one that was released",
            where=bundle,
            found=f"sha256 {actual[:12]}",
            expected=sha256[:12],
            fix="delete the folder; the next command that needs it restores it from the DVC cache",
        )
