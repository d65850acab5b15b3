"""Small datasets in the canonical layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import DataParams, SplitParams
from segpipe.data.dataset import format_classes, format_samples
from segpipe.data.demo.write import write_demo
from segpipe.data.images import encode_png
from segpipe.samples import ClassTable

LIMITS = DataParams()
SPLIT = SplitParams()
TABLE = ClassTable.from_names(["background", "cell"], ignore=(9,))

MakeData = Callable[..., Path]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the first 24 images of the demo data, one of each slide."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo(folder, images=24)
    return folder


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Return a function that writes a dataset of random images with two classes and returns its folder."""

    def make(count: int = 12, *, dtype: type = np.uint8, samples: list[dict[str, str]] | None = None) -> Path:
        rng = np.random.default_rng(0)
        folder = tmp_path / "data"
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, np.iinfo(dtype).max, (40 + index, 50, 3), dtype=dtype)
            mask = rng.integers(0, 2, image.shape[:2], dtype=np.uint8)
            (folder / "images" / f"im{index:02d}.png").write_bytes(encode_png(image))
            (folder / "masks" / f"im{index:02d}.png").write_bytes(encode_png(mask))
        (folder / "dataset.yaml").write_text(format_classes(TABLE))
        if samples:
            (folder / "samples.csv").write_text(format_samples(samples))
        return folder

    return make
